"""A command that was given up, since the disk hung, may still take effect: what is said after it
has to hold all the same (S7)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from halo.core.errors import CommandFailed

from .fence_bench import Bench
from .virtual_time import run

Say = Callable[[Bench], Awaitable[str]]


def _group(command: str) -> Say:
    return lambda b: b.manager.operations.group_command("g", command, to=None, comment="x")


def _cluster(command: str) -> Say:
    return lambda b: b.manager.operations.cluster_command(command, comment="x")


def _managed(managed: bool) -> Say:
    return lambda b: b.manager.operations.set_managed("g", managed, "x")


@pytest.mark.parametrize(
    ("before", "given_up", "said", "holds"),
    [
        (None, _group("stop"), _group("start"), lambda b: b.state.remembered.group("g").wanted),
        (None, _managed(False), _managed(True), lambda b: b.state.remembered.group("g").managed),
        (
            _cluster("freeze"),
            _cluster("thaw"),
            _cluster("freeze"),
            lambda b: b.state.remembered.frozen is not None,
        ),
    ],
    ids=["stop, start", "unmanage, manage", "thaw, freeze"],
)
def test_what_is_said_after_a_command_that_was_given_up_holds(
    before: Say | None, given_up: Say, said: Say, holds: Callable[[Bench], bool]
) -> None:
    async def body() -> None:
        bench = Bench()
        await bench.up()
        if before is not None:
            await before(bench)
        bench.disk.hang()
        with pytest.raises(CommandFailed):
            await given_up(bench)
        with pytest.raises(CommandFailed):  # things are so, but may not stay so
            await said(bench)
        bench.disk.release()
        await bench.until(lambda: bench.manager.state.journal_trouble is None)
        assert holds(bench)
        assert await said(bench)

    run(body())
