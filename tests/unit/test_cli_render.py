"""The lines of `halo status`, as an operator reads them."""

from __future__ import annotations

from typing import Any

import pytest

import halo
from halo.cli.show.render import event_line, status_lines

GUIDE = """\
test_zpool_00 (heartbeat/ZFS): Running on fence_mds00
test_mgt (lustre/Lustre): Running on fence_mds00
test_zpool_01 (heartbeat/ZFS): Running (Failed Over) on fence_mds00
test_mdt (lustre/Lustre): Running (Failed Over) on fence_mds00
Connected hosts: fence_mds00
Disconnected hosts: fence_mds01 (fenced)
Events:
2026-04-28 12:54:34.337109 event=fence object=fence_mds01 \
comment="Manager service initiated fence action."
"""


def resource(name: str, status: Any, **more: Any) -> dict[str, Any]:
    return {"id": name, "kind": "heartbeat/ZFS", "status": status, "managed": True, **more}


def host(name: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "active": True, "connected": True, "fenced": False, **more}


def event(number: int, name: str = "fence") -> dict[str, Any]:
    timestamp = f"2026-04-28 12:00:{number:02}.000000"
    return {"timestamp": timestamp, "event": name, "obj_id": "oss00", "comment": str(number)}


def shown(status: dict[str, Any], **options: Any) -> str:
    return "".join(line + "\n" for line in status_lines(status, **options))


def first_line(status: dict[str, Any], **options: Any) -> str:
    return shown(status, **options).partition("\n")[0]


def test_the_guides_example_from_a_manager_that_knows_no_more_than_halos() -> None:
    places = {"home_host": "fence_mds00", "failover_host": "fence_mds01"}
    away = {"home_host": "fence_mds01", "failover_host": "fence_mds00"}
    lustre = {"kind": "lustre/Lustre"}
    status = {
        "resources": [
            resource("test_zpool_00", "Running", **places),
            resource("test_mgt", "Running", **places) | lustre,
            resource("test_zpool_01", "Running (Failed Over)", **away),
            resource("test_mdt", "Running (Failed Over)", **away) | lustre,
        ],
        "hosts": [host("fence_mds00"), host("fence_mds01", connected=False, fenced=True)],
        "events": [
            {
                "timestamp": "2026-04-28 12:54:34.337109",
                "event": "fence",
                "obj_id": "fence_mds01",
                "comment": "Manager service initiated fence action.",
            }
        ],
    }
    assert shown(status) == GUIDE


def test_everything_that_may_be_wrong_is_said() -> None:
    status = {
        "manager": {
            "version": "0.0.1",
            "mode": "observe",
            "frozen": True,
            "frozen_comment": "firmware",
            "journal": "cannot be written: No space left on device",
            "notices": ["Fencing of oss02 is held: 3 hosts are suspect together."],
        },
        "resources": [
            resource("a", "Stopped", group="a"),
            resource("b", "Unknown", comment="no answer from oss02", group="b"),
            resource("c", "Error", comment="seen on oss00 and oss01", managed=False, group="c"),
            resource("d", "Running", host="oss00", group="d"),
            resource("d1", "Running", host="oss00", group="d"),
        ],
        "groups": [
            {"id": "a", "wanted": "stopped", "comment": None},
            {"id": "b", "wanted": "started", "comment": "waits for proof from oss02"},
            {"id": "c", "wanted": "started", "comment": "seen on oss00 and oss01"},
            {"id": "d", "wanted": "started", "move_target": "oss01"},
        ],
        "hosts": [
            host("oss00", active=False, version=halo.__version__),
            host("oss01", connected=False, state="fencing"),
            host("oss02", connected=False, state="fence failed", comment="device is silent"),
            host("oss03", fenced=True, fence_trusted=False, version="0.0.1"),
        ],
    }
    assert (
        shown(status)
        == f"""\
OBSERVE MODE: the manager watches, and starts, stops, moves and fences nothing.
FROZEN: no automatic action, and no start, stop, move or failback, until `halo thaw` (firmware).
JOURNAL: cannot be written: No space left on device
NOTICE: Fencing of oss02 is held: 3 hosts are suspect together.
VERSIONS DIFFER: manager 0.0.1, this command {halo.__version__}; finish the upgrade
a (heartbeat/ZFS): Stopped (Wanted Stopped)
b (heartbeat/ZFS): Unknown: no answer from oss02; waits for proof from oss02
c (heartbeat/ZFS): Error: seen on oss00 and oss01 (Unmanaged)
d (heartbeat/ZFS): Running on oss00 (Moving to oss01)
d1 (heartbeat/ZFS): Running on oss00
Connected hosts: oss00 (deactivated), oss03 (fenced)
Disconnected hosts: oss01 (fencing), oss02 (fence failed)
  oss02: device is silent
  oss03: its fence device is not trusted, since it said off while the agent answered
Events: none
"""
    )


