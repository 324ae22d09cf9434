"""Which managers there are: the answer of `GET /v1/managers`, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

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
        return {
            "journal": "etcd",
            "own_id": standing.own_id,
            "leader": leader.id if leader else None,
            "term": standing.term,
            "managers": [_row(seen, newest) for seen in found],
            "missing": [{"id": id, "host": host} for id, host in self._missing()],
            "waiting": None if self.waits is None else self.waits(),
            "store": standing.store().as_json(),
            "trouble": standing.trouble(),
            "notices": list(self.notices()),
        }

    def notices(self) -> Iterator[str]:
        """What an operator should read, because fewer managers than planned could take over, or
        fewer members of the store than planned hold the journal."""
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

    async def step_down(self, comment: str | None) -> str:
        """Give the leadership back. Raises CommandRefused if nobody could take it."""
        own, leader = self.standing.own_id, self.standing.leader()
        if leader is not None and leader.id != own:
            raise CommandRefused(f"manager {own} does not lead, manager {leader.id} does.")
        others = [seen.id for seen in self.standing.managers() if seen.id != own]
        if not others:
            raise CommandRefused(
                f"manager {own} is the only one: no other manager could lead then. To restart it, "
                "run `systemctl restart halo` on its host."
            )
        await self.standing.step_down(comment or "by command")
        return f"Manager {own} gives the leadership back; the next leader is one of: " + (
            ", ".join(others) + "."
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
        "managers": [],
        "missing": [],
        "waiting": None,
        "store": None,
        "trouble": None,
        "notices": [],
    }


async def step_down(managers: Managers | None, comment: str | None) -> str:
    """The answer of the command `step-down`. Raises CommandRefused."""
    if managers is None:
        raise CommandRefused(
            "one manager runs, with its journal in a file: there is no leadership to give back."
        )
    return await managers.step_down(comment)


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
