"""The members of etcd, one by one: when one counts as lost, why, and what is told of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from halo.adapters.etcd.errors import EtcdError, NoAnswer, NoGateway, NotAllowed
from halo.adapters.etcd.location import Store
from halo.adapters.etcd.standby.member import Said
from halo.adapters.etcd.standby.members import DEADLINE_S, EVERY_S, NO_LEADER, Members
from halo.core.status.store import NO_SPACE, StoreAlarm, StoreMember
from tests.unit.virtual_time import loop_now, run

H1, H2, H3 = HOSTS = ("h1:2379", "h2:2379", "h3:2379")
STORE = Store(HOSTS, "/halo/test")
REFUSED = NoAnswer("no connection: connection refused", unknown=False)
SILENT = None


def said(id: int, **changes: Any) -> Said:
    found: dict[str, Any] = {"cluster": 77, "has_leader": True, "version": "3.5.16", **changes}
    return Said(id, leads=id == 1, **found)


class Scene:
    """Three members, each of which says what the test sets. `SILENT`: it says nothing."""

    def __init__(self) -> None:
        self.says: dict[str, Said | Exception | None] = {
            member: said(number) for number, member in enumerate(HOSTS, 1)
        }
        self.asked = Counter[str]()
        self.told: list[str] = []

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[Members]:
        loop = asyncio.get_running_loop()
        members = Members(STORE, lambda _store, member: _Line(self, member), loop.time)
        running = asyncio.ensure_future(members.run(self.told.append))
        try:
            yield members
        finally:
            running.cancel()
            await asyncio.wait([running])
            await members.close()


class _Line:
    def __init__(self, scene: Scene, member: str) -> None:
        self._scene = scene
        self._member = member
        self._busy = False

    async def ask(self, deadline_s: float) -> Said:
        assert not self._busy, "a member that hangs gathers questions"
        self._busy = True
        self._scene.asked[self._member] += 1
        try:
            answer = self._scene.says[self._member]
            if answer is SILENT:
                await asyncio.sleep(deadline_s)
                raise NoAnswer(f"no answer within {deadline_s:.1f} s", unknown=False)
            if isinstance(answer, Exception):
                raise answer
            return answer
        finally:
            self._busy = False

    async def close(self) -> None:
        pass


def of(members: Members, endpoint: str) -> StoreMember:
    return next(member for member in members.seen.members if member.endpoint == endpoint)


async def a_round() -> None:
    """Long enough for one more round, and for no two."""
    await asyncio.sleep(EVERY_S + DEADLINE_S / 2)


async def rounds(count: int) -> None:
    """Long enough for so many rounds, even if members are silent."""
    await asyncio.sleep(count * (EVERY_S + DEADLINE_S) + 0.1)


def test_all_members_are_seen_at_once() -> None:
    async def story() -> None:
        async with Scene().watched() as members:
            assert [member.answers for member in members.seen.members] == [None, None, None]
            await asyncio.sleep(0.1)
            assert all(member.works for member in members.seen.members)
            assert of(members, H1).leads
            assert not of(members, H2).leads
            assert of(members, H3).version == "3.5.16"

    run(story())


def test_one_slow_answer_is_no_loss_and_two_in_a_row_are() -> None:
    async def story() -> None:
        scene = Scene()
        async with scene.watched() as members:
            await asyncio.sleep(0.1)
            for _ in range(4):
                scene.says[H2] = REFUSED
                await asyncio.sleep(EVERY_S)
                assert scene.asked[H2] > 1
                assert of(members, H2).works
                scene.says[H2] = said(2)
                await asyncio.sleep(EVERY_S)
            began = loop_now().time()
            scene.says[H2] = REFUSED
            await asyncio.sleep(2 * EVERY_S)
            lost = of(members, H2)
            assert (lost.answers, lost.reason) == (False, "connection refused")
            assert began <= lost.since <= began + EVERY_S  # the first failure, not the second
            assert lost.version == "3.5.16"  # as it was known
            assert [H2 in notice for notice in members.seen.notices()] == [True]

    run(story())


def test_a_member_that_leads_no_more_because_it_is_lost_is_not_shown_as_the_leader() -> None:
    async def story() -> None:
        scene = Scene()
        async with scene.watched() as members:
            await rounds(1)
            assert of(members, H1).leads
            scene.says[H1] = SILENT
            await rounds(3)
            assert not of(members, H1).leads

    run(story())


def test_a_member_that_is_back_works_after_one_answer() -> None:
    async def story() -> None:
        scene = Scene()
        scene.says[H3] = SILENT
        async with scene.watched() as members:
            await rounds(3)
            assert of(members, H3).reason == "no answer within 2.0 s"
            scene.says[H3] = said(3)
            back = loop_now().time()
            await rounds(2)
            found = of(members, H3)
            assert found.works
            assert found.since >= back
            assert list(members.seen.notices()) == []

    run(story())


def test_a_member_that_never_answered_is_unknown_before_it_is_lost() -> None:
    async def story() -> None:
        scene = Scene()
        scene.says[H3] = REFUSED
        async with scene.watched() as members:
            await asyncio.sleep(0.1)
            assert (of(members, H3).answers, of(members, H3).reason) == (None, None)
            await a_round()
            assert of(members, H3).answers is False

    run(story())


def test_a_member_that_hangs_delays_no_other() -> None:
    """Each is asked again and again, and never twice at once."""

    async def story() -> None:
        scene = Scene()
        scene.says[H2] = SILENT
        async with scene.watched() as members:
            await asyncio.sleep(60)
            assert min(scene.asked.values()) >= 60 // (EVERY_S + DEADLINE_S)
            assert of(members, H1).works
            scene.says[H1] = REFUSED
            await rounds(2)
            assert of(members, H1).answers is False

    run(story())


@pytest.mark.parametrize(
    ("says", "answers", "words"),
    [
        (said(2, has_leader=False), True, NO_LEADER),
        (said(2, is_learner=True), True, "is a learner: it has no vote"),
        (said(2, cluster=78), True, "belongs to another etcd cluster"),
        (NotAllowed("permission denied"), True, "refuses to answer: permission denied"),
        (NoGateway("it has no JSON gateway"), True, "refuses to answer: it has no JSON gateway"),
        (RuntimeError("a defect"), False, "RuntimeError('a defect')"),
    ],
)
def test_why_a_member_does_not_count(says: Said | Exception, answers: bool, words: str) -> None:
    async def story() -> None:
        scene = Scene()
        scene.says[H2] = says
        async with scene.watched() as members:
            await rounds(2)
            found = of(members, H2)
            assert (found.answers, found.works) == (answers, False)
            assert (found.reason or "").startswith(words)
            assert of(members, H1).works
            assert of(members, H3).works

    run(story())


def test_a_reason_changes_only_when_it_stays() -> None:
    """Otherwise a member that fails now in this way and now in that one fills the log."""

    async def story() -> None:
        scene = Scene()
        scene.says[H2] = REFUSED
        async with scene.watched() as members:
            await rounds(2)
            for _ in range(5):
                scene.says[H2] = NoAnswer("the connection ended", unknown=True)
                await asyncio.sleep(EVERY_S)
                assert of(members, H2).reason == "connection refused"
                scene.says[H2] = REFUSED
                await asyncio.sleep(EVERY_S)
            before = of(members, H2).since
            scene.says[H2] = SILENT
            await rounds(3)
            assert of(members, H2).reason == "no answer within 2.0 s"
            assert of(members, H2).since == before

    run(story())


def test_a_loss_is_logged_once_and_so_is_the_return() -> None:
    async def story() -> None:
        scene = Scene()
        async with scene.watched():
            await rounds(1)
            with capture_logs() as logs:
                scene.says[H2] = REFUSED
                await asyncio.sleep(300)
                scene.says[H2] = said(2)
                await asyncio.sleep(300)
        assert [(line["log_level"], line["event"], line["peer"]) for line in logs] == [
            ("warning", "a member of etcd is lost", H2),
            ("info", "a member of etcd is back", H2),
        ]
        assert logs[0]["problem"] == "does not answer (connection refused)"

    run(story())


def test_an_alarm_is_told_once_although_each_member_tells_it() -> None:
    async def story() -> None:
        scene = Scene()
        errors = (
            "memberID:2 alarm:NOSPACE",
            "etcdserver: no leader",
            "memberID:255  alarm:CORRUPT",
        )
        async with scene.watched() as members:
            await rounds(1)
            with capture_logs() as logs:
                for number, member in enumerate(HOSTS, 1):
                    scene.says[member] = said(number, errors=errors)
                await rounds(4)
                assert list(members.seen.alarms) == [
                    StoreAlarm(H2, NO_SPACE),
                    StoreAlarm("ff", "CORRUPT"),  # as `etcdctl member list` names it
                ]
                scene.says = {m: said(n) for n, m in enumerate(HOSTS, 1)}
                scene.says[H1] = said(1, errors=("the disk is slow",))
                await rounds(4)
                assert list(members.seen.alarms) == [StoreAlarm(H1, "the disk is slow")]
                assert all(member.works for member in members.seen.members)
        assert Counter(line["event"] for line in logs) == {
            "etcd has an alarm": 3,
            "etcd has an alarm no more": 2,
        }

    run(story())


def test_alarms_without_number_fill_neither_the_answer_nor_the_log() -> None:
    async def story() -> None:
        scene = Scene()
        async with scene.watched() as members:
            with capture_logs() as logs:
                for number in range(100):
                    texts = tuple(f"{number} of {n}" for n in range(8))
                    scene.says = {m: said(n, errors=texts) for n, m in enumerate(HOSTS, 1)}
                    await asyncio.sleep(EVERY_S)
                    assert len(members.seen.alarms) <= 8
        written = [line for line in logs if line["log_level"] != "debug"]
        assert len(written) < 250  # of 4,800: at most 20 a minute for each member

    run(story())


@pytest.mark.parametrize("working", [0, 1])
def test_if_no_member_works_at_first_that_is_told_at_once(working: int) -> None:
    """Long before a request would give up. If one works, requests are under way to it."""

    async def story() -> None:
        scene = Scene()
        answers: list[Said | EtcdError] = [REFUSED, said(2, has_leader=False), REFUSED]
        scene.says.update(zip(HOSTS, answers, strict=True))
        if working:
            scene.says[H3] = said(3)
        async with scene.watched():
            await asyncio.sleep(0.1)
            told = (
                f"{H1}: no connection: connection refused; {H2}: {NO_LEADER}; "
                f"{H3}: no connection: connection refused"
            )
            assert scene.told == ([] if working else [told])
            await rounds(5)
            assert len(scene.told) == (0 if working else 1)  # a request tells the rest

    run(story())
