"""A whole failover by every kind of power switch: HALO's agents and the distribution's."""

from __future__ import annotations

import pytest

from tests.hosts.bmc import make_bmcs
from tests.hosts.cluster import HostCluster, dummy

HOSTS = ("h1", "h2")


@pytest.mark.parametrize("kind", ["ipmi", "redfish", "powerman"])
@pytest.mark.parametrize("agents", ["bundled", "distribution"])
def test_a_dead_host_is_fenced_its_group_moves_and_comes_home(
    name: str, kind: str, agents: str
) -> None:
    with HostCluster(name, [dummy("g1")], {h: {} for h in HOSTS}) as cluster:
        world = cluster.world
        bmcs = make_bmcs(kind, world, HOSTS)
        for host, bmc in bmcs.items():
            bmc.start()
            found = bmc.device() if agents == "bundled" else bmc.foreign_device()
            cluster.fencing[host] = found
        cluster.start()
        # Dead, and its BMC says on: only the fence can prove that it is off.
        died = world.crash("h1")
        assert world.outlet_is_on("h1")
        cluster.until(g1="Running (Failed Over) on h2")
        assert not world.outlet_is_on("h1")
        fenced = [line["begun"] for line in world.happened("switched", "h1")]
        started = cluster.logged("start", died, group="g1", host="h2")
        assert len(started) == 1
        assert fenced
        assert cluster.host("h1")["fenced"] is True
        # The operator gets it back, by the same BMC.
        done = cluster.halo("power", "on", "h1")
        assert done.code == 0, done
        assert world.boots("h1") == 2
        cluster.bring_back("h1")
        done = cluster.halo("failback", "--onto", "h1", "--wait", "20")
        assert done.code == 0, done
        cluster.until(g1="Running on h1")
