"""Something that happens to a mover at an exact step, in a child process.

Python reports what it asks the system for to audit hooks. So a hook can end the process, or change
a file, between two calls, and nothing of the mover is replaced for it.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable

STEPS = {
    *("open", "os.mkdir", "os.link", "os.symlink", "os.remove", "os.rmdir", "os.rename"),
    *("os.chmod", "os.chown", "os.utime", "os.setxattr", "os.truncate", "os.removexattr"),
    *("os.scandir", "os.listdir"),
}

KILLED = 9
NOBODY = 65534


def become_nobody() -> None:
    """A preparation: the process is another user from now on."""
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def die_at(step: int) -> Callable[[], None]:
    """A preparation: the process ends before its step of this number, counted from 1."""

    def prepare() -> None:
        count = itertools.count(1)

        def hook(event: str, _: tuple[object, ...]) -> None:
            if event in STEPS and next(count) == step:
                os._exit(KILLED)

        sys.addaudithook(hook)

    return prepare


def once(
    condition: Callable[[str, tuple[object, ...]], bool], act: Callable[[], object]
) -> Callable[[], None]:
    """A preparation: before the first step for which the condition holds, something happens."""

    def prepare() -> None:
        done: list[bool] = []

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            if not done and condition(event, arguments):
                done.append(True)
                act()

        sys.addaudithook(hook)

    return prepare


def reads_back(name: bytes) -> Callable[[str, tuple[object, ...]], bool]:
    """The mover has copied and flushed a small file, and opens the copy to check it."""

    def condition(event: str, arguments: tuple[object, ...]) -> bool:
        if event != "open" or arguments[0] != name:
            return False
        return isinstance(arguments[2], int) and arguments[2] & os.O_ACCMODE == os.O_RDONLY

    return condition


def makes(name: bytes) -> Callable[[str, tuple[object, ...]], bool]:
    """The mover has read a small file of this name, and makes the copy."""

    def condition(event: str, arguments: tuple[object, ...]) -> bool:
        if event != "open" or arguments[0] != name:
            return False
        return isinstance(arguments[2], int) and bool(arguments[2] & os.O_CREAT)

    return condition


def has_listed(times: int) -> Callable[[str, tuple[object, ...]], bool]:
    """The mover has listed so many folders, and opens one, or the next one."""
    listed: list[bool] = []

    def condition(event: str, arguments: tuple[object, ...]) -> bool:
        if event == "os.scandir":
            listed.append(True)
        return len(listed) >= times and event == "open" and arguments[0] == b"."

    return condition
