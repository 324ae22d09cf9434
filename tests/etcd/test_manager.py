"""The manager with its journal in etcd: real processes, real members."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from halo.adapters.etcd.leadership import LEASE_S
from halo.adapters.etcd.location import Store
from tests.etcd.members import Members
from tests.fence_helpers import make_program
from tests.integration import processes
from tests.integration.test_flags import Daemons, until

NOT_LEADING = 75


class Site(Daemons):
    """A manager on a store, an agent, and the command."""

    def __init__(self, folder: Path, store: Store) -> None:
        super().__init__(folder)
        self.store = store

    def start_manager(
        self, *flags: str, node: str = "1", observes: bool = False, **changed: str | Path
    ) -> subprocess.Popen[bytes]:
        """Start one manager. Each id has its own socket and state file, as on its own machine."""
        acts = () if observes else ("--manage-resources",)
        own = {} if node == "1" else {"socket": self.socket(node), "statefile": self.folder / node}
        return self.start(
            *("halo_manager", *self.paths(**(own | changed)), "--store", str(self.store)),
            *(*acts, "--node-id", node, *flags),
        )

    def socket(self, node: str = "1") -> Path:
        return self.folder / ("socket" if node == "1" else f"socket{node}")

    def halo(self, *words: str, node: str = "1") -> str:
        done = self.run("halo", *words, "--socket", str(self.socket(node)))
        return done.stdout + done.stderr

    def status(self, node: str = "1") -> str:
        return self.halo("status", node=node)


@pytest.fixture
def site(tmp_path: Path, store: Store) -> Iterator[Site]:
    yield Site(tmp_path, store)
    processes.kill_all(lambda: processes.marked(tmp_path))


def test_orders_are_remembered_and_a_killed_manager_comes_back(site: Site) -> None:
    site.start_agent()
    manager = site.start_manager()
    until(lambda: "Running on 127.0.0.1" in site.status(), "the group runs")
    site.halo("unmanage", "web", "--reason", "for a test")
    until(lambda: "(Unmanaged)" in site.status(), "it is unmanaged")
    assert not (site.folder / "state").exists()
    manager.terminate()
    assert manager.wait(20) == 0
    begun = time.monotonic()
    manager = site.start_manager()
    until(lambda: "(Unmanaged)" in site.status(), "it is remembered")
    assert time.monotonic() - begun < 10  # the leadership had been given back
    manager.terminate()
    assert manager.wait(20) == 0
    manager = site.start_manager("--lease", "20")  # a busy machine starts the next one late
    until(lambda: "(Unmanaged)" in site.status(), "it manages")
    manager.kill()
    manager.wait(20)
    manager = site.start_manager()
    until(lambda: "does nothing yet" in site.status(), "the lease of the killed one is waited for")
    until(lambda: "(Unmanaged)" in site.status(), "it is remembered again")
    manager.terminate()
    assert manager.wait(20) == 0


def test_etcd_that_is_not_there_is_waited_for_and_nothing_is_done(
    tmp_path: Path, cold: Members
) -> None:
    site = Site(tmp_path, cold.store())
    try:
        site.start_agent()
        manager = site.start_manager()
        until(lambda: "does nothing yet: waiting for etcd" in site.status(), "it says so")
        refused = site.halo("start", "web")
        assert "does nothing yet: waiting for etcd" in refused
        assert "no connection" in refused
        assert not (tmp_path / "h1.service.web").exists()
        manager.terminate()
        assert manager.wait(20) == 0
        manager = site.start_manager()
        until(lambda: "waiting for etcd" in site.status(), "it waits")
        cold.start()
        until(lambda: "Running on 127.0.0.1" in site.status(), "the group runs")
        assert "Traceback" not in site.log("halo_manager")
    finally:
        processes.kill_all(lambda: processes.marked(tmp_path))


def test_a_second_manager_names_the_first_and_does_nothing(site: Site) -> None:
    site.start_agent()
    first = site.start_manager()
    until(lambda: "Running on 127.0.0.1" in site.status(), "the group runs")
    second = site.start_manager("--lease", "2", node="2", observes=True)
    words = f"Manager 1 on {socket.gethostname()}, which leads, cannot be asked"
    until(lambda: words in site.status("2"), "it names the leader")
    assert "stands by, only observes (asked)" in site.halo("managers", node="2")
    until(lambda: "only observes: if it leads, nothing is" in site.status(), "it is told")
    assert "the only one that acts" in site.halo("managers", "step-down")
    assert "Running on 127.0.0.1" in site.status()
    first.terminate()
    assert first.wait(20) == 0
    until(lambda: "manager 2 leads and only observes" in site.status("2"), "this is told, too")
    second.terminate()
    assert second.wait(20) == 0


def test_a_given_back_leadership_is_taken_at_once(site: Site) -> None:
    site.start_agent()
    first = site.start_manager()
    until(lambda: "Running on 127.0.0.1" in site.status(), "the group runs")
    second = site.start_manager(node="2")
    until(lambda: "Manager 1 on" in site.status("2"), "it stands by")
    site.halo("unmanage", "web", "--reason", "for a test")
    first.terminate()
    begun = time.monotonic()
    assert first.wait(20) == 0
    until(lambda: "(Unmanaged)" in site.status("2"), "the next one leads, and remembers")
    assert time.monotonic() - begun < 9  # the lease was not waited for
    assert "not leading" in (log := site.log("halo_manager"))
    assert "Traceback" not in log
    second.terminate()
    assert second.wait(20) == 0


def test_a_manager_that_dies_is_followed_by_the_one_that_stands_by(site: Site) -> None:
    site.start_agent()
    first = site.start_manager("--lease", "3")
    until(lambda: "Running on 127.0.0.1" in site.status(), "the group runs")
    site.start_manager("--lease", "3", node="2")
    until(lambda: "Manager 1 on" in site.status("2"), "it stands by")
    [running] = site.folder.glob("h1.service.web")
    before = running.stat()
    site.halo("unmanage", "web", "--reason", "for a test")
    first.kill()
    until(lambda: "(Unmanaged)" in site.status("2"), "the next one leads, and remembers")
    assert running.stat().st_mtime_ns == before.st_mtime_ns  # it was not started again
    third = site.start_manager("--lease", "3")
    until(lambda: "Manager 2 on" in site.status(), "the first one stands by now")
    third.terminate()
    assert third.wait(20) == 0


def test_a_key_that_never_ends_is_named_with_the_way_out(site: Site, members: Members) -> None:
    key = site.store.key("leader")
    members.etcdctl("put", key, "by hand")
    site.start_agent()
    site.start_manager()
    until(lambda: f"remove it: etcdctl del {key}" in site.status(), "it says what to do")
    assert "nobody can lead, because" in site.log("halo_manager")
    members.etcdctl("del", key)
    until(lambda: "Running on 127.0.0.1" in site.status(), "it leads")


def test_a_manager_that_begins_to_lead_reads_the_config_as_it_is_then(site: Site) -> None:
    """The one that led is restarted to apply a changed file, and this one leads."""
    site.start_agent()
    first = site.start_manager()
    until(lambda: "Running on 127.0.0.1" in site.status(), "the group runs")
    site.start_manager(node="2")
    until(lambda: "Manager 1 on" in site.status("2"), "it stands by")
    text = site.config.read_text()
    site.config.write_text(text.replace("web", "web2"))
    first.terminate()
    assert first.wait(20) == 0
    until(lambda: "web2 " in site.status("2"), "it manages the group of the changed file")


# The id of a manager ---------------------------------------------------------------------------


def test_an_id_must_stay_the_same(site: Site) -> None:
    store = ("--store", str(site.store))
    manager = site.start_manager()
    until(lambda: "web" in site.status(), "it manages")
    manager.terminate()
    assert manager.wait(20) == 0
    assert (site.folder / "state.node").read_text() == "1\n"
    words = site.refused(*store, "--node-id", "2")
    assert "has the id 2 now" in words
    assert "says that it was '1' before" in words
    assert "is no id of a manager" in site.refused(*store, "--node-id", "a/b")


def test_a_manager_that_was_deposed_ends(site: Site, members: Members) -> None:
    manager = site.start_manager()
    until(lambda: "web" in site.status(), "it manages")
    members.etcdctl("del", site.store.key("leader"))
    assert manager.wait(20) == NOT_LEADING
    assert "not leading any more" in site.log("halo_manager")
    manager = site.start_manager()
    until(lambda: "web" in site.status(), "a restart is safe")
    assert "ended itself" not in site.status()  # no defect
    manager.terminate()
    assert manager.wait(20) == 0


def test_a_manager_that_stood_still_for_longer_than_its_lease_ends(site: Site) -> None:
    manager = site.start_manager()
    until(lambda: "web" in site.status(), "it manages")
    manager.send_signal(signal.SIGSTOP)
    time.sleep(LEASE_S + 1)  # what is tested is that time passes
    manager.send_signal(signal.SIGCONT)
    assert manager.wait(10) == NOT_LEADING


def test_a_manager_that_wakes_after_its_lease_starts_nothing(site: Site) -> None:
    """The report about the group waits for it, and so does the group's restart."""
    site.start_agent()
    manager = site.start_manager("--sleep-time", "200")
    until(lambda: "Running on 127.0.0.1" in site.status(), "the group runs")
    [running] = site.folder.glob("h1.service.web")
    manager.send_signal(signal.SIGSTOP)
    running.unlink()
    time.sleep(LEASE_S + 1)
    manager.send_signal(signal.SIGCONT)
    assert manager.wait(10) == NOT_LEADING
    time.sleep(1)
    assert not running.exists()


