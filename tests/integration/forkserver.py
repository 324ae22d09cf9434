"""Starts `halo_manager` and `halo_remote` without the second of imports that each start costs.

A suite starts a thousand of them. One server a test process has imported both; each program is a
fork of it that runs the program's own `main`, in a session, folder and environment of its own, and
ends as any Python does. Fence agents and tests know processes by what `/proc` shows of them, so a
fork writes its own command line and environment over those that its server was started with.

Tests of flags, of units and of the demo start programs as people do, and so does every restart by
the fence agent of the test environment.

Run as a program it is the server: JSON lines in, JSON lines out, until its standard input ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_START_DEADLINE_S = 60.0
_ARGUMENTS_ROOM = 2_048
_ENVIRONMENT_ROOM = 16_384
"""Bytes for what a fork shows in /proc."""
_ARG_START = 45
"""Where the four addresses of both begin in /proc/PID/stat, behind the name; proc(5): 48 to 51."""


class Program:
    """One program, with what is used of :class:`subprocess.Popen`."""

    def __init__(self, server: ForkServer, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._server = server

    def poll(self) -> int | None:
        """The exit status once it has ended; negative: the signal that ended it."""
        return self._server.status_of(self, 0.0)

    def wait(self, timeout: float) -> int:
        """Its exit status. Raises TimeoutExpired."""
        status = self._server.status_of(self, timeout)
        if status is None:
            raise subprocess.TimeoutExpired([f"process {self.pid}"], timeout)
        return status

    def send_signal(self, number: int) -> None:
        """Nothing happens where it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """The test process's end; `SERVER` is the one that it needs."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._programs: dict[int, Program] = {}
        self._started: Program | None = None
        self._buffer = b""

    def start(
        self, argv: list[str], *, cwd: Path, environment: dict[str, str], log: Path
    ) -> Program:
        """Start a program; what it says is appended to `log`."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, _ARGUMENTS_ROOM * "."],
                cwd=ROOT,
                # As in the programs' own environment: it is read by an import.
                env={**os.environ, "SSL_CERT_FILE": os.devnull, "ROOM": _ENVIRONMENT_ROOM * "."},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        assert self._process.stdin is not None
        request = {"argv": argv, "cwd": str(cwd), "env": environment, "log": str(log)}
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        self._started = None
        end = time.monotonic() + _START_DEADLINE_S
        while self._started is None:
            if not self._hear(max(end - time.monotonic(), 0.0)):
                raise TimeoutError(f"{argv[0]} was not started within {_START_DEADLINE_S:g} s")
        return self._started

    def status_of(self, program: Program, timeout_s: float) -> int | None:
        """Its exit status, or None when it has not ended within that time."""
        end = time.monotonic() + timeout_s
        while program.returncode is None:
            if not self._hear(max(end - time.monotonic(), 0.0)):
                break
        return program.returncode

    def _hear(self, timeout_s: float) -> bool:
        """Take in what the server has said; False when it says nothing for that long."""
        assert self._process is not None
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        if not select.select([descriptor], [], [], timeout_s)[0]:
            return False
        read = os.read(descriptor, 65536)
        if not read:
            raise RuntimeError(f"the fork server ended with {self._process.wait()}")
        *lines, self._buffer = (self._buffer + read).split(b"\n")
        for line in lines:
            answer = json.loads(line)
            if "started" in answer:
                program = self._started = Program(self, answer["started"])
                self._programs[program.pid] = program
            else:
                self._programs.pop(answer["ended"]).returncode = answer["status"]
        return True


SERVER = ForkServer()


# The server's end.


def _say(**answer: int) -> None:
    os.write(1, json.dumps(answer).encode() + b"\n")


def _reap() -> None:
    """Tell of every program that has ended."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            _say(ended=pid, status=os.waitstatus_to_exitcode(status))


def _serve(mains: dict[str, Callable[[], Any]]) -> Callable[[], Any] | None:
    """Fork for each request. Returns in a child what it has to run; None at the end."""
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write)
    buffer = b""
    while True:
        readable, _, _ = select.select([0, wake_read], [], [])
        if wake_read in readable:
            os.read(wake_read, 4096)
            _reap()
        if 0 not in readable:
            continue
        read = os.read(0, 65536)
        if not read:
            return None
        *lines, buffer = (buffer + read).split(b"\n")
        for line in lines:
            request = json.loads(line)
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os.close(wake_read)
                os.close(wake_write)
                _become(request)
                return mains[request["argv"][0]]
            _say(started=pid)


def _become(request: dict[str, Any]) -> None:
    """Make this fork what a start of the program would have made."""
    os.setsid()
    os.chdir(request["cwd"])
    output = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.close(output)
    os.close(nothing)
    os.environ.clear()
    os.environ.update(request["env"])  # copies: nothing of C's points to the old place any more
    sys.argv = list(request["argv"])
    first = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[_ARG_START:]
    argv_at, argv_end, environment_at, environment_end = map(int, first[:4])
    _write_over(argv_at, argv_end, b"\0", sys.argv)
    variables = [f"{key}={value}" for key, value in request["env"].items()]
    _write_over(environment_at, environment_end, b".", variables)  # one more, of no meaning
    random.seed()


def _write_over(begin: int, end: int, filler: bytes, words: list[str]) -> None:
    """Have /proc show these words for what the kernel placed from `begin` to `end`."""
    text = b"".join(os.fsencode(word) + b"\0" for word in words)
    if len(text) >= end - begin:
        raise ValueError(f"{len(text)} bytes of arguments or environment are too many")
    ctypes.memmove(begin, text.ljust(end - begin - 1, filler) + b"\0", end - begin)


def _main() -> Any:
    from halo.manager.main import main as manager
    from halo.remote.main import main as remote

    gc.collect()
    gc.freeze()  # else the first collection of each fork copies all that was imported
    program = _serve({"halo_manager": manager, "halo_remote": remote})
    if program is not None:
        gc.unfreeze()
        return program()
    return None


if __name__ == "__main__":
    sys.exit(_main())
