"""A fuzzer that finds something in case 7: for the tests of what runs fuzzers."""

from __future__ import annotations

import faulthandler
import os
import random
import signal
import time
from pathlib import Path

from tests.hostile.fuzz.fuzzer import Finding


class SelfTest:
    """Ends case 7 by `how`."""

    def __init__(self, how: str) -> None:
        self._how = how
        self._folder = Path()

    async def open(self, folder: Path) -> None:
        self._folder = folder

    async def case(self, chance: random.Random) -> None:
        number = int((self._folder / "case").read_text())
        if number != 7:
            return
        if self._how == "kill":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self._how == "hang":
            faulthandler.dump_traceback_later(0.2, exit=True)
            time.sleep(30)  # noqa: ASYNC251  # this very thing is to be found
        raise Finding(f"found something at {number}, by chance {chance.random()}")

    async def close(self) -> None:
        pass
