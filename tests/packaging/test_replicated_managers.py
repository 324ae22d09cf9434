"""The commands of docs/replicated-managers.md, on real members of etcd and real managers."""

from __future__ import annotations

import re
import shlex
import ssl
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from halo.adapters.peers.identity import PeerIdentity
from halo.adapters.tls.certificates import read_certificate
from halo.adapters.tls.files import TlsFiles
from tests.integration.processes import free_port
from tests.packaging.machines import NAMES, Machines
from tests.packaging.manifests import container, environment, one, pod_names
from tests.packaging.page import PAGE, of_chapter

INSTALL = "Install on three machines"
DRILL = "Drill"
MOVE = "Move a running site from a file to etcd"
KUBERNETES = "Install on Kubernetes"
UPGRADE = "Upgrade"
BACK_UP = "Back up"
RESTORE = "Restore"
REPLACE_A_MEMBER = "Replace a member of etcd"
NO_MAJORITY = "Two of three members are gone"
CHAPTERS = {
    INSTALL,
    DRILL,
    KUBERNETES,
    MOVE,
    UPGRADE,
    BACK_UP,
    RESTORE,
    REPLACE_A_MEMBER,
    NO_MAJORITY,
}
PATIENCE_S = 120.0

CONFIG = """\
managers:
- {{id: 1, host: mgmt1}}
- {{id: 2, host: mgmt2}}
- {{id: 3, host: mgmt3}}
hosts:
- hostname: 127.0.0.2:{first}
- hostname: 127.0.0.3:{second}
resources:
- {{name: web, kind: test/Web}}
- {{name: disk, kind: test/Disk}}
resource_groups:
- {{root: web, home_host: 127.0.0.2, failover_hosts: [127.0.0.3]}}
- {{root: disk, home_host: 127.0.0.3, failover_hosts: [127.0.0.2]}}
"""

pytestmark = pytest.mark.timeout(900)


class Site(Machines):
    """The machines, with one config for all of them."""

    def __init__(self, top: Path) -> None:
        super().__init__(top)
        self._config = CONFIG.format(first=free_port(), second=free_port())

    def configure(self, *machines: str) -> None:
        """Write what the page takes as given."""
        for machine in machines or NAMES:
            self.path(machine, "/etc/halo").mkdir(exist_ok=True)
            self.path(machine, "/etc/halo/halo.conf").write_text(self._config)
            options = 'HALO_MANAGER_OPTIONS="--manage-resources"\n'
            self.path(machine, "/etc/default/halo").write_text(options)

    def install(self) -> None:
        """The first chapter, up to the drop-in of the managers."""
        self.configure()
        for block in of_chapter(INSTALL)[:-2]:
            self.run(block)

    def start(self) -> None:
        """The end of the first chapter: all managers."""
        start, look = of_chapter(INSTALL)[-2:]
        self.run(start)
        self.shell("mgmt1", "until halo managers; do sleep 0.5; done")
        shown = self.run(look)
        assert shown.count("stands by") == 2
        heading = " ".join(shown.split("\n", 1)[0].split())
        assert heading in " ".join(PAGE.read_text().split()), "the page shows another table"

    def files(self, machine: str, folder: str) -> dict[str, bytes]:
        """What is in a folder, to be put back later."""
        top = self.path(machine, "/")
        found = (path for path in self.path(machine, folder).rglob("*") if path.is_file())
        return {f"/{path.relative_to(top)}": path.read_bytes() for path in found}

    def put(self, machine: str, files: dict[str, bytes]) -> None:
        """Put files where they were."""
        for name, content in files.items():
            path = self.path(machine, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def term(self) -> int:
        """The highest term of the records in the journal."""
        text = self.shell(
            "mgmt1", ". /etc/halo/store.env; export ${!HALO_*}; halo store export $HALO_STORE"
        )
        return max(int(found) for found in re.findall(r'"term": ?(\d+)', text))

    def look(self, machine: str, commands: str) -> str:
        """What commands print whose exit status says that something is missing."""
        return self.shell(machine, f"set +e\n{commands}\ntrue")

    def probe(self, machine: str, name: str) -> bool:
        """Run a probe of the pods for this machine's manager: does it succeed?"""
        (_, _, command) = container(one("StatefulSet", "halo"))[name]["exec"]["command"]
        said = self.shell(machine, f"sh -c {shlex.quote(command)} && echo succeeded || echo failed")
        return said == "succeeded\n"

    def until(self, machine: str, *words: str) -> str:
        """Wait until `halo status` of this machine holds these words, and is not old news."""
        ends = time.monotonic() + PATIENCE_S
        while True:
            shown = self.shell(machine, "halo status 2>&1 || true")
            if "OLD:" not in shown and all(word in shown for word in words):
                return shown
            if time.monotonic() > ends:
                logs = [self.log(m, unit)[-3000:] for m in NAMES for unit in ("halo", "etcd")]
                pytest.fail("\n".join([shown, *logs]))
            time.sleep(0.2)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path)
    try:
        yield found
    finally:
        found.close()


