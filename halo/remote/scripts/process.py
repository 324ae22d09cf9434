"""Runs one script in a session of its own, with a deadline and bounded output.

The script's standard error is a pipe that the script holds open for reading *and* writing. So the
pipe always has a reader. If the agent dies, SIGPIPE does not kill the script, or a daemon that it
started, at its next message. While the agent lives, it drains the pipe.
Rejected: a plain pipe (SIGPIPE kills both), and a file (a talkative daemon fills the disk).

Worker threads start the scripts. They first read the file that will be executed. On a dead file
system, that read hangs, but only in its own thread. `posix_spawn` makes a child by vfork, which
stops *all* threads until the `exec` is done, and so the answers to heartbeats. Rejected: a plain
fork, since an operation would cost the agent half as much again; `subprocess`, which does the same
as `posix_spawn` in more than twice the time; a thread for each running script.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import signal
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar

from halo.error_words import words_of
from halo.remote.protection import Protection
from halo.remote.scripts import sessions
from halo.remote.scripts.ocf import ScriptError
from halo.remote.scripts.records import RunDirectory, RunningScript

T = TypeVar("T")
Environment: TypeAlias = Mapping[str, str] | Mapping[bytes, bytes]
"""As bytes, it costs less to pass on again and again."""

STDERR_TAIL_BYTES = 16 * 1024
STDOUT_LIMIT_BYTES = 256 * 1024
TERM_GRACE_S = 1.0
_KILL_PATIENCE_S = 2.0
_WALK_INTERVAL_S = 0.1
_UNKILLABLE_INTERVAL_S = 2.0
_READ_BYTES = 64 * 1024
_FLOOD_REST_S = 0.005
_FIRST_LINE_BYTES = 256  # as many as Linux reads
_FINAL_DRAIN_BYTES = 1024 * 1024
_PIPE_BYTES = 256 * 1024
# One thread is busy for the millisecond of a start, or for as long as an `exec` hangs.
_THREADS = 128
# Python ignores these signals; a script must not.
_DEFAULT_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ)
_LOST_STATUS = 255
# Pipes of ended scripts whose daemons still hold the other end.
_LINGERING_PIPES = 128


class Tail:
    """Drains a pipe, and keeps its first or last bytes."""

    def __init__(self, fd: int, limit: int, *, keep_last: bool) -> None:
        self.fd = fd
        self.at_end = False
        self.closed = False
        self.taken = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._rest: asyncio.TimerHandle | None = None
        self._limit = limit
        self._keep_last = keep_last
        self._kept = bytearray()

    def drain(self, limit: int = _READ_BYTES) -> None:
        """Read what is there now, at most about `limit` bytes."""
        if self.closed:
            return
        until = self.taken + limit
        while self.taken < until and not self.at_end:
            try:
                data = os.read(self.fd, _READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            self.at_end = not data
            self.taken += len(data)
            self._keep(data)

    def _keep(self, data: bytes) -> None:
        if self._keep_last:
            self._kept += data
            del self._kept[: -self._limit]
        else:
            self._kept += data[: self._limit - len(self._kept)]

    def value(self) -> bytes:
        return bytes(self._kept)

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Drain from now on, until :meth:`close` or the end of the pipe."""
        self._loop = loop
        loop.add_reader(self.fd, self._on_readable)

    def _on_readable(self) -> None:
        before = self.taken
        self.drain()
        assert self._loop is not None
        if self.at_end:
            self.close()
        elif self.taken - before >= _READ_BYTES:
            # A flood: pause a moment, so that heartbeats are answered and a core stays free.
            self._loop.remove_reader(self.fd)
            self._rest = self._loop.call_later(_FLOOD_REST_S, self.watch, self._loop)

    def close(self) -> None:
        """Close our end. Safe to repeat."""
        if self.closed:
            return
        self.closed = True
        if self._rest is not None:
            self._rest.cancel()
        if self._loop is not None:
            self._loop.remove_reader(self.fd)
        os.close(self.fd)


@dataclass(frozen=True)
class _Started:
    """A script that was just started, as the worker thread hands it over, with its descriptors."""

    pid: int
    pidfd: int
    stderr: Tail
    stdout: Tail | None


