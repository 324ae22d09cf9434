"""What was wrong with a run, of the evidence alone. Each function gives one sentence a finding."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from halo.adapters.journal.sqlite import SqliteMedium
from halo.core.errors import StateError
from halo.core.journal import fold
from halo.core.journal.records import Record
from halo.core.journal.remembered import Remembered
from tests.hosts.chaos.faults import Span

Lines = Sequence[Mapping[str, Any]]

FENCE_DELAY_S = 30.0
"""So long after a fault a fence that was decided during it may still take effect: the programs'
own time, and that of a slow BMC."""
DOUBLES = {"double mount": "was mounted on", "double copy": "was on"}
KILLED, ENDED = -9, 0


def lost_rows(acknowledged: Collection[int], found: Collection[int]) -> list[str]:
    """Rows that the client was told are committed, and that are not in the database."""
    lost = sorted(set(acknowledged) - set(found))
    if not lost:
        return []
    return [f"{len(lost)} acknowledged rows are lost, the first {lost[0]}, the last {lost[-1]}"]


def doubles(world: Lines) -> list[str]:
    """What may be on one host alone, and was seen on two."""
    return [
        f"{line['name']} {DOUBLES[line['what']]} {' and '.join(line['hosts'])} at {line['at']:.3f}"
        for line in world
        if line["what"] in DOUBLES
    ]


def misplaced(
    status: Mapping[str, Any], holders: Mapping[str, Sequence[str]], homes: Mapping[str, str]
) -> list[str]:
    """Groups that are not at home: by the manager's word, and by what the hosts bear."""
    said = {group["id"]: group for group in status.get("groups", ())}
    found = []
    for group, home in homes.items():
        shown = said.get(group, {})
        if (shown.get("status"), shown.get("host")) != ("Running", home):
            words = f"{shown.get('status', 'not known')}: {shown.get('comment')}"
            found.append(f"{group} should run on {home}; the manager says {words}")
        if list(holders.get(group, ())) != [home]:
            where = ", ".join(holders.get(group, ())) or "no host"
            found.append(f"{group} should run on {home}, and it is on {where}")
    return found


def troubles(status: Mapping[str, Any], holders: Mapping[str, Sequence[str]]) -> list[str]:
    """What is not well yet, after the faults: hosts that are not back, groups that do not run."""
    if not status:
        return ["the manager does not answer"]
    found = []
    for host in status["hosts"]:
        wrong = [
            word
            for word, bad in (
                ("disconnected", not host["connected"]),
                ("fenced", host["fenced"]),
                ("deactivated", not host["active"]),
                ("not trusted", not host["fence_trusted"]),
                (f"in state {host['state']}", host["state"] != "connected"),
            )
            if bad
        ]
        if wrong:
            found.append(f"{host['id']} is {', '.join(wrong)}: {host.get('comment')}")
    for group in status["groups"]:
        name = group["id"]
        if not group["managed"] or group["wanted"] != "started" or group["move_target"]:
            found.append(f"{name} is held, stopped or on its way")
        elif not group["status"].startswith("Running"):
            found.append(f"{name} is {group['status']}: {group['comment']}")
        elif list(holders.get(name, ())) != [group["host"]]:
            found.append(f"{name} is said to run on {group['host']}; it is on {holders.get(name)}")
    return found


def tokens(status: Mapping[str, Any], groups: Collection[str]) -> list[str]:
    """Groups whose token nobody holds."""
    held = {group["id"] for group in status.get("groups", ()) if group.get("token")}
    return [f"nobody holds the token of {group}" for group in sorted(set(groups) - held)]


def managers(world: Lines) -> list[str]:
    """Managers that ended by themselves."""
    return [
        f"a manager ended by itself with status {line['status']} at {line['at']:.3f}"
        for line in world
        if (line["what"], line["name"]) == ("ended", "manager")
        and line["status"] not in (KILLED, ENDED)
    ]


def needless_fences(world: Lines, spans: Sequence[Span]) -> list[str]:
    """Hosts that were powered off without a fault of theirs.

    One that has just been switched on again may be: the manager has not heard of it yet.
    """
    boots = [(line["name"], line["at"]) for line in world if line["what"] == "boot"]
    excuses = [*spans, *(Span(name, "boot", at, at) for name, at in boots)]
    return [
        f"{line['name']} was powered off at {line['at']:.3f}, and it had no fault"
        for line in world
        if line["what"] == "died"
        and not any(
            span.host == line["name"] and span.begun - 1 <= line["at"] <= span.ended + FENCE_DELAY_S
            for span in excuses
        )
    ]


def journal(path: Path) -> list[str]:
    """Whether the manager's state file is whole: as a database, record by record, and folded.

    The manager must have ended.
    """
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        with connection:
            answer = [str(row[0]) for row in connection.execute("PRAGMA integrity_check")]
        connection.close()
        medium = SqliteMedium.open(path)
        remembered = Remembered()
        records = [Record.from_json(raw) for raw in medium.read()]
        fold.apply_all(remembered, records)
    except (sqlite3.Error, StateError) as error:
        return [f"the journal is damaged: {error}"]
    found = [] if answer == ["ok"] else [f"the journal is damaged: {'; '.join(answer)}"]
    if not records:
        found.append("the journal is empty")
    for name, host in remembered.hosts.items():
        if host.fenced or not host.active:
            found.append(f"the journal remembers {name} as fenced or deactivated")
    for name, group in remembered.groups.items():
        if not group.managed or group.error is not None:
            found.append(f"the journal remembers {name} as unmanaged or in error")
    return found
