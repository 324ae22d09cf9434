"""What a fuzzer is, and how its cases are carried out in this process."""

from __future__ import annotations

import asyncio
import faulthandler
import json
import os
import random
import resource
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

CASE_DEADLINE_S = 60.0
"""A case takes milliseconds; one that takes so long has blocked the loop, or waits for ever."""

MEMORY_LIMIT = 3 << 30
"""Address space of a fuzzer's process, so that a bomb ends it and not the machine."""


class Finding(AssertionError):
    """What should not be; the text says what it was."""


class Fuzzer(Protocol):
    """Throws cases at one part of HALO. A case must depend on `chance` alone, so that its number
    and the seed repeat it."""

    async def open(self, folder: Path) -> None:
        """Start what the cases need. `folder` is empty, and the fuzzer's own."""
        ...

    async def case(self, chance: random.Random) -> None:
        """Carry out one case. Raises Finding, or whatever the tested code lets slip."""
        ...

    async def close(self) -> None:
        """End what was started. Raises Finding where something is wrong in the end."""
        ...


Make = Callable[[], Fuzzer]


@dataclass(frozen=True)
class Slice:
    """Which cases to carry out: from `first` on, until `seconds` or `count` have passed."""

    name: str
    seed: str
    seconds: float
    first: int = 0
    count: int | None = None


def chance_of(slice_: Slice, number: int) -> random.Random:
    """The source of all that is random in one case."""
    return random.Random(f"{slice_.name} {slice_.seed} {number}")


def run_slice(fuzzers: Mapping[str, Make], slice_: Slice, folder: Path) -> int:
    """Carry out a slice in this process, a child of the runner's; returns its exit status.

    The number of the case under way is in the file `case` of the folder: whatever ends this
    process, its parent knows which case did."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    faulthandler.enable()
    with (folder / "case").open("wb", buffering=0) as note:
        return asyncio.run(_run(fuzzers[slice_.name](), slice_, folder, note.fileno()))


async def _run(fuzzer: Fuzzer, slice_: Slice, folder: Path, note: int) -> int:
    number = slice_.first
    try:
        await fuzzer.open(folder)
        end = time.monotonic() + slice_.seconds
        while time.monotonic() < end:
            if slice_.count is not None and number - slice_.first >= slice_.count:
                break
            os.pwrite(note, f"{number:12d}".encode(), 0)
            faulthandler.dump_traceback_later(CASE_DEADLINE_S, exit=True)
            await fuzzer.case(chance_of(slice_, number))
            number += 1
        await fuzzer.close()
    except Exception:
        traceback.print_exc()
        return 1
    finally:
        faulthandler.cancel_dump_traceback_later()
    print(json.dumps({"cases": number - slice_.first}), flush=True)
    return 0


def say(text: str) -> None:
    """A word to whoever reads the output of a slice that found something."""
    print(text, file=sys.stderr, flush=True)
