"""Stories that HALO (Rust) has tests of its own for, played on ours through HALO's half of the API.

docs/moving-from-halo.md lists where the outcome is another one on purpose.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from tests.halo_decoder import decodes, one_host_status
from tests.integration.cluster import ClusterHarness, group, service
from tests.integration.conftest import MakeCluster
from tests.integration.site import DEADLINE_S

AWAY = "Running (Failed Over)"


class AsHalo:
    """What HALO's own test environment asks of a manager, of one that is ours."""

    def __init__(self, cluster: ClusterHarness) -> None:
        self.cluster = cluster

    async def status(self) -> dict[str, Any]:
        code, text = await self.cluster.root("GET", "/status")
        assert code == 200
        found = json.loads(text)
        assert decodes(found)
        return dict(found)

    async def words(self) -> dict[str, str]:
        """By resource, what HALO's `halo status` shows."""
        return {row["id"]: one_host_status(row) for row in (await self.status())["resources"]}

    async def until(self, holds: Callable[[dict[str, Any]], bool], what: str) -> None:
        ends, last = time.monotonic() + DEADLINE_S, dict[str, Any]()
        while not last or not holds(last):
            assert time.monotonic() < ends, f"{what}: {json.dumps(last, indent=1)}"
            with contextlib.suppress(aiohttp.ClientError):  # the manager may be starting
                last = await self.status()
            await asyncio.sleep(0.05)

    async def until_groups(self, g1: str, g2: str) -> None:
        """Wait until every resource of a group has its word."""

        def shows(status: dict[str, Any]) -> bool:
            return all(
                one_host_status(row) == (g1 if row["id"].startswith("g1") else g2)
                for row in status["resources"]
            )

        await self.until(shows, f"g1 is {g1} and g2 is {g2}")

    async def until_host(self, host: str, **wanted: bool) -> None:
        def shows(status: dict[str, Any]) -> bool:
            [found] = [found for found in status["hosts"] if found["id"] == host]
            return all(found[key] == value for key, value in wanted.items())

        await self.until(shows, f"{host} is {wanted}")

    async def command(self, host: str, command: str, *, force: bool | None = None) -> int:
        body = {"command": command, "force": force, "comment": None}
        code, _text = await self.cluster.root("POST", f"/hosts/{host}", body)
        return code

    async def manage(self, group_id: str, managed: bool) -> int:
        body = {"managed": managed, "comment": None}
        return (await self.cluster.root("PATCH", f"/resources/{group_id}", body))[0]


@pytest.fixture
def halo(quick: ClusterHarness) -> AsHalo:
    return AsHalo(quick)


async def test_without_the_partner_nothing_is_started_and_what_runs_is_shown(halo: AsHalo) -> None:
    halo.cluster.start_by_hand("g1", "h1")
    halo.cluster.boot("h1")
    halo.cluster.start_manager()
    await halo.cluster.until(g1="Running on h1")
    await halo.until_groups("Running", "Unknown")
    halo.cluster.boot("h2")
    await halo.until_groups("Running", "Running")


async def test_a_lost_agent_is_fenced_and_failback_brings_its_groups_home(halo: AsHalo) -> None:
    await halo.cluster.start()
    halo.cluster.kill("h2")
    await halo.until_groups("Running", AWAY)
    await halo.until_host("h2", connected=False, fenced=True)
    halo.cluster.boot("h2")
    await halo.until_host("h2", connected=True)
    assert await halo.command("h2", "failback") == 200
    await halo.until_groups("Running", "Running")


async def test_failback_of_what_is_at_home_changes_nothing(halo: AsHalo) -> None:
    await halo.cluster.start()
    for host in ("h1", "h2"):
        assert await halo.command(host, "failback") == 200
    await halo.until_groups("Running", "Running")
    assert all(halo.cluster.count(name, "stop") == 0 for name in ("g1", "g2"))


async def test_an_unmanaged_group_is_shown_as_it_is_and_completed_when_managed(
    halo: AsHalo,
) -> None:
    await halo.cluster.start()
    assert await halo.manage("g1", False) == 200
    assert [r["managed"] for r in (await halo.status())["resources"]] == [False] * 2 + [True] * 2
    halo.cluster.stop_by_hand("g1", "h1")
    await halo.until_groups("Stopped", "Running")
    halo.cluster.start_by_hand("g1", "h2")
    halo.cluster.stop_by_hand("g1_mnt0", "h2")

    def in_part(status: dict[str, Any]) -> bool:
        words = {row["id"]: one_host_status(row) for row in status["resources"]}
        return (words["g1"], words["g1_mnt0"]) == (AWAY, "Stopped")

    await halo.until(in_part, "the root alone runs on the partner")
    assert await halo.manage("g1", True) == 200
    await halo.until_groups(AWAY, "Running")
    assert await halo.manage("g1_mnt0", False) == 404


