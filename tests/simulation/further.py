"""Further kinds of faults, each planned from a random stream of its own.

So the plans of the seeds stay as they were, and only gain actions. Three seeds in ten have none of
these faults, and the others have each kind with a chance of a quarter.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from tests.simulation.model import Action, GroupPlan

QUIET_SHARE = 0.3
KIND_SHARE = 0.25


class Cluster:
    """What the plans need to know of the cluster."""

    def __init__(
        self,
        hosts: dict[str, dict[str, Any]],
        groups: list[GroupPlan],
        resources: list[tuple[str, tuple[str, ...]]],
    ) -> None:
        self.hosts = list(hosts)
        self.groups = groups
        self.resources = resources


Plan = Callable[[Random, Cluster], dict[str, Any]]
PLANS: dict[str, Plan] = {}
WHEN: dict[str, tuple[str, ...]] = {}
"""The events after which a kind of fault may happen, besides at a given time."""


def _fault(*triggers: str) -> Callable[[Plan], Plan]:
    def register(plan: Plan) -> Plan:
        kind = plan.__name__.removeprefix("_")
        PLANS[kind], WHEN[kind] = plan, triggers
        return plan

    return register


def further_actions(
    seed: int, duration_s: float, sparse: bool, focus: tuple[str, ...], cluster: Cluster
) -> list[Action]:
    """The actions of a seed; with a `focus`, those of its kinds alone."""
    is_quiet = Random(f"{seed}, further faults").random() < QUIET_SHARE
    actions: list[Action] = []
    for kind in PLANS:
        random = Random(f"{seed}, {kind}")
        is_on = random.random() < KIND_SHARE and not is_quiet
        if kind in focus if focus else is_on:
            actions += _actions(kind, random, duration_s, sparse, cluster)
    return actions


def _actions(
    kind: str, random: Random, duration_s: float, sparse: bool, cluster: Cluster
) -> list[Action]:
    pause_s = random.choice([8.0, 15.0, 30.0]) * (60.0 if sparse else 1.0)
    actions: list[Action] = []
    at = random.choice([0.0, 8.0])
    while (at := at + random.expovariate(1 / pause_s)) < duration_s:
        args = PLANS[kind](random, cluster)
        trigger, delay = args.pop("after", ""), 0.0
        if WHEN[kind] and random.random() < 0.5:
            trigger, delay = random.choice(WHEN[kind]), random.choice([0.0, 0.01, 0.3, 1.0])
            if "host" in args and random.random() < 0.7:
                args["host"] = "*"
        actions.append(Action(round(at, 3), kind, args, trigger, delay))
    return actions


def _lasts_s(random: Random) -> float:
    return round(random.choice([0.5, 2.0, 5.0, 10.0, 30.0]) * random.uniform(0.7, 1.3), 3)


# --- fence devices -----------------------------------------------------------------------------


@_fault("fence-off", "fence-off-ended", "fence-status", "fence-status-ended", "off", "disconnected")
def _crossed(random: Random, cluster: Cluster) -> dict[str, Any]:
    """A device that switches, shows, or does both for another host."""
    return {
        "host": random.choice(cluster.hosts),
        "to": random.choice(cluster.hosts),
        "way": random.choice(["both", "status", "switch"]),
        "level": random.randrange(2),
        "number": random.randrange(2),
        "for_s": _lasts_s(random),
    }


@_fault("fence-off", "fence-status", "fence-status-ended", "off", "disconnected")
def _erratic(random: Random, cluster: Cluster) -> dict[str, Any]:
    """A device that answers some questions at once and some late, in any order."""
    return {
        "host": random.choice(cluster.hosts),
        "up_to_s": random.choice([1.0, 3.0, 6.0]),
        "for_s": 4 * _lasts_s(random),
    }


# --- agents ------------------------------------------------------------------------------------

HELD = ("monitor", "start", "stop", "heartbeat", "hello", "watching", "batch")


@_fault("start", "stop", "start-script", "stop-script", "connected")
def _tardy(random: Random, cluster: Cluster) -> dict[str, Any]:
    """An agent that holds some of its answers back, so that later ones overtake them."""
    return {
        "host": random.choice(cluster.hosts),
        "what": random.sample(HELD, random.choice([1, 1, 2, len(HELD)])),
        "up_to_s": random.choice([0.01, 0.3, 1.5, 4.0]),
        "for_s": 2 * _lasts_s(random),
    }


@_fault("start", "start-script", "started", "start-answered", "stop", "stop-script", "stopped",
        "connected")  # fmt: skip
def _blink(random: Random, cluster: Cluster) -> dict[str, Any]:
    """Power lost, and the agent back within 1 to 2 s, before anybody misses the host."""
    host = random.choice(cluster.hosts)
    mine = [resource for resource, hosts in cluster.resources if host in hosts]
    at_boot = random.sample(mine, min(len(mine), random.choice([0, 0, 1, 2])))
    off_s = random.uniform(0.1, 1.0)
    return {
        "host": host,
        "off_s": round(off_s, 3),
        "agent_s": round(random.uniform(1.0, 2.0) - off_s, 3),
        "services": [[name, round(random.uniform(0.0, 2.0), 3)] for name in at_boot],
    }


@_fault()
def _upgrade(random: Random, cluster: Cluster) -> dict[str, Any]:
    """The agent is replaced by one of another version."""
    return {
        "host": random.choice(cluster.hosts),
        "version": random.choice(["old", "plain", "watches", "watches"]),
        "down_s": random.choice([0.05, 0.3, 2.0]),
    }


# --- the manager -------------------------------------------------------------------------------


@_fault("fence-off", "fence-status", "start", "disconnected", "command")
def _vm_pause(random: Random, cluster: Cluster) -> dict[str, Any]:
    """The manager's machine stands still; then all its timers are late at once."""
    return {"for_s": random.choice([0.3, 1.0, 2.5, 5.0, 12.0, 40.0])}


