"""A member of etcd is lost, and every command that an operator may use says so: real processes."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from halo.adapters.etcd.location import Store
from tests.etcd.members import Members
from tests.etcd.test_any_manager import Trio
from tests.etcd.test_manager import Site
from tests.integration import processes
from tests.integration.test_flags import until

LONG_LEASE = ("--lease", "20")
"""The machine may be busy, and nobody shall lose the leadership here."""

WARNING = 1


@pytest.fixture
def pair(tmp_path: Path, fragile: Members) -> Iterator[Trio]:
    """Two managers, and an agent. The group runs."""
    found = Trio(tmp_path, fragile.store())
    try:
        found.start_agent()
        for node in ("1", "2"):
            found.up(node, *LONG_LEASE)
        found.lead()
        until(lambda: "Running on 127.0.0.1" in (found.same_status() or ""), "the group runs")
        yield found
    finally:
        processes.kill_all(lambda: processes.marked(tmp_path))


def asked(pair: Trio, node: str, command: str) -> subprocess.CompletedProcess[str]:
    return pair.run("halo", command, "--socket", str(pair.socket(node)))


def all_is_well(pair: Trio) -> bool:
    """Is nothing to be told, whoever is asked?"""
    answers = [
        asked(pair, node, command) for node in pair.running for command in ("check", "managers")
    ]
    return all(
        done.returncode == 0 and "does not answer" not in done.stdout for done in answers
    ) and all("NOTICE" not in pair.status(node) for node in pair.running)


def is_told_everywhere(pair: Trio, words: str) -> bool:
    """Do `status`, `check` and `managers` say this at each manager, with the exit status of it?"""
    for node in pair.running:
        check, managers = asked(pair, node, "check"), asked(pair, node, "managers")
        if (check.returncode, managers.returncode) != (WARNING, 1):
            return False
        if not all(words in text for text in (pair.status(node), check.stdout, managers.stdout)):
            return False
    return True


def test_a_member_that_stands_still_or_is_killed_is_told_until_it_is_back(
    pair: Trio, fragile: Members
) -> None:
    until(lambda: all_is_well(pair), "nothing is to be told")
    led = fragile.leader()
    stopped, killed = [number for number in fragile.running if number != led]
    means = "2 of 3 members work. One more lost, and no manager can lead"

    at = fragile.addresses[stopped]
    fragile.signal(stopped, signal.SIGSTOP)
    words = f"etcd member {at} does not answer (no answer within 2.0 s): {means}"
    until(lambda: is_told_everywhere(pair, words), "the member that stands still is told")
    told = {member["endpoint"]: member for member in pair.managers("2")["store"]["members"]}
    assert (told[at]["answers"], told[at]["reason"]) == (False, "no answer within 2.0 s")
    assert 0 < time.time() - told[at]["since"] < 120
    assert told[fragile.addresses[led]]["leads"]
    assert all(told[other]["version"] for other in told)
    fragile.signal(stopped, signal.SIGCONT)
    until(lambda: all_is_well(pair), "it is back")

    at = fragile.addresses[killed]
    fragile.kill(killed)
    words = f"etcd member {at} does not answer (connection refused): {means}"
    until(lambda: is_told_everywhere(pair, words), "the member that was killed is told")
    fragile.start_one(killed)
    until(lambda: all_is_well(pair), "it is back, too")

    log = pair.log("halo_manager")
    for number in (stopped, killed):
        lines = [line for line in log.splitlines() if fragile.addresses[number] in line]
        assert any("a member of etcd is lost" in line for line in lines)
        assert any("a member of etcd is back" in line for line in lines)
    assert "Traceback" not in log


def test_a_member_that_is_cut_off_and_an_alarm_are_told(pair: Trio, fragile: Members) -> None:
    """One member of three answers, and knows no leader: it is not what is left of the store."""
    member = fragile.ask(0, "/v3/maintenance/status", {})["header"]
    assert isinstance(member, dict)
    alarm = {"action": "ACTIVATE", "memberID": member["member_id"], "alarm": "NOSPACE"}
    fragile.ask(1, "/v3/maintenance/alarm", dict(alarm))
    words = f"etcd has the alarm NOSPACE, raised by its member {fragile.addresses[0]}"
    until(lambda: words in asked(pair, "2", "managers").stdout, "the alarm is told")
    fragile.ask(1, "/v3/maintenance/alarm", {**alarm, "action": "DEACTIVATE"})
    until(lambda: "NOSPACE" not in asked(pair, "2", "managers").stdout, "it is over")

    standby = next(node for node in pair.running if node != pair.leader())  # the leader ends
    left, *lost = fragile.running
    for number in lost:
        fragile.kill(number)
    cut_off = f"etcd member {fragile.addresses[left]} has no leader"
    means = "0 of 3 members work. No manager can lead until most of them work"

    def told() -> bool:
        done = asked(pair, standby, "managers")
        return cut_off in done.stdout and means in done.stdout

    until(told, "the last one is told, too")


# A manager that waits to begin ----------------------------------------------------------------


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    processes.kill_all(lambda: processes.marked(tmp_path))


def test_a_manager_with_a_wrong_store_says_at_once_what_it_tries(waiting: Path) -> None:
    at = f"127.0.0.1:{processes.free_port()}"
    site = Site(waiting, Store((at,), "/halo/x"))
    site.start_manager()
    words = (
        f"Manager 1 does nothing yet: waiting for etcd (etcd://{at}/halo/x): {at}: no connection"
    )
    until(lambda: words in site.halo("managers"), "it says so")
    until(lambda: f"etcd member {at} does not answer" in site.halo("managers"), "and the notice")
    assert "connection refused" in site.log("halo_manager")


def test_a_manager_with_a_store_that_is_silent_answers_all_the_same(waiting: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        at = f"127.0.0.1:{silent.getsockname()[1]}"
        site = Site(waiting, Store((at,), "/halo/x"))
        site.start_manager()
        until(lambda: "Manager 1 does nothing yet: " in site.halo("managers"), "it answers")
        until(lambda: "no answer within" in site.halo("managers"), "it says why")


def test_a_manager_that_waits_for_an_earlier_one_with_its_id_says_so(
    waiting: Path, store: Store
) -> None:
    site = Site(waiting, store)
    site.start_manager()
    until(lambda: "web" in site.status(), "it manages")
    other = waiting / "other"
    twin = site.start_manager(socket=other, statefile=waiting / "state2")

    def managers() -> str:
        return site.run("halo", "managers", "--socket", str(other)).stdout

    words = "until the registration of a manager with the same id 1: pid"
    until(lambda: words in managers(), "the second one says what it waits for")
    assert twin.wait(60) == 64