class ScriptProcess:
    """One running script. Made by :meth:`ScriptRunner.start`.

    `exited` is set to its exit status when the script itself has ended. A daemon that it started
    may continue, and may even hold its pipe.
    """

    def __init__(self, started: _Started, adopt: Callable[[Tail], None]) -> None:
        self.pid = started.pid
        self._start_ticks: int | None = None
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._started = started
        self._adopt = adopt
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(started.pidfd, self._on_exit)
        for tail in self._tails():
            tail.watch(self._loop)

    def _tails(self) -> list[Tail]:
        return [t for t in (self._started.stderr, self._started.stdout) if t is not None]

    @property
    def start_ticks(self) -> int:
        """Distinguishes its session from a later one with the same number. Ask before it has
        exited: until its status is taken, the number is its own."""
        if self._start_ticks is None:
            stat = None if self.exited.done() else sessions.stat_of(self.pid)
            self._start_ticks = stat.start_ticks if stat else 0
        return self._start_ticks

    @property
    def stderr(self) -> str:
        """The end of its standard error."""
        return self._started.stderr.value().decode(errors="replace").strip()

    @property
    def stdout(self) -> bytes:
        """The beginning of its standard output, if that was requested."""
        return self._started.stdout.value() if self._started.stdout else b""

    def _on_exit(self) -> None:
        status = _take_status(self.pid)
        if status is None:
            return  # it cannot be reaped yet; the descriptor stays readable
        self._loop.remove_reader(self._started.pidfd)
        os.close(self._started.pidfd)
        for tail in self._tails():
            tail.drain(_FINAL_DRAIN_BYTES)
            self._adopt(tail)
        self.exited.set_result(status)