@_fault()
def _backup(random: Random, cluster: Cluster) -> dict[str, Any]:
    """The state file is copied; later the manager is started with the copy."""
    return {
        "restore_s": round(random.choice([1.0, 10.0, 40.0]) * random.uniform(0.5, 1.5), 3),
        "down_s": random.choice([0.1, 2.0, 10.0]),
    }


@_fault("fence-off", "fence-status", "start", "stop", "disconnected")
def _shortage(random: Random, cluster: Cluster) -> dict[str, Any]:
    """No descriptors or no memory: some connections or programs cannot be had, here or there."""
    where = random.choice([random.choice(cluster.hosts), "", ""])
    args = {"share": random.choice([0.5, 1.0]), "for_s": _lasts_s(random)}
    of = random.choice([["connections"], ["programs"], ["connections", "programs"]])
    return {"host": where, **args} if where else {"of": of, **args}


# --- several at once ---------------------------------------------------------------------------

STEPS = (0, 1, 2, 3, 5, 8, 13, 20)
DELAYS = (0.0, 0.0005, 0.002, 0.01, 0.05, 0.3, 1.0)


@_fault()
def _burst(random: Random, cluster: Cluster) -> dict[str, Any]:
    """Two or three faults within one decision: some steps of the manager, or moments, after it."""
    faults = []
    for _ in range(random.choice([1, 2, 2, 3])):
        kind = random.choice([*_SUDDEN, "cut", "cut"])
        found: dict[str, Any] = {"kind": kind, "args": _SUDDEN[kind](random, cluster)}
        if random.random() < 0.5:
            found["steps"] = random.choice(STEPS)
        else:
            found["delay"] = random.choice(DELAYS)
        faults.append(found)
    return {"after": random.choice(DECISIONS), "host": "*", "faults": faults}


DECISIONS = (
    "fence-off", "fence-off-ended", "fence-status", "fence-status-ended", "start", "stop",
    "start-script", "start-answered", "stop-answered", "monitor-answered", "reported", "connected",
    "disconnected", "command", "record-fence-intent", "record-fence", "record-fence-failed",
    "record-move", "record-moved", "record-stop", "record-start", "record-connect",
    "record-error", "record-start-failed", "record-unmanage", "record-deactivate",
)  # fmt: skip
"""Events in the middle of a decision: what follows has not been done yet."""


def _seconds(random: Random) -> float:
    return random.choice([0.2, 1.0, 2.5, 4.0, 10.0])


def _here(random: Random, cluster: Cluster) -> dict[str, Any]:
    return {"host": "*"}


def _here_for(random: Random, cluster: Cluster) -> dict[str, Any]:
    return {"host": "*", "for_s": _seconds(random)}


def _for(random: Random, cluster: Cluster) -> dict[str, Any]:
    return {"for_s": _seconds(random)}


def _command(random: Random, cluster: Cluster) -> dict[str, Any]:
    group = random.choice(cluster.groups)
    name = random.choice(["stop", "unmanage", "move", "cleanup", "deactivate", "freeze", "fence",
                          "cancel-fence", "reset"])  # fmt: skip
    if name in ("stop", "unmanage", "cleanup"):
        return {"name": name, "object": group.tree[0][0]}
    if name == "move":
        return {"name": name, "object": group.tree[0][0], "to": random.choice(group.candidates)}
    if name == "freeze":
        return {"name": name, "for_s": 5.0}
    return {"name": name, "object": random.choice(cluster.hosts)}


_SUDDEN: dict[str, Plan] = {
    "power_off": lambda random, _: {"host": "*", "back_s": random.choice([0.0, 5.0])},
    "blink": lambda random, _: {"host": "*", "off_s": 0.3, "agent_s": 0.9, "services": []},
    "agent_crash": _here_for,
    "agent_hang": _here_for,
    "refuse": _here_for,
    "reset": _here,
    "cut": _here,
    "hole": lambda random, _: {
        "host": "*",
        "way": random.choice(["to", "from", "both"]),
        "for_s": _seconds(random),
    },
    "manager_crash": lambda random, _: {
        "steps": random.choice([0, 0, 1, 2, 5]),
        "down_s": random.choice([0.1, 1.0, 5.0]),
        "observe": False,
    },
    "manager_stall": _for,
    "disk_hang": _for,
    "disk_full": _for,
    "die": lambda random, cluster: {"resource": random.choice(cluster.resources)[0]},
    "device": lambda random, _: {
        "host": "*",
        "level": 0,
        "number": 0,
        "fault": random.choice(["fail", "hang", "late", "no-effect"]),
        "for_s": _seconds(random),
    },
    "command": _command,
}
"""Kinds of faults that change what a decision stands on."""