def give_orders(site: Site, machine: str) -> None:
    site.shell(
        machine,
        """
        halo stop web --reason "for a test"
        halo unmanage disk --reason "for a test"
        halo deactivate 127.0.0.3 --reason "for a test"
        """,
    )


def test_a_site_moves_from_a_file_to_etcd_and_back(site: Site) -> None:
    site.configure()
    site.shell("mgmt1", "systemctl start halo")
    site.until("mgmt1", "web")
    give_orders(site, "mgmt1")
    site.install()
    into_etcd, *out = of_chapter(MOVE)
    shown = site.run(into_etcd)
    assert "1 deactivated" in shown
    assert "1 unmanaged, 1 stopped" in shown
    site.until("mgmt1", "unmanaged", "deactivated")
    assert not site.path("mgmt1", "/etc/halo/halo.state").exists()
    site.shell("mgmt1", 'halo manage disk --reason "also for a test"')
    for block in out:
        site.run(block)
    site.until("mgmt1", "deactivated")
    shown = site.shell("mgmt1", "systemctl stop halo; halo store check /etc/halo/halo.state")
    assert "0 unmanaged, 1 stopped" in shown


def test_no_secret_can_be_read_by_others_and_etcd_knows_all_settings(site: Site) -> None:
    site.install()
    for machine in NAMES:
        assert "unrecognized environment variable" not in site.log(machine, "etcd")
        for path in (
            *("/etc/halo/store.password", "/etc/halo/store.env"),
            *("/etc/etcd/etcdctl.env", "/etc/etcd/member.key"),
        ):
            mode = site.path(machine, path).stat().st_mode
            assert stat.S_IMODE(mode) & 0o077 == 0, f"{path} on {machine}"


def leader_of(site: Site, machine: str, *, after: str = "mgmt0") -> str:
    """The machine of the manager that leads, as this one says; not the one of before."""
    seen = f"halo managers | grep ' leads, in term ' | grep -v '^Manager {after[-1]} '"
    shown = site.shell(machine, f"until {seen}; do sleep 0.2; done")
    return f"mgmt{re.findall(r'^Manager (.) leads, ', shown, re.M)[-1]}"


def test_the_drill_each_part_is_lost_once(site: Site) -> None:
    site.install()
    site.start()
    kill, until_another_leads, start, step_down, stop_etcd, look, start_etcd = of_chapter(DRILL)
    first = leader_of(site, "mgmt1")
    other = next(machine for machine in NAMES if machine != first)
    site.shell(first, kill.commands)
    shown = site.look(other, until_another_leads.commands)
    assert f"Manager {first[-1]} on " in shown  # as long as its lease lasts
    assert "which leads, cannot be asked: connection refused." in shown
    assert f"manager {first[-1]} on {first} is missing: 2 of 3 managers are there" in shown
    second = leader_of(site, other, after=first)
    site.shell(first, start.commands)
    site.shell(first, "until halo managers; do sleep 0.2; done")  # until none is missing
    shown = site.shell(first, step_down.commands)
    assert f"Manager {second[-1]} gives the leadership back; the next leader is one of: " in shown
    assert site.exit_status(second, "halo") == 75
    leader_of(site, first, after=second)
    site.shell(second, "systemctl start halo")  # which systemd does by itself
    assert (stop_etcd.where, look.where) == ("mgmt3", "mgmt1")
    site.run(stop_etcd)
    shown = site.look("mgmt1", look.commands)
    assert " leads, in term " in shown
    assert len(re.findall(r"is unhealthy: ", shown)) == 1
    site.shell("mgmt2", 'halo unmanage disk --reason "without the third member"')
    site.run(start_etcd)
    *before, health = look.commands.splitlines()
    site.look("mgmt1", "\n".join([*before, f"until {health}; do sleep 0.5; done"]))


def test_the_drill_everything_is_lost_and_restored(site: Site) -> None:
    site.install()
    site.start()
    give_orders(site, "mgmt3")
    kept = [site.run(block) for block in of_chapter(BACK_UP)]
    assert "1 unmanaged, 1 stopped" in kept[-1]
    term = site.term()
    backups = {machine: site.files(machine, "/var/backups") for machine in NAMES}
    copied = {"/var/backups/etcd.snapshot": backups["mgmt1"]["/var/backups/etcd.snapshot"]}
    site.shell("mgmt3", 'halo manage disk --reason "after the copy"')
    site.lose(*NAMES)
    for machine in NAMES:
        site.put(machine, backups[machine] | copied)
    *steps, _ = of_chapter(RESTORE)
    for block in steps:
        site.run(block)
    for machine in NAMES:  # whoever leads
        shown = site.until(machine, "web", "unmanaged", "deactivated")
        assert "stopped" in shown.lower()
    # What was ordered after the copy is gone. It is given again, under a higher term.
    site.shell("mgmt2", 'halo manage disk --reason "once more"')
    assert site.term() > term + 1_000_000


