"""What scenarios say of a cluster beyond its verbs: what operators are told, what scripts did."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any

from tests.integration import processes
from tests.integration.cluster import ClusterHarness, Status
from tests.integration.site import DEADLINE_S

QUICK_MONITORS = ("--manage-resources", "--fence-on-connection-close", "--sleep-time", "200")
"""For scenarios that wait for a monitor."""


async def until_says(
    cluster: ClusterHarness,
    group: str,
    *words: str,
    but_not: str | None = None,
    deadline: float = DEADLINE_S,
    **fields: Any,
) -> str:
    """Wait until a group's comment holds all these words, `but_not` that one (and its fields are as
    told); returns the comment."""

    def shows(status: Status) -> bool:
        found = _of(status, "groups", group)
        comment = found["comment"] or ""
        return (
            all(word in comment for word in words)
            and (but_not is None or but_not not in comment)
            and all(found[key] == value for key, value in fields.items())
        )

    status = await cluster.until_status(
        shows, f"{group} says {words} and is {fields}", deadline=deadline
    )
    return str(_of(status, "groups", group)["comment"])


async def until_host_says(
    cluster: ClusterHarness, host: str, *words: str, deadline: float = DEADLINE_S
) -> str:
    """Wait until a host's comment holds all these words; returns the comment."""

    def shows(status: Status) -> bool:
        comment = _of(status, "hosts", host)["comment"] or ""
        return all(word in comment for word in words)

    status = await cluster.until_status(shows, f"{host} says {words}", deadline=deadline)
    return str(_of(status, "hosts", host)["comment"])


async def until_reported(cluster: ClusterHarness, *hosts: str) -> None:
    """Wait until the manager has seen every group on these hosts."""

    def shows(status: Status) -> bool:
        return all(
            candidate["status"] != "Unknown"
            for resource in status["resources"]
            for host, candidate in resource["candidates"].items()
            if host in hosts
        )

    await cluster.until_status(shows, f"everything on {hosts} is known")


async def halo_ok(cluster: ClusterHarness, *arguments: str) -> str:
    """Run a `halo` command that succeeds; returns what it prints."""
    result = await cluster.halo(*arguments)
    assert result.code == 0, f"halo {' '.join(arguments)}: {result}"
    return result.stdout


async def ask(cluster: ClusterHarness, *arguments: str) -> str:
    """Run a `halo` command that succeeds without a word on stderr; returns what it prints."""
    result = await cluster.halo(*arguments)
    assert (result.code, result.stderr) == (0, ""), result
    return result.stdout


async def halo_refused(cluster: ClusterHarness, *arguments: str) -> str:
    """Run a `halo` command that is refused, while much else happens; returns why."""
    result = await cluster.halo(*arguments)
    assert (result.code, result.stdout) == (1, ""), f"halo {' '.join(arguments)}: {result}"
    return result.stderr


async def refused(cluster: ClusterHarness, *arguments: str) -> str:
    """Run a `halo` command that is refused; returns why. The refusal changed nothing (S8)."""
    before = wanted_state(await cluster.status())
    why = await halo_refused(cluster, *arguments)
    assert wanted_state(await cluster.status()) == before
    return why


async def at_once(cluster: ClusterHarness, path: str, command: str) -> str:
    """Give a command without the time that the start of a program takes; returns the answer."""
    code, answer = await cluster.api("POST", path, {"command": command})
    assert code == 200, answer
    return str(answer["message"])


def again(cluster: ClusterHarness) -> None:
    """Kill the manager without a warning, and start the next one."""
    cluster.kill_manager()
    cluster.start_manager()


def wanted_state(status: Status) -> Mapping[str, Any]:
    """What commands can change, without what happens by itself meanwhile."""
    groups = ("managed", "wanted", "move_target", "error", "start_failures")
    hosts = ("active", "fenced", "fence_trusted")
    return {
        **{g["id"]: [g[key] for key in groups] for g in status["groups"]},
        **{h["id"]: [h[key] for key in hosts] for h in status["hosts"]},
        "frozen": status["manager"]["frozen"],
        "events": len(status["events"]),
    }


def story(cluster: ClusterHarness) -> list[str]:
    """Every start and stop so far, in the order in which they began: `start g1 on h1`."""
    return [f"{operation} on {host}" for operation, host in _begun(cluster)]


def story_of(cluster: ClusterHarness, host: str) -> list[str]:
    """Every start and stop on one host so far, in the order in which they began: `start g1`."""
    return [operation for operation, where in _begun(cluster) if where == host]


def _begun(cluster: ClusterHarness) -> list[tuple[str, str]]:
    names = {spec.state_suffix: name for name, spec in cluster.resources.items()}
    return [
        (f"{action.operation} {names[action.resource]}", action.host)
        for action in cluster.actions()
        if action.phase == "BEGIN"
    ]


def at(cluster: ClusterHarness, operation: str, resource: str, phase: str, nth: int = 0) -> float:
    """When the nth start or stop of a resource began (BEGIN) or ended (END)."""
    name = cluster.resources[resource].state_suffix
    return [
        action.at
        for action in cluster.actions()
        if (action.operation, action.resource, action.phase) == (operation, name, phase)
    ][nth]


async def nothing_happens(cluster: ClusterHarness, *, seconds: float = 1.0) -> None:
    """No start and no stop begins within `seconds`, several periods of QUICK_MONITORS."""
    before = story(cluster)
    await cluster.stays(lambda _: story(cluster) == before, f"only {before}", seconds=seconds)


async def comes_to_rest(cluster: ClusterHarness, *, seconds: float = 1.0) -> None:
    """Wait until no start and no stop began for `seconds`."""
    last, since = story(cluster), time.monotonic()

    def rests() -> bool:
        nonlocal last, since
        if (now := story(cluster)) != last:
            last, since = now, time.monotonic()
        return time.monotonic() - since >= seconds

    await cluster.until_true(rests, "an end of starts and stops")


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


def _of(status: Status, key: str, wanted: str) -> Mapping[str, Any]:
    return next(item for item in status[key] if item["id"] == wanted)
