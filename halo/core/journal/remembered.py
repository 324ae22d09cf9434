"""The memory across restarts of the manager: the values that the fold makes of all records.

Only :mod:`halo.core.journal.fold` changes a :class:`Remembered`. All others read it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias, TypeVar

from halo.core.journal.records import Event, Record, term_in
from halo.core.model import GroupId, HostId, ResourceId

Services: TypeAlias = dict[ResourceId, str]
"""The exclusive resources of a group: their ids, each with a digest of kind and parameters."""

EVENTS_KEPT = 1000
"""How many events are kept for an operator."""


class ErrorKind(StrEnum):
    """What an error of a group forbids until `cleanup`."""

    SECOND_COPY = "second-copy"  # no action at all
    STOP_FAILED = "stop-failed"  # no move; the resource is not touched
    RESTART_LIMIT = "restart-limit"  # the resource is not touched


class Lifecycle(StrEnum):
    """The state of a host, as the journal has it."""

    UNSEEN = "unseen"
    READY = "ready"
    SUSPECT = "suspect"
    DISCONNECTED = "disconnected"
    RECONNECTING = "reconnecting"
    FENCED = "fenced"
    FENCE_FAILED = "fence-failed"


@dataclass(frozen=True, slots=True)
class HostTransition:
    """The last transition of a host's lifecycle. `at` is seconds since the epoch."""

    state: Lifecycle = Lifecycle.UNSEEN
    at: float = 0.0
    reason: str = ""
    away: bool = False  # it went out of sight, and is not ready again

    def to_json(self) -> dict[str, Any]:
        """The transition as JSON-ready data."""
        return {"state": self.state, "at": self.at, "reason": self.reason, "away": self.away}


@dataclass
class RememberedHost:
    """What is remembered of one host across restarts of the manager."""

    active: bool = True
    fenced: bool = False  # fenced, and not reset since
    fenced_at: float | None = None
    powered_off: bool = False  # a fence was confirmed, and the host gave no sign of life since
    off_level: int | None = None  # the fence level that confirmed it, from 1
    off_agents: list[str] = field(default_factory=list)  # of its devices: the config may change
    fence_intent: str | None = None  # the reason of an intent without an outcome
    fence_automatic: bool | None = None  # was the last intent automatic? None: not recorded
    fence_cancelled: bool = False  # by the administrator: no automatic fence before it answers
    connected: bool = False
    seen: bool = False  # it was connected since its last reset
    rebooted: bool = False  # `on_loss: reboot` was used, and there was no reset since
    reboot_owed: bool = False  # `on_loss: reboot` powered it off, but has not powered it on yet
    distrusted: str | None = None  # why HALO does not trust its fence device
    boot_id: str = ""  # of its last connection

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON-ready data; much faster than `asdict`, which holds up the loop."""
        return {**vars(self), "off_agents": list(self.off_agents)}


@dataclass
class RememberedGroup:
    """What is remembered of one group across restarts of the manager."""

    managed: bool = True
    wanted: bool = True
    move_target: HostId | None = None
    error: str | None = None
    error_kind: ErrorKind | None = None
    start_failures: dict[HostId, str] = field(default_factory=dict)
    left_alone: dict[HostId, dict[ResourceId, str]] = field(default_factory=dict)  # with the reason
    comment: str = ""  # of the administrator's last order
    at_rest: bool = False  # it should stay stopped, and was seen stopped on every candidate
    # Candidates: seen stopped there, and since then neither started nor seen there.
    stopped_on: list[HostId] = field(default_factory=list)
    # Where it may run though the host is no candidate any more, or where a service may run that it
    # gained from another group; each with the name of the group at that time.
    former: dict[HostId, GroupId] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON-ready data; much faster than `asdict`, which holds up the loop."""
        left_alone = {host: dict(why) for host, why in self.left_alone.items()}
        return {
            **vars(self),
            "start_failures": dict(self.start_failures),
            "left_alone": left_alone,
            "stopped_on": list(self.stopped_on),
            "former": dict(self.former),
        }


_Memory = TypeVar("_Memory", RememberedHost, RememberedGroup)


