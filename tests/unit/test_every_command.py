"""Every command of the API is one everywhere: the manager carries it out, `halo` sends it, the
reference names it, and the simulated operator gives it.

The tables in :mod:`halo.manager.api.routes` say which commands there are. Whoever adds one there is
told here what is missing elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from halo.cli.commands.cluster import managers
from halo.cli.main import COMMANDS
from halo.core.errors import CommandError
from halo.manager.api.routes import (
    CLUSTER_BODY,
    CLUSTER_COMMANDS,
    GROUP_BODY,
    GROUP_COMMANDS,
    HOST_BODY,
    HOST_COMMANDS,
    MANAGERS_BODY,
    MANAGERS_COMMANDS,
    ROUTES,
)
from tests.simulation import plan
from tests.unit.fence_bench import Bench, refusal_of
from tests.unit.virtual_time import run

REFERENCE = Path(__file__).parents[2] / "docs" / "http_api.md"
NAMED_OTHERWISE = {"confirm-off": "fence", "cancel-fence": "fence"}
"""Commands that are options of another one in `halo`."""

Say = Callable[[Bench], Awaitable[str]]


def _on_group(command: str) -> Say:
    to = "h2" if command == "move" else None
    return lambda bench: bench.manager.operations.group_command(
        "g", command, to=to, comment="a test"
    )


def _on_host(command: str) -> Say:
    return lambda bench: bench.command(command)


def _on_cluster(command: str) -> Say:
    return lambda bench: bench.manager.operations.cluster_command(command, comment="a test")


SAID: dict[str, Say] = {
    **{name: _on_group(name) for name in GROUP_COMMANDS},
    **{name: _on_host(name) for name in HOST_COMMANDS},
    **{name: _on_cluster(name) for name in CLUSTER_COMMANDS},
}


async def words_of(command: Awaitable[str]) -> str:
    """What the manager says to a command, be it a refusal."""
    try:
        return await command
    except CommandError as refusal:
        return str(refusal)


@pytest.mark.parametrize("name", SAID)
def test_the_manager_knows_every_command(name: str) -> None:
    """It may refuse one just now, but never as one that it has not heard of."""

    async def body() -> None:
        bench = Bench()
        await bench.up()
        assert "unknown command" not in await words_of(SAID[name](bench))

    run(body())


def test_a_command_that_the_manager_does_not_know_would_be_found() -> None:
    async def body() -> None:
        bench = Bench()
        await bench.up()
        for say in (_on_group, _on_host, _on_cluster):
            assert "unknown command" in await words_of(say("dance")(bench))

    run(body())


@pytest.mark.parametrize("name", SAID)
def test_a_manager_that_only_observes_refuses_every_command(name: str) -> None:
    async def body() -> None:
        bench = Bench(observe_only=True)
        assert "only observes" in str(await refusal_of(SAID[name](bench)))

    run(body())


@pytest.mark.parametrize("name", SAID)
def test_halo_has_every_command(name: str) -> None:
    assert NAMED_OTHERWISE.get(name, name) in COMMANDS


def test_the_simulated_operator_gives_every_command() -> None:
    others = {"manage", "unmanage", "clear_events"}  # routes of their own
    assert set(plan.COMMANDS) == SAID.keys() | others


@pytest.mark.parametrize("name", MANAGERS_COMMANDS)
def test_halo_has_every_command_on_the_managers(name: str) -> None:
    assert name in managers.commands


@pytest.mark.parametrize("body", [GROUP_BODY, HOST_BODY, CLUSTER_BODY, MANAGERS_BODY])
def test_the_reference_names_every_command_of_a_route(body: object) -> None:
    (route,) = (route for route in ROUTES if route.body is body)
    row = f"| `{route.method} {route.path}` |"
    found = [line for line in REFERENCE.read_text().splitlines() if line.startswith(row)]
    assert len(found) == 1, f"{REFERENCE} has no row {row}"
    (commands,) = (field.choices for field in route.body or () if field.choices)
    assert set(re.findall(r"`([a-z-]+)`", found[0].split("|")[3])) - {"to"} == set(commands)
