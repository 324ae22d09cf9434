"""What an operator is told, and what the manager did not do: the verbs of fault scenarios."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from tests.integration import processes
from tests.integration.cluster import ClusterHarness
from tests.integration.site import DEADLINE_S


async def until_host_says(
    cluster: ClusterHarness, host: str, *words: str, deadline: float = DEADLINE_S
) -> str:
    """Wait until the comment of a host holds all these words; the comment."""
    return await _until_says(cluster, "hosts", host, words, deadline)


async def until_group_says(
    cluster: ClusterHarness, group: str, *words: str, deadline: float = DEADLINE_S
) -> str:
    """Wait until the comment of a group holds all these words; the comment."""
    return await _until_says(cluster, "groups", group, words, deadline)


async def _until_says(
    cluster: ClusterHarness, key: str, item: str, words: tuple[str, ...], deadline: float
) -> str:
    def comment(status: Mapping[str, Any]) -> str:
        return next(i["comment"] or "" for i in status[key] if i["id"] == item)

    status = await cluster.until_status(
        lambda s: all(word in comment(s) for word in words),
        f"{item} says {words}",
        deadline=deadline,
    )
    return comment(status)


async def stays_put(cluster: ClusterHarness, *groups: str, seconds: float = 1.5) -> None:
    """Check that for a while no script starts or stops anything of these groups anywhere."""
    before = changes(cluster, *groups)
    await asyncio.sleep(seconds)  # to look for what must not happen there is nothing to wait for
    assert changes(cluster, *groups) == before


def changes(cluster: ClusterHarness, *groups: str) -> list[str]:
    """Every start and stop that scripts began so far, of all groups or of these."""
    wanted = {r.state_suffix for g in groups or cluster.groups for r in cluster.groups[g].resources}
    return [
        str(action)
        for action in cluster.actions()
        if action.operation in ("start", "stop")
        and action.phase == "BEGIN"
        and action.resource in wanted
    ]


async def halo_ok(cluster: ClusterHarness, *arguments: str) -> str:
    """Run the `halo` command, which must succeed; what it says on stdout."""
    result = await cluster.halo(*arguments)
    assert result.code == 0, f"halo {' '.join(arguments)}: {result}"
    return result.stdout


async def halo_refused(cluster: ClusterHarness, *arguments: str) -> str:
    """Run the `halo` command, which must be refused in a sentence; that sentence."""
    result = await cluster.halo(*arguments)
    assert result.code == 1, f"halo {' '.join(arguments)}: {result}"
    assert result.stdout == ""
    return result.stderr


def fence_programs(cluster: ClusterHarness) -> list[int]:
    """The fence programs of this cluster's manager that run at this moment."""
    return [
        pid
        for pid in processes.marked(cluster.folder)
        if any("/fence_agents/" in word or "fence_test" in word or word.endswith(".fence")
               for word in processes.command_of(pid))
    ]  # fmt: skip


async def until_devices_are_checked(cluster: ClusterHarness) -> None:
    """Wait until the devices of the hosts that just connected have answered.

    For faults of devices that must not strike before: the manager asks each device once when its
    host connects."""
    await cluster.until_true(lambda: not fence_programs(cluster), "no fence program runs")


def log_lines(cluster: ClusterHarness, event: str, **fields: str) -> list[dict[str, Any]]:
    """The lines of the manager's log about one event; needs `--log-format json`."""
    found = []
    for line in (cluster.folder / "manager_log").read_text().splitlines():
        entry = json.loads(line)
        if entry["event"] == event and all(entry.get(k) == v for k, v in fields.items()):
            found.append(entry)
    return found
