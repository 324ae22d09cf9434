"""The one fold: how each record changes the memory.

The same fold runs at start-up, at run time and on a replica. Each kind of record has one small
handler in :data:`HANDLERS`, or is named in :data:`CHANGES_NOTHING`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from halo.core.errors import StateError
from halo.core.journal.places import places
from halo.core.journal.records import Event, Record, not_understood
from halo.core.journal.remembered import (
    ErrorKind,
    HostTransition,
    Lifecycle,
    Remembered,
    RememberedGroup,
)
from halo.core.model import GroupId, HostId

Handler: TypeAlias = Callable[[Remembered, Record], None]

NOT_SHOWN = frozenset(
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
        Event.SEEN_STOPPED,
        Event.MAY_RUN,
        Event.SNAPSHOT,
    }
)
"""Events that are not shown to an operator: they are the manager's own notes."""

CHANGES_NOTHING = frozenset(
    {
        Event.RESTARTED,
        Event.STOP_COPY,
        Event.RETURN,
        Event.CLEAR_EVENTS,
        Event.DEFECT,
    }
)
"""Events for the operator only: no memory of a host, a group or the cluster depends on them."""


def apply(remembered: Remembered, record: Record) -> None:
    """Fold one record in. Raises StateError for data that this version does not understand, and for
    a record of a leadership that had ended."""
    if 0 < record.term < remembered.term:
        raise _of_an_earlier_term(record, remembered.term)
    remembered.changes += 1
    try:
        if record.event not in CHANGES_NOTHING:
            HANDLERS[record.event](remembered, record)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise not_understood(record.to_json(), error) from error
    remembered.term = max(remembered.term, record.term)
    if record.event not in NOT_SHOWN:
        remembered.events.append(record)


def _of_an_earlier_term(record: Record, highest: int) -> StateError:
    """No leader writes such a record: the guard of the store forbids it. A record without a term is
    that of a single manager, which may go on with an exported journal."""
    return StateError(
        f"the journal is damaged: the record {record.event} of {record.object!r} has the term "
        f"{record.term}, but a record before it has the higher term {highest}. Two journals were "
        "mixed; restore a copy of one"
    )


def apply_all(remembered: Remembered, records: Iterable[Record]) -> None:
    """Fold records in, in their order."""
    for record in records:
        apply(remembered, record)


# --- hosts ------------------------------------------------------------------------------------


def _active(remembered: Remembered, record: Record) -> None:
    remembered.host(record.object).active = record.event is Event.ACTIVATE


def _connect(remembered: Remembered, record: Record) -> None:
    host = remembered.host(record.object)
    host.connected = host.seen = True
    host.boot_id = str(record.data.get("boot_id") or host.boot_id)
    host.powered_off = host.reboot_owed = host.fence_cancelled = False
    host.fence_intent = None
    _comes_to(Lifecycle.READY, remembered, record)


def _disconnect(remembered: Remembered, record: Record) -> None:
    remembered.host(record.object).connected = False
    _comes_to(Lifecycle.DISCONNECTED, remembered, record)


def _reconnect(remembered: Remembered, record: Record) -> None:
    _not_off(remembered, record)
    _comes_to(Lifecycle.RECONNECTING, remembered, record)


def _suspect(remembered: Remembered, record: Record) -> None:
    _comes_to(Lifecycle.SUSPECT, remembered, record)


def _answers(remembered: Remembered, record: Record) -> None:
    _comes_to(Lifecycle.READY, remembered, record)


def _not_off(remembered: Remembered, record: Record) -> None:
    remembered.host(record.object).powered_off = False


def _fence_intent(remembered: Remembered, record: Record) -> None:
    host = remembered.host(record.object)
    host.fence_intent = record.comment or "unknown"
    host.fence_automatic = record.data.get("automatic")
    host.fence_cancelled = False


def _fence(remembered: Remembered, record: Record) -> None:
    host = remembered.host(record.object)
    host.fenced = host.powered_off = True
    host.fenced_at = record.at
    level = record.data.get("level")
    host.off_level = None if level is None else int(level)
    host.off_agents = [str(agent) for agent in record.data.get("agents", ())]
    host.fence_intent = None
    host.connected = host.fence_cancelled = False
    host.reboot_owed = bool(record.data.get("reboot"))
    remembered.nothing_hangs_on(record.object)
    _comes_to(Lifecycle.FENCED, remembered, record)


