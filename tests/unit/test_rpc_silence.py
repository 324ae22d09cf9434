"""A host that answers nothing any more, by a real packet filter in a network namespace."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

from halo.adapters.rpc.wire import USER_TIMEOUT_MS
from tests.debian import require


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
async def test_a_host_that_falls_silent_is_noticed_by_the_kernel() -> None:
    require("nftables", "iproute2")
    program = f"ip link set lo up && exec {sys.executable} -m tests.unit.rpc_silence_program"
    process = await asyncio.create_subprocess_exec(
        *("unshare", "--net", "sh", "-c", program),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    found = {what: (kind, float(s)) for what, kind, s in map(str.split, out.decode().splitlines())}
    assert set(found) == {"connect", "idle", "busy", "heartbeat"}, err.decode()
    assert {kind for kind, _ in found.values()} == {"SILENT"}
    assert found["connect"][1] < 3
    budget_s = USER_TIMEOUT_MS / 1000
    for what in ("idle", "busy", "heartbeat"):
        assert found[what][1] < budget_s + 6
