"""Roles between processes: who commands an agent, that it is said where nobody decided it, renewed
certificates while the cluster runs, and everything with the files of `halo tls`."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography import x509

from tests.certificates import BOTH, CALL, SERVE, Authority, of_agent, of_manager
from tests.integration.certificates import MANAGER, NAME
from tests.integration.cluster import ClusterHarness
from tests.integration.conftest import MakeCluster
from tests.integration.site import DEADLINE_S
from tests.integration.telling import changes, halo_ok, stays_put, until_host_says

TAKEN_UP = "renewed certificates are taken up"
NOT_TAKEN_UP = "renewed certificates are not taken up"
ROLES_NOT_SET = "roles are not set"
PATIENT = ("--manage-resources", "--sleep-time", "500")
"""An agent that is restarted is waited for, and not fenced."""


def authority_of(cluster: ClusterHarness) -> Authority:
    assert cluster.authority is not None
    return cluster.authority


def log_lines(cluster: ClusterHarness, log: str, words: str) -> list[str]:
    path = cluster.folder / log
    text = path.read_text(errors="replace") if path.exists() else ""
    return [line for line in text.splitlines() if words in line]


async def until_logged(cluster: ClusterHarness, log: str, words: str, times: int = 1) -> None:
    await cluster.until_true(
        lambda: len(log_lines(cluster, log, words)) >= times, f"{words!r} in {log}"
    )


@pytest.mark.parametrize(
    ("name", "usages", "names_are_set", "words"),
    [
        (NAME, CALL, True, "none of the managers' names halo-manager"),
        ("h9", BOTH, True, "none of the managers' names halo-manager"),
        ("h9", BOTH, False, "it is for servers, too"),
        (NAME, CALL, False, "it holds halo-test, the agent's own name"),
    ],
)
async def test_the_certificate_of_a_host_commands_no_agent(
    make_cluster: MakeCluster,
    name: str,
    usages: Sequence[x509.ObjectIdentifier],
    names_are_set: bool,
    words: str,
) -> None:
    cluster = make_cluster(mtls=True)
    taken = authority_of(cluster).issue("taken", name, usages=usages)
    usual = dict(cluster.environment)
    if not names_are_set:
        del cluster.environment["HALO_MANAGER_NAME"]
    for host in cluster.ports:
        cluster.boot(host)
    cluster.environment = {**usual, **of_manager(taken)}
    cluster.start_manager()
    for host in cluster.ports:
        told = await until_host_says(
            cluster, host, "the agent refused this manager's certificate", words
        )
        assert "TLS failed" in told
    await stays_put(cluster, seconds=3)  # longer than the loss budget
    assert changes(cluster) == []
    for host in cluster.ports:
        found = await cluster.host(host)
        assert (found["connected"], found["fenced"]) == (False, False)
        (line, *_) = log_lines(cluster, f"agent_{host}_log", "turned a connection away")
        assert words in line
        warned = log_lines(cluster, f"agent_{host}_log", "turned a connection away")
        assert len([line for line in warned if "warning" in line]) == 1
        assert log_lines(cluster, f"agent_{host}_log", "serving a manager") == []

    cluster.environment = usual
    cluster.restart_manager()
    await cluster.until(g1="Running on h1", g2="Running on h2")


async def test_roles_that_are_not_set_are_said(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(mtls=True, flags=PATIENT)
    name = cluster.environment.pop("HALO_MANAGER_NAME")
    await cluster.start()
    for host in cluster.ports:
        await until_logged(cluster, f"agent_{host}_log", ROLES_NOT_SET)
    shown = await halo_ok(cluster, "status")
    assert f"NOTICE: {ROLES_NOT_SET}" in shown
    assert "command the agents of h1, h2; set HALO_MANAGER_NAME there" in shown
    check = await cluster.halo("check")
    assert check.code == 1
    assert ROLES_NOT_SET in check.stdout

    cluster.environment["HALO_MANAGER_NAME"] = name
    for host in cluster.ports:
        cluster.stop_agent(host)
        cluster.boot(host)
        await cluster.until_host(host, connected=True)
    await cluster.until_status(
        lambda status: not status["manager"]["notices"], "nothing is to be mended"
    )
    async with asyncio.timeout(DEADLINE_S):
        while (await cluster.halo("check")).code != 0:  # the hosts are probed again
            pass


async def test_without_mutual_tls_nobody_is_nagged(cluster: ClusterHarness) -> None:
    await cluster.start()
    assert (await cluster.status())["manager"]["notices"] == []
    assert (await cluster.host("h1"))["certificate_expires"] is None
    assert log_lines(cluster, "agent_h1_log", "roles are") == []


async def test_renewed_certificates_are_taken_up_while_connected(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(mtls=True, flags=PATIENT)
    authority = authority_of(cluster)
    cluster.environment["HALO_MANAGER_NAME"] = f"{MANAGER},second"
    await cluster.start()
    before = {host: await cluster.host(host) for host in cluster.ports}

    authority.issue("server", NAME, "127.0.0.1", usages=SERVE, days=100)
    authority.manager("client", "second")
    for log in ("agent_h1_log", "agent_h2_log", "manager_log"):
        await until_logged(cluster, log, TAKEN_UP)
    for host, found in before.items():
        now = await cluster.host(host)
        assert now["connected"]
        assert now["since"] == pytest.approx(found["since"], abs=0.01)  # the same connection

    # An agent that serves the new name alone shows that the manager now holds it.
    cluster.stop_agent("h1")
    cluster.environment["HALO_MANAGER_NAME"] = "second"
    cluster.boot("h1")
    await cluster.until_host("h1", connected=True)
    ends = (await cluster.host("h1"))["certificate_expires"]
    assert ends < before["h1"]["certificate_expires"]
    await cluster.until(g1="Running on h1", g2="Running on h2")
    assert cluster.count("g1", "start") == 1


async def test_a_renewed_set_that_does_not_fit_is_told_and_changes_nothing(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(mtls=True)
    authority = authority_of(cluster)
    await cluster.start()
    keys = {file: (cluster.folder / f"{file}.key").read_bytes() for file in ("server", "client")}
    renewed = {}
    authority.host("server", NAME, "127.0.0.1")
    authority.manager("client", MANAGER)
    for file, key in keys.items():
        path = cluster.folder / f"{file}.key"
        renewed[path] = path.read_bytes()
        path.write_bytes(key)
    for log in ("agent_h1_log", "manager_log"):
        await until_logged(cluster, log, NOT_TAKEN_UP)
    assert NOT_TAKEN_UP in await halo_ok(cluster, "status")
    cluster.freeze("h1")  # until the connection is given up
    await cluster.until_true(lambda: not cluster.is_on("h1"), "h1 is fenced")
    cluster.stop_agent("h2")  # as a crash: files that do not fit would stop its next start
    for path, key in renewed.items():
        path.write_bytes(key)
    await until_logged(cluster, "manager_log", TAKEN_UP)
    assert NOT_TAKEN_UP not in await halo_ok(cluster, "status")
    for host in cluster.ports:
        cluster.boot(host)
        await cluster.until_host(host, connected=True)


async def halo_tls(cluster: ClusterHarness, *arguments: str) -> str:
    return await halo_ok(cluster, "tls", *arguments)


async def test_a_cluster_runs_on_the_files_of_halo_tls(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    """From an empty folder to a renewal, with the commands alone."""
    cluster = make_cluster(mtls=True, flags=PATIENT)
    folder, used = tmp_path / "ca", cluster.folder / "used"
    for name in ("HALO_SERVER_DOMAIN_NAME", "HALO_MANAGER_NAME"):
        del cluster.environment[name]
    told = await halo_tls(cluster, "init", str(folder))
    assert "Keep" in told
    at = ("--dir", str(folder))
    await halo_tls(cluster, "host", *at, "--from-config", "--days", "20")
    told = await halo_tls(cluster, "manager", *at, "mgmt")
    assert "HALO_MANAGER_NAME=mgmt" in told
    hosts, manager = folder / "hosts" / "127.0.0.1", folder / "managers" / "mgmt"
    assert {path.stat().st_mode & 0o777 for path in folder.rglob("*.key")} == {0o600}

    used.mkdir()
    for path in (*hosts.iterdir(), *manager.iterdir()):
        shutil.copy(path, used)
    cluster.environment |= {
        "HALO_CA_CERT": str(used / "ca.crt"),
        **{
            f"HALO_{side}_{kind}": str(used / f"{side.lower()}.{ending}")
            for side in ("SERVER", "CLIENT")
            for kind, ending in (("CERT", "crt"), ("KEY", "key"))
        },
        "HALO_MANAGER_NAME": "mgmt",
    }
    await cluster.start()
    assert (await cluster.host("h1"))["connected"]

    check = await cluster.halo("check")
    assert check.code == 1
    assert "certificates of agents end soon: h1, h2; that of h1 ends on" in check.stdout
    assert "in 19 days" in check.stdout
    shown = await cluster.halo("tls", "show")  # what this machine uses, by the environment
    assert shown.code == 1
    assert "! it expires in 19 days" in shown.stdout
    assert "may:     serve as the agent of 127.0.0.1; command no agent" in shown.stdout
    assert "may:     command agents whose HALO_MANAGER_NAME is one of mgmt" in shown.stdout

    assert "server.crt" in await halo_tls(cluster, "renew", *at)
    for path in hosts.iterdir():
        shutil.copy(path, used)
    for host in cluster.ports:
        await until_logged(cluster, f"agent_{host}_log", TAKEN_UP)
    for host in cluster.ports:
        cluster.stop_agent(host)
        cluster.boot(host)
        await cluster.until_host(host, connected=True)
    await cluster.until(g1="Running on h1", g2="Running on h2")
    assert (await cluster.halo("check")).code == 0
    assert (await cluster.halo("tls", "show")).code == 0


async def test_the_managers_own_files_are_announced_before_they_end(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(mtls=True)
    authority = authority_of(cluster)
    authority.issue("client", MANAGER, usages=CALL, days=5)
    await cluster.start()
    check = await cluster.halo("check")
    assert check.code == 1
    assert f"the certificate {cluster.folder / 'client.crt'} ends on" in check.stdout
    assert "in 4 days" in check.stdout
    authority.manager("client", MANAGER)
    await until_logged(cluster, "manager_log", TAKEN_UP)
    await cluster.until_status(
        lambda status: not status["manager"]["notices"], "nothing is to be mended"
    )


async def test_an_agent_that_holds_the_managers_name_does_not_start(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(mtls=True)
    both = authority_of(cluster).host("both", NAME, MANAGER)
    process = await asyncio.create_subprocess_exec(
        *("halo_remote", "--network", "127.0.0.1/32", "--port", "0", "--mtls"),
        env={**os.environ, **cluster.environment, **of_agent(both)},
        stderr=asyncio.subprocess.PIPE,
    )
    _, told = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 64
    assert "the manager's name in HALO_MANAGER_NAME" in told.decode()
