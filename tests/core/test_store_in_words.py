"""What an operator reads of a store that lost a member: which one, why, and what that means."""

from __future__ import annotations

import pytest

from halo.core.status.store import CORRUPT, NO_SPACE, StoreAlarm, StoreMember, StoreSeen

REFUSED = "connection refused"


def member(number: int, reason: str | None = None, answers: bool | None = None) -> StoreMember:
    if answers is None:
        answers = reason is None
    return StoreMember(f"h{number}:2379", answers, reason, 1000.0, "3.5.16", number == 1)


def store(total: int, lost: int) -> StoreSeen:
    """The last members are lost."""
    return StoreSeen(
        tuple(member(n, REFUSED if n > total - lost else None) for n in range(1, total + 1))
    )


def test_a_store_that_is_whole_is_not_worth_a_word() -> None:
    assert list(store(3, 0).notices()) == []
    assert list(StoreSeen().notices()) == []
    assert list(StoreSeen((StoreMember("h1:2379"),)).notices()) == []  # not asked yet


def test_a_lost_member_is_named_with_what_that_means() -> None:
    assert list(store(3, 1).notices()) == [
        "etcd member h3:2379 does not answer (connection refused): 2 of 3 members work. One more "
        "lost, and no manager can lead; see `systemctl status etcd` on h3"
    ]


@pytest.mark.parametrize(
    ("total", "lost", "means"),
    [
        (5, 1, "4 of 5 members work. 2 more lost, and no manager can lead"),
        (5, 2, "3 of 5 members work. One more lost, and no manager can lead"),
        (7, 1, "6 of 7 members work. 3 more lost, and no manager can lead"),
        (3, 2, "1 of 3 members work. One more lost, and no manager can lead"),
        (3, 3, "0 of 3 members work. No manager can lead until most of them work"),
        (1, 1, "0 of 1 members work. No manager can lead until most of them work"),
    ],
)
def test_how_many_more_may_be_lost(total: int, lost: int, means: str) -> None:
    """A member that works knows a leader. So a majority lives, wherever it may be: with 1 of 3 at
    work, this manager is what cannot reach the others."""
    found = list(store(total, lost).notices())
    assert len(found) == lost
    assert all(f": {means}; see " in notice for notice in found)


def test_a_member_that_answers_and_takes_no_part_does_not_count() -> None:
    cut_off = member(2, "has no leader", answers=True)
    [notice] = StoreSeen((member(1), cut_off, member(3))).notices()
    assert notice.startswith("etcd member h2:2379 has no leader: 2 of 3 members work. ")


def test_the_host_of_an_address_is_named_without_its_brackets() -> None:
    lost = StoreMember("[fd00::1]:2379", False, REFUSED)
    [notice] = StoreSeen((lost,)).notices()
    assert notice.endswith("on fd00::1")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (NO_SPACE, "raised by its member h2:2379: its database is full"),
        (CORRUPT, "raised by its member h2:2379: what its members hold differs"),
        ("the disk is slow", "etcd member h2:2379 says: the disk is slow"),
    ],
)
def test_an_alarm_is_a_notice(kind: str, words: str) -> None:
    [notice] = StoreSeen((member(1),), (StoreAlarm("h2:2379", kind),)).notices()
    assert words in notice
