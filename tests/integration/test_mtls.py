"""Mutual TLS between processes: who is let in, who is not, and what the operator is told of it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.certificates import Authority, of_agent, of_manager
from tests.integration.certificates import MANAGER
from tests.integration.cluster import ClusterHarness
from tests.integration.conftest import MakeCluster
from tests.integration.telling import changes, halo_ok, stays_put, until_host_says

SERVER_NAMES = ("halo-test", "127.0.0.1")


async def start_with(cluster: ClusterHarness, *, host_1: Mapping[str, str]) -> None:
    """Start everything, the agent of h1 with another environment."""
    usual = cluster.environment
    cluster.environment = {**usual, **host_1}
    cluster.boot("h1")
    cluster.environment = usual
    cluster.boot("h2")
    cluster.start_manager()
    await cluster.until_host("h2", connected=True)


async def assert_shut_out(cluster: ClusterHarness, *words: str) -> None:
    """h1 is disconnected for these reasons, not fenced for it, and nothing was started."""
    told = await until_host_says(cluster, "h1", *words)
    assert "TLS" in told
    assert "h1: " in await halo_ok(cluster, "status")
    await stays_put(cluster, seconds=3)  # longer than the loss budget
    host = await cluster.host("h1")
    assert (host["connected"], host["fenced"]) == (False, False)
    assert cluster.is_on("h1")
    assert changes(cluster) == []  # h1 is a candidate of both groups
    log = (cluster.folder / "manager_log").read_text()
    assert "TLS failed" in log
    assert "fencing" not in log.replace("not fenced", "")


async def test_the_right_certificates_work_from_end_to_end(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(mtls=True)
    await cluster.start()
    assert (await cluster.host("h1"))["connected"]
    cluster.kill("h1")
    await cluster.until(g1="Running (Failed Over) on h2")
    cluster.boot("h1")
    await cluster.until_host("h1", connected=True)
    await halo_ok(cluster, "failback", "--onto", "h1", "--wait", "20")


async def test_an_agent_of_another_authority_is_shut_out(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(mtls=True)
    other = Authority(cluster.folder / "other").host("server", *SERVER_NAMES)
    # It knows the right CA, or it would refuse the manager first.
    ca = cluster.environment["HALO_CA_CERT"]
    await start_with(cluster, host_1={**of_agent(other), "HALO_CA_CERT": ca})
    await assert_shut_out(cluster, "certificate refused", "issuer")


async def test_an_agent_with_the_name_of_another_host_is_shut_out(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(mtls=True)
    assert cluster.authority is not None
    wrong = cluster.authority.host("wrong", "another-host")
    await start_with(cluster, host_1=of_agent(wrong))
    await assert_shut_out(cluster, "certificate refused", "not valid for 'halo-test'")


async def test_an_agent_without_tls_is_shut_out(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(mtls=True)
    cluster.mtls = False
    cluster.boot("h1")
    cluster.mtls = True
    cluster.boot("h2")
    cluster.start_manager()
    await cluster.until_host("h2", connected=True)
    await assert_shut_out(cluster, "does not speak TLS", "start it with --mtls")
    told = (cluster.folder / "agent_h1_log").read_text()
    lines = [line for line in told.splitlines() if "turned a connection away" in line]
    assert len([line for line in lines if "warning" in line]) == 1
    assert "peer=127.0.0.1" in lines[0]
    assert "does not speak Cap'n Proto RPC; is its manager started with --mtls?" in lines[0]


@pytest.mark.parametrize(
    ("authority", "words", "hint", "logged"),
    [
        (
            "another authority",
            "TLS failed",
            "may have refused the manager's certificate",
            "its certificate is refused: unable to get local issuer certificate",
        ),
        (
            "no certificate",
            "connection reset",
            "if the agent runs with --mtls",
            "it does not speak TLS, which this agent requires",
        ),
    ],
)
async def test_an_agent_shuts_out_a_manager_with(
    make_cluster: MakeCluster, authority: str, words: str, hint: str, logged: str
) -> None:
    cluster = make_cluster(mtls=True)
    usual = cluster.environment
    for host in cluster.ports:
        cluster.boot(host)
    if authority == "another authority":
        other = of_manager(Authority(cluster.folder / "other").manager("client", MANAGER))
        cluster.environment = {**usual, **other, "HALO_CA_CERT": usual["HALO_CA_CERT"]}
    else:
        cluster.mtls = False  # it does not even speak TLS
    cluster.start_manager()
    for host in cluster.ports:
        await until_host_says(cluster, host, words, hint)
    await stays_put(cluster, seconds=3)
    for host in ("h1", "h2"):
        found = await cluster.host(host)
        assert (found["connected"], found["fenced"]) == (False, False)
        assert cluster.is_on(host)
    assert changes(cluster) == []
    assert words in (cluster.folder / "manager_log").read_text()
    for host in ("h1", "h2"):  # told once, however often the manager comes back
        told = (cluster.folder / f"agent_{host}_log").read_text()
        lines = [line for line in told.splitlines() if "turned a connection away" in line]
        assert len([line for line in lines if "warning" in line]) == 1
        assert "peer=127.0.0.1" in lines[0]
        assert logged in lines[0]

    cluster.environment, cluster.mtls = usual, True
    cluster.restart_manager()
    await cluster.until(g1="Running on h1", g2="Running on h2")