def test_an_export_is_enough_for_an_empty_etcd(site: Site) -> None:
    site.install()
    site.shell("mgmt1", "systemctl start halo")
    site.until("mgmt1", "web")
    give_orders(site, "mgmt1")
    site.run(of_chapter(BACK_UP)[-1])
    backups = site.files("mgmt1", "/var/backups")
    site.lose(*NAMES)
    site.install()
    site.put("mgmt1", backups)
    *_, from_the_export = of_chapter(RESTORE)
    assert "halo.export" in from_the_export.commands
    site.run(from_the_export)
    site.shell("mgmt1", "systemctl start halo")
    site.until("mgmt1", "web", "unmanaged", "deactivated")


def test_a_member_that_is_lost_is_replaced(site: Site) -> None:
    site.install()
    site.shell("mgmt1", "systemctl start halo")
    site.until("mgmt1", "web")
    give_orders(site, "mgmt1")
    site.lose("mgmt2")
    site.until("mgmt1", "does not answer (connection refused): 2 of 3 members work. One more lost")
    assert "HALO WARNING" in site.shell("mgmt1", "halo check || true")
    shown = [site.run(block) for block in of_chapter(REPLACE_A_MEMBER)][-1]
    assert len(set(re.findall(r"(\S+) is healthy", shown))) == 3
    assert len(re.findall(r", started, mgmt[123], ", shown)) == 3
    site.shell("mgmt1", "while halo status | grep -q 'does not answer'; do sleep 0.5; done")
    # The new machine has all that its manager needs.
    site.shell("mgmt2", "systemctl enable --now halo")
    site.until("mgmt2", "web", "unmanaged", "deactivated")
    # The new member counts: with it and one other there is a majority.
    site.lose("mgmt3")
    site.shell("mgmt1", 'halo manage disk --reason "without the third member"')


def test_without_a_majority_nothing_is_done_and_one_member_is_enough_to_go_on(site: Site) -> None:
    site.install()
    site.shell("mgmt1", "systemctl start halo")
    site.until("mgmt1", "web")
    give_orders(site, "mgmt1")
    site.lose("mgmt2", "mgmt3")
    assert site.exit_status("mgmt1", "halo") == 75
    site.shell("mgmt1", "systemctl start halo")  # which systemd does by itself
    site.until("mgmt1", "waiting for etcd")
    assert site.probe("mgmt1", "livenessProbe")
    assert not site.probe("mgmt1", "readinessProbe")
    (alone,) = of_chapter(NO_MAJORITY)
    site.run(alone)
    site.until("mgmt1", "web", "unmanaged", "deactivated")


def test_a_machine_that_is_lost_is_replaced_and_its_manager_goes_on_elsewhere(site: Site) -> None:
    """The machine of the leader, with a member of etcd."""
    site.install()
    site.start()
    give_orders(site, "mgmt1")
    assert "leads (asked)" in site.shell("mgmt1", "halo managers")
    settings = site.files("mgmt1", "/etc")
    site.lose("mgmt1")
    site.until("mgmt2", "web", "unmanaged", "deactivated")
    site.shell("mgmt3", 'halo manage disk --reason "without the first machine"')
    site.put("mgmt1", settings)
    site.shell("mgmt1", "systemctl start halo")
    site.until("mgmt1", "web", "deactivated")
    # One member of etcd is still lost, which is exit status 1.
    assert "stands by (asked)" in site.shell("mgmt1", "halo managers || test $? = 1")


def test_managers_are_upgraded_one_after_the_other(site: Site) -> None:
    site.install()
    site.start()
    give_orders(site, "mgmt2")
    (restarts,) = of_chapter(UPGRADE)
    site.run(restarts)
    for machine in NAMES:
        site.until(machine, "web", "unmanaged", "deactivated")
    # A pod that stands by is alive, and as ready as the one that leads.
    for machine in NAMES:
        assert site.probe(machine, "livenessProbe")
        assert site.probe(machine, "readinessProbe")
    # The chapter says that no time of a lease is lost, and that there is a command for it.
    assert "halo managers step-down" in PAGE.read_text()
    site.shell("mgmt3", "halo managers step-down --reason 'for a test'")


def test_pods_let_each_other_in_with_the_certificates_of_the_page(site: Site) -> None:
    site.shell("mgmt1", "mkdir /etc/halo; halo tls init /etc/halo/tls")
    (make,) = of_chapter(KUBERNETES)
    site.run(make)
    names = pod_names(one("StatefulSet", "halo"))
    for name in names:
        certificate = site.top / f"{name}.crt"
        files = TlsFiles(certificate, site.top / f"{name}.key", site.top / "ca.crt")
        identity = PeerIdentity(files, frozenset({"10.0.0.10"}))
        identity.managers = lambda: frozenset(names)  # as the config names them
        for other in names:
            shown = ssl.PEM_cert_to_DER_cert((site.top / f"{other}.crt").read_text())
            assert identity.refusal_of(shown) is None
        host = urlsplit(environment(one("StatefulSet", "halo"), name)["HALO_PEER_URL"]).hostname
        own = read_certificate(ssl.PEM_cert_to_DER_cert(certificate.read_text()))
        assert host in own.names