def _fence_failed(remembered: Remembered, record: Record) -> None:
    remembered.host(record.object).fence_intent = None
    _comes_to(Lifecycle.FENCE_FAILED, remembered, record)


def _fence_cancel(remembered: Remembered, record: Record) -> None:
    host = remembered.host(record.object)
    host.fence_intent = None
    host.fence_cancelled = not (host.connected or host.powered_off)  # else it came too late


def _reset(remembered: Remembered, record: Record) -> None:
    host = remembered.host(record.object)
    host.fenced = host.rebooted = host.fence_cancelled = False
    host.fenced_at = None
    host.distrusted = None
    host.seen = host.connected


def _power_on(remembered: Remembered, record: Record) -> None:
    host = remembered.host(record.object)
    host.powered_off = host.reboot_owed = False
    host.rebooted = host.rebooted or bool(record.data.get("policy"))


def _distrust(remembered: Remembered, record: Record) -> None:
    host = remembered.host(record.object)
    host.distrusted = record.comment
    host.powered_off = False


def _comes_to(state: Lifecycle, remembered: Remembered, record: Record) -> None:
    away = remembered.lifecycle(record.object).away
    if state is Lifecycle.READY:
        away = False
    elif state in (Lifecycle.DISCONNECTED, Lifecycle.FENCED):
        away = remembered.host(record.object).seen
    remembered.lifecycles[record.object] = HostTransition(state, record.at, record.comment, away)


# --- groups -----------------------------------------------------------------------------------


def _managed(remembered: Remembered, record: Record) -> None:
    group = remembered.group(record.object)
    group.managed = record.event is Event.MANAGE
    group.comment = record.comment
    group.at_rest = False


def _wanted(remembered: Remembered, record: Record) -> None:
    group = remembered.group(record.object)
    group.wanted = record.event is Event.START
    group.move_target = None
    group.at_rest = False


def _at_rest(remembered: Remembered, record: Record) -> None:
    """An order of before may stand between the decision and this record: the group may run since.
    If it counted as stopped everywhere, a change of the config would forget where it runs (S1)."""
    group = remembered.group(record.object)
    may_run = group.wanted or not group.managed
    group.at_rest = bool(record.data.get("known")) and not may_run


def _move(remembered: Remembered, record: Record) -> None:
    group = remembered.group(record.object)
    group.move_target = record.data["to"]
    _leaves_unknown(group, [record.data["to"]])


def _move_ended(remembered: Remembered, record: Record) -> None:
    """The move to this host has ended. A command may have named another target meanwhile, and be
    before this record on disk: that move has not ended."""
    group = remembered.group(record.object)
    if record.data.get("host", group.move_target) == group.move_target:
        group.move_target = None


def _error(remembered: Remembered, record: Record) -> None:
    group = remembered.group(record.object)
    group.error = record.comment
    group.error_kind = ErrorKind(record.data["kind"])
    _leave_alone(remembered, record)


def _start_failed(remembered: Remembered, record: Record) -> None:
    group = remembered.group(record.object)
    group.start_failures[record.data["host"]] = record.comment
    _leave_alone(remembered, record)


def _leave_alone(remembered: Remembered, record: Record) -> None:
    """The resource of this record is not started on the record's host until cleanup."""
    resource = record.data.get("resource")
    if resource:
        remembered.leave_alone(record.object, resource, record.data["host"], record.comment)


def _cleanup(remembered: Remembered, record: Record) -> None:
    group = remembered.group(record.object)
    group.error = group.error_kind = None
    group.start_failures = {}
    group.left_alone = {}
    group.at_rest = False
    remembered.forget_removed(record.object)


def _seen_stopped(remembered: Remembered, record: Record) -> None:
    for name, hosts in record.data["on"].items():
        group = remembered.group(name)
        for host in hosts:
            _not_there(group, host)
            if host in remembered.configured.get(name, ()) and host not in group.stopped_on:
                group.stopped_on.append(host)


def _may_run(remembered: Remembered, record: Record) -> None:
    for name, hosts in record.data["on"].items():
        group, candidates = remembered.group(name), remembered.configured.get(name)
        _leaves_unknown(group, hosts)
        group.at_rest = False
        for host in hosts:
            if candidates is not None and host not in candidates:
                group.former.setdefault(host, name)


