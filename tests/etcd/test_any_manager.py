"""Three managers, real processes on real members: each answers, whichever leads."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from halo.adapters.etcd.location import Store
from tests.certificates import BOTH, Authority
from tests.etcd.members import Members
from tests.etcd.test_manager import NOT_LEADING, Site
from tests.integration import processes
from tests.integration.test_flags import until

NODES = ("1", "2", "3")
LEASE = ("--lease", "3")


class Trio(Site):
    """Three managers on one machine, each with its socket and its port for the others."""

    def __init__(self, folder: Path, store: Store) -> None:
        super().__init__(folder, store)
        files = Authority(folder / "ca").issue(
            "peer", "localhost", socket.gethostname(), usages=BOTH
        )
        self.environment |= {
            "HALO_PEER_CERT": str(files.certificate),
            "HALO_PEER_KEY": str(files.key),
            "HALO_PEER_CA": str(files.ca),
        }
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def up(self, node: str, *flags: str) -> None:
        port = processes.free_port()
        self.running[node] = self.start_manager(
            *(*LEASE, "--peer-listen", f"127.0.0.1:{port}"),
            *("--peer-url", f"https://localhost:{port}", *flags),
            node=node,
        )

    def managers(self, node: str) -> dict[str, Any]:
        done = self.run("halo", "managers", "--json", "--socket", str(self.socket(node)))
        return dict(json.loads(done.stdout)) if done.stdout else {}

    def lag(self, node: str) -> int | None:
        """How far this manager is behind the leader, as it says itself."""
        told = self.managers(node).get("managers", [])
        return next((one["lag"] for one in told if one["id"] == node), None)

    def leader(self) -> str | None:
        """The leader on which all that run agree."""
        told = {self.managers(node).get("leader") for node in self.running}
        return told.pop() if len(told) == 1 else None

    def same_status(self) -> str | None:
        """What `halo status` says, if it is the same everywhere."""
        told = {self.halo("status", node=node) for node in self.running}
        return told.pop() if len(told) == 1 else None

    def lead(self, *others_than: str) -> str:
        """Wait until a manager leads, but none of these; its id."""
        until(lambda: self.leader() not in (None, *others_than), "one of them leads")
        found = self.leader()
        assert found is not None
        return found


@pytest.fixture
def trio(tmp_path: Path, store: Store) -> Iterator[Trio]:
    yield Trio(tmp_path, store)
    processes.kill_all(lambda: processes.marked(tmp_path))


def test_every_manager_answers_and_commands_work_everywhere_before_and_after_a_crash(
    trio: Trio,
) -> None:
    trio.start_agent()
    for node in NODES:
        trio.up(node)
    first = trio.lead()
    until(lambda: "Running on 127.0.0.1" in (trio.same_status() or ""), "the same, everywhere")
    until(lambda: len(trio.managers(first)["managers"]) == 3, "the leader has seen the others")

    standby = next(node for node in NODES if node != first)
    assert "web" in trio.halo("unmanage", "web", "--reason", "through a standby", node=standby)
    until(lambda: "(Unmanaged)" in (trio.same_status() or ""), "it is unmanaged, everywhere")
    log = trio.log("halo_manager")
    asked = [line for line in log.splitlines() if '"unmanage" of group web' in line]
    assert len(asked) == 1
    assert f"via={standby}" in asked[0]
    assert f"uid={os.getuid()}" in asked[0]

    trio.running.pop(first).send_signal(signal.SIGKILL)
    second = trio.lead(first)
    until(lambda: "(Unmanaged)" in (trio.same_status() or ""), "the next leader remembers it")
    other = next(node for node in trio.running if node != second)
    assert "web" in trio.halo("manage", "web", "--reason", "after a crash", node=other)
    until(lambda: "(Unmanaged)" not in (trio.same_status() or "(Unmanaged)"), "managed again")

    trio.up(first)
    until(lambda: trio.leader() == second, "the killed one is back, and stands by")
    until(lambda: "Running on 127.0.0.1" in (trio.same_status() or ""), "it answers again")
    deposed = trio.running.pop(second)
    told = trio.halo("managers", "step-down", "--reason", "new kernel", node=first)
    assert told.startswith(f"Manager {second} gives the leadership back")
    assert deposed.wait(20) == NOT_LEADING
    third = trio.lead(second)
    assert third != second
    until(lambda: "Running on 127.0.0.1" in (trio.same_status() or ""), "and again")
    said = f'event=step-down object={second} comment="manager {second} gives the leadership back'
    assert f'{said} by command: new kernel"' in trio.halo("events", "show", node=first)
    assert "Traceback" not in trio.log("halo_manager")


def test_without_etcd_a_manager_says_what_it_knows_and_how_old_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "members"
    folder.mkdir()
    members = Members(folder)
    trio = Trio(tmp_path, members.store())
    try:
        members.start()
        trio.start_agent()
        for node in NODES[:2]:
            trio.up(node)
        first = trio.lead()
        standby = next(node for node in trio.running if node != first)
        until(lambda: "Running on 127.0.0.1" in (trio.same_status() or ""), "it runs")
        assert "web" in trio.halo("unmanage", "web", node=standby)
        until(lambda: trio.lag(standby) == 0, "it is read")
        members.close()
        assert trio.running[first].wait(30) == NOT_LEADING
        words = ("halo", "status", "--socket", str(trio.socket(standby)))
        until(lambda: trio.run(*words).returncode == 69, "nobody leads")
        done = trio.run(*words)
        assert "OLD: group web: should run, unmanaged" in done.stdout
        assert "s ago" in done.stderr
        until(lambda: "OLD: the managers as of" in trio.halo("managers", node=standby), "it is old")
        lines = trio.run("halo", "managers", *words[2:]).stdout.splitlines()
        # What it waits for, and the members of etcd, it knows as they are now.
        now = [line for line in lines if re.search(r"does nothing yet|ETCD MEMBER|^127", line)]
        assert len(now) == 5, lines
        old = [line for line in lines if line not in now]
        assert all(line.startswith(("OLD: ", "NOTICE: ")) for line in old), lines
        assert f"OLD: Manager {first} was the last one that was seen to lead." in lines
        assert "Running" not in done.stdout
        assert trio.managers(standby)["own_id"] == standby
        assert "Could not" in trio.halo("manage", "web", node=standby)
        assert (tmp_path / "h1.service.web").exists()
    finally:
        processes.kill_all(lambda: processes.marked(tmp_path))
        members.close()
