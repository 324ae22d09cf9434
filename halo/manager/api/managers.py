"""Which managers there are: the answer of `GET /v1/managers`, and what is wrong with it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

from halo.core.errors import CommandRefused
from halo.manager.api.schema_words import (
    Schema,
    flag,
    list_of,
    number,
    object_of,
    or_null,
    ref,
    text,
)
from halo.ports import ManagerSeen, Standing

OLD_AFTER_S = 5.0
"""A manager looks once a second who is there. After this time, what it saw is shown as old."""

RecordStepDown: TypeAlias = Callable[[str, str | None], Awaitable[None]]
"""Records that a manager gives its leadership back, with the reason. Raises CommandFailed."""


@dataclass
class Managers:
    """The managers of one cluster, for the API. `expected` has those that the config names: the
    host of each, by id. `unreachable` says why this manager cannot send requests on, or is None.
    `waits` says what it waits for, while it does not lead."""

    standing: Standing
    expected: Mapping[str, str] = field(default_factory=dict)
    unreachable: str | None = None
    waits: Callable[[], str] | None = None

    def table(self) -> dict[str, Any]:
        """The answer of `GET /v1/managers`, the same question put to any manager."""
        standing = self.standing
        leader, found = standing.leader(), list(standing.managers())
        newest = max([leader.entries if leader else 0, *(seen.entries for seen in found)])
        lead, age_s = standing.last_lead(), standing.seen_s_ago()
        return {
            "journal": "etcd",
            "own_id": standing.own_id,
            "leader": leader.id if leader else None,
            "term": standing.term,
            "lead": None if lead is None else asdict(lead),
            "as_of": None if age_s is None else time.time() - age_s,
            "old": age_s is None or age_s > OLD_AFTER_S,
            "managers": [_row(seen, newest) for seen in found],
            "missing": [{"id": id, "host": host} for id, host in self._missing()],
            "waiting": None if self.waits is None else self.waits(),
            "store": standing.store().as_json(),
            "trouble": standing.trouble(),
            "notices": list(self.notices()),
        }

    def notices(self) -> Iterator[str]:
        """What an operator should read, because fewer managers than planned could take over, or
        fewer members of the store than planned hold the journal, or nothing acts."""
        missing = self._missing()
        for id, host in missing:
            there = len(self.expected) - len(missing)
            yield (
                f"manager {id} on {host} is missing: {there} of {len(self.expected)} managers are "
                f"there; see `systemctl status halo` on {host}"
            )
        yield from self.standing.store().notices()
        if (trouble := self.standing.trouble()) is not None:
            yield f"the store of the managers: {trouble}"
        several = max(len(self.expected), len(self.standing.managers())) > 1
        if self.unreachable is not None and several:
            own = self.standing.own_id
            yield f"manager {own} cannot ask another one that leads: {self.unreachable}"
        yield from self._unnamed()
        yield from self._observing()

    def _unnamed(self) -> Iterator[str]:
        """Managers that the config does not name, if it names any."""
        named = ", ".join(self.expected)
        for seen in self.standing.managers():
            if named and seen.id not in self.expected:
                yield (
                    f"manager {seen.id} on {seen.host} is not in the config's list of managers "
                    f"({named}); add it to `managers`, correct its --node-id, or stop it"
                )

    def _observing(self) -> Iterator[str]:
        """Managers that act on nothing: the one that leads, and those that may lead."""
        found, leader = self.standing.managers(), self.standing.leader()
        observing = [seen for seen in found if seen.observes]
        none_acts = len(observing) == len(found)
        if leader is not None and leader.observes:
            remedy = "start it with --manage-resources or run `halo managers step-down`"
            if none_acts:
                remedy = "no other one acts; start them with --manage-resources"
            yield (
                f"manager {leader.id} leads and only observes: nothing is started, fenced or "
                f"moved; {remedy}"
            )
            if none_acts:
                return
        for seen in observing:
            if leader is None or seen.id != leader.id:
                yield (
                    f"manager {seen.id} on {seen.host} only observes: if it leads, nothing is "
                    "started, fenced or moved; start it with --manage-resources"
                )

    async def step_down(self, record: RecordStepDown, comment: str | None) -> str:
        """Record it, and give the leadership back. Raises CommandRefused if nobody could take it,
        and what `record` raises: then this manager goes on leading."""
        own, leader = self.standing.own_id, self.standing.leader()
        if leader is not None and leader.id != own:
            raise CommandRefused(f"manager {own} does not lead, manager {leader.id} does.")
        registered = self.standing.managers()
        others = [seen.id for seen in registered if seen.id != own]
        acting = [seen.id for seen in registered if seen.id != own and not seen.observes]
        acts = any(seen.id == own and not seen.observes for seen in registered)
        if others and not acting and acts:
            raise CommandRefused(
                f"manager {own} is the only one that acts: all others ({', '.join(others)}) only "
                "observe, and nothing would be started, fenced or moved then. Start one of them "
                "with --manage-resources first."
            )
        if not others:
            raise CommandRefused(
                f"manager {own} is the only one: no other manager could lead then. To restart it, "
                "run `systemctl restart halo` on its host."
            )
        await record(own, comment)
        await self.standing.step_down(comment or "no reason given")
        return f"Manager {own} gives the leadership back; the next leader is one of: " + (
            ", ".join(acting or others) + "."
        )

    def _missing(self) -> list[tuple[str, str]]:
        there = {seen.id for seen in self.standing.managers()}
        return [(id, host) for id, host in self.expected.items() if id not in there]


def table_of(managers: Managers | None) -> dict[str, Any]:
    """The answer of `GET /v1/managers`. Without managers, one runs with its journal in a file."""
    if managers is not None:
        return managers.table()
    return {
        "journal": "file",
        "own_id": None,
        "leader": None,
        "term": 0,
        "lead": None,
        "as_of": None,
        "old": False,
        "managers": [],
        "missing": [],
        "waiting": None,
        "store": None,
        "trouble": None,
        "notices": [],
    }


async def step_down(managers: Managers | None, record: RecordStepDown, comment: str | None) -> str:
    """The answer of the command `step-down`. Raises CommandRefused and CommandFailed."""
    if managers is None:
        raise CommandRefused(
            "one manager runs, with its journal in a file: there is no leadership to give back."
        )
    return await managers.step_down(record, comment)


def _row(seen: ManagerSeen, newest: int) -> dict[str, Any]:
    return {
        "id": seen.id,
        "host": seen.host,
        "pid": seen.pid,
        "url": seen.url,
        "version": seen.version,
        "since": seen.since,
        "entries": seen.entries,
        "lag": newest - seen.entries,
        "leads": seen.leads,
        "observes": seen.observes,
    }


def store_schemas() -> dict[str, Schema]:
    """What `store` holds, for the OpenAPI document."""
    return {
        "Store": object_of(
            "The store of the journal, as the manager that was asked sees it.",
            {
                "members": list_of(ref("StoreMember"), "As in `--store`."),
                "alarms": list_of(object_of("An alarm.", {"member": text(), "kind": text()})),
            },
        ),
        "StoreMember": object_of(
            "One member of etcd.",
            {
                "endpoint": text(minLength=1),
                "answers": or_null(flag("null: not known yet.")),
                "reason": or_null(text("Why it does not count as one that works.")),
                "since": number("When this began: seconds since the epoch. 0: not known."),
                "version": or_null(text()),
                "leads": flag("It leads etcd."),
            },
        ),
    }
