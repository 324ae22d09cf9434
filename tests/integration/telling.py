"""What scenarios say of a cluster beyond its verbs: what operators are told, what scripts did."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from tests.integration.cluster import ClusterHarness, Status

QUICK_MONITORS = ("--manage-resources", "--fence-on-connection-close", "--sleep-time", "200")
"""For scenarios that wait for a monitor."""


async def until_says(cluster: ClusterHarness, group: str, *words: str, **fields: Any) -> str:
    """Wait until a group's comment holds all these words (and its fields are as told); returns
    the comment."""

    def shows(status: Status) -> bool:
        found = _of(status, "groups", group)
        comment = found["comment"] or ""
        return all(word in comment for word in words) and all(
            found[key] == value for key, value in fields.items()
        )

    status = await cluster.until_status(shows, f"{group} says {words} and is {fields}")
    return str(_of(status, "groups", group)["comment"])


async def until_host_says(cluster: ClusterHarness, host: str, *words: str) -> str:
    """Wait until a host's comment holds all these words; returns the comment."""

    def shows(status: Status) -> bool:
        comment = _of(status, "hosts", host)["comment"] or ""
        return all(word in comment for word in words)

    status = await cluster.until_status(shows, f"{host} says {words}")
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


async def ask(cluster: ClusterHarness, *arguments: str) -> str:
    """Run a `halo` command that succeeds without a word on stderr; returns what it prints."""
    result = await cluster.halo(*arguments)
    assert (result.code, result.stderr) == (0, ""), result
    return result.stdout


async def refused(cluster: ClusterHarness, *arguments: str) -> str:
    """Run a `halo` command that is refused; returns why. The refusal changed nothing (S8)."""
    before = wanted_state(await cluster.status())
    result = await cluster.halo(*arguments)
    assert (result.code, result.stdout) == (1, ""), result
    assert wanted_state(await cluster.status()) == before
    return result.stderr


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


def _of(status: Status, key: str, wanted: str) -> Mapping[str, Any]:
    return next(item for item in status[key] if item["id"] == wanted)
