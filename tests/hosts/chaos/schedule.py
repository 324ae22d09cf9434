"""What is done when: a plan made from a seed alone, so that a seed tells what a run tried.

Bounds that let the cluster recover: in a pair one host at a time is at fault, with a pause after
it; one manager dies at a time; of a pair one group or host is held by a command at a time. Some
acts are `anyhow`: they begin even while their pair has not recovered from the one before.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

HOST_FAULTS = {"power cut": 3, "crash": 4, "partition": 4, "agent hangs": 2}
BMC_FAULTS = ("deaf", "gone", "hung", "password", "slow 6", "refuses", "stays")
COMMANDS = {"move": 5, "failback": 4, "deactivate": 3, "unmanage": 2, "stop": 2, "reset": 1,
            "cleanup": 1}  # fmt: skip
FIRST_S = 2.0
RECOVERY_S = 20.0


@dataclass(frozen=True)
class Pair:
    """Two hosts and what runs on them: of each group the parts that can be made to crash."""

    hosts: tuple[str, str]
    groups: Mapping[str, Sequence[str]]


@dataclass(frozen=True, order=True)
class Act:
    """One thing that is done, and, `lasts_s` later, undone.

    The target of a host's fault may be a group: then it befalls the host that runs it at the time.
    """

    at_s: float
    kind: str
    target: str
    lasts_s: float = 0.0
    detail: str = ""
    anyhow: bool = False

    @property
    def ends_s(self) -> float:
        """When it is undone."""
        return self.at_s + self.lasts_s

    def __str__(self) -> str:
        words = [self.kind, *([f"({self.detail})"] if self.detail else []), "of", self.target]
        return " ".join(words) + (f" for {self.lasts_s:.1f} s" if self.lasts_s else "")


def plan(seed: int, seconds: float, pairs: Sequence[Pair]) -> list[Act]:
    """All acts of a run, in order; each is over when the seconds are."""
    dice = random.Random(seed)
    acts: list[Act] = []
    for pair in pairs:
        acts += _host_faults(dice, seconds, pair)
        acts += _bmc_faults(dice, seconds, pair)
        acts += _commands(dice, seconds, pair)
    groups = {name: parts for pair in pairs for name, parts in pair.groups.items()}
    hosts = [host for pair in pairs for host in pair.hosts]
    acts += [
        Act(at, "resource crash", group, detail=dice.choice(groups[group]))
        for at in _times(dice, seconds, 6, 18)
        for group in [dice.choice(sorted(groups))]
    ]
    acts += [Act(at, "agent kill", dice.choice(hosts)) for at in _times(dice, seconds, 15, 40)]
    acts += _manager_faults(dice, seconds, acts)
    return sorted(act for act in acts if act.ends_s <= seconds)


def _times(dice: random.Random, seconds: float, least: float, most: float) -> Iterator[float]:
    at = FIRST_S + dice.uniform(0, most - least)
    while at < seconds:
        yield at
        at += dice.uniform(least, most)


def _weighted(dice: random.Random, weights: Mapping[str, int]) -> str:
    return dice.choices(list(weights), list(weights.values()))[0]


def _host_faults(dice: random.Random, seconds: float, pair: Pair) -> Iterator[Act]:
    at = FIRST_S + dice.uniform(0, 15)
    while at < seconds:
        kind = _weighted(dice, HOST_FAULTS)
        target = dice.choice([*pair.groups, *pair.groups, dice.choice(pair.hosts)])
        short = kind in ("partition", "agent hangs") and dice.random() < 0.3
        lasts = dice.uniform(0.5, 2.5) if short else dice.uniform(4, 16)
        detail = dice.choice(["both ways", "out", "in"]) if kind == "partition" else ""
        if dice.random() < 0.35:  # and its BMC, or its partner's, does not do as it should
            bmc = dice.choice(pair.hosts)
            fault = dice.choice(BMC_FAULTS)
            yield Act(at - 0.5, "BMC fault", bmc, dice.uniform(5, 15), fault)
        yield Act(at, kind, target, lasts, detail, anyhow=dice.random() < 0.15)
        at += lasts + RECOVERY_S + dice.uniform(0, 15)


def _bmc_faults(dice: random.Random, seconds: float, pair: Pair) -> Iterator[Act]:
    for at in _times(dice, seconds, 40, 90):
        bmc, fault = dice.choice(pair.hosts), dice.choice(BMC_FAULTS)
        yield Act(at, "BMC fault", bmc, dice.uniform(4, 15), fault)


def _commands(dice: random.Random, seconds: float, pair: Pair) -> Iterator[Act]:
    at = FIRST_S + dice.uniform(0, 10)
    while at < seconds:
        kind = _weighted(dice, COMMANDS)
        of_a_host = kind in ("failback", "deactivate", "reset")
        target = dice.choice(pair.hosts if of_a_host else sorted(pair.groups))
        lasts = dice.uniform(2, 10) if kind in ("deactivate", "unmanage", "stop") else 0.0
        yield Act(at, kind, target, lasts)
        at += lasts + dice.uniform(5, 20)


def _manager_faults(dice: random.Random, seconds: float, acts: Sequence[Act]) -> list[Act]:
    """The manager dies now and then, and soon after faults: amid what it does about them."""
    wanted = list(_times(dice, seconds, 30, 90))
    wanted += [
        act.at_s + dice.uniform(0.5, 8)
        for act in acts
        if act.kind in HOST_FAULTS and dice.random() < 0.15
    ]
    found: list[Act] = []
    for at in sorted(wanted):
        if not found or at > found[-1].ends_s + 5:
            lasts = dice.uniform(0.2, 6)
            kind = "manager kill" if dice.random() < 0.85 else "manager cut off"
            found.append(Act(at, kind, "manager", lasts))
    return found
