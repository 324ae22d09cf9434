"""A ground for copies: a source, a burst buffer, orders, and pictures of trees to compare."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from halo.remote.mover.carrying_out import Worker
from halo.remote.mover.orders import parse
from halo.remote.mover.outcomes import Failure
from halo.remote.mover.pace import Stop, Stopped
from halo.remote.mover.progress import Tally

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 60.0

Outcome = dict[str, Any]
Picture = dict[bytes, tuple[object, ...]]


class Ground:
    """`home` is the root of sources, `buffer` that of destinations."""

    def __init__(self, folder: Path, buffer: Path | None = None) -> None:
        self.home = folder / "home"
        self.buffer = buffer or folder / "buffer"
        self.home.mkdir()
        self.buffer.mkdir(exist_ok=True)
        self.source = self.home / "data"
        self.destination = self.buffer / "data"

    def order(self, **changes: object) -> Outcome:
        """An order to copy the source to the destination."""
        return {
            "id": "job-7",
            "copies": [{"source": str(self.source), "destination": str(self.destination)}],
            "source_roots": [str(self.home)],
            "destination_roots": [str(self.buffer)],
            **changes,
        }

    def copy(self, **changes: object) -> Outcome:
        """Carry the order out."""
        return carry_out(self.order(**changes))

    def remove(self) -> Outcome:
        """Remove what the order has left."""
        return self.copy(action="remove")

    def hidden(self) -> list[str]:
        """The working folders of movers in the buffer."""
        return sorted(name for name in os.listdir(self.buffer) if name.startswith(".halo-mover-"))


def carry_out(order: Outcome, prepare: Callable[[], None] | None = None) -> Outcome:
    """Carry an order out in a child process, and return its outcome, or {} if the child was killed.

    A child, since the mover leaves threads and descriptors behind. `prepare` runs in it first.
    """
    heard, told = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(heard)
            if prepare is not None:
                prepare()
            os.write(told, json.dumps(_outcome(order)).encode())
        finally:
            os._exit(0)
    os.close(told)
    with open(heard, "rb") as file:
        text = file.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else {}


def _outcome(order: Outcome) -> Outcome:
    try:
        parsed = parse(json.dumps(order).encode())
        return Worker(parsed, Tally(), Stop()).run()
    except Failure as failure:
        return {"state": failure.state, "message": failure.message, **failure.numbers}
    except Stopped:
        return {"state": "stopped"}
    except BaseException as error:
        return {"state": "defect", "message": repr(error)}


# --- the program -----------------------------------------------------------------------------


@dataclass
class Mover:
    """The program, running."""

    process: subprocess.Popen[bytes]

    def lines(self) -> list[Outcome]:
        """All lines, when it has ended."""
        text, errors = self.process.communicate(timeout=DEADLINE_S)
        assert errors == b"", errors.decode()
        return [json.loads(line) for line in text.splitlines()]

    def outcome(self) -> Outcome:
        """The last line, when it has ended."""
        return self.lines()[-1]

    def kill(self) -> None:
        """As the kernel does it."""
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=DEADLINE_S)


BECOME = """
import os, pkgutil, sys
import halo.remote.mover as mover
for found in pkgutil.walk_packages(mover.__path__, mover.__name__ + "."):
    if not found.name.endswith("__main__"):
        __import__(found.name)
from halo.remote.mover.__main__ import main
os.setgroups([]); os.setgid({user}); os.setuid({user})
sys.exit(main())
"""


def start(order: Outcome | bytes, user: int | None = None, stdout: int = subprocess.PIPE) -> Mover:
    """Start the program, and give it an order. As another `user`, it is started as root, loads all
    its code, and becomes that user then: the interpreter may lie where nobody else can read it."""
    program = ["-m", "halo.remote.mover"] if user is None else ["-c", BECOME.format(user=user)]
    process = subprocess.Popen(
        [sys.executable, *program],
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        cwd="/",
    )
    assert process.stdin is not None
    process.stdin.write(order if isinstance(order, bytes) else json.dumps(order).encode())
    process.stdin.close()
    process.stdin = None
    return Mover(process)


def wait_for(what: str, condition: Callable[[], bool]) -> None:
    """Wait for a condition. Fails after the deadline."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.01)


# --- trees -----------------------------------------------------------------------------------


def write(path: Path, content: bytes, mode: int = 0o644) -> Path:
    """A file, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)
    return path


def picture(top: Path | bytes) -> Picture:
    """All that a copy keeps, by path. Hard links are shown by the first name of their file."""
    found: Picture = {}
    first: dict[int, bytes] = {}
    waiting = [(b"", os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW))]
    while waiting:
        path, fd = waiting.pop()
        found[path] = _seen(os.fstat(fd), _attributes(fd))
        for name in sorted(map(os.fsencode, os.listdir(fd))):
            inner = path + b"/" + name
            info = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if stat.S_ISLNK(info.st_mode):
                found[inner] = _seen(info, os.readlink(name, dir_fd=fd))
                continue
            entry = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=fd)
            if stat.S_ISDIR(info.st_mode):
                waiting.append((inner, entry))
                continue
            same_as = first.setdefault(info.st_ino, inner) if info.st_nlink > 1 else None
            found[inner] = _seen(info, _attributes(entry), info.st_size, _digest(entry), same_as)
            os.close(entry)
        os.close(fd)
    return found


def _seen(info: os.stat_result, *more: object) -> tuple[object, ...]:
    return (oct(info.st_mode), info.st_uid, info.st_gid, info.st_mtime_ns, *more)


def _attributes(fd: int) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, os.getxattr(fd, name)) for name in sorted(os.listxattr(fd)))


_BLOCK = 1 << 20


def _digest(fd: int) -> str:
    """Of all that is not zero, and where it is."""
    digest, at = sha256(), 0
    while True:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA) // _BLOCK * _BLOCK
        except OSError:  # no more data
            return digest.hexdigest()
        block = os.pread(fd, _BLOCK, at)
        if block != bytes(len(block)):
            digest.update(b"%d " % at + block)
        at += _BLOCK