def test_x_leaves_out_what_is_normal() -> None:
    status = {
        "resources": [
            resource("a", "Running", host="h"),
            resource("b", "Running (Failed Over)", host="h"),
            resource("c", "Running", host="h", managed=False),
            resource("d", "Stopped"),
            resource("e", "Running", host="h"),
            resource("e1", "Running", host="h", comment="stop of e1 on h: it is busy"),
        ],
        "groups": [
            {"id": "e", "comment": "not running: e1; remove the cause, then run `halo cleanup e`"}
        ],
        "hosts": [host("h")],
        "events": [event(1)],
    }
    assert (
        shown(status, exclude_normal=True)
        == """\
b (heartbeat/ZFS): Running (Failed Over) on h
c (heartbeat/ZFS): Running on h (Unmanaged)
d (heartbeat/ZFS): Stopped
e (heartbeat/ZFS): Running on h: not running: e1; remove the cause, then run `halo cleanup e`
e1 (heartbeat/ZFS): Running on h: stop of e1 on h: it is busy
"""
    )
    assert shown({"hosts": [host("h")]}, exclude_normal=True) == ""
    gone = {"hosts": [host("h"), host("i", connected=False)], "events": [event(1)]}
    assert shown(gone, exclude_normal=True) == "Disconnected hosts: i\n"
    assert "event=fence" in shown(gone, exclude_normal=True, event_count=1)


def test_what_concerns_a_group_is_said_once_at_its_root() -> None:
    gone, waits = "h is disconnected (silent)", "waits for proof from h"
    out = {"h": {"status": "Unknown", "comment": gone}, "i": {"status": "Stopped"}}
    hung = "monitor: timed out"
    bad = {"h": {"status": "Error", "comment": hung}, "i": {"status": "Stopped"}}
    both = f"{gone}; {waits}"
    status = {
        "resources": [
            resource("a", "Unknown", group="a", comment=both, candidates=out),
            resource("a1", "Unknown", group="a", comment=both, candidates=out),
            resource("a2", "Unknown", group="a", comment=f"{gone}; own; {waits}", candidates=out),
            resource("b", "Unknown", group="b", comment=both, candidates=out),
            resource("c", "Error", group="c", comment=hung, candidates=bad),
            resource("c1", "Error", group="c", comment=hung, candidates=bad),
        ],
        "groups": [
            {"id": "a", "comment": f"{waits}; frozen; {gone}; own"},
            {"id": "b", "comment": both},
            {"id": "c", "comment": hung},
        ],
        "hosts": [host("i")],
    }
    assert (
        shown(status, exclude_normal=True)
        == f"""\
a (heartbeat/ZFS): Unknown: {both}; frozen; own
a1 (heartbeat/ZFS): Unknown
a2 (heartbeat/ZFS): Unknown: own
b (heartbeat/ZFS): Unknown: {both}
c (heartbeat/ZFS): Error: {hung}
c1 (heartbeat/ZFS): Error: {hung}
"""
    )
    assert (
        shown(status, verbose=True).splitlines()[1].endswith(f"[h: Unknown ({gone}), i: Stopped]")
    )


@pytest.mark.parametrize("newest_first", [False, True])
def test_the_last_events_are_shown_oldest_first(newest_first: bool) -> None:
    found = [event(number) for number in range(15)]
    status = {"events": found[::-1] if newest_first else found}
    lines = shown(status).splitlines()
    assert lines[2] == "Events:"
    assert lines[3:] == [event_line(e) for e in found[5:]]
    assert shown(status, event_count=2).splitlines()[3:] == [event_line(e) for e in found[13:]]
    assert shown(status, event_count=0).splitlines()[2:] == []
    assert len(shown(status, event_count=99).splitlines()) == 3 + 15


