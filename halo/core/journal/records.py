"""What is written down, and the one function that folds it into what is remembered.

The same fold runs at start-up, at run time and on a replica: nothing changes a
:class:`Remembered` but :meth:`Remembered.apply`. A record carries HALO's five fields: time, event,
object, comment, and data that only this fold reads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from halo.core.errors import StateError
from halo.core.model import GroupId, HostId, ResourceId

EVENTS_KEPT = 1000
"""How many events an operator can look back on."""


class Event(StrEnum):
    """The names of what can happen; the first six are those of HALO's state file."""

    MANAGE = "manage"
    UNMANAGE = "unmanage"
    ACTIVATE = "activate"
    DEACTIVATE = "deactivate"
    FENCE = "fence"  # confirmed
    RESET = "reset"

    START = "start"
    STOP = "stop"
    MOVE = "move"
    MOVED = "moved"
    MOVE_FAILED = "move-failed"
    ERROR = "error"
    CLEANUP = "cleanup"
    START_FAILED = "start-failed"
    RESTARTED = "restarted"  # a resource of it that had stopped, or gone bad, by itself
    STOP_COPY = "stop-copy"  # a second copy was stopped, by policy
    AT_REST = "at-rest"  # of a group that is to stay stopped: whether it is known to be so
    CONFIG = "config"  # which groups came into the config, and which are gone from it

    CONNECT = "connect"  # ready: greeted, and a heartbeat was answered
    DISCONNECT = "disconnect"
    RECONNECT = "reconnect"  # greeted; its word does not count yet
    SUSPECT = "suspect"  # an answer is overdue
    ANSWERS = "answers"  # it does again
    NOT_OFF = "not-off"  # fenced, and a sign of life since: it counts as off no more
    RETURN = "return"  # it was away, and is ready again: told once
    FENCE_INTENT = "fence-intent"
    FENCE_FAILED = "fence-failed"
    FENCE_CANCEL = "fence-cancel"
    POWER_ON = "power-on"
    DISTRUST = "distrust"

    FREEZE = "freeze"
    THAW = "thaw"
    CLEAR_EVENTS = "clear-events"  # those before it are history
    SNAPSHOT = "snapshot"
    DEFECT = "defect"  # the manager ended itself


_NOT_SHOWN = frozenset(
    {
        Event.CONNECT,
        Event.DISCONNECT,
        Event.RECONNECT,
        Event.SUSPECT,
        Event.ANSWERS,
        Event.NOT_OFF,
        Event.FENCE_INTENT,
        Event.AT_REST,
        Event.CONFIG,
        Event.SNAPSHOT,
    }
)


@dataclass(frozen=True, slots=True)
class Record:
    """One line of the journal. `at` is seconds since the epoch, for people alone."""

    at: float
    event: Event
    object: str
    comment: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The record as JSON-ready data."""
        return {
            "at": self.at,
            "event": self.event.value,
            "object": self.object,
            "comment": self.comment,
            "data": dict(self.data),
        }

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> Record:
        """Read one record; raises StateError for one this version does not understand."""
        try:
            return Record(
                at=float(raw["at"]),
                event=Event(raw["event"]),
                object=str(raw["object"]),
                comment=str(raw["comment"]),
                data=dict(raw.get("data") or {}),
            )
        except (KeyError, ValueError, TypeError) as error:
            raise _not_understood(raw, error) from error


def _not_understood(raw: Mapping[str, Any], error: Exception) -> StateError:
    return StateError(
        f"the journal holds a record that this version does not understand: {raw!r} "
        f"({error!r}); start the version that wrote it, or restore an older copy"
    )


class ErrorKind(StrEnum):
    """What an error of a group forbids until `cleanup`."""

    SECOND_COPY = "second-copy"  # no action at all
    STOP_FAILED = "stop-failed"  # no move; the resource is left alone
    RESTART_LIMIT = "restart-limit"  # the resource is left alone


class Lifecycle(StrEnum):
    """Where a host stands, as far as was written down."""

    UNSEEN = "unseen"
    READY = "ready"
    SUSPECT = "suspect"
    DISCONNECTED = "disconnected"
    RECONNECTING = "reconnecting"
    FENCED = "fenced"
    FENCE_FAILED = "fence-failed"


_LIFECYCLE_OF = {
    Event.CONNECT: Lifecycle.READY,
    Event.ANSWERS: Lifecycle.READY,
    Event.SUSPECT: Lifecycle.SUSPECT,
    Event.DISCONNECT: Lifecycle.DISCONNECTED,
    Event.RECONNECT: Lifecycle.RECONNECTING,
    Event.FENCE: Lifecycle.FENCED,
    Event.FENCE_FAILED: Lifecycle.FENCE_FAILED,
}


@dataclass(frozen=True, slots=True)
class HostTransition:
    """The last transition of a host's lifecycle. `at` is seconds since the epoch."""

    state: Lifecycle = Lifecycle.UNSEEN
    at: float = 0.0
    reason: str = ""
    away: bool = False  # it was lost from sight, and is not ready again

    def to_json(self) -> dict[str, Any]:
        """The transition as JSON-ready data."""
        return {"state": self.state, "at": self.at, "reason": self.reason, "away": self.away}