class ScriptRunner:
    """Starts scripts and ends their sessions. One per agent. Needs a running event loop."""

    def __init__(self, protection: Protection, records: RunDirectory) -> None:
        self._protection = protection
        self._records = records
        self._threads = ThreadPoolExecutor(_THREADS, "halo-script", Protection.lower_thread)
        self._lingering: dict[int, Tail] = {}

    async def in_thread(self, function: Callable[[], T]) -> T:
        """Run a function that blocks (files, /proc) in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    async def start(
        self,
        argv: list[str],
        environment: Environment,
        *,
        record: RunningScript | None = None,
        keep_stdout: bool = False,
    ) -> ScriptProcess:
        """Start a script in a new session. If `record` is given, the script is recorded, and
        `environment` holds the record's id as OPERATION_VARIABLE.

        Raises ScriptError if the script cannot be run. The caller waits for `exited` and removes
        the record.
        """
        started = await self.in_thread(lambda: self._start(argv, environment, record, keep_stdout))
        return ScriptProcess(started, self._adopt)

    def _start(
        self,
        argv: list[str],
        environment: Environment,
        record: RunningScript | None,
        keep_stdout: bool,
    ) -> _Started:
        if record is not None:
            self._records.write(record)
        try:
            started = self._fork(argv, environment, keep_stdout)
        except (OSError, ValueError) as error:
            if record is not None:
                self._records.remove(record.id)
            raise ScriptError(_why_not_run(argv[0], error)) from error
        if record is not None:
            stat = sessions.stat_of(started.pid)  # not reaped yet, so it is there
            start_ticks = stat.start_ticks if stat else 0
            self._records.write(replace(record, pid=started.pid, start_ticks=start_ticks))
        return started

    def _fork(self, argv: list[str], environment: Environment, keep_stdout: bool) -> _Started:
        _read_ahead(argv[0])
        with contextlib.ExitStack() as on_failure, contextlib.ExitStack() as childs:
            stderr_fd, childs_stderr = _pipe(on_failure, childs)
            # `exec` closes ours. The pipes come first: opening 0 must not hit one of them.
            places: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
                (os.POSIX_SPAWN_DUP2, childs_stderr, 2)
            ]
            stdout_fd = -1
            if keep_stdout:
                stdout_fd, childs_stdout = _pipe(on_failure, childs)
                places.append((os.POSIX_SPAWN_DUP2, childs_stdout, 1))
            else:
                places.append((os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0))
            places.append((os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0))
            with self._protection.lowered():
                pid = os.posix_spawn(
                    argv[0],
                    argv,
                    environment,
                    file_actions=places,
                    setsid=True,
                    setsigdef=_DEFAULT_SIGNALS,
                )
            try:
                pidfd = os.pidfd_open(pid)
            except OSError:  # then nobody could wait for it
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise
            on_failure.pop_all()
            return _Started(
                pid,
                pidfd,
                Tail(stderr_fd, STDERR_TAIL_BYTES, keep_last=True),
                Tail(stdout_fd, STDOUT_LIMIT_BYTES, keep_last=False) if keep_stdout else None,
            )

    async def end_session(self, session: int, start_ticks: int) -> bool:
        """End every process of a session: SIGTERM, a short grace, SIGKILL.

        Returns whether it has ended completely. A process that is stuck in the kernel may remain.
        """
        loop = asyncio.get_running_loop()
        await self._signal(session, start_ticks, signal.SIGTERM)
        until = loop.time() + TERM_GRACE_S
        while loop.time() < until:
            await asyncio.sleep(_WALK_INTERVAL_S)
            if not await self.in_thread(lambda: sessions.members(session, start_ticks)):
                return True
        until = loop.time() + _KILL_PATIENCE_S
        while await self._signal(session, start_ticks, signal.SIGKILL):
            if loop.time() >= until:
                return False
            await asyncio.sleep(_WALK_INTERVAL_S)
        return True

    async def end_stubborn_session(self, session: int, start_ticks: int) -> None:
        """Wait until the last process of a session has gone that SIGKILL did not end at once."""
        while await self._signal(session, start_ticks, signal.SIGKILL):  # noqa: ASYNC110  # polled
            await asyncio.sleep(_UNKILLABLE_INTERVAL_S)

    async def _signal(self, session: int, start_ticks: int, number: signal.Signals) -> int:
        return await self.in_thread(lambda: sessions.signal_session(session, start_ticks, number))

    def _adopt(self, tail: Tail) -> None:
        """Continue to drain a pipe that a daemon of an ended script still holds."""
        if tail.at_end:
            tail.close()
            return
        self._lingering = {fd: old for fd, old in self._lingering.items() if not old.closed}
        self._lingering[tail.fd] = tail
        if len(self._lingering) > _LINGERING_PIPES:
            self._lingering.pop(next(iter(self._lingering))).close()

    def close(self) -> None:
        """Release the pipes and idle threads. Running scripts continue."""
        for tail in self._lingering.values():
            tail.close()
        self._threads.shutdown(wait=False, cancel_futures=True)


def _take_status(pid: int) -> int | None:
    """The exit status of a child (negative: the signal that killed it), None while it runs."""
    try:
        reaped, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:  # somebody else took the status, so it is lost
        return _LOST_STATUS
    return os.waitstatus_to_exitcode(status) if reaped else None


def _pipe(on_failure: contextlib.ExitStack, childs: contextlib.ExitStack) -> tuple[int, int]:
    """A pipe's read end for us, and an end for the script that is open for reading and writing."""
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    on_failure.callback(os.close, read_fd)
    try:
        os.set_blocking(read_fd, False)
        with contextlib.suppress(OSError):
            fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        both_ways = os.open(f"/proc/self/fd/{write_fd}", os.O_RDWR | os.O_CLOEXEC)
    finally:
        os.close(write_fd)
    childs.callback(os.close, both_ways)
    return read_fd, both_ways


def _read_ahead(path: str) -> None:
    """Read a script and its interpreter into memory, or hang here and not in the `exec`."""
    with contextlib.suppress(OSError, ValueError):
        with open(path, "rb") as script:
            first_line = script.readline(_FIRST_LINE_BYTES)
        if first_line.startswith(b"#!") and (words := first_line[2:].split()):
            with open(words[0], "rb") as interpreter:
                interpreter.read(1)


def _why_not_run(path: str, error: Exception) -> str:
    """One sentence on why a script did not start."""
    if isinstance(error, FileNotFoundError):
        if os.path.exists(path):
            return f"cannot run {path}: the interpreter that its first line names does not exist"
        if os.path.lexists(path):
            return f"cannot run {path}: it is a symbolic link to a file that does not exist"
        return (
            f"cannot run {path}: there is no such resource agent on this host; install its "
            "package, or correct `kind` in the config"
        )
    if isinstance(error, OSError):
        if error.errno == errno.EACCES:
            return f"cannot run {path}: it is not an executable file"
        if error.errno == errno.ENOEXEC:
            return f"cannot run {path}: it is not a program and has no line '#!interpreter'"
        return f"cannot run {path}: {words_of(error)}"
    return f"cannot run {path}: {error}"
