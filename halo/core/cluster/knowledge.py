"""What is known of every resource on every host, and how it came to be known.

Knowledge belongs to a connection. `epoch` counts a host's connections. When a connection ends,
everything that was learnt over it becomes Unknown. After a confirmed fence, everything on the host
is Stopped until the host gives a sign of life. What was *last seen* is kept beyond both. It is
shown to people, and it serves the rule that a host with an unmanaged group is not fenced. A start
is never based on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from halo.core.model import GroupId, HostId, Resource, ResourceGroup, ResourceId


class Presence(StrEnum):
    """What is known of a resource, or of a group, on one host."""

    UNKNOWN = "Unknown"
    STOPPED = "Stopped"
    RUNNING = "Running"
    ERROR = "Error"  # for resources only: the last monitor proves nothing


@dataclass(slots=True)
class Sighting:
    """What was last learnt of one resource on one host. Times are monotonic seconds."""

    presence: Presence = Presence.UNKNOWN
    reason: str = "not probed yet"
    begun_at: float = float("-inf")  # when the monitor was sent that found this
    epoch: int = 0
    last_seen: Presence = Presence.UNKNOWN  # survives the loss of the connection
    failure: str | None = None  # a failed start or stop, until cleanup
    reports: int = 0  # how many reports of watching agents were taken in
    void_before: float = float("-inf")  # answers to questions sent before this do not count
    of_setup: bool = False  # an ERROR whose cause must be corrected on the host or in the config


NO_SIGHTING = Sighting()
"""The sighting of a resource that was never heard of. Do not change it."""

_NOWHERE: Mapping[GroupId, int] = {}


def presence_of(group: ResourceGroup, sightings: Mapping[ResourceId, Sighting]) -> Presence:
    """The presence of the group on one host. `sightings` are those of that host. Running if any
    exclusive resource is present, Stopped if all are known to be stopped."""
    found = Presence.STOPPED
    for resource in group.exclusive:
        presence = sightings.get(resource.id, NO_SIGHTING).presence
        if presence is Presence.RUNNING:
            return presence
        if presence is not Presence.STOPPED:
            found = Presence.UNKNOWN
    return found


class Knowledge:
    """All sightings. Every write names the connection over which it was learnt."""

    def __init__(self) -> None:
        self._sightings: dict[HostId, dict[ResourceId, Sighting]] = {}
        self._root_seen: dict[HostId, dict[GroupId, int]] = {}  # with the epoch of the host
        self._changes: dict[HostId, int] = {}

    def changes_on(self, host: HostId) -> int:
        """A number that grows with every change of what is known to run on the host. As long as it
        is the same, the presence of every resource there is the same."""
        return self._changes.get(host, 0)

    def _changed(self, host: HostId) -> None:
        self._changes[host] = self._changes.get(host, 0) + 1

    def of(self, resource: ResourceId, host: HostId) -> Sighting:
        """What is known of one resource on one host. Do not change it."""
        return self._sightings.get(host, {}).get(resource, NO_SIGHTING)

    def on_host(self, host: HostId) -> Mapping[ResourceId, Sighting]:
        """What is known of each resource on one host. Do not change it."""
        return self._sightings.get(host, {})

    def _entry(self, resource: ResourceId, host: HostId) -> Sighting:
        sightings = self._sightings.setdefault(host, {})
        entry = sightings.get(resource)
        if entry is None:
            entry = sightings[resource] = Sighting()
        return entry

    def is_outdated(self, resource: Resource, host: HostId, *, epoch: int, begun_at: float) -> bool:
        """Is this answer too old to count? It is if its question was sent before the question that
        was answered last, or before the group had to be probed again."""
        entry = self.of(resource.id, host)
        return begun_at < entry.void_before or (entry.epoch == epoch and begun_at < entry.begun_at)

    def observe(
        self,
        resource: Resource,
        host: HostId,
        presence: Presence,
        *,
        epoch: int,
        begun_at: float,
        reason: str = "",
        of_setup: bool = False,
    ) -> bool:
        """Note what a monitor, start or stop showed. Returns True if the presence changed."""
        if self.is_outdated(resource, host, epoch=epoch, begun_at=begun_at):
            return False
        entry = self._entry(resource.id, host)
        changed = entry.presence is not presence
        if changed:
            self._changed(host)
        entry.presence = presence
        entry.reason = reason
        entry.of_setup = of_setup
        entry.begun_at = begun_at
        entry.epoch = epoch
        if presence in (Presence.RUNNING, Presence.STOPPED):
            entry.last_seen = presence
        return changed

    def report(
        self,
        resource: Resource,
        host: HostId,
        presence: Presence,
        *,
        epoch: int,
        reason: str,
        of_setup: bool = False,
    ) -> bool:
        """Note what a watching agent reported. Returns True if the presence changed.

        A report was not asked for, so it is never proof. If it changes what was known, nothing
        remains that a start could be based on."""
        entry = self._entry(resource.id, host)
        changed = entry.presence is not presence or entry.epoch != epoch
        entry.reports += 1
        if changed:
            self._changed(host)
            entry.begun_at = float("-inf")
        entry.presence = presence
        entry.reason = reason
        entry.of_setup = of_setup
        entry.epoch = epoch
        if presence in (Presence.RUNNING, Presence.STOPPED):
            entry.last_seen = presence
        return changed

    def note_starting(
        self, resource: Resource, host: HostId, *, epoch: int, begun_at: float
    ) -> None:
        """A start was sent: until the answer comes, it is unknown whether the resource runs."""
        self._changed(host)
        entry = self._entry(resource.id, host)
        entry.presence = Presence.UNKNOWN
        entry.reason = "starting"
        entry.begun_at = begun_at
        entry.epoch = epoch
        entry.last_seen = Presence.RUNNING

    def is_seen_running(self, resource: Resource, host: HostId, epoch: int) -> bool:
        """Was it running there when last looked at, over connection `epoch`?"""
        entry = self.of(resource.id, host)
        return entry.epoch == epoch and entry.presence is Presence.RUNNING

    def mark_failure(self, resource: ResourceId, host: HostId, text: str | None) -> None:
        """Show a failed start or stop beside what monitors say; None clears it."""
        self._entry(resource, host).failure = text

    def note_root_running(self, group: ResourceGroup, host: HostId, epoch: int) -> None:
        """The root was seen running here over connection `epoch`. This replaces other hosts."""
        for other in group.hosts:
            self.forget_root(group, other)
        self._root_seen.setdefault(host, {})[group.id] = epoch

    def note_seen_elsewhere(self, group: ResourceGroup, elsewhere: HostId) -> None:
        """Something of the group was seen on `elsewhere`: no other host may complete the group."""
        for other in group.hosts:
            if other != elsewhere:
                self.forget_root(group, other)

    def root_seen(self, group: ResourceGroup, host: HostId, epoch: int) -> bool:
        """Was the root seen running here over this connection, and nothing elsewhere since?"""
        return self._root_seen.get(host, _NOWHERE).get(group.id) == epoch

    def forget_root(self, group: ResourceGroup, host: HostId) -> None:
        """The group is leaving this host: the next start here needs proof again."""
        if (seen := self._root_seen.get(host)) is not None:
            seen.pop(group.id, None)

    def drop_host(self, host: HostId, reason: str) -> None:
        """The connection ended, or a new one began: nothing is known of this host."""
        self._changed(host)
        for entry in self._sightings.get(host, {}).values():
            entry.presence = Presence.UNKNOWN
            entry.reason = reason
            entry.begun_at = float("-inf")
        self._root_seen.pop(host, None)

    def drop_group(
        self, group: ResourceGroup, reason: str, *, now: float, forgive: bool = True
    ) -> None:
        """Have a group probed again. What is known of it does not count any more. Later answers to
        questions sent before `now` do not count either.

        `forgive`: forget the group's failures, too."""
        for host in group.hosts:
            self._changed(host)
            for resource in group.resources:
                entry = self._entry(resource.id, host)
                entry.presence = Presence.UNKNOWN
                entry.reason = reason
                entry.begun_at = float("-inf")
                entry.void_before = now
                if forgive:
                    entry.failure = None
            self.forget_root(group, host)

    def host_fenced(self, host: HostId, resources: list[Resource]) -> None:
        """A fence of this host was confirmed: nothing runs there."""
        self.drop_host(host, "fenced")  # notes the change, too
        for resource in resources:
            entry = self._entry(resource.id, host)
            entry.presence = entry.last_seen = Presence.STOPPED
            entry.reason = "the host was fenced"
            entry.failure = None

    def presence(self, group: ResourceGroup, host: HostId) -> Presence:
        """What is known of a group on one host."""
        return presence_of(group, self.on_host(host))

    def running_on(self, group: ResourceGroup) -> list[HostId]:
        """The hosts on which something exclusive of the group is seen running."""
        sightings, nothing = self._sightings, dict[ResourceId, Sighting]()
        return [
            host
            for host in group.hosts
            if presence_of(group, sightings.get(host, nothing)) is Presence.RUNNING
        ]