@dataclass
class RememberedHost:
    """What is remembered of one host across restarts of the manager."""

    active: bool = True
    fenced: bool = False  # fenced, and not reset since
    fenced_at: float | None = None
    powered_off: bool = False  # a fence was confirmed and the host was not heard of since
    off_level: int | None = None  # the fence level that confirmed it, from 1
    off_agents: list[str] = field(default_factory=list)  # of its devices: the config may change
    fence_intent: str | None = None  # the reason of an intent without an outcome
    fence_automatic: bool | None = None  # was the last intent our own? None: not written down
    fence_cancelled: bool = False  # by the administrator: not fenced by itself before it answers
    connected: bool = False
    seen: bool = False  # was connected since its last reset
    rebooted: bool = False  # `on_loss: reboot` was used up
    reboot_owed: bool = False  # it was powered off by `on_loss: reboot`, and not on again
    distrusted: str | None = None  # why its fence device is not believed
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
    left_alone: dict[HostId, dict[ResourceId, str]] = field(default_factory=dict)  # why, where
    comment: str = ""  # the administrator's last word on it
    at_rest: bool = False  # to stay stopped, and seen so on every candidate

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON-ready data; much faster than `asdict`, which holds up the loop."""
        left_alone = {host: dict(why) for host, why in self.left_alone.items()}
        own = {"start_failures": dict(self.start_failures), "left_alone": left_alone}
        return {**vars(self), **own}


_Memory = TypeVar("_Memory", RememberedHost, RememberedGroup)


class Remembered:
    """The fold of all records so far."""

    def __init__(self) -> None:
        self.hosts: dict[HostId, RememberedHost] = {}
        self.groups: dict[GroupId, RememberedGroup] = {}
        self.lifecycles: dict[HostId, HostTransition] = {}
        self.frozen: str | None = None
        self.configured: dict[GroupId, tuple[HostId, ...]] = {}  # the config's, by candidates
        self.removed: dict[GroupId, tuple[HostId, ...]] = {}  # from it, and not known to be stopped
        self.events: deque[Record] = deque(maxlen=EVENTS_KEPT)
        self._leave_alone_some: set[GroupId] = set()  # and perhaps groups that do so no more

    def host(self, host: HostId) -> RememberedHost:
        """The memory of one host, new when nothing was recorded of it."""
        return self.hosts.setdefault(host, RememberedHost())

    def group(self, group: GroupId) -> RememberedGroup:
        """The memory of one group, new when nothing was recorded of it."""
        return self.groups.setdefault(group, RememberedGroup())

    def lifecycle(self, host: HostId) -> HostTransition:
        """The last transition of one host."""
        return self.lifecycles.get(host, HostTransition())

    def apply(self, record: Record) -> None:
        """Fold one record in. Raises StateError for data this version does not understand."""
        try:
            _FOLDS[record.event](self, record)
            if record.event in _LIFECYCLE_OF:
                self._fold_lifecycle(record)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise _not_understood(record.to_json(), error) from error
        if record.event not in _NOT_SHOWN:
            self.events.append(record)

    def apply_all(self, records: Iterable[Record]) -> None:
        """Fold records in, in their order."""
        for record in records:
            self.apply(record)

    def snapshot(self, at: float) -> Record:
        """One record from which :meth:`apply` makes this very state."""
        return Record(
            at=at,
            event=Event.SNAPSHOT,
            object="",
            data={
                "hosts": {name: host.to_json() for name, host in self.hosts.items()},
                "groups": {name: group.to_json() for name, group in self.groups.items()},
                "lifecycles": {name: last.to_json() for name, last in self.lifecycles.items()},
                "frozen": self.frozen,
                "configured": dict(self.configured),
                "removed": dict(self.removed),
                "events": [record.to_json() for record in self.events],
            },
        )

    def adopt(self, other: Remembered) -> None:
        """Become what `other` is, sharing nothing that changes. What is equal stays as it is: with
        ten thousand groups nearly all are, and the event loop waits meanwhile."""
        _adopt_all(self.hosts, other.hosts)
        _adopt_all(self.groups, other.groups)
        self._leave_alone_some = set(other._leave_alone_some)
        self.lifecycles = dict(other.lifecycles)
        self.frozen = other.frozen
        self.configured, self.removed = dict(other.configured), dict(other.removed)
        self.events = other.events.copy()

    # One method an event, or a few of one kind.

    def _fold_snapshot(self, record: Record) -> None:
        data = record.data
        self.hosts = {name: RememberedHost(**host) for name, host in data["hosts"].items()}
        self.groups = {}
        for name, raw in data["groups"].items():
            group = RememberedGroup(**RememberedGroup(**raw).to_json())  # the record keeps its own
            group.error_kind = ErrorKind(group.error_kind) if group.error_kind else None
            self.groups[name] = group
        self._leave_alone_some = {n for n, group in self.groups.items() if group.left_alone}
        self.lifecycles = {
            name: HostTransition(**{**last, "state": Lifecycle(last["state"])})
            for name, last in data.get("lifecycles", {}).items()
        }
        self.frozen = data["frozen"]
        self.configured = {name: tuple(hosts) for name, hosts in data.get("configured", {}).items()}
        self.removed = {name: tuple(hosts) for name, hosts in data.get("removed", {}).items()}
        self.events = deque(map(Record.from_json, data["events"]), maxlen=EVENTS_KEPT)

    def _fold_managed(self, record: Record) -> None:
        group = self.group(record.object)
        group.managed = record.event is Event.MANAGE
        group.comment = record.comment
        group.at_rest = False

    def _fold_active(self, record: Record) -> None:
        self.host(record.object).active = record.event is Event.ACTIVATE

    def _fold_lifecycle(self, record: Record) -> None:
        state, away = _LIFECYCLE_OF[record.event], self.lifecycle(record.object).away
        if state is Lifecycle.READY:
            away = False
        elif state in (Lifecycle.DISCONNECTED, Lifecycle.FENCED):
            away = self.host(record.object).seen
        self.lifecycles[record.object] = HostTransition(state, record.at, record.comment, away)

    def _fold_connect(self, record: Record) -> None:
        host = self.host(record.object)
        host.connected = host.seen = True
        host.boot_id = str(record.data.get("boot_id") or host.boot_id)
        host.powered_off = host.reboot_owed = host.fence_cancelled = False
        host.fence_intent = None

    def _fold_not_off(self, record: Record) -> None:
        self.host(record.object).powered_off = False

    def _fold_disconnect(self, record: Record) -> None:
        self.host(record.object).connected = False

    def _fold_fence_intent(self, record: Record) -> None:
        host = self.host(record.object)
        host.fence_intent = record.comment or "unknown"
        host.fence_automatic = record.data.get("automatic")
        host.fence_cancelled = False

    def _fold_fence(self, record: Record) -> None:
        host = self.host(record.object)
        host.fenced = host.powered_off = True
        host.fenced_at = record.at
        level = record.data.get("level")
        host.off_level = None if level is None else int(level)
        host.off_agents = [str(agent) for agent in record.data.get("agents", ())]
        host.fence_intent = None
        host.connected = host.fence_cancelled = False
        host.reboot_owed = bool(record.data.get("reboot"))
        for name in self._leave_alone_some:
            self.group(name).left_alone.pop(record.object, None)  # whatever hung there is gone

    def _fold_fence_ended(self, record: Record) -> None:
        self.host(record.object).fence_intent = None

    def _fold_fence_cancel(self, record: Record) -> None:
        host = self.host(record.object)
        host.fence_intent = None
        host.fence_cancelled = not (host.connected or host.powered_off)  # else it came too late

    def _fold_reset(self, record: Record) -> None:
        host = self.host(record.object)
        host.fenced = host.rebooted = host.fence_cancelled = False
        host.fenced_at = None
        host.distrusted = None
        host.seen = host.connected

    def _fold_power_on(self, record: Record) -> None:
        host = self.host(record.object)
        host.powered_off = host.reboot_owed = False
        host.rebooted = host.rebooted or bool(record.data.get("policy"))

    def _fold_distrust(self, record: Record) -> None:
        host = self.host(record.object)
        host.distrusted = record.comment
        host.powered_off = False

    def _fold_wanted(self, record: Record) -> None:
        group = self.group(record.object)
        group.wanted = record.event is Event.START
        group.move_target = None
        group.at_rest = False

    def _fold_at_rest(self, record: Record) -> None:
        self.group(record.object).at_rest = bool(record.data.get("known"))

    def _fold_config(self, record: Record) -> None:
        for name in record.data.get("gone", ()):
            hosts, memory = self.configured.pop(name, ()), self.groups.get(name)
            if memory is None or not memory.at_rest:
                self.removed[name] = hosts
        for name, candidates in record.data.get("groups", {}).items():
            self.configured[name] = tuple(candidates)
            self.removed.pop(name, None)

    def _fold_move(self, record: Record) -> None:
        group = self.group(record.object)
        group.move_target = record.data["to"]

    def _fold_move_ended(self, record: Record) -> None:
        self.group(record.object).move_target = None

    def _fold_error(self, record: Record) -> None:
        group = self.group(record.object)
        group.error = record.comment
        group.error_kind = ErrorKind(record.data["kind"])
        self._leave_alone(group, record)

    def _fold_start_failed(self, record: Record) -> None:
        group = self.group(record.object)
        group.start_failures[record.data["host"]] = record.comment
        self._leave_alone(group, record)

    def _leave_alone(self, group: RememberedGroup, record: Record) -> None:
        """A record that names a resource and a host: it is not started there until cleanup."""
        resource = record.data.get("resource")
        if resource:
            self._leave_alone_some.add(record.object)
            group.left_alone.setdefault(record.data["host"], {})[resource] = record.comment

    def _fold_cleanup(self, record: Record) -> None:
        group = self.group(record.object)
        group.error = group.error_kind = None
        group.start_failures = {}
        group.left_alone = {}
        group.at_rest = False
        self.removed.pop(record.object, None)

    def _fold_freeze(self, record: Record) -> None:
        self.frozen = (
            (record.comment or "no reason given") if record.event is Event.FREEZE else None
        )

    def _fold_nothing(self, record: Record) -> None:
        """For the operator alone."""


def _adopt_all(own: dict[str, _Memory], others: Mapping[str, _Memory]) -> None:
    for name in own.keys() - others.keys():
        del own[name]
    for name, memory in others.items():
        if own.get(name) != memory:
            own[name] = type(memory)(**memory.to_json())


_FOLDS = {
    Event.MANAGE: Remembered._fold_managed,
    Event.UNMANAGE: Remembered._fold_managed,
    Event.ACTIVATE: Remembered._fold_active,
    Event.DEACTIVATE: Remembered._fold_active,
    Event.FENCE: Remembered._fold_fence,
    Event.RESET: Remembered._fold_reset,
    Event.START: Remembered._fold_wanted,
    Event.STOP: Remembered._fold_wanted,
    Event.MOVE: Remembered._fold_move,
    Event.MOVED: Remembered._fold_move_ended,
    Event.MOVE_FAILED: Remembered._fold_move_ended,
    Event.ERROR: Remembered._fold_error,
    Event.CLEANUP: Remembered._fold_cleanup,
    Event.START_FAILED: Remembered._fold_start_failed,
    Event.RESTARTED: Remembered._fold_nothing,
    Event.STOP_COPY: Remembered._fold_nothing,
    Event.AT_REST: Remembered._fold_at_rest,
    Event.CONFIG: Remembered._fold_config,
    Event.RECONNECT: Remembered._fold_not_off,
    Event.SUSPECT: Remembered._fold_nothing,
    Event.ANSWERS: Remembered._fold_nothing,
    Event.NOT_OFF: Remembered._fold_not_off,
    Event.RETURN: Remembered._fold_nothing,
    Event.CONNECT: Remembered._fold_connect,
    Event.DISCONNECT: Remembered._fold_disconnect,
    Event.FENCE_INTENT: Remembered._fold_fence_intent,
    Event.FENCE_FAILED: Remembered._fold_fence_ended,
    Event.FENCE_CANCEL: Remembered._fold_fence_cancel,
    Event.POWER_ON: Remembered._fold_power_on,
    Event.DISTRUST: Remembered._fold_distrust,
    Event.FREEZE: Remembered._fold_freeze,
    Event.THAW: Remembered._fold_freeze,
    Event.CLEAR_EVENTS: Remembered._fold_nothing,
    Event.SNAPSHOT: Remembered._fold_snapshot,
    Event.DEFECT: Remembered._fold_nothing,
}
