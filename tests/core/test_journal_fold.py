"""The one fold: what each record does to what is remembered, and that a snapshot loses nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halo.core.errors import StateError
from halo.core.journal.fold import CHANGES_NOTHING, HANDLERS, apply, apply_all
from halo.core.journal.places import config_change, services_of
from halo.core.journal.records import Event, Record
from halo.core.journal.remembered import (
    EVENTS_KEPT,
    ErrorKind,
    Remembered,
    RememberedGroup,
    RememberedHost,
)

from .builders import World, make_group


def fold(*records: Record) -> Remembered:
    remembered = Remembered()
    apply_all(remembered, records)
    return remembered


def rec(event: Event, name: str = "", comment: str = "", at: float = 1.0, **data: Any) -> Record:
    return Record(at, event, name, comment, data)


def test_every_event_is_folded() -> None:
    """Each has a handler, or is named as one that changes no memory, and never both."""
    assert HANDLERS.keys() | CHANGES_NOTHING == set(Event)
    assert HANDLERS.keys() & CHANGES_NOTHING == set()


@pytest.mark.parametrize("event", sorted(CHANGES_NOTHING))
def test_a_record_for_the_operator_alone_changes_no_memory(event: Event) -> None:
    remembered = fold(rec(event, "x", "why", host="h", kind="stop-failed"))
    remembered.events.clear()
    assert everything(remembered) == everything(Remembered())


# --- groups -----------------------------------------------------------------------------------

GROUP_FOLDS: list[tuple[str, list[Record], RememberedGroup]] = [
    ("nothing recorded", [], RememberedGroup()),
    ("managed by default, wanted by default", [], RememberedGroup(managed=True, wanted=True)),
    (
        "unmanage keeps the reason",
        [rec(Event.UNMANAGE, "g", "disk swap")],
        RememberedGroup(managed=False, comment="disk swap"),
    ),
    (
        "manage ends it",
        [rec(Event.UNMANAGE, "g", "disk swap"), rec(Event.MANAGE, "g", "done")],
        RememberedGroup(managed=True, comment="done"),
    ),
    ("stop", [rec(Event.STOP, "g")], RememberedGroup(wanted=False)),
    ("start after stop", [rec(Event.STOP, "g"), rec(Event.START, "g")], RememberedGroup()),
    ("a move is under way", [rec(Event.MOVE, "g", to="h2")], RememberedGroup(move_target="h2")),
    (
        "the last move counts",
        [rec(Event.MOVE, "g", to="h2"), rec(Event.MOVE, "g", to="h3")],
        RememberedGroup(move_target="h3"),
    ),
    (
        "it arrived",
        [rec(Event.MOVE, "g", to="h2"), rec(Event.MOVED, "g", host="h2")],
        RememberedGroup(),
    ),
    (
        "an arrival that was recorded after another command ends only its own move",
        [rec(Event.MOVE, "g", to="h1"), rec(Event.MOVED, "g", host="h2")],
        RememberedGroup(move_target="h1"),
    ),
    (
        "and so does a move that failed",
        [rec(Event.MOVE, "g", to="h1"), rec(Event.MOVE_FAILED, "g", "why", host="h2")],
        RememberedGroup(move_target="h1"),
    ),
    (
        "it was given up",
        [rec(Event.MOVE, "g", to="h2"), rec(Event.MOVE_FAILED, "g", "no")],
        RememberedGroup(),
    ),
    (
        "a stop ends a move",
        [rec(Event.MOVE, "g", to="h2"), rec(Event.STOP, "g")],
        RememberedGroup(wanted=False),
    ),
    (
        "an error with its kind",
        [rec(Event.ERROR, "g", "two copies", kind="second-copy")],
        RememberedGroup(error="two copies", error_kind=ErrorKind.SECOND_COPY),
    ),
    (
        "failed starts, host by host",
        [
            rec(Event.START_FAILED, "g", "exit 1", host="h1"),
            rec(Event.START_FAILED, "g", "exit 2", host="h2"),
        ],
        RememberedGroup(start_failures={"h1": "exit 1", "h2": "exit 2"}),
    ),
    (
        "cleanup forgives both",
        [
            rec(Event.START_FAILED, "g", "exit 1", host="h1"),
            rec(Event.ERROR, "g", "stop failed", kind="stop-failed"),
            rec(Event.CLEANUP, "g"),
        ],
        RememberedGroup(),
    ),
    (
        "cleanup leaves unmanaged and stopped alone",
        [rec(Event.UNMANAGE, "g"), rec(Event.STOP, "g"), rec(Event.CLEANUP, "g")],
        RememberedGroup(managed=False, wanted=False),
    ),
    ("a restart is for people", [rec(Event.RESTARTED, "g", "y")], RememberedGroup()),
    ("a stopped copy is for people", [rec(Event.STOP_COPY, "g", "on h2")], RememberedGroup()),
    ("another group's record", [rec(Event.STOP, "other")], RememberedGroup()),
    (
        "stopped, and known to be so",
        [rec(Event.STOP, "g"), rec(Event.AT_REST, "g", known=True)],
        RememberedGroup(wanted=False, at_rest=True),
    ),
    (
        "started by hand since",
        [
            rec(Event.STOP, "g"),
            rec(Event.AT_REST, "g", known=True),
            rec(Event.AT_REST, "g", known=False),
        ],
        RememberedGroup(wanted=False),
    ),
    *(
        (
            f"nothing is known any more after {event}",
            [rec(Event.STOP, "g"), rec(Event.AT_REST, "g", known=True), rec(event, "g")],
            RememberedGroup(managed=event is not Event.UNMANAGE, wanted=event is Event.START),
        )
        for event in (Event.START, Event.MANAGE, Event.UNMANAGE, Event.CLEANUP)
    ),
    *(
        (
            f"what was decided before {event}, and recorded after it, is not known",
            [rec(Event.STOP, "g"), rec(event, "g"), rec(Event.AT_REST, "g", known=True)],
            RememberedGroup(managed=event is not Event.UNMANAGE, wanted=event is Event.START),
        )
        for event in (Event.START, Event.UNMANAGE)
    ),
]


@pytest.mark.parametrize(("story", "records", "expected"), GROUP_FOLDS)
def test_what_is_remembered_of_a_group(
    story: str, records: list[Record], expected: RememberedGroup
) -> None:
    assert fold(*records).group("g") == expected, story


# --- hosts ------------------------------------------------------------------------------------

CONNECT = rec(Event.CONNECT, "h")
DISCONNECT = rec(Event.DISCONNECT, "h", "silent")
CANCEL = rec(Event.FENCE_CANCEL, "h")
INTENT = rec(Event.FENCE_INTENT, "h", "why")
FENCE = rec(Event.FENCE, "h", "why", at=7.0)

HOST_FOLDS: list[tuple[str, list[Record], RememberedHost]] = [
    ("nothing recorded", [], RememberedHost()),
    ("deactivated", [rec(Event.DEACTIVATE, "h")], RememberedHost(active=False)),
    (
        "activated again",
        [rec(Event.DEACTIVATE, "h"), rec(Event.ACTIVATE, "h")],
        RememberedHost(),
    ),
    ("connected: seen", [CONNECT], RememberedHost(connected=True, seen=True)),
    ("gone, and still seen", [CONNECT, DISCONNECT], RememberedHost(seen=True)),
    ("an intent without outcome", [INTENT], RememberedHost(fence_intent="why")),
    (
        "an intent without a reason",
        [rec(Event.FENCE_INTENT, "h")],
        RememberedHost(fence_intent="unknown"),
    ),
    (
        "fenced",
        [CONNECT, INTENT, FENCE],
        RememberedHost(fenced=True, fenced_at=7.0, powered_off=True, seen=True),
    ),
    (
        "fenced, and heard of since: the power proof is gone, the fence is not",
        [INTENT, FENCE, CONNECT],
        RememberedHost(fenced=True, fenced_at=7.0, connected=True, seen=True),
    ),
    ("failed", [INTENT, rec(Event.FENCE_FAILED, "h", "no answer")], RememberedHost()),
    ("cancelled", [INTENT, CANCEL], RememberedHost(fence_cancelled=True)),
    (
        "cancelled, and it answers",
        [INTENT, CANCEL, CONNECT, rec(Event.DISCONNECT, "h")],
        RememberedHost(seen=True),
    ),
    (
        "cancelled too late: it answers",
        [CONNECT, CANCEL],
        RememberedHost(connected=True, seen=True),
    ),
    (
        "cancelled too late: it is off",
        [FENCE, CANCEL],
        RememberedHost(fenced=True, fenced_at=7.0, powered_off=True),
    ),
    (
        "cancelled, and fenced by command",
        [CANCEL, INTENT, FENCE],
        RememberedHost(fenced=True, fenced_at=7.0, powered_off=True),
    ),
    ("cancelled, and reset", [CANCEL, rec(Event.RESET, "h")], RememberedHost()),
    (
        "off, and a sign of life",
        [FENCE, rec(Event.NOT_OFF, "h")],
        RememberedHost(fenced=True, fenced_at=7.0),
    ),
    (
        "off, and greeted",
        [FENCE, rec(Event.RECONNECT, "h")],
        RememberedHost(fenced=True, fenced_at=7.0),
    ),
    ("an intent, and it answers", [INTENT, CONNECT], RememberedHost(connected=True, seen=True)),
    (
        "reset of a dark host: not seen any more, and still proven off",
        [CONNECT, FENCE, rec(Event.RESET, "h")],
        RememberedHost(powered_off=True),
    ),
    (
        "reset of a host that is back",
        [FENCE, CONNECT, rec(Event.RESET, "h")],
        RememberedHost(connected=True, seen=True),
    ),
    (
        "power on voids the proof, not the fence",
        [FENCE, rec(Event.POWER_ON, "h")],
        RememberedHost(fenced=True, fenced_at=7.0),
    ),
    (
        "power on by policy is used up",
        [FENCE, rec(Event.POWER_ON, "h", policy="reboot")],
        RememberedHost(fenced=True, fenced_at=7.0, rebooted=True),
    ),
    (
        "a host off by policy is owed a power on",
        [rec(Event.FENCE, "h", reboot=True)],
        RememberedHost(fenced=True, powered_off=True, fenced_at=1.0, reboot_owed=True),
    ),
    (
        "which a power on settles",
        [rec(Event.FENCE, "h", reboot=True), rec(Event.POWER_ON, "h", policy="reboot")],
        RememberedHost(fenced=True, fenced_at=1.0, rebooted=True),
    ),
    (
        "and a fence by hand",
        [rec(Event.FENCE, "h", reboot=True), FENCE],
        RememberedHost(fenced=True, powered_off=True, fenced_at=7.0),
    ),
    (
        "and stays so after one by hand, until reset",
        [rec(Event.POWER_ON, "h", policy="reboot"), rec(Event.POWER_ON, "h")],
        RememberedHost(rebooted=True),
    ),
    (
        "reset allows it again",
        [rec(Event.POWER_ON, "h", policy="reboot"), rec(Event.RESET, "h")],
        RememberedHost(),
    ),
    (
        "a lying device proves nothing",
        [FENCE, rec(Event.DISTRUST, "h", "it lies")],
        RememberedHost(fenced=True, fenced_at=7.0, distrusted="it lies"),
    ),
    (
        "reset trusts it again",
        [rec(Event.DISTRUST, "h", "it lies"), rec(Event.RESET, "h")],
        RememberedHost(),
    ),
]


@pytest.mark.parametrize(("story", "records", "expected"), HOST_FOLDS)
def test_what_is_remembered_of_a_host(
    story: str, records: list[Record], expected: RememberedHost
) -> None:
    assert fold(*records).host("h") == expected, story


@pytest.mark.parametrize("by_way_of", ["as it is", "a snapshot", "another memory"])
def test_a_fence_ends_what_was_left_alone_on_that_host_alone(by_way_of: str) -> None:
    failed: dict[str, Any] = {"kind": "stop-failed", "resource": "fs", "host": "h1"}
    remembered = fold(
        rec(Event.ERROR, "g", "busy", **failed),
        rec(Event.START_FAILED, "g", "no disk", resource="fs", host="h2"),
        rec(Event.ERROR, "mended", "busy", **failed),
        rec(Event.CLEANUP, "mended"),
    )
    if by_way_of == "a snapshot":
        remembered = fold(remembered.snapshot(at=5.0))
    elif by_way_of == "another memory":
        own = Remembered()
        own.adopt(remembered)
        remembered = own
    apply(remembered, rec(Event.FENCE, "h1"))
    assert remembered.group("g").left_alone == {"h2": {"fs": "no disk"}}
    assert remembered.group("mended").left_alone == {}


# --- groups that are gone from the config -------------------------------------------------------

CONFIGURED = rec(Event.CONFIG, groups={"g": ["h1", "h2"], "k": ["h2"]}, gone=[])
GONE = rec(Event.CONFIG, groups={}, gone=["g"])
AT_REST = [rec(Event.STOP, "g"), rec(Event.AT_REST, "g", known=True)]


@pytest.mark.parametrize(
    ("story", "records", "named"),
    [
        ("in the config", [CONFIGURED], {}),
        ("removed while it may run", [CONFIGURED, GONE], {"g": ("h1", "h2")}),
        ("removed while it is to stop", [CONFIGURED, AT_REST[0], GONE], {"g": ("h1", "h2")}),
        ("removed when it was stopped", [CONFIGURED, *AT_REST, GONE], {}),
        ("seen to", [CONFIGURED, GONE, rec(Event.CLEANUP, "g")], {}),
        ("back", [CONFIGURED, GONE, rec(Event.CONFIG, groups={"g": ["h1"]}, gone=[])], {}),
    ],
)
@pytest.mark.parametrize("compacted", [False, True])
def test_a_group_that_is_gone_from_the_config_is_named_until_it_is_seen_to(
    story: str, records: list[Record], named: dict[str, Any], compacted: bool
) -> None:
    remembered = Remembered()
    for record in records:
        apply(remembered, record)
        if compacted:
            snapshot = json.loads(json.dumps(remembered.snapshot(at=2.0).to_json()))
            remembered = fold(Record.from_json(snapshot))
    assert remembered.removed == named, story


def test_a_snapshot_of_before_the_config_was_remembered_is_understood() -> None:
    data = dict(fold(*AT_REST).snapshot(at=2.0).data)
    del data["configured"], data["removed"]
    for group in data["groups"].values():
        del group["at_rest"]
    old = fold(rec(Event.SNAPSHOT, **data))
    assert (old.configured, old.removed, old.group("g").wanted) == ({}, {}, False)


def test_a_config_is_written_down_once_and_its_change_alone() -> None:
    world = World(make_group("g"), make_group("k"))
    remembered = world.state.remembered
    first = config_change(remembered, world.cluster)
    services = {name: services_of(group) for name, group in world.cluster.groups.items()}
    assert first == {
        "groups": {"g": ["h1", "h2"], "k": ["h1", "h2"]},
        "gone": [],
        "services": services,
    }
    apply(remembered, rec(Event.CONFIG, **first))
    assert config_change(remembered, world.cluster) is None
    smaller = World(make_group("k", ("h1",)), hosts=["h2"]).cluster
    assert config_change(remembered, smaller) == {
        "groups": {"k": ["h1"]},
        "gone": ["g"],
        "former": {"k": {"h2": "k"}},
    }


# --- the cluster and its events ---------------------------------------------------------------


def test_freeze_and_thaw() -> None:
    assert fold(rec(Event.FREEZE, "c", "migration")).frozen == "migration"
    assert fold(rec(Event.FREEZE, "c")).frozen == "no reason given"
    assert fold(rec(Event.FREEZE, "c"), rec(Event.THAW, "c")).frozen is None


ROUTINE = {
    *(Event.CONNECT, Event.DISCONNECT, Event.FENCE_INTENT, Event.SNAPSHOT),
    *(Event.AT_REST, Event.CONFIG, Event.SEEN_STOPPED, Event.MAY_RUN),
}
TOLD = {
    *(Event.MANAGE, Event.UNMANAGE, Event.ACTIVATE, Event.DEACTIVATE, Event.FENCE, Event.RESET),
    *(Event.START, Event.STOP, Event.MOVE, Event.MOVED, Event.MOVE_FAILED, Event.CLEANUP),
    *(Event.ERROR, Event.START_FAILED, Event.STOP_COPY, Event.FENCE_FAILED, Event.FENCE_CANCEL),
    *(Event.POWER_ON, Event.DISTRUST, Event.FREEZE, Event.THAW, Event.RESTARTED),
    *(Event.CLEAR_EVENTS, Event.CONFIRM_STOPPED),
}


def test_what_an_operator_sees_as_events() -> None:
    def is_shown(event: Event) -> bool:
        return bool(fold(rec(event, "x", to="h", kind="stop-failed", host="h", on={})).events)

    assert all(is_shown(event) for event in TOLD)
    assert not any(is_shown(event) for event in ROUTINE - {Event.SNAPSHOT})


def test_clearing_the_events_marks_where_and_loses_none() -> None:
    records = [rec(Event.STOP, "g"), rec(Event.CLEAR_EVENTS, "test"), rec(Event.START, "other")]
    assert list(fold(*records).events) == records


def test_events_are_bounded() -> None:
    remembered = fold(*(rec(Event.STOP, f"g{n}") for n in range(EVENTS_KEPT + 5)))
    assert [len(remembered.events), remembered.events[0].object] == [EVENTS_KEPT, "g5"]


def test_a_record_survives_json() -> None:
    record = rec(Event.MOVE, "g", 'a "comment"\nof two lines', to="h2")
    assert Record.from_json(json.loads(json.dumps(record.to_json()))) == record


@pytest.mark.parametrize(
    "raw",
    [
        {"at": 1, "event": "teleport", "object": "g", "comment": ""},
        {"at": 1, "event": "manage", "object": "g"},
        {"event": "manage", "object": "g", "comment": ""},
        {"at": "soon", "event": "manage", "object": "g", "comment": ""},
        {"at": 1, "event": "manage", "object": "g", "comment": "", "data": 3},
    ],
)
def test_a_record_of_another_version_stops_the_start(raw: dict[str, Any]) -> None:
    with pytest.raises(StateError, match="does not understand"):
        Record.from_json(raw)


@pytest.mark.parametrize(
    "record",
    [
        rec(Event.MOVE, "g"),
        rec(Event.ERROR, "g", kind="gremlins"),
        rec(Event.ERROR, "g"),
        rec(Event.START_FAILED, "g"),
        rec(Event.SNAPSHOT),
        rec(Event.SNAPSHOT, hosts={"h": {"horns": 2}}, groups={}, frozen=None, events=[]),
    ],
)
def test_a_record_with_data_of_another_version_stops_the_start(record: Record) -> None:
    with pytest.raises(StateError, match="does not understand"):
        apply(Remembered(), record)


def test_of_a_large_record_that_is_not_understood_the_advice_can_be_read() -> None:
    """A later version may have written a snapshot with a field that this one does not know."""
    hosts = {f"h{number}": {"horns": 2} for number in range(10_000)}
    snapshot = rec(Event.SNAPSHOT, hosts=hosts, groups={}, frozen=None, events=[])
    with pytest.raises(StateError) as caught:
        apply(Remembered(), snapshot)
    assert len(str(caught.value)) < 1200
    assert "horns" in str(caught.value)
    assert "install the version of HALO that wrote it" in str(caught.value)


# --- properties -------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b"])


@st.composite
def records(draw: st.DrawFn) -> Record:
    event = draw(st.sampled_from([e for e in Event if e is not Event.SNAPSHOT]))
    data: dict[str, Any] = {}
    if event is Event.MOVE:
        data["to"] = draw(NAMES)
    if event is Event.ERROR:
        data["kind"] = draw(st.sampled_from([kind.value for kind in ErrorKind]))
    if event in (Event.ERROR, Event.START_FAILED):
        data["host"] = draw(NAMES)
        data["resource"] = draw(st.sampled_from(["", "g", "g/fs"]))
    if event is Event.POWER_ON and draw(st.booleans()):
        data["policy"] = "reboot"
    if event is Event.AT_REST:
        data["known"] = draw(st.booleans())
    if event in (Event.SEEN_STOPPED, Event.MAY_RUN):
        data["on"] = draw(st.dictionaries(NAMES, st.lists(NAMES, unique=True)))
    if event is Event.CONFIRM_STOPPED:
        data["host"] = draw(NAMES)
    if event is Event.CONFIG:
        data["services"] = {name: {name: "0a"} for name in draw(st.lists(NAMES))}
        data["former"] = {name: {"h9": "g"} for name in draw(st.lists(NAMES))}
        data["taken_over"] = draw(st.lists(NAMES))
        data["groups"] = {name: ["h1"] for name in draw(st.lists(NAMES))}
        data["gone"] = [name for name in draw(st.lists(NAMES)) if name not in data["groups"]]
    return Record(draw(st.integers(0, 99)), event, draw(NAMES), draw(st.text(max_size=4)), data)


def everything(remembered: Remembered) -> tuple[Any, ...]:
    return (
        remembered.hosts,
        remembered.groups,
        remembered.lifecycles,
        remembered.frozen,
        remembered.configured,
        remembered.removed,
        remembered.services,
        list(remembered.events),
    )


@given(st.lists(records()), st.lists(records()))
def test_a_snapshot_stands_for_all_that_went_before(
    before: list[Record], after: list[Record]
) -> None:
    snapshot = fold(*before).snapshot(at=5.0)
    through_json = Record.from_json(json.loads(json.dumps(snapshot.to_json())))
    assert everything(fold(through_json, *after)) == everything(fold(*before, *after))


@given(st.lists(records()))
def test_a_snapshot_wipes_what_stood_there(before: list[Record]) -> None:
    empty = Remembered().snapshot(at=5.0)
    assert everything(fold(*before, empty)) == everything(Remembered())


@given(st.lists(records()))
def test_looking_at_the_memory_does_not_change_the_past(before: list[Record]) -> None:
    remembered = fold(*before)
    snapshot = remembered.snapshot(at=5.0)
    kept = json.dumps(snapshot.to_json())
    apply_all(remembered, before)
    assert json.dumps(snapshot.to_json()) == kept


@given(st.lists(records()), st.lists(records()), st.lists(records()))
def test_a_memory_adopts_another_and_shares_nothing(
    before: list[Record], others: list[Record], after: list[Record]
) -> None:
    own, other = fold(*before), fold(*others)
    own.adopt(other)
    assert everything(own) == everything(other) == everything(fold(*others))
    apply_all(own, after)
    assert everything(other) == everything(fold(*others))
    assert everything(own) == everything(fold(*others, *after))


@given(st.lists(records()), st.lists(records()))
def test_two_memories_that_folded_one_snapshot_share_nothing(
    before: list[Record], after: list[Record]
) -> None:
    snapshot = fold(*before).snapshot(at=5.0)
    one, other = fold(snapshot), fold(snapshot)
    apply_all(one, after)
    assert everything(other) == everything(fold(*before))
    one.adopt(other)
    assert everything(one) == everything(other) == everything(fold(*before))


def test_a_record_has_its_term_in_json_and_none_where_there_is_one_manager() -> None:
    record = Record(1.0, Event.THAW, "c", term=7)
    assert record.to_json()["term"] == 7
    assert Record.from_json(json.loads(json.dumps(record.to_json()))) == record
    assert "term" not in Record(1.0, Event.THAW, "c").to_json()


@pytest.mark.parametrize("term", [-1, 2**53, "7", 1.5, True, None, []])
def test_a_term_that_no_leader_has_is_no_record(term: Any) -> None:
    with pytest.raises(StateError, match="the term is no term"):
        Record.from_json({**rec(Event.THAW).to_json(), "term": term})
    with pytest.raises(StateError):
        fold(Record(1.0, Event.SNAPSHOT, "", "", {**Remembered().snapshot(1.0).data, "term": term}))


def test_the_highest_term_is_remembered_and_a_lower_one_is_damage() -> None:
    """The guard of the store forbids it: two journals were mixed."""
    later = Record(1.0, Event.FREEZE, "c", "later", term=7)
    remembered = fold(later, Record(1.0, Event.THAW, "c", term=7))
    assert remembered.term == 7
    with pytest.raises(StateError, match="has the term 6, but a record before it has the higher"):
        apply(remembered, Record(1.0, Event.FREEZE, "c", "earlier", term=6))
    assert remembered.frozen is None
    snapshot = json.loads(json.dumps(remembered.snapshot(2.0, 9).to_json()))
    again = fold(Record.from_json(snapshot))
    assert (snapshot["term"], again.term) == (9, 9)


def test_a_single_manager_goes_on_with_a_journal_of_leaders() -> None:
    """It was exported from etcd to a file. The highest term stays, for the way back."""
    remembered = fold(Record(1.0, Event.FREEZE, "c", term=7), rec(Event.THAW, "c"))
    assert remembered.frozen is None
    again = fold(remembered.snapshot(2.0))
    assert again.term == 7
    adopted = Remembered()
    adopted.adopt(again)
    assert adopted.term == 7