def test_events_before_the_last_clear_are_left_out() -> None:
    status = {"events": [event(1), event(2, "clear"), event(3), event(4, "clear"), event(5)]}
    assert shown(status).splitlines()[3:] == [event_line(event(5))]


@pytest.mark.parametrize(
    ("comment", "said"),
    [
        ("unmanaged", " (Unmanaged)"),
        ("unmanaged: new disks", ": new disks (Unmanaged)"),
        ("unmanaged; not running on h: a1", ": not running on h: a1 (Unmanaged)"),
    ],
)
def test_unmanaged_is_said_once(comment: str, said: str) -> None:
    status = {
        "resources": [resource("a", "Running", host="h", managed=False)],
        "groups": [{"id": "a", "managed": False, "comment": comment}],
    }
    assert first_line(status) == f"a (heartbeat/ZFS): Running on h{said}"


def test_none_of_the_events_is_none_of_their_lines() -> None:
    status = {"hosts": [host("h")], "events": [{"event": "fence", "obj_id": "h"}]}
    assert "Events" in shown(status)
    assert "Events" not in shown(status, event_count=0)


def test_verbose_says_nothing_of_a_host_that_is_left_out() -> None:
    status = {
        "hosts": [{**host("h"), "since": 1000.0}, {**host("i", connected=False), "since": 2.0}]
    }
    assert shown(status, verbose=True).count(" since ") == 2
    lines = shown(status, exclude_normal=True, verbose=True).splitlines()
    assert [line.split(":")[0] for line in lines] == ["Disconnected hosts", "  i"]


def test_verbose_adds_parameters_and_the_state_on_each_candidate() -> None:
    item = resource(
        "a",
        "Unknown",
        comment="no answer",
        parameters={"pool": "a", "options": "-f"},
        candidates={"h": {"status": "Stopped", "comment": None}, "i": {"status": "Unknown"}},
    )
    assert first_line({"resources": [item]}, verbose=True) == (
        "a (heartbeat/ZFS): Unknown [options: -f; pool: a]: no answer [h: Stopped, i: Unknown]"
    )


def test_without_a_reason_the_state_on_each_candidate_is_shown() -> None:
    item = resource("a", "Error", candidates={"h": {"status": "Error", "comment": "busy"}})
    assert first_line({"resources": [item]}) == "a (heartbeat/ZFS): Error [h: Error (busy)]"


@pytest.mark.parametrize(
    ("by_host", "line"),
    [
        ({"h": {"status": "Running"}, "i": {"status": "Stopped"}}, "Running on h"),
        ({"h": {"status": "Error"}, "i": {"status": "Running"}}, "Running (Failed Over) on i"),
        ({"h": {"status": "Stopped"}, "i": {"status": "Stopped"}}, "Stopped"),
        (
            {"h": {"status": "Unknown", "comment": "gone"}, "i": {"status": "Error"}},
            "Error",
        ),
        ({"h": {"status": "Stopped"}, "i": {"status": "Unknown", "comment": "g"}}, "Unknown: g"),
    ],
)
def test_halos_latest_managers_give_the_status_by_host(by_host: Any, line: str) -> None:
    item = resource("a", by_host, home_host="h", failover_host="i")
    assert first_line({"resources": [item]}) == f"a (heartbeat/ZFS): {line}"


def test_no_text_can_drive_the_terminal_or_forge_a_line() -> None:
    evil = "x\x1b[2J\nhost (a/b): Running\x07\u202e"
    status = {
        "resources": [resource("a", "Error", comment=evil)],
        "hosts": [host("h", comment=evil)],
        "events": [{**event(1), "comment": 'say "no"\\' + evil}],
        "manager": {"notices": [evil]},
    }
    lines = shown(status).splitlines()
    assert len(lines) == 7
    assert all(line.isprintable() for line in lines)
    assert 'comment="say \\"no\\"\\\\x' in lines[-1]


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"resources": None, "hosts": 3, "events": "x", "groups": {}, "manager": []},
        {"resources": [None, {}, {"status": {}}, {"status": {"h": "Running"}}], "hosts": [{}, 1]},
        {
            "resources": [
                {"id": 3, "dependents": [3, "b"]},
                {"dependents": "a", "hosts": [1, 2]},
            ]
        },
        {"manager": {"notices": "x", "version": None}, "events": [{}], "hosts": [{"id": None}]},
    ],
)
def test_whatever_is_missing_the_rest_is_shown(status: dict[str, Any]) -> None:
    assert "Connected hosts:" in shown(status)


