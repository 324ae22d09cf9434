"""BMCs with every fault: the deadline holds, nothing is started, the operator reads why, and when
the fault is mended the failover goes on by itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import pytest

from tests.hosts.bmc import PASSWORD, RedfishBmc, Simulator, make_bmcs
from tests.hosts.cluster import HostCluster, dummy
from tests.hosts.world import MANAGER

HOSTS = ("h1", "h2")
KINDS = ("ipmi", "redfish", "powerman")
FENCE_TIMEOUT_S = 4.0
SLACK_S = 3.0  # for two slow cores with other work
SETTINGS = {"fence_timeout": FENCE_TIMEOUT_S}
NO_ANSWER = r"timed out|not finished within"


@dataclass(frozen=True)
class Fault:
    """`words` is what the operator reads; `mend` None: it mends itself."""

    begin: Callable[[Simulator], object]
    mend: Callable[[Simulator], object] | None
    words: str
    kinds: tuple[str, ...] = KINDS


def _outlet(fault: str) -> Callable[[Simulator], object]:
    return lambda bmc: bmc.world.wire("h1", fault=fault)


def _certificate(fits: bool) -> Callable[[Simulator], object]:
    def change(bmc: Simulator) -> None:
        assert isinstance(bmc, RedfishBmc)
        (bmc.fit_certificate if fits else bmc.misfit_certificate)()

    return change


def _password(password: str) -> Callable[[Simulator], object]:
    return lambda bmc: bmc.set_password(password)


FAULTS = {
    "dead": Fault(
        lambda bmc: bmc.world.deaf(bmc.address), lambda bmc: bmc.world.undeaf(), NO_ANSWER
    ),
    "gone": Fault(lambda bmc: bmc.kill(), lambda bmc: bmc.start(), "connection refused"),
    "hung": Fault(lambda bmc: bmc.hang(), lambda bmc: bmc.wake(), NO_ANSWER),
    "password": Fault(
        _password("wr0ng"), _password(PASSWORD), "bad credentials", ("ipmi", "redfish")
    ),
    "certificate": Fault(_certificate(False), _certificate(True), "TLS failed", ("redfish",)),
    "slow": Fault(_outlet("slow 10"), None, f"{NO_ANSWER}|still on|refused"),
    "refuses": Fault(_outlet("refuses"), _outlet(""), f"refused|{NO_ANSWER}|still on"),
    "stays on": Fault(_outlet("stays"), _outlet(""), "still on 2 s after"),
}
CASES = [(kind, what) for what, fault in FAULTS.items() for kind in fault.kinds]


def cluster_with(name: str, kind: str) -> tuple[HostCluster, Callable[[], Simulator]]:
    """A pair that is fenced by BMCs of a kind, and what starts it; that gives the BMC of h1."""
    cluster = HostCluster(name, [dummy("g1")], {h: {} for h in HOSTS}, settings=SETTINGS)

    def start() -> Simulator:
        bmcs = make_bmcs(kind, cluster.world, HOSTS)
        for host, bmc in bmcs.items():
            bmc.start()
            cluster.fencing[host] = bmc.device()
        cluster.start()
        return bmcs["h1"]

    return cluster, start


def starts_elsewhere(cluster: HostCluster, since: float) -> int:
    """How often g1 was started on h2."""
    return len(cluster.logged("start", since, group="g1", host="h2"))


def attempts(cluster: HostCluster, since: float) -> list[float]:
    """How long the attempts that failed took, in seconds."""
    begun, found = 0.0, []
    lines = sorted(
        cluster.logged("fencing", since) + cluster.logged("fence failed", since),
        key=lambda line: str(line["timestamp"]),
    )
    for line in lines:
        at = datetime.fromisoformat(line["timestamp"]).timestamp()
        if line["event"] == "fencing":
            begun = at
        else:
            found.append(at - begun)
    return found


@pytest.mark.parametrize(("kind", "what"), CASES)
def test_a_faulty_bmc_holds_the_group_back_until_it_is_mended(
    name: str, kind: str, what: str
) -> None:
    fault = FAULTS[what]
    cluster, start = cluster_with(name, kind)
    with cluster:
        bmc = start()
        fault.begin(bmc)
        died = cluster.world.crash("h1")
        cluster.world.wait(lambda: len(attempts(cluster, died)) >= 2, "two failed attempts")
        if cluster.world.outlet_is_on("h1"):
            assert starts_elsewhere(cluster, died) == 0
        assert max(attempts(cluster, died)) < 2 * FENCE_TIMEOUT_S + SLACK_S  # an off, a status

        def is_told() -> bool:  # on a busy machine, the first attempts may only time out
            events = cluster.status()["events"]
            failed = [event["comment"] for event in events if event["event"] == "fence-failed"]
            return any(re.search(fault.words, comment) for comment in failed)

        cluster.world.wait(is_told, f"a failed fence that tells of {fault.words!r}")
        shown = cluster.halo("status").stdout
        assert "s3cret" not in shown + cluster.manager_log.read_text()
        assert "wr0ng" not in shown + cluster.manager_log.read_text()
        if fault.mend is not None:
            assert re.search(r"fencing h1 failed|fence failed|fencing h1", shown), shown
            fault.mend(bmc)
        cluster.until(g1="Running (Failed Over) on h2")
        assert not cluster.world.outlet_is_on("h1")
        off_at = [line["at"] for line in cluster.world.happened("died", "h1")]
        off_at += [p["at"] for p in cluster.world.happened("power", "h1") if not p["on"]]
        started = cluster.logged("start", died, group="g1", host="h2")
        assert datetime.fromisoformat(started[0]["timestamp"]).timestamp() > min(off_at[1:])


@pytest.mark.parametrize("kind", KINDS)
def test_a_bmc_that_restarts_in_the_middle_of_a_fence(name: str, kind: str) -> None:
    cluster, start = cluster_with(name, kind)
    with cluster:
        bmc = start()
        cluster.world.wire("h1", fault="slow 1")
        died = cluster.world.crash("h1")
        cluster.world.wait(lambda: cluster.logged("fencing", died), "a fence")
        bmc.kill()
        cluster.world.wait(lambda: cluster.logged("fence failed", died), "its failure")
        bmc.start()
        cluster.until(g1="Running (Failed Over) on h2")
        assert starts_elsewhere(cluster, died) == 1
        assert not cluster.world.outlet_is_on("h1")


@pytest.mark.parametrize("by", ["the manager", "the administrator"])
def test_a_bmc_that_is_wired_to_another_host_is_not_believed(name: str, by: str) -> None:
    hosts = ("h1", "h2", "h3")
    fencing: dict[str, dict[str, object]] = {h: {} for h in hosts}
    with HostCluster(name, [dummy("g1")], fencing, settings=SETTINGS) as cluster:
        world = cluster.world
        bmcs = make_bmcs("ipmi", world, hosts)
        for host, bmc in bmcs.items():
            bmc.start()
            cluster.fencing[host] = bmc.device()
        cluster.start()
        cluster.until_host("h3", connected=True)
        if by == "the administrator":
            world.wire("h1", host="h3")
            done = cluster.halo("fence", "h1", "--reason", "test")
            assert done.code == 1
            assert "h1" in done.stderr
            assert "still answers" in done.stderr
        else:
            # The agent of h1 hangs for a while, and answers again while the off is being done.
            world.wire("h1", host="h3", fault="slow 1")
            agent = world.do("h1", "pgrep", "-o", "-f", "halo_remote --network").strip()
            world.do("h1", "kill", "-STOP", agent)
            world.wait(lambda: world.happened("switching", name="h1"), "an off for h1")
            world.do("h1", "kill", "-CONT", agent)
        cluster.until_host("h1", fence_trusted=False, connected=True, fenced=False)
        assert not world.is_alive("h3")  # the wrong one
        cluster.until(g1="Running on h1")
        assert not cluster.logged("start", group="g1", host="h2")
        assert "not trusted" in cluster.halo("status").stdout
        # Mended: the cables, and the operator says so.
        world.wire("h1")
        cluster.world.power_on("h3")
        cluster.until_host("h3", connected=True)
        assert cluster.halo("reset", "h1", "--reason", "cables").code == 0
        cluster.until_host("h1", fence_trusted=True)
        world.crash("h1")
        cluster.until(g1="Running (Failed Over) on h2")
        assert not world.outlet_is_on("h1")


def test_the_second_level_counts_when_the_first_device_is_dead(name: str) -> None:
    with HostCluster(name, [dummy("g1")], {h: {} for h in HOSTS}, settings=SETTINGS) as cluster:
        world = cluster.world
        ipmi = make_bmcs("ipmi", world, HOSTS)
        pdu = make_bmcs("powerman", world, HOSTS)
        for host in HOSTS:
            ipmi[host].start()
            levels = [ipmi[host].device(), pdu[host].device()]
            cluster.fencing[host] = {"fence_levels": levels}
        pdu["h1"].start()
        cluster.start()
        world.deaf(ipmi["h1"].address)
        died = world.crash("h1")
        cluster.until(g1="Running (Failed Over) on h2")
        assert not world.outlet_is_on("h1")
        assert not cluster.logged("fence failed", died)
        world.undeaf()
        done = cluster.halo("power", "on", "h1")
        assert done.code == 0, done
        cluster.bring_back("h1")


def test_an_outlet_that_a_failed_level_left_off_is_told(name: str) -> None:
    with HostCluster(name, [dummy("g1")], {h: {} for h in HOSTS}, settings=SETTINGS) as cluster:
        world = cluster.world
        ipmi = make_bmcs("ipmi", world, HOSTS)
        pdu = make_bmcs("powerman", world, HOSTS)
        for host in HOSTS:
            ipmi[host].start()
            both = [pdu[host].device(), ipmi[host].device()]
            cluster.fencing[host] = {"fence_levels": [both]}
        pdu["h1"].start()
        cluster.start()
        world.deaf(ipmi["h1"].address)
        died = world.crash("h1")
        failures = world.wait(lambda: cluster.logged("fence failed", died), "a failure")
        assert "the host is not proven off: powerman" in failures[0]["reason"]
        assert starts_elsewhere(cluster, died) == 0
        world.undeaf()
        cluster.until(g1="Running (Failed Over) on h2")


def test_the_power_command_works_on_a_set_of_hosts(name: str) -> None:
    hosts = ("h1", "h2", "h3")
    with HostCluster(name, [], {h: {} for h in hosts}, settings=SETTINGS) as cluster:
        world = cluster.world
        bmcs = {
            "h1": make_bmcs("ipmi", world, hosts)["h1"],
            "h2": make_bmcs("redfish", world, hosts)["h2"],
            "h3": make_bmcs("powerman", world, ["h3"])["h3"],
        }
        for host, bmc in bmcs.items():
            bmc.start()
            cluster.fencing[host] = bmc.device()
        cluster.write_config()
        lines = cluster.halo("power", "status").stdout.splitlines()
        assert lines == ["h1 is off", "h2 is off", "h3 is off"]
        done = cluster.halo("power", "on", "h[1-3]")
        assert (done.code, done.stdout) == (0, "power on: 3 done, 0 failed\n"), done
        assert all(world.is_alive(host) for host in hosts)
        done = cluster.halo("power", "off", "h[1-2]")
        assert done.code == 0, done
        lines = cluster.halo("power", "status", "h[1-3]").stdout.splitlines()
        assert lines == ["h1 is off", "h2 is off", "h3 is on"]
        done = cluster.halo("power", "cycle", "h3")
        assert done.code == 0, done
        assert world.boots("h3") == 2
        # One that is away does not hold up the others, and is told.
        world.deaf(bmcs["h1"].address)
        done = cluster.halo("power", "on", "h[1-2]")
        assert done.code == 1
        assert done.stdout == "power on: 1 done, 1 failed: h1\n"
        assert re.search(rf"h1 Fence result: Failure: .*({NO_ANSWER})", done.stderr)
        assert world.is_alive("h2")
        status = world.run(MANAGER, "halo", "--config", str(cluster.config), "power", "status")
        assert status.code == 1
        assert "Could not determine power status for h1" in status.stdout