def test_without_etcd_a_manager_ends_before_its_lease(tmp_path: Path, cold: Members) -> None:
    cold.start()
    site = Site(tmp_path, cold.store())
    try:
        manager = site.start_manager()
        until(lambda: "web" in site.status(), "it manages")
        begun = time.monotonic()
        for number in cold.running:
            cold.signal(number, signal.SIGSTOP)
        assert manager.wait(20) == NOT_LEADING
        assert time.monotonic() - begun < 10
    finally:
        processes.kill_all(lambda: processes.marked(tmp_path))


# What an administrator must mend ---------------------------------------------------------------


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Daemons]:
    found = Daemons(tmp_path)
    yield found
    processes.kill_all(lambda: processes.marked(tmp_path))


def test_a_wrong_store_is_refused_with_what_to_do(daemons: Daemons) -> None:
    assert "needs a prefix of its own" in daemons.refused("--store", "etcd://127.0.0.1:1")
    assert "must look like etcd://" in daemons.refused("--store", "halo.state")
    assert "need --store" in daemons.refused("--store-user", "halo")
    words = daemons.refused("--store", "etcd://127.0.0.1:1/x", "--store-ca", "/none")
    assert "/none of --store-ca" in words
    words = daemons.refused("--store", "etcd://halo:hunter2@127.0.0.1/x")
    assert "--store-password-file" in words
    assert "hunter2" not in words