def test_hosts_are_folded_and_those_with_a_mark_stand_apart() -> None:
    hosts = [host(f"oss{n:02}") for n in range(40)]
    for n in (7, 8, 20):
        hosts[n]["active"] = False
    for n in (30, 31):
        hosts[n] |= {"connected": False, "fenced": True, "state": "fenced"}
    hosts[35] |= {"connected": False, "state": "lost"}
    lines = shown({"hosts": hosts}).splitlines()
    assert lines[0] == (
        "Connected hosts: oss[00-06,09-19,21-29,32-34,36-39], oss[07-08,20] (deactivated)"
    )
    assert lines[1] == "Disconnected hosts: oss[30-31] (fenced), oss35 (lost)"
    few = shown({"hosts": hosts[:3]}).splitlines()
    assert few[:2] == ["Connected hosts: oss[00-02]", "Disconnected hosts: none"]


def below(name: str, *dependents: str, **more: Any) -> dict[str, Any]:
    """A resource that runs, with its dependents."""
    return resource(name, "Running", host="h1", dependents=list(dependents), **more)


def test_a_tree_is_drawn_with_the_line_of_the_guide_at_every_depth() -> None:
    status = {
        "resources": [
            below("pool", "mgt", "net"),
            below("mgt", "leaf"),
            below("leaf"),
            below("net", hosts=["h1", "h2"], shared=True) | {"host": None},
            below("other", "net", "gone"),
        ]
    }
    assert shown(status).splitlines()[:5] == [
        "pool (heartbeat/ZFS): Running on h1",
        "  mgt (heartbeat/ZFS): Running on h1",
        "    leaf (heartbeat/ZFS): Running on h1",
        "  net (heartbeat/ZFS): Running on h[1-2]",
        "other (heartbeat/ZFS): Running on h1",
    ]


def test_x_keeps_the_depth_of_what_it_shows_and_all_hosts_of_what_is_shared() -> None:
    away = {"status": "Running (Failed Over)", "hosts": ["h3", "h2"], "host": None}
    status = {"resources": [below("pool", "mgt"), below("mgt", "net"), below("net") | away]}
    assert shown(status, exclude_normal=True) == (
        "    net (heartbeat/ZFS): Running (Failed Over) on h[2-3]\n"
    )


def test_resources_in_a_circle_or_twice_are_shown_once() -> None:
    status = {
        "resources": [below("a", "b"), below("b", "a"), below("c", "d"), below("d"), below("d")]
    }
    lines = [line.partition(" (")[0] for line in shown(status).splitlines()[:4]]
    assert lines == ["c", "  d", "a", "  b"]


def test_hosts_that_cannot_stand_in_a_nodeset_are_listed() -> None:
    names = [f"[fe80::{n}]" for n in range(20)]
    line = shown({"hosts": [host(name) for name in names]}).splitlines()[0]
    assert line == "Connected hosts: " + ", ".join(names)


def test_a_name_of_its_own_kind_is_a_nodeset_by_itself() -> None:
    line = shown({"hosts": [host("login"), host("oss1"), host("oss2")]}).splitlines()[0]
    assert line == "Connected hosts: login,oss[1-2]"


def test_what_is_wrong_is_red() -> None:
    status = {
        "resources": [resource("a", "Error"), resource("b", "Running", host="h")],
        "hosts": [host("h"), host("i", connected=False)],
        "manager": {"frozen": True},
    }

    def paint(words: str, colour: str) -> str:
        return f"<{colour}>{words}</>"

    lines = shown(status, paint=paint).splitlines()
    assert lines[0].startswith("<red>FROZEN")
    assert lines[1] == "a (heartbeat/ZFS): <red>Error</>"
    assert lines[2] == "b (heartbeat/ZFS): <green>Running</> on h"
    assert lines[3:5] == ["Connected hosts: h", "Disconnected hosts: <red>i</>"]
