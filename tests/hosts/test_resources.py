"""The distribution's own resource agents, unmodified, through power cuts, with clients at work."""

from __future__ import annotations

import sys

from tests.debian import require
from tests.hosts.bmc import make_bmcs
from tests.hosts.cluster import Group, HostCluster
from tests.hosts.services import (
    FLOATING,
    database_group,
    floating_ip,
    make_database,
    make_table,
    rows_acknowledged,
    rows_found,
    talk,
    web_server,
)
from tests.hosts.world import CLIENT, MANAGER, World, json_lines

HOSTS = ("h1", "h2")


def fenced_by(kind: str, cluster: HostCluster) -> None:
    """Give the hosts BMCs, and start the cluster."""
    bmcs = make_bmcs(kind, cluster.world, HOSTS)
    for host, bmc in bmcs.items():
        bmc.start()
        cluster.fencing[host] = bmc.device()
    cluster.start()


def neighbour(world: World) -> str:
    """What the client believes is the MAC address of the floating address."""
    return world.do(CLIENT, "ip", "neighbour", "show", FLOATING)


def test_a_floating_address_and_its_web_server_move_under_a_client(name: str) -> None:
    require("nginx-light")
    with HostCluster(name, [], {h: {} for h in HOSTS}) as cluster:
        world = cluster.world
        group = Group([floating_ip(), web_server(world)])
        cluster.groups = {group.id: group}
        fenced_by("ipmi", cluster)
        sniffed = world.logs / "sniff_log"
        world.spawn("sniff", CLIENT, sys.executable, "-S", "-m", "tests.hosts.sniff", "eth0")
        world.wait(lambda: json_lines(sniffed), "the sniffer")
        log = talk(world, "web", f"http://{FLOATING}/")
        world.wait(lambda: json_lines(log), "the first answer")
        assert "02:00:00:00:01:0b" in neighbour(world)

        died = world.crash("h1")
        world.wait(lambda: json_lines(log)[-1]["answer"] == "h2", "an answer of h2")
        lines = json_lines(log)
        assert [line["answer"] for line in lines if line["at"] < died][-1] == "h1"
        assert {line["answer"] for line in lines if line["at"] > died + 0.6} == {"h2"}
        # It was told by a gratuitous ARP, and did not have to ask.
        told = [line for line in json_lines(sniffed) if line.get("sender") == FLOATING]
        gratuitous = [line for line in told if line["target"] == FLOATING and line["at"] > died]
        assert gratuitous
        assert gratuitous[0]["mac"] == "02:00:00:00:01:0c"
        assert "02:00:00:00:01:0c" in neighbour(world)

        # And home again, in order: no moment with two of them.
        cluster.bring_back("h1")
        assert cluster.halo("failback", "--onto", "h1", "--wait", "20").code == 0
        world.wait(lambda: json_lines(log)[-1]["answer"] == "h1", "an answer of h1")
        addresses = [world.do(host, "ip", "-o", "addr", "show", "eth0") for host in HOSTS]
        assert [f" {FLOATING}/" in text for text in addresses] == [True, False]


def test_no_acknowledged_row_is_lost_by_power_cuts(name: str) -> None:
    require("postgresql", "postgresql-client", "kmod", "psmisc")
    with HostCluster(name, [], {h: {} for h in HOSTS}) as cluster:
        world = cluster.world
        image = world.disks / "shared"
        make_database(world, image)
        group = database_group(image)
        cluster.groups = {group.id: group}
        fenced_by("powerman", cluster)
        make_table(world, "h1")
        log = talk(world, "rows", FLOATING)

        def acknowledged(since: float = 0.0) -> list[int]:
            return rows_acknowledged(json_lines(log), since)

        world.wait(lambda: len(acknowledged()) > 20, "rows")
        for active, other in (("h1", "h2"), ("h2", "h1"), ("h1", "h2")):
            died = world.crash(active)
            started = world.wait(
                lambda o=other, at=died: cluster.logged("start", at, resource="disk", host=o),  # type: ignore[misc] # mypy does not infer lambdas with defaults
                f"a start on {other}",
            )
            assert len(started) == 1
            world.wait(lambda at=died: len(acknowledged(at + 1)) > 20, f"rows on {other}")  # type: ignore[misc] # the same
            cluster.bring_back(active)
        world.kill("talk")
        found = rows_found(world, "h2")
        promised = acknowledged()
        assert len(promised) > 80
        assert not set(promised) - found
        # Stopped in order it is whole, and nothing was ever mounted twice (checked at the end).
        assert cluster.halo("stop", "disk", "--wait", "20").code == 0
        world.do(MANAGER, "e2fsck", "-f", "-n", str(image))
