"""`halo why` on real processes: before a host dies, while it may not be fenced, and afterwards."""

from __future__ import annotations

from tests.integration.cluster import ClusterHarness
from tests.integration.telling import ask, until_says


async def why(cluster: ClusterHarness, name: str) -> str:
    done = await cluster.halo("why", name)
    assert done.code == 0, done
    return done.stdout


async def test_why_tells_of_a_group_and_a_host_through_a_failover(quick: ClusterHarness) -> None:
    await quick.start()
    assert (await why(quick, "g1")).startswith("g1 runs on h1: this is its home host")
    assert "h1 is not fenced: it is connected" in await why(quick, "h1")

    await ask(quick, "unmanage", "g1")
    quick.freeze("h1")
    await quick.until_host("h1", connected=False)
    await until_says(quick, "g1", "unmanaged", "h1 is disconnected", status="Unknown")
    told = await why(quick, "g1")
    assert "Reason: Held" in told
    assert "The wait ends when somebody runs `halo manage g1`." in told
    assert "it was last seen running" in told

    await ask(quick, "manage", "g1")
    await quick.until(g1="Running (Failed Over) on h2")
    told = await why(quick, "g1")
    assert told.startswith("g1 runs on h2: h1 is disconnected")
    assert "if h2 is lost, no other host can take it now" in told
    told = await why(quick, "h1")
    assert told.startswith("h1 was fenced, and not reset since: Manager service initiated fence")
    assert "after the repair: `halo reset h1`" in told
