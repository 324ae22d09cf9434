"""One run of a fence program: its own session, bounded output, and an end that leaves nothing.

Rejected: asyncio's own subprocesses. Their child watcher reaps the program too early. Its process
group can be killed safely only before that, because then its number cannot be reused. And their
readers keep all output, however much it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import IO

from halo.adapters.fence import watchdog
from halo.adapters.fence.watchdog import MARK, Process
from halo.adapters.slow_files import in_daemon_thread
from halo.core.secrets import for_a_program

KEEP_BYTES = 16384
_READ_BYTES = 65536
_FAST_BYTES = 1 << 20
_SLOW_PAUSE_S = 0.02
_DRAIN_S = 0.2
_KILL_LIMIT_S = 2.0


class Watchdog:
    """The process that ends this manager's fence programs when the manager dies.

    There is one for each :class:`FencePrograms`. The first run starts it. A later run starts it
    again if it has died.
    """

    def __init__(self) -> None:
        self.token = secrets.token_hex(8)
        self._process: subprocess.Popen[bytes] | None = None
        self._runs = 0

    def next_mark(self) -> str:
        """A mark for one run. Starts the watchdog if it does not run. Raises OSError."""
        if self._process is None or self._process.poll() is not None:
            self._start()
        self._runs += 1
        return f"{self.token}.{self._runs}"

    @property
    def pid(self) -> int | None:
        """The watchdog's process, if it was started."""
        return self._process.pid if self._process else None

    def _start(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", watchdog.__file__, self.token],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C at the terminal must not reach it
            cwd="/",
            env=for_a_program(os.environ),
        )

    def close(self) -> None:
        """Let the watchdog end. It kills all processes with its mark. Does not wait."""
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            process.stdin.close()
            # Reaped in a daemon thread, because it ends some hundredths of a second later.
            threading.Thread(target=process.wait, daemon=True).start()


class _Output:
    """Collects the last KEEP_BYTES of a stream. Never stops draining, or the writer would hang."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._fd = stream.fileno()
        self._loop = asyncio.get_running_loop()
        self._tail = bytearray()
        self._seen = 0
        self._timer: asyncio.TimerHandle | None = None
        self.ended = asyncio.Event()
        os.set_blocking(self._fd, False)
        self._loop.add_reader(self._fd, self._read)

    @property
    def was_cut(self) -> bool:
        return self._seen > len(self._tail)

    @property
    def text(self) -> str:
        return self._tail.decode(errors="replace")

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._seen += len(data)
        self._tail += data
        del self._tail[:-KEEP_BYTES]
        if self._seen > _FAST_BYTES:
            # A flood: continue to drain, but slowly, so that the event loop stays free.
            self._loop.remove_reader(self._fd)
            self._timer = self._loop.call_later(_SLOW_PAUSE_S, self._resume)

    def _resume(self) -> None:
        if not self.ended.is_set():
            self._loop.add_reader(self._fd, self._read)

    def close(self) -> None:
        if not self.ended.is_set():
            self.ended.set()
            if self._timer is not None:
                self._timer.cancel()
            self._loop.remove_reader(self._fd)
            self._stream.close()


class FenceProcess:
    """A running fence program. Use it as an asynchronous context manager. When that is left,
    nothing of the program lives, whether it ended, reached a deadline or was cancelled."""

    def __init__(
        self, argv: Sequence[str], data: bytes, environment: Mapping[str, str], mark: str
    ) -> None:
        """Start it with `data`, which must fit into a pipe, as its input. Raises OSError."""
        self._mark = mark
        reading, writing = os.pipe()
        try:
            os.write(writing, data)
            os.close(writing)
            self._popen = subprocess.Popen(
                list(argv),
                stdin=reading,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**environment, MARK: mark},
                start_new_session=True,
            )
        finally:
            os.close(reading)
        assert self._popen.stdout is not None
        assert self._popen.stderr is not None
        self.stdout = _Output(self._popen.stdout)
        self.stderr = _Output(self._popen.stderr)
        self._exited = _exit_of(self._popen.pid)

    async def __aenter__(self) -> FenceProcess:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    async def wait(self, deadline_s: float) -> int | None:
        """The exit status (negative: a signal), or None if it still runs after `deadline_s`."""
        done, _ = await asyncio.wait([self._exited], timeout=deadline_s)
        if not done:
            return None
        # The process is not reaped yet, so this number is still its own.
        self._kill_group()
        status = self._popen.wait()
        with contextlib.suppress(TimeoutError):
            # Its output is in the pipes already. Only a leftover in another process group could
            # hold them open.
            async with asyncio.timeout(_DRAIN_S):
                await self.stdout.ended.wait()
                await self.stderr.ended.wait()
        return status

    @property
    def is_gone(self) -> bool:
        """True when it has exited. After a kill, False only if it is stuck in the kernel."""
        return self._popen.returncode is not None

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, signal.SIGKILL)

    async def _end(self) -> None:
        drained = self.stdout.ended.is_set() and self.stderr.ended.is_set()
        if self._popen.returncode is None:
            self._kill_group()
        if self._popen.returncode is None or not drained:
            # Shielded: a second cancellation must not leave a running fence program behind.
            await asyncio.shield(self._kill_all())
        self.stdout.close()
        self.stderr.close()

    async def _kill_all(self) -> None:
        kill = partial(
            watchdog.kill_until_gone, self._is_ours, clean_passes=1, limit_s=_KILL_LIMIT_S
        )
        killing = in_daemon_thread(kill, f"kill fence-{self._popen.pid}")
        await asyncio.wait([killing], timeout=_KILL_LIMIT_S + 1.0)
        await asyncio.wait([self._exited], timeout=0.5)
        self._popen.poll()

    def _is_ours(self, process: Process) -> bool:
        return process.session == self._popen.pid or watchdog.mark_of(process.pid) == self._mark


def _exit_of(pid: int) -> asyncio.Future[None]:
    """Done when the child has exited. The child is not reaped."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    try:
        fd = os.pidfd_open(pid)
    except OSError:  # a kernel before 5.3
        wait_in_thread(pid, future)
        return future

    def exited() -> None:
        loop.remove_reader(fd)
        os.close(fd)
        if not future.done():
            future.set_result(None)

    loop.add_reader(fd, exited)
    return future


def wait_in_thread(pid: int, future: asyncio.Future[None]) -> None:
    """For kernels without pidfd: wait in an own thread, since the default ones may be busy."""
    loop = future.get_loop()

    def tell() -> None:
        if not future.done():
            future.set_result(None)

    def wait() -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits any more
            loop.call_soon_threadsafe(tell)

    threading.Thread(target=wait, daemon=True, name=f"fence-{pid}").start()