def _leaves_unknown(group: RememberedGroup, hosts: Iterable[HostId]) -> None:
    """From now on, the group may run on these hosts."""
    group.stopped_on = [host for host in group.stopped_on if host not in hosts]


def _confirm_stopped(remembered: Remembered, record: Record) -> None:
    _not_there(remembered.group(record.object), record.data["host"])


def _not_there(group: RememberedGroup, host: HostId) -> None:
    group.former.pop(host, None)


# --- the cluster ------------------------------------------------------------------------------


def _config(remembered: Remembered, record: Record) -> None:
    data = record.data
    for name in data.get("gone", ()):
        _gone(remembered, name)
    for name, candidates in data.get("groups", {}).items():
        remembered.configured[name] = tuple(candidates)
        remembered.removed.pop(name, None)
    for name, services in data.get("services", {}).items():
        remembered.services[name] = dict(services)
    for name, former in data.get("former", {}).items():
        remembered.group(name).former = dict(former)
    for name, hosts in data.get("stopped_on", {}).items():
        remembered.group(name).stopped_on = list(hosts)
    for name in data.get("unsettled", {}):
        remembered.group(name).at_rest = False
    for name, orders in data.get("orders", {}).items():
        _take_orders(remembered.group(name), orders)
    for name in data.get("taken_over", ()):
        remembered.forget_removed(name)
    for resource, what in data.get("dropped", {}).items():
        before = remembered.removed.get(resource, ())
        remembered.removed[resource] = tuple(dict.fromkeys([*before, *what["hosts"]]))
        remembered.services.setdefault(resource, {})[resource] = what["digest"]


def _take_orders(group: RememberedGroup, orders: dict[str, Any]) -> None:
    """The group has services of groups for which these orders hold."""
    if not orders.get("managed", True):
        group.managed, group.comment = False, str(orders.get("comment", ""))
    if not orders.get("wanted", True):
        group.wanted = False
    if orders.get("error"):
        group.error, group.error_kind = str(orders["error"]), ErrorKind.SECOND_COPY


def _gone(remembered: Remembered, name: GroupId) -> None:
    """The group is not in the config any more. Remember where it may run, if anywhere."""
    hosts, memory = tuple(places(remembered, name)), remembered.groups.get(name)
    remembered.configured.pop(name, None)
    if memory is not None:
        memory.stopped_on, memory.former = [], {}
    if hosts:
        remembered.removed[name] = hosts
    else:
        remembered.services.pop(name, None)


def _freeze(remembered: Remembered, record: Record) -> None:
    remembered.frozen = record.comment or "no reason given"


def _thaw(remembered: Remembered, record: Record) -> None:
    remembered.frozen = None


def _snapshot(remembered: Remembered, record: Record) -> None:
    remembered.restore(record.data)


HANDLERS: dict[Event, Handler] = {
    Event.ACTIVATE: _active,
    Event.DEACTIVATE: _active,
    Event.CONNECT: _connect,
    Event.DISCONNECT: _disconnect,
    Event.RECONNECT: _reconnect,
    Event.SUSPECT: _suspect,
    Event.ANSWERS: _answers,
    Event.NOT_OFF: _not_off,
    Event.FENCE_INTENT: _fence_intent,
    Event.FENCE: _fence,
    Event.FENCE_FAILED: _fence_failed,
    Event.FENCE_CANCEL: _fence_cancel,
    Event.RESET: _reset,
    Event.POWER_ON: _power_on,
    Event.DISTRUST: _distrust,
    Event.MANAGE: _managed,
    Event.UNMANAGE: _managed,
    Event.START: _wanted,
    Event.STOP: _wanted,
    Event.AT_REST: _at_rest,
    Event.MOVE: _move,
    Event.MOVED: _move_ended,
    Event.MOVE_FAILED: _move_ended,
    Event.ERROR: _error,
    Event.START_FAILED: _start_failed,
    Event.CLEANUP: _cleanup,
    Event.CONFIG: _config,
    Event.SEEN_STOPPED: _seen_stopped,
    Event.MAY_RUN: _may_run,
    Event.CONFIRM_STOPPED: _confirm_stopped,
    Event.FREEZE: _freeze,
    Event.THAW: _thaw,
    Event.SNAPSHOT: _snapshot,
}
