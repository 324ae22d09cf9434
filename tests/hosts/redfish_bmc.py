"""sushy-tools' Redfish emulator as the BMC of one test host: its switch is the mains'.

Usage: redfish_bmc.py CONFIG MAINS_SOCKET OUTLET
"""

from __future__ import annotations

import signal
import sys

from sushy_tools import error
from sushy_tools.emulator import main as emulator
from sushy_tools.emulator.resources.systems import fakedriver

from tests.hosts.switch import ask

_OUTLET = sys.argv.pop()
_MAINS = sys.argv.pop()
_VERBS = {"On": "on", "ForceOn": "on", "ForceOff": "off", "GracefulShutdown": "off"}


class MainsDriver(fakedriver.FakeDriver):  # type: ignore[misc] # the package has no types
    """The fake system, without power of its own."""

    def get_power_state(self, identity: str) -> str:
        self._get(identity)
        return "On" if ask(_MAINS, _OUTLET, "get") else "Off"

    def set_power_state(self, identity: str, state: str) -> None:
        self._get(identity)
        try:
            ask(_MAINS, _OUTLET, _VERBS.get(state, "reset"))
        except OSError as problem:
            raise error.FishyError(f"the outlet {problem}", 500) from None


if __name__ == "__main__":
    fakedriver.FakeDriver = MainsDriver
    emulator.fakedriver.FakeDriver = MainsDriver
    emulator.cleanup_zombies = signal.SIG_DFL
    emulator.main()
