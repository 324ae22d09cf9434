"""Fence devices that are controlled by programs with the ClusterLabs fence-agent API.

The API: the program reads `key=value` lines on its standard input, each ended by a newline. One of
them is `action=...`. `off` and `on` exit with 0 if the device did it. `status` exits with 0 for on
and with 2 for off. HALO's test agent exits with 0 in both cases and writes `is ON` or `is OFF`.
https://github.com/ClusterLabs/fence-agents/blob/main/doc/FenceAgentAPI.md
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from halo.adapters.fence.answers import Run, failure, outcome_of, readable, status_of
from halo.adapters.fence.parameters import Redactor, as_input, environment_names, resolve
from halo.adapters.fence.process import FenceProcess, Watchdog
from halo.adapters.slow_files import PatientFiles
from halo.core.errors import FenceError
from halo.core.model import FenceDevice
from halo.core.outcomes import FenceAction, FenceResult
from halo.core.secrets import for_a_program
from halo.error_words import words_of

_FIRST_PAGE = 4096

STARTS_A_TURN = 8
"""How many programs start in a row, without other work of the event loop. Each stops the loop for
some milliseconds. If fifty hosts die at once, heartbeats must not wait for all of the starts."""


class FencePrograms:
    """Runs fence programs. Implements :class:`halo.ports.FenceDevices`.

    At most `limit` run at once, each in its own session. A session is killed at its deadline, on
    cancellation, and when this process dies. Use it on one event loop, and call :meth:`close` at
    the end.

    `may_act` is called in the step that starts a program, unless this only asks for the status. If
    it raises, no program is started.
    """

    def __init__(self, limit: int = 64, may_act: Callable[[], None] = lambda: None) -> None:
        self._limit = limit
        self._may_act = may_act
        self._places = asyncio.Semaphore(limit)
        self._starts = asyncio.Semaphore(STARTS_A_TURN)
        self._watchdog = Watchdog()
        self._files = PatientFiles()

    async def run(
        self,
        device: FenceDevice,
        action: FenceAction,
        deadline_s: float,
        expired: Callable[[], str | None] = lambda: None,
    ) -> FenceResult:
        """Run one action of a device. The device's fault never raises.

        `deadline_s` counts from the program's start. The wait for a place among the `limit` takes
        at most as long again. `expired` is asked in the same step that starts the program.
        """
        name = f"{os.path.basename(device.program)} {action.value}"
        try:
            async with asyncio.timeout(deadline_s):
                await self._places.acquire()
        except TimeoutError:
            return failure(
                f"{name}: not started, because {self._limit} other fence programs were running for "
                f"{deadline_s:g} s; look for fence devices that hang"
            )
        try:
            parameters = await resolve(device.parameters, self._files)
            data = as_input(action.value, parameters)
            redact = Redactor(device.parameters, parameters)
            return await self._run(device, action, name, data, redact, deadline_s, expired)
        except FenceError as error:
            return failure(f"{name}: {error}")
        finally:
            self._places.release()

    async def _run(
        self,
        device: FenceDevice,
        action: FenceAction,
        name: str,
        data: bytes,
        redact: Redactor,
        deadline_s: float,
        expired: Callable[[], str | None],
    ) -> FenceResult:
        environment = for_a_program(os.environ, environment_names(device.parameters))
        loop = asyncio.get_running_loop()
        started = loop.time()
        problem = await self._file_system_problem(device.program, deadline_s)
        try:
            async with self._turn_to_start():
                problem = problem or expired()
                if problem is not None:
                    return failure(f"{name}: not started: {problem}", loop.time() - started)
                if action is not FenceAction.STATUS:
                    self._may_act()
                left_s = started + deadline_s - loop.time()
                process = FenceProcess(
                    command_line(device.program), data, environment, self._watchdog.next_mark()
                )
        except OSError as error:
            return failure(f"{name}: {_cannot_start(device.program, error)}")
        async with process:
            status = await process.wait(left_s)
            duration_s = loop.time() - started
        run = Run(
            name,
            status,
            stdout=readable(process.stdout.text, process.stdout.was_cut, redact),
            stderr=readable(process.stderr.text, process.stderr.was_cut, redact),
            stdout_was_cut=process.stdout.was_cut,
            is_gone=process.is_gone,
            duration_s=duration_s,
        )
        if action is FenceAction.STATUS:
            return status_of(run, deadline_s, strict=is_bundled(device.program))
        return outcome_of(run, deadline_s)

    @contextlib.asynccontextmanager
    async def _turn_to_start(self) -> AsyncIterator[None]:
        """Wait for a turn to start a program. Nothing is awaited at the end of the turn, so that
        the caller has a started process at once."""
        await self._starts.acquire()
        try:
            yield
        finally:
            asyncio.get_running_loop().call_soon(self._starts.release)

    async def _file_system_problem(self, program: str, deadline_s: float) -> str | None:
        """What is wrong with the program's file system, if anything. The start of a program stops
        the whole process until the kernel has read its first page, because Python holds its lock
        meanwhile (vfork). A thread would not help, and a plain fork takes ten milliseconds in a
        manager of 300 MB. So read the file first: a dead file server then hangs only one thread."""
        try:
            await self._files.read(program, _FIRST_PAGE, deadline_s)
        except TimeoutError:
            return (
                f"{program} could not be read within {deadline_s:g} s; check the file system "
                "that it is on"
            )
        except OSError:
            pass  # the start will say what is wrong
        return None

    @property
    def watchdog_pid(self) -> int | None:
        """The process that ends fence programs when this one dies. None before the first run."""
        return self._watchdog.pid

    async def close(self) -> None:
        """Release the watchdog. Programs that still run are killed."""
        self._watchdog.close()


def is_bundled(program: str) -> bool:
    """True for the fence programs that come with HALO (they lie beside their library)."""
    return Path(os.path.realpath(program)).parent.joinpath("halo_fencing", "common.py").exists()


def command_line(program: str) -> list[str]:
    """The command line of a fence program.

    Bundled programs run with the manager's own interpreter, which need not be on PATH, and without
    `site`, which takes 20 ms instead of 60. All others run as they are.
    """
    if is_bundled(program):
        return [sys.executable, "-I", "-S", program]
    return [program]


def _cannot_start(program: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        if os.path.exists(program):
            return f"{program} names an interpreter in its first line that does not exist"
        return f"there is no program {program}; install it, or correct fence_agent in the config"
    if isinstance(error, PermissionError):
        return f"{program} is not executable; chmod +x it, or correct fence_agent in the config"
    return f"{program} cannot be started: {words_of(error)}"
