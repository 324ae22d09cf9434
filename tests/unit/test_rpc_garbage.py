"""Objects of pycapnp are freed in the loop's thread alone, and a connection before its parts."""

from __future__ import annotations

import asyncio
import gc
import socket
import subprocess
import sys
from typing import Any

import capnp
import pytest

from halo.adapters.rpc.event_loop import due_generation, rpc_loop
from halo.adapters.rpc.schema import HaloAgent


def test_garbage_of_a_connection_ends_no_process() -> None:
    program = [sys.executable, "-m", "tests.unit.rpc_garbage_program"]
    ended = subprocess.run(program, capture_output=True, text=True, check=False, timeout=120)
    assert (ended.returncode, ended.stdout) == (0, "MainThread\nfreed\n"), ended.stderr


class Busy(HaloAgent.Server):  # type: ignore[misc]  # made at run time from the schema
    """Its heartbeat is under way until the loop ends. It notes whether the collector is on then."""

    def __init__(self, seen: list[bool]) -> None:
        self.seen = seen

    async def heartbeat_context(self, _: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.seen.append(gc.isenabled())


async def test_the_collector_is_off_until_the_loop_of_kj_has_ended() -> None:
    seen: list[bool] = []
    ends = socket.socketpair()
    async with rpc_loop():
        streams = [await capnp.AsyncIoStream.create_connection(sock=end) for end in ends]
        server = capnp.TwoPartyServer(streams[0], bootstrap=Busy(seen))
        client = capnp.TwoPartyClient(streams[1])
        call = client.bootstrap().cast_as(HaloAgent).heartbeat()
        await asyncio.sleep(0.05)
        assert not gc.isenabled()
    assert seen == [False]
    assert gc.isenabled()
    del call, server, client


@pytest.mark.parametrize(
    ("count", "due"),
    [
        ((700, 90, 90), None),
        ((701, 0, 0), 0),
        ((701, 10, 90), 2),
        ((701, 11, 10), 1),
        ((701, 11, 11), 2),
    ],
)
def test_the_oldest_generation_over_its_threshold_is_due(
    count: tuple[int, int, int], due: int | None
) -> None:
    assert due_generation(count, (700, 10, 10)) == due
    assert due_generation(count, (0, 10, 10)) is None, "switched off"


def test_counts_go_on_while_the_collector_is_off() -> None:
    gc.collect()
    gc.disable()
    try:
        kept: list[list[int]] = [[] for _ in range(5000)]
        assert gc.get_count()[0] >= len(kept)
    finally:
        gc.enable()
