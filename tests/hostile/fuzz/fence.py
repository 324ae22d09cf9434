"""Fence programs that write anything: only what they say in full and plainly is believed."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

from halo.adapters.fence.programs import FencePrograms
from halo.core.model import FenceDevice
from halo.core.outcomes import FenceAction, FenceResult, PowerState
from tests.hostile.fuzz.fuzzer import Finding
from tests.hostile.fuzz.outputs import Said, check_message, order, said, write_program

SECRET = "s3cret-of-the-device"
DEADLINE_S = 10.0
ENDLESS_DEADLINE_S = 0.3
END_LIMIT_S = 5.0
"""How much later than its deadline a run may end: it is killed, on a machine that is busy."""

MESSAGE_LIMIT = 2048
_LAG_LIMIT_S = 2.0


class FenceFuzzer:
    """Programs of random output, through :class:`halo.adapters.fence.programs.FencePrograms`."""

    def __init__(self) -> None:
        self._folder = Path()
        self._device = FenceDevice("fuzz", "", {})
        self._programs = FencePrograms()

    async def open(self, folder: Path) -> None:
        self._folder = folder / "fence"
        program = folder / "fence_fuzz"
        write_program(program, self._folder)
        self._device = FenceDevice("fuzz", str(program), {"password": SECRET, "ip": "127.0.0.1"})
        self._programs = FencePrograms()

    async def case(self, chance: random.Random) -> None:
        what = said(chance, endless=0.02, leftover=0.02)
        if chance.random() < 0.1:
            what = Said(what.out + SECRET.encode(), SECRET.encode() + what.err, what.status)
        order(self._folder, what)
        action = chance.choice((FenceAction.STATUS, FenceAction.STATUS, FenceAction.OFF))
        deadline_s = ENDLESS_DEADLINE_S if what.endless else DEADLINE_S
        lags: list[float] = [0.0]
        watch = asyncio.create_task(_watch_lag(lags))
        began = time.monotonic()
        result = await self._programs.run(self._device, action, deadline_s)
        took_s = time.monotonic() - began
        watch.cancel()
        problem = (
            _judged(action, what, result)
            or check_message(result.message, MESSAGE_LIMIT)
            or (SECRET in result.message and "a secret in the message")
            or (took_s > deadline_s + END_LIMIT_S and f"it took {took_s:.1f} s")
            or (max(lags) > _LAG_LIMIT_S and f"the event loop stood still for {max(lags):.1f} s")
        )
        if problem:
            short = f"{what.out[:60]!r}...{what.out[-60:]!r} ({len(what.out)} bytes)"
            raise Finding(f"{action} of {short}, status {what.status}: {problem}: {result}")

    async def close(self) -> None:
        await self._programs.close()


def _judged(action: FenceAction, what: Said, result: FenceResult) -> str | None:
    """Is the result no more than what the program said? Written from the API, not from the code."""
    if what.endless or what.status < 0:
        return "it succeeded" if result.succeeded else None
    if action is not FenceAction.STATUS:
        return None if result.succeeded == (what.status == 0) else "its exit status says otherwise"
    on, off = b"is ON" in what.out, b"is OFF" in what.out
    if result.power is PowerState.UNKNOWN:
        return "it knows nothing, and succeeded" if result.succeeded else None
    if on and off:
        return "it said both, and one was believed"
    if result.power is PowerState.OFF and (on or not (off or what.status == 2)):
        return "it never said off"
    if result.power is PowerState.ON and (off or what.status != 0):
        return "it never said on"
    return None


async def _watch_lag(lags: list[float]) -> None:
    """Note how late the loop is: a manager's heartbeats would be as late."""
    while True:
        before = time.monotonic()
        await asyncio.sleep(0.01)
        lags.append(time.monotonic() - before)
