"""Watches the members of etcd one by one: which of them answer, and take part in the cluster?

A client of the store asks one member at a time and moves on when it fails, so the loss of a member
goes unnoticed. Here all are asked, by every manager, whether it leads or not. It decides nothing:
it is told to whoever asks.

One slow answer is no loss: a member counts as lost after two failures in a row, and as working
again after one answer.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol, TypeAlias

from halo.adapters.etcd.errors import EtcdError, NoAnswer, Refused
from halo.adapters.etcd.location import Store
from halo.adapters.etcd.standby.member import OneMember, Said
from halo.core.status.store import StoreAlarm, StoreMember, StoreSeen
from halo.telling import PeerLog

EVERY_S = 3.0
DEADLINE_S = 2.0
FAILURES = 2
"""How many in a row make a member a lost one."""
ALARMS_LIMIT = 8

NO_LEADER = "has no leader: it does not reach enough of the other members"
LEARNER = "is a learner: it has no vote"
OTHER_CLUSTER = (
    "belongs to another etcd cluster than the other members; correct the list of members in --store"
)

_ALARM = re.compile(r"memberID:(?P<id>[0-9]{1,20})\s+alarm:(?P<kind>[A-Z_]{1,40})", re.ASCII)
_NO_LEADER = "no leader"
"""What the errors of a member say if it knows no leader. Its status tells that besides."""

log = PeerLog("halo.etcd")

Answers: TypeAlias = Mapping[str, Said | EtcdError]
"""What each member said in one round, by its address."""


class Line(Protocol):
    """The way to one member."""

    async def ask(self, deadline_s: float) -> Said:
        """Raises EtcdError."""
        ...

    async def close(self) -> None: ...


class Members:
    """All members of one store. Make it on one event loop, :meth:`run` it there, and close it.

    `seen` may be read from every thread."""

    def __init__(
        self,
        store: Store,
        line: Callable[[Store, str], Line] = OneMember,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._lines = {member: line(store, member) for member in store.members}
        self._watched = {member: _Watched(member) for member in store.members}
        self._now = now
        self.seen = StoreSeen(tuple(watched.seen for watched in self._watched.values()))

    async def run(self, none_works: Callable[[str], None]) -> None:
        """Ask all members again and again, until cancelled. If none of them works at first,
        `none_works` is told at once what each one said."""
        is_first = True
        while True:
            try:
                answers = await self._ask_all()
                self._take(answers)
                if is_first and (words := _if_none_works(answers)) is not None:
                    none_works(words)
                is_first = False
            except Exception:
                log.exception("the members of etcd are not watched as they should be")
            await asyncio.sleep(EVERY_S)

    async def close(self) -> None:
        """Close all connections. Safe to repeat."""
        for line in self._lines.values():
            await line.close()

    async def _ask_all(self) -> Answers:
        found = await asyncio.gather(*map(self._ask, self._lines.values()))
        return dict(zip(self._lines, found, strict=True))

    @staticmethod
    async def _ask(line: Line) -> Said | EtcdError:
        try:
            return await line.ask(DEADLINE_S)
        except EtcdError as error:
            return error
        except Exception as error:  # a defect, which must not hide the other members
            log.exception("a member of etcd could not be asked")
            return NoAnswer(repr(error), unknown=False)

    def _take(self, answers: Answers) -> None:
        """Note one round, and log what changed."""
        at, strangers = self._now(), _of_other_cluster(answers)
        for member, answer in answers.items():
            watched = self._watched[member]
            before = watched.seen
            watched.take(answer, member in strangers, at)
            _tell_change(before, watched.seen)
        alarms = _alarms_in(answers)
        for alarm in alarms:
            if alarm not in self.seen.alarms:
                log.warning("etcd has an alarm", peer=alarm.member, problem=alarm.words)
        for alarm in self.seen.alarms:
            if alarm not in alarms:
                log.info("etcd has an alarm no more", peer=alarm.member, alarm=alarm.kind)
        self.seen = StoreSeen(tuple(each.seen for each in self._watched.values()), alarms)


class _Watched:
    """What is known of one member, over time."""

    def __init__(self, endpoint: str) -> None:
        self.seen = StoreMember(endpoint)
        self._failures = 0
        self._failing_since = 0.0
        self._last_reason = ""

    def take(self, answer: Said | EtcdError, is_stranger: bool, at: float) -> None:
        """Note one answer, or its absence."""
        was, reason = self.seen, _reason(answer, is_stranger)
        if reason is None and isinstance(answer, Said):
            self._failures = 0
            since = was.since if was.works else at
            self.seen = StoreMember(
                was.endpoint, True, None, since, answer.version or was.version, answer.leads
            )
            return
        reason = reason or ""
        if not self._failures:
            self._failing_since = at
        self._failures += 1
        again, self._last_reason = reason == self._last_reason, reason
        if self._failures < FAILURES or (was.reason is not None and not again):
            return  # one slow answer; or a reason that may be another one next time
        answers = isinstance(answer, Said | Refused)
        self.seen = replace(
            was, answers=answers, reason=reason, since=self._failing_since, leads=False
        )


def _reason(answer: Said | EtcdError, is_stranger: bool) -> str | None:
    """Why a member does not count among those that work; None if it does."""
    if isinstance(answer, Refused):
        return f"refuses to answer: {answer}"
    if isinstance(answer, EtcdError):
        return str(answer).removeprefix("no connection: ")
    if is_stranger:
        return OTHER_CLUSTER
    if not answer.has_leader:
        return NO_LEADER
    return LEARNER if answer.is_learner else None


def _of_other_cluster(answers: Answers) -> set[str]:
    """The members that belong to another cluster than most that answer."""
    clusters = {member: said.cluster for member, said in answers.items() if isinstance(said, Said)}
    if not clusters:
        return set()
    [(ours, _)] = Counter(clusters.values()).most_common(1)
    return {member for member, cluster in clusters.items() if cluster != ours}


def _alarms_in(answers: Answers) -> tuple[StoreAlarm, ...]:
    """Each alarm once, although every member tells all of them."""
    told = {member: said for member, said in answers.items() if isinstance(said, Said)}
    names = {said.id: member for member, said in told.items()}
    found: dict[StoreAlarm, None] = {}
    for member, said in told.items():
        for text in said.errors:
            if (alarm := _ALARM.fullmatch(text)) is not None:
                raised_by = int(alarm["id"])
                found[StoreAlarm(names.get(raised_by, f"{raised_by:x}"), alarm["kind"])] = None
            elif _NO_LEADER not in text:
                found[StoreAlarm(member, text)] = None
    return tuple(found)[:ALARMS_LIMIT]


def _if_none_works(answers: Answers) -> str | None:
    """What each member said, if none of them works."""
    words = {}
    for member, answer in answers.items():
        if (reason := _reason(answer, False)) is None:
            return None
        words[member] = str(answer) if isinstance(answer, EtcdError) else reason
    return "; ".join(f"{member}: {text}" for member, text in words.items())


def _tell_change(before: StoreMember, after: StoreMember) -> None:
    if after.reason is not None and before.reason is None:
        log.warning("a member of etcd is lost", peer=after.endpoint, problem=after.words)
    elif before.reason is not None and after.works:
        log.info("a member of etcd is back", peer=after.endpoint)