def test_a_journal_in_a_file_is_not_forgotten(site: Site) -> None:
    (site.folder / "state").write_bytes(b"anything")
    words = site.refused("--store", str(site.store), "--node-id", "1")
    assert f"the state file {site.folder / 'state'} is not" in words
    assert "halo store import" in words


def test_a_manager_with_a_file_loads_nothing_of_etcd() -> None:
    code = "import sys, json, halo.manager.main; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    loaded = json.loads(done.stdout)
    assert "halo.manager.leadership.opening" in loaded
    assert [name for name in loaded if name.startswith("halo.adapters.etcd")] == []


def test_variables_name_the_store_too_and_the_password_is_not_handed_on(site: Site) -> None:
    env = site.folder / "env"
    dump = f"env > {env}.new && mv {env}.new {env}; cat > /dev/null"
    program = make_program(site.folder / "fence_dump", dump)
    config = site.config.read_text()
    site.config.write_text(config.replace("fence_agent: null", f"fence_agent: {program}"))
    site.start_agent()
    manager = site.start(
        *("halo_manager", *site.paths(), "--manage-resources"),
        HALO_STORE=str(site.store),
        HALO_NODE_ID="a",
        HALO_STORE_USER="halo",
        HALO_STORE_PASSWORD="hunter2",
    )
    until(lambda: "web" in site.status(), "it runs")  # etcd asks for no password here
    assert "etcd asks for no password" in site.log("halo_manager")
    assert "hunter2" not in site.log("halo_manager")
    command = Path(f"/proc/{manager.pid}/cmdline").read_bytes()
    assert b"hunter2" not in command
    until(env.exists, "a fence program is asked for the status")
    assert "HALO_STORE_USER=halo\n" in env.read_text()
    assert "hunter2" not in env.read_text()
    manager.terminate()
    assert manager.wait(20) == 0
