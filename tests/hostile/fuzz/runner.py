"""Runs slices of fuzzers, each in a process of its own, and says how to repeat what they find."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.hostile.fuzz.fuzzer import CASE_DEADLINE_S, Slice
from tests.integration.site import ROOT

_START_S = 60.0
_TEXT_KEPT = 3000  # of what a fuzzer says that found something
_ENVIRONMENT_KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "PYTHONPATH")


@dataclass(frozen=True)
class Outcome:
    """What a slice came to."""

    slice: Slice
    cases: int
    problem: str = ""

    def __str__(self) -> str:
        name, seed = self.slice.name, self.slice.seed
        if not self.problem:
            return f"{name}: {self.cases} cases of seed {seed}, nothing found"
        where = f"case {self.cases} of seed {seed}"
        return f"{self.problem}\n{name}: {where}; to repeat it:\n  {self.again}"

    @property
    def again(self) -> str:
        """The command that repeats the case."""
        case = f"--only {self.slice.name} --seed {self.slice.seed} --case {self.cases}"
        return f"python -m tests.hostile.fuzz {case}"


def fresh_seed() -> str:
    """A seed that no run had before."""
    return secrets.token_hex(4)


async def run(slice_: Slice) -> Outcome:
    """Carry out one slice."""
    folder = Path(tempfile.mkdtemp(prefix=f"halo-fuzz-{slice_.name}-"))
    arguments = [slice_.name, slice_.seed, slice_.seconds, slice_.first, slice_.count]
    environment = {key: os.environ[key] for key in _ENVIRONMENT_KEPT if key in os.environ}
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.hostile.fuzz", "--child", json.dumps(arguments)),
            str(folder),
            cwd=ROOT,
            env={**environment, "SSL_CERT_FILE": os.devnull},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            limit_s = slice_.seconds + CASE_DEADLINE_S + _START_S
            out, errors = await asyncio.wait_for(process.communicate(), limit_s)
            ended = f"it ended with {process.returncode}"
        except TimeoutError:
            out, errors, ended = b"", b"", f"it hung for {limit_s:g} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        if process.returncode == 0:
            return Outcome(slice_, json.loads(out.splitlines()[-1])["cases"])
        text = errors.decode(errors="replace")[-_TEXT_KEPT:]
        return Outcome(slice_, _case_under_way(folder, slice_), f"{text}\n{ended}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _case_under_way(folder: Path, slice_: Slice) -> int:
    with contextlib.suppress(OSError, ValueError):
        return int((folder / "case").read_text())
    return slice_.first
