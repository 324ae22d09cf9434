"""What the mains watch all the while: that nothing which may be on one host is on two.

Disks of the world are watched by themselves. A test names further *marks*: files that lie in a
host's own file system while a group runs there, and addresses. When a mark comes and goes is
written down as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from tests.hosts import kernel

EVERY_S = 0.01
ADDRESSES_EVERY = 10  # looks: the kernel takes its time to list them


class HasPid(Protocol):
    """A host, as far as it is looked at."""

    pid: int  # of its init; 0: dead


class Watch:
    """Looks at all hosts again and again; `tell(what, name, **more)` writes down what it sees."""

    def __init__(self, hosts: Mapping[str, HasPid], disks: Path, tell: Callable[..., None]) -> None:
        self._hosts = hosts
        self._disks = disks
        self._tell = tell
        self._marks: dict[str, Callable[[int], bool]] = {}
        self._addresses: set[str] = set()  # the marks that are addresses
        self.holders: dict[str, list[str]] = {}
        """The hosts that bore each mark when they were last looked at."""
        self._doubles: set[tuple[str, ...]] = set()

    def mark(self, name: str, *, path: str = "", address: str = "") -> None:
        """Watch a file, or an address, by this name."""
        self.holders[name] = []
        if address:
            self._addresses.add(name)
        self._marks[name] = (
            (lambda pid: os.path.exists(f"/proc/{pid}/root{path}"))
            if path
            else (lambda pid: _has_address(pid, address))
        )

    async def run(self) -> None:
        """Look for ever."""
        for look in itertools.count():
            await asyncio.sleep(EVERY_S)
            self._look_at_disks()
            for name in self._marks:
                if look % ADDRESSES_EVERY == 0 or name not in self._addresses:
                    self._look_at_mark(name)

    def _look_at_disks(self) -> None:
        if not any(self._disks.iterdir()):
            return
        holders: dict[str, list[str]] = {}
        for name, host in self._hosts.items():
            with contextlib.suppress(OSError):
                for device, _ in kernel.loop_mounts(host.pid) if host.pid else ():
                    file = Path("/sys/block", Path(device).name, "loop/backing_file")
                    holders.setdefault(file.read_text().strip(), []).append(name)
        for disk, hosts in holders.items():
            self._judge("double mount", disk, hosts)

    def _look_at_mark(self, name: str) -> None:
        found = self._bearers(name)
        if len(found) > 1:
            # It may have moved while we looked: from one we saw first to one we saw last.
            again = self._bearers(name)
            self._judge("double copy", name, [host for host in found if host in again])
            found = again
        for host in found:
            if host not in self.holders[name]:
                self._tell("came", name, host=host)
        for host in self.holders[name]:
            if host not in found:
                self._tell("went", name, host=host)
        self.holders[name] = found

    def _bearers(self, name: str) -> list[str]:
        found = []
        for host, at in self._hosts.items():
            with contextlib.suppress(OSError):
                if at.pid and self._marks[name](at.pid):
                    found.append(host)
        return found

    def _judge(self, what: str, name: str, hosts: list[str]) -> None:
        if len(hosts) > 1 and (what, name, *hosts) not in self._doubles:
            self._doubles.add((what, name, *hosts))
            self._tell(what, name, hosts=hosts)


def _has_address(pid: int, address: str) -> bool:
    with open(f"/proc/{pid}/net/fib_trie") as file:
        return f"-- {address}\n" in file.read()


def request_of(watch: Watch, request: Mapping[str, Any]) -> dict[str, Any]:
    """One request to the mains: watch this, or, without a path or an address, who bears what."""
    if "name" in request:
        watch.mark(request["name"], path=request["path"], address=request["address"])
    return {"holders": watch.holders}