class Remembered:
    """The fold of all records so far."""

    def __init__(self) -> None:
        self.hosts: dict[HostId, RememberedHost] = {}
        self.groups: dict[GroupId, RememberedGroup] = {}
        self.lifecycles: dict[HostId, HostTransition] = {}
        self.frozen: str | None = None
        self.changes = 0  # grows with every change
        self.term = 0  # the highest one of all records
        self.configured: dict[GroupId, tuple[HostId, ...]] = {}  # the config's, by candidates
        self.removed: dict[GroupId, tuple[HostId, ...]] = {}  # from it, not known to be stopped
        self.services: dict[GroupId, Services] = {}  # of the groups in `configured` and `removed`
        self.events: deque[Record] = deque(maxlen=EVENTS_KEPT)
        self._leave_alone_some: set[GroupId] = set()  # may hold groups that no longer do

    def host(self, host: HostId) -> RememberedHost:
        """The memory of one host. It is new if nothing was recorded of the host."""
        found = self.hosts.get(host)
        return self.hosts.setdefault(host, RememberedHost()) if found is None else found

    def group(self, group: GroupId) -> RememberedGroup:
        """The memory of one group. It is new if nothing was recorded of the group."""
        found = self.groups.get(group)
        return self.groups.setdefault(group, RememberedGroup()) if found is None else found

    def lifecycle(self, host: HostId) -> HostTransition:
        """The last transition of one host."""
        return self.lifecycles.get(host, HostTransition())

    def leave_alone(self, group: GroupId, resource: ResourceId, host: HostId, why: str) -> None:
        """The resource is not started on that host until cleanup."""
        self._leave_alone_some.add(group)
        self.group(group).left_alone.setdefault(host, {})[resource] = why

    def nothing_hangs_on(self, host: HostId) -> None:
        """Nothing hangs on that host any more: no group leaves a resource alone there."""
        for name in self._leave_alone_some:
            self.group(name).left_alone.pop(host, None)

    def forget_removed(self, group: GroupId) -> None:
        """A group that is not in the config any more runs nowhere, or under another name."""
        if group not in self.configured:
            self.services.pop(group, None)
        self.removed.pop(group, None)

    def snapshot(self, at: float, term: int = 0) -> Record:
        """One record from which :meth:`restore` makes the same state. `term` is that of the manager
        that writes it."""
        return Record(
            at=at,
            event=Event.SNAPSHOT,
            object="",
            term=term,
            data={
                "hosts": {name: host.to_json() for name, host in self.hosts.items()},
                "groups": {name: group.to_json() for name, group in self.groups.items()},
                "lifecycles": {name: last.to_json() for name, last in self.lifecycles.items()},
                "frozen": self.frozen,
                "configured": dict(self.configured),
                "removed": dict(self.removed),
                "services": {name: dict(services) for name, services in self.services.items()},
                "events": [record.to_json() for record in self.events],
                **({"term": self.term} if self.term else {}),
            },
        )

    def restore(self, data: Mapping[str, Any]) -> None:
        """Become what the data of a :meth:`snapshot` say. The data are copied, not shared.

        Raises KeyError, ValueError, TypeError or AttributeError for data of another version, and
        StateError for an event of another version."""
        self.hosts = {name: RememberedHost(**host) for name, host in data["hosts"].items()}
        self.groups = {}
        for name, raw in data["groups"].items():
            group = RememberedGroup(**RememberedGroup(**raw).to_json())  # a copy
            group.error_kind = ErrorKind(group.error_kind) if group.error_kind else None
            self.groups[name] = group
        self._leave_alone_some = {n for n, group in self.groups.items() if group.left_alone}
        self.lifecycles = {
            name: HostTransition(**{**last, "state": Lifecycle(last["state"])})
            for name, last in data.get("lifecycles", {}).items()
        }
        self.frozen = data["frozen"]
        self.term = term_in(data)
        self.configured = {name: tuple(hosts) for name, hosts in data.get("configured", {}).items()}
        self.removed = {name: tuple(hosts) for name, hosts in data.get("removed", {}).items()}
        services = data.get("services", {})
        self.services = {name: dict(found) for name, found in services.items()}
        self.events = deque(map(Record.from_json, data["events"]), maxlen=EVENTS_KEPT)

    def adopt(self, other: Remembered) -> None:
        """Become equal to `other`, without sharing anything that changes. Parts that are equal
        already stay as they are. With ten thousand groups nearly all are, and the event loop waits
        meanwhile."""
        self.changes += 1
        _adopt_all(self.hosts, other.hosts)
        _adopt_all(self.groups, other.groups)
        self._leave_alone_some = set(other._leave_alone_some)
        self.lifecycles = dict(other.lifecycles)
        self.frozen = other.frozen
        self.term = other.term
        self.configured, self.removed = dict(other.configured), dict(other.removed)
        self.services = {name: dict(services) for name, services in other.services.items()}
        self.events = other.events.copy()


def _adopt_all(own: dict[str, _Memory], others: Mapping[str, _Memory]) -> None:
    for name in own.keys() - others.keys():
        del own[name]
    for name, memory in others.items():
        if own.get(name) != memory:
            own[name] = type(memory)(**memory.to_json())