async def test_a_deactivated_host_gets_nothing_even_when_its_partner_is_gone(halo: AsHalo) -> None:
    await halo.cluster.start()
    assert await halo.command("h1", "deactivate") == 200
    await halo.until_groups(AWAY, "Running")
    assert await halo.command("h1", "failback") == 409
    assert await halo.command("h2", "deactivate") == 409
    halo.cluster.kill("h2")
    await halo.until_groups("Unknown", "Unknown")
    await halo.until_host("h1", active=False, connected=True)
    halo.cluster.boot("h2")
    await halo.until_groups(AWAY, "Running")
    assert await halo.command("h1", "activate") == 200
    assert await halo.command("h1", "failback") == 200
    await halo.until_groups("Running", "Running")


async def test_what_runs_on_a_deactivated_host_is_moved_once_it_is_seen(halo: AsHalo) -> None:
    halo.cluster.start_by_hand("g1", "h1")
    halo.cluster.start_by_hand("g2", "h2")
    halo.cluster.start_manager()
    await halo.cluster.until_host("h1", connected=False)
    assert await halo.command("h1", "deactivate") == 200
    halo.cluster.boot("h1")
    halo.cluster.boot("h2")
    await halo.until_groups(AWAY, "Running")


async def test_a_host_is_fenced_once_until_it_is_reset(halo: AsHalo) -> None:
    await halo.cluster.start()
    halo.cluster.kill("h2")
    await halo.until_groups("Running", AWAY)
    halo.cluster.boot("h2")
    await halo.until_host("h2", connected=True, fenced=True)
    assert await halo.command("h2", "failback") == 200
    await halo.until_groups("Running", "Running")
    assert await halo.command("h2", "fence") == 409
    halo.cluster.kill("h2")
    await halo.until_groups("Running", "Unknown")
    assert await halo.command("h2", "reset") == 200
    await halo.until_host("h2", fenced=False)


async def test_a_fence_by_hand_moves_all_that_ran_there(halo: AsHalo) -> None:
    await halo.cluster.start()
    assert await halo.command("h1", "failback") == 200
    assert await halo.command("h1", "fence", force=False) == 200
    await halo.until_groups(AWAY, "Running")
    await halo.until_host("h1", connected=False, fenced=True)
    await halo.until_host("h2", connected=True, fenced=False)


async def test_a_fence_is_remembered_across_a_restart(halo: AsHalo) -> None:
    await halo.cluster.start()
    halo.cluster.kill("h2")
    await halo.until_groups("Running", AWAY)
    halo.cluster.restart_manager()
    await halo.cluster.until(g2=f"{AWAY} on h1")
    await halo.until_groups("Running", AWAY)
    await halo.until_host("h2", connected=False, fenced=True)


async def test_a_group_that_stopped_meanwhile_is_started_without_a_second_fence_of_its_dark_home(
    halo: AsHalo,
) -> None:
    """HALO waits for that second fence. Here the device says that the host is off: nothing of it
    can run there, whatever its files would say."""
    await halo.cluster.start()
    halo.cluster.kill("h2")
    await halo.until_groups("Running", AWAY)
    halo.cluster.stop_manager()
    halo.cluster.stop_by_hand("g2", "h1")
    halo.cluster.start_manager()
    await halo.until_groups("Running", AWAY)
    fences = [e for e in (await halo.status())["events"] if e["event"] == "fence"]
    assert len(fences) == 1


@pytest.fixture
def sharing(make_cluster: MakeCluster) -> AsHalo:
    """Two addresses, each with the same two services below it."""
    both = [replace(service(n, shared=True), says_shared=False) for n in ("export", "route")]
    groups = [
        group(name, home, [partner], resources=[service(name, ["export", "route"]), *both])
        for name, home, partner in (("ip1", "h1", "h2"), ("ip2", "h2", "h1"))
    ]
    flags = ("--manage-resources", "--fence-on-connection-close", "--sleep-time", "200")
    return AsHalo(make_cluster(groups=groups, flags=flags))


def run_everywhere(status: dict[str, Any]) -> bool:
    """The addresses at home, and what they share on both hosts."""
    return all(
        one_host_status(row) == "Running"
        if row["exclusive"]
        else all(found["status"] == "Running" for found in row["status"].values())
        for row in status["resources"]
    )


async def test_what_is_below_two_roots_is_shared_though_nothing_says_so(sharing: AsHalo) -> None:
    cluster = sharing.cluster
    cluster.boot("h1")
    cluster.boot("h2")
    cluster.start_manager()
    await sharing.until(run_everywhere, "everything runs where it should")
    log = (cluster.folder / "manager_log").read_text()
    for name in ("export", "route"):
        assert f"{name} is in the groups ip1, ip2 without the key shared" in log


async def test_failback_takes_a_group_home_and_what_is_shared_runs_on_both(
    sharing: AsHalo,
) -> None:
    for name in ("ip1", "ip2"):
        sharing.cluster.start_by_hand(name, "h1")
    sharing.cluster.boot("h1")
    sharing.cluster.boot("h2")
    sharing.cluster.start_manager()

    def on_h1_alone(status: dict[str, Any]) -> bool:
        return all(
            row["status"]["h1"]["status"] == "Running"
            and row["status"]["h2"]["status"] == "Stopped"
            for row in status["resources"]
        )

    await sharing.until(on_h1_alone, "everything runs on h1")
    assert await sharing.command("h2", "failback") == 200
    await sharing.until(run_everywhere, "everything runs where it should")
