"""Debian packages that tests need: installed once where that is possible, else the test is skipped.

Skips are loud: pytest runs with `-ra`, so each stands with its reason in the summary. Where
HALO_TEST_REQUIRE_PARTS is set (continuous integration), a missing part fails the test instead.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

INSTALL_DEADLINE_S = 300.0


def require(*packages: str) -> None:
    """Make sure that Debian packages are installed, or skip the calling test.

    Safe to call from several test processes at once: one installs, the others wait for it.
    """
    if not _missing(packages):
        return
    if shutil.which("apt-get") is None or shutil.which("dpkg-query") is None:
        give_up(f"needs {', '.join(packages)}, and this is no Debian")
    if os.geteuid() != 0:
        give_up(f"needs the packages {', '.join(_missing(packages))}; run as root to install them")
    with lock():
        missing = _missing(packages)
        if missing:
            _install(missing)


def require_program(name: str) -> str:
    """The path of a program, or skip the calling test."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        give_up(f"needs the program {name}")
    return found


def _missing(packages: tuple[str, ...]) -> list[str]:
    if shutil.which("dpkg-query") is None:
        return list(packages)
    done = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *packages],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    installed = {
        line.split()[0] for line in done.stdout.splitlines() if line.endswith(" installed")
    }
    return [package for package in packages if package not in installed]


def _install(packages: list[str]) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages]
    end = time.monotonic() + INSTALL_DEADLINE_S
    problem = ""
    for command in (install, ["apt-get", "update", "-q"], install):
        try:
            done = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=max(1.0, end - time.monotonic()),
                check=False,
            )
        except subprocess.TimeoutExpired:
            problem = f"no end within {INSTALL_DEADLINE_S:g} s"
            break
        if command is install and done.returncode == 0:
            return
        problem = (done.stderr or done.stdout)[-300:]
    give_up(f"cannot install {', '.join(packages)}: {problem}")


def give_up(reason: str) -> NoReturn:
    """Skip the calling test, loudly, or fail it where every part is required."""
    if os.environ.get("HALO_TEST_REQUIRE_PARTS"):
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def lock() -> Iterator[None]:
    """While it is held, no other test process installs or fetches anything."""
    path = Path(tempfile.gettempdir()) / "halo-tests-packages.lock"
    with path.open("w") as file:
        end = time.monotonic() + INSTALL_DEADLINE_S + 30
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    give_up("another test process installs packages and does not end")
                time.sleep(0.1)
        yield
