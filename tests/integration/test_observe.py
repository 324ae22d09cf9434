"""Without --manage-resources the manager shows what is so, and never acts (S4)."""

from __future__ import annotations

import pytest

from tests.integration.cluster import ClusterHarness
from tests.integration.conftest import MakeCluster
from tests.integration.telling import changes, halo_ok, halo_refused, stays_put, until_says


@pytest.fixture
def observed(make_cluster: MakeCluster) -> ClusterHarness:
    """Two hosts and a manager that only observes."""
    return make_cluster(flags=["--sleep-time", "200", "--fence-on-connection-close"])


async def test_the_truth_is_shown_as_it_changes(observed: ClusterHarness) -> None:
    await observed.start(settled=False)
    await observed.until(g1="Stopped", g2="Stopped")
    observed.start_by_hand("g1", "h1")
    await observed.until(g1="Running on h1")
    observed.stop_by_hand("g1_mnt0", "h1")
    await observed.until(g1="Unknown")
    observed.start_by_hand("g1_mnt0", "h1")
    observed.fault("g1_mnt0", "monitor-error 1", host="h1")
    await observed.until(g1="Error")
    observed.fault("g1_mnt0", host="h1")
    await observed.until(g1="Running on h1")
    observed.start_by_hand("g2", "h1")
    await observed.until(g2="Running (Failed Over) on h1")
    assert changes(observed) == []


async def test_two_copies_are_shown_and_left_alone(observed: ClusterHarness) -> None:
    await observed.start(settled=False)
    await observed.until(g1="Stopped")
    for host in ("h1", "h2"):
        observed.start_by_hand("g1", host)
    await observed.until(g1="Error")
    shown = await halo_ok(observed, "status")
    assert "running on h1 and h2 at once" in shown
    await stays_put(observed)
    assert observed.running_on("g1") == {"h1", "h2"}
    assert changes(observed) == []


async def test_a_lost_host_is_shown_and_neither_fenced_nor_replaced(
    observed: ClusterHarness,
) -> None:
    observed.start_by_hand("g1", "h1")
    await observed.start(settled=False)
    await observed.until(g1="Running on h1")
    observed.crash_agent("h1")
    await observed.until_host("h1", connected=False)
    await observed.until(g1="Unknown")
    await until_says(observed, "g1", "observe mode")
    await stays_put(observed)
    assert changes(observed) == []
    assert observed.running_on("g1") == {"h1"}
    assert not (await observed.host("h1"))["fenced"]
    observed.boot("h1")
    await observed.until(g1="Running on h1")


COMMANDS = [
    ("start", "g1"),
    ("stop", "g1"),
    ("move", "g1", "--to", "h2"),
    ("cleanup", "g1"),
    ("manage", "g1"),
    ("unmanage", "g1"),
    ("failback", "--onto", "h1"),
    ("fence", "h1"),
    ("fence", "h1", "--force"),
    ("fence", "h1", "--confirm-off", "--reason", "dark"),
    ("fence", "h1", "--cancel"),
    ("reset", "h1"),
    ("activate", "h1"),
    ("deactivate", "h1"),
    ("freeze",),
    ("thaw",),
]


async def test_every_command_is_refused_in_the_same_words(observed: ClusterHarness) -> None:
    observed.start_by_hand("g1", "h1")
    observed.start_by_hand("g2", "h2")
    await observed.start(settled=False)
    await observed.until(g1="Running on h1", g2="Running on h2")
    for command in COMMANDS:
        assert "only observes" in await halo_refused(observed, *command), command
    code, answer = await observed.api("POST", "/v1/hosts/h1", {"command": "fence", "force": True})
    assert code == 409
    assert "--manage-resources" in str(answer)
    assert changes(observed) == []
    assert observed.is_on("h1")
    shown = await halo_ok(observed, "status")
    assert shown.startswith("OBSERVE MODE: ")
    check = await observed.halo("check")
    assert check.code == 1
    assert "only observes" in check.stdout
