"""Why a group that should run is not started: one reason at a time, as a value.

The gate (:mod:`halo.core.groups.placement`) decides on it, the placer keeps it with the group, and
the status and `halo why` show it. So an operator sees the reason that the manager acted on. What is
missing on one host is worded in :mod:`halo.core.questions`, where it is found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from halo.core.model import GroupId, HostId


class Kind(StrEnum):
    """The kinds of reasons, in order of precedence: the first one that holds is the reason."""

    HELD = "Held"  # nothing at all is done: unmanaged, frozen, observe mode, an error
    PROOF = "Proof"  # it is not proven stopped on every other host (S1)
    DEPENDENCY = "Dependency"  # a group that it is started after does not run
    NO_ELIGIBLE_HOST = "NoEligibleHost"  # no candidate can take it
    HOST_CAPACITY = "HostCapacity"  # a candidate could take it, and none has room for it
    TURN = "Turn"  # its host starts other groups first


IN_LINE = (Kind.HOST_CAPACITY, Kind.TURN)
"""The group could be started, and waits behind others."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason to wait. `ends_when` completes the sentence "The wait ends when ...".

    `hosts` and `groups` have what is wrong with each host and group that the reason is about."""

    kind: Kind
    text: str
    ends_when: str
    hosts: Mapping[HostId, str] = field(default_factory=dict)
    groups: Mapping[GroupId, str] = field(default_factory=dict)

    def is_same_wait(self, other: Reason) -> bool:
        """Does the wait for the other reason go on with this one? The words may change meanwhile.

        A hold ends, and another begins, if something else would end it."""
        if self.kind is not other.kind:
            return False
        return self.kind is not Kind.HELD or self.ends_when == other.ends_when

    def with_words(self, more: str) -> Reason:
        """The same reason with more words at its end."""
        return replace(self, text=self.text + more) if more else self


@dataclass(frozen=True, slots=True)
class Waiting:
    """The reason on record for one group, and since when it waits for it (monotonic seconds)."""

    reason: Reason
    since: float


def held(text: str, ends_when: str, hosts: Mapping[HostId, str] | None = None) -> Reason:
    """Nothing is done with the group before somebody ends this."""
    return Reason(Kind.HELD, text, ends_when, hosts or {})


def held_by_error(group: GroupId, text: str, hosts: Mapping[HostId, str] | None = None) -> Reason:
    """An error keeps the group from being started. Only an operator can end this."""
    remedy = f"the cause is removed, and then somebody runs `halo cleanup {group}`"
    return held(text, remedy, hosts)


def unproven(group: GroupId, text: str, hosts: Mapping[HostId, str]) -> Reason:
    """The group may still run on these hosts."""
    where = " and ".join(hosts)
    return Reason(Kind.PROOF, text, f"{group} is proven stopped on {where}", hosts)


def not_looked_at(running_on: HostId, text: str, hosts: Mapping[HostId, str]) -> Reason:
    """The group is seen running, and HALO may not act on it there yet."""
    where = " and ".join(hosts)
    ends = f"HALO knows more of {where}; the group runs on {running_on} meanwhile"
    return Reason(Kind.PROOF, text, ends, hosts)


def not_recorded(group: GroupId, host: HostId) -> Reason:
    """The journal does not have it yet that the group may run on this host."""
    text = f"HALO first records in its journal that {group} may run on {host}"
    ends = "the journal has this record, or has given no answer for a second"
    return Reason(Kind.PROOF, text, ends, {host: "its record is being written"})


def dependency(group: GroupId, groups: Mapping[GroupId, str]) -> Reason:
    """The group is started after these groups, and they do not run."""
    names = " and ".join(groups)
    text = f"{group} is started after {names}: {'; '.join(groups.values())}"
    ends_when = f"{names} {'runs' if len(groups) == 1 else 'run'}"
    return Reason(Kind.DEPENDENCY, text, ends_when, groups=groups)


def company(group: GroupId, groups: Mapping[GroupId, str]) -> Reason:
    """The group is started only where these groups run, and they run nowhere."""
    names = " and ".join(groups)
    text = f"{group} is started together with {names}: {'; '.join(groups.values())}"
    ends_when = f"{names} {'runs' if len(groups) == 1 else 'run'}"
    return Reason(Kind.DEPENDENCY, text, ends_when, groups=groups)


def host_capacity(
    group: GroupId, hosts: Mapping[HostId, str], groups: Mapping[GroupId, str] | None = None
) -> Reason:
    """Candidates could take the group, and none of them has room for it. `groups` give way to it,
    or have its room."""
    text = f"no host has room for {group}: {'; '.join(hosts.values())}"
    return Reason(Kind.HOST_CAPACITY, text, f"a host has room for {group}", hosts, groups or {})


def turn(group: GroupId, host: HostId, text: str) -> Reason:
    """The host would start the group, and starts others first."""
    return Reason(Kind.TURN, text, f"it is the turn of {group} on {host}", {host: text})


def no_eligible_host(text: str, hosts: Mapping[HostId, str]) -> Reason:
    """None of the candidates can take the group."""
    if len(hosts) == 1:
        return Reason(Kind.NO_ELIGIBLE_HOST, text, f"{next(iter(hosts))} can take it", hosts)
    return Reason(Kind.NO_ELIGIBLE_HOST, text, f"one of {', '.join(hosts)} can take it", hosts)
