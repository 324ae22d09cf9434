"""Runs sushy-tools' Redfish emulator with a power switch that takes as long as it is told.

The stock fake system takes up to 11 s, at random. Usage: `redfish_emulator.py CONFIG SECONDS`;
with a negative number of seconds it acknowledges a reset and never does it.
"""

from __future__ import annotations

import signal
import sys
import time
from typing import Any

from sushy_tools.emulator import main as emulator
from sushy_tools.emulator.resources.systems import fakedriver

DELAY_S = float(sys.argv.pop())


class PromptDriver(fakedriver.FakeDriver):  # type: ignore[misc] # the package has no types
    """The fake system, with a delay of ours."""

    def set_power_state(self, identity: str, state: str) -> None:
        system = self._get(identity)
        if DELAY_S >= 0:
            change: dict[str, Any] = {
                "power_state": "On" if "On" in state else "Off",
                "apply_time": time.time() + DELAY_S,
            }
            self._update(system, pending_power=change)


if __name__ == "__main__":
    fakedriver.FakeDriver = PromptDriver
    emulator.fakedriver.FakeDriver = PromptDriver
    emulator.cleanup_zombies = signal.SIG_DFL
    emulator.main()
