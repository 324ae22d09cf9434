"""What is known, over which connection it was learnt, and what is dropped when it ends."""

from __future__ import annotations

import pytest

from halo.core.cluster.candidate import Candidate
from halo.core.cluster.host_state import HostState
from halo.core.cluster.knowledge import Knowledge, Presence
from halo.core.model import Resource, ResourceGroup

from .builders import ERROR, RUNNING, STOPPED, make_group

UNKNOWN = Presence.UNKNOWN
GROUP = make_group(tree={"g": ["a", "b"], "a": [], "b": []})
WITH_SHARED = make_group(tree={"g": ["net"], "net": []}, shared=["net"])


def see(
    knowledge: Knowledge,
    group: ResourceGroup,
    host: str,
    *presences: Presence,
    epoch: int = 1,
    at: float = 10.0,
) -> None:
    for resource, presence in zip(group.resources, presences, strict=True):
        knowledge.observe(resource, host, presence, epoch=epoch, begun_at=at)


def candidate(knowledge: Knowledge, epoch: int = 1) -> Candidate:
    """h1, connected for the `epoch`-th time, as a candidate for the group."""
    return Candidate(GROUP, "h1", HostState("h1", epoch=epoch), knowledge.on_host("h1"))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([STOPPED, STOPPED, STOPPED], STOPPED),
        ([RUNNING, RUNNING, RUNNING], RUNNING),
        ([STOPPED, STOPPED, RUNNING], RUNNING),  # a leaf alone is a copy as well
        ([UNKNOWN, ERROR, RUNNING], RUNNING),
        ([STOPPED, STOPPED, UNKNOWN], UNKNOWN),
        ([STOPPED, ERROR, STOPPED], UNKNOWN),
        ([ERROR, ERROR, ERROR], UNKNOWN),
    ],
)
def test_a_groups_presence_follows_from_its_resources(
    found: list[Presence], expected: Presence
) -> None:
    knowledge = Knowledge()
    see(knowledge, GROUP, "h1", *found)
    assert knowledge.presence(GROUP, "h1") is expected
    assert knowledge.running_on(GROUP) == (["h1"] if expected is RUNNING else [])


def test_a_shared_resource_says_nothing_of_its_group() -> None:
    knowledge = Knowledge()
    see(knowledge, WITH_SHARED, "h1", STOPPED, RUNNING)
    assert knowledge.presence(WITH_SHARED, "h1") is STOPPED


def test_nothing_is_known_of_what_was_never_looked_at() -> None:
    knowledge = Knowledge()
    assert knowledge.presence(GROUP, "h1") is UNKNOWN
    assert candidate(knowledge, epoch=1).stopped_since is None
    assert candidate(knowledge).last_seen is UNKNOWN


def test_a_lost_connection_drops_what_was_known_and_keeps_what_was_last_seen() -> None:
    knowledge = Knowledge()
    see(knowledge, GROUP, "h1", RUNNING, RUNNING, STOPPED)
    see(knowledge, GROUP, "h2", STOPPED, STOPPED, STOPPED)
    knowledge.drop_host("h1", "h1 is disconnected")
    assert knowledge.presence(GROUP, "h1") is UNKNOWN
    assert knowledge.of("g", "h1").reason == "h1 is disconnected"
    assert candidate(knowledge).last_seen is RUNNING
    assert knowledge.presence(GROUP, "h2") is STOPPED


def test_a_slow_answer_to_an_older_question_is_dropped() -> None:
    knowledge = Knowledge()
    root = GROUP.resources[0]
    assert knowledge.observe(root, "h1", STOPPED, epoch=1, begun_at=10.0)
    assert not knowledge.observe(root, "h1", RUNNING, epoch=1, begun_at=9.9)
    assert knowledge.of("g", "h1").presence is STOPPED


def test_an_older_connections_clock_does_not_hold_back_a_new_one() -> None:
    knowledge = Knowledge()
    root = GROUP.resources[0]
    knowledge.observe(root, "h1", STOPPED, epoch=1, begun_at=10.0)
    knowledge.drop_host("h1", "gone")
    assert knowledge.observe(root, "h1", RUNNING, epoch=2, begun_at=9.0)


@pytest.mark.parametrize(
    ("sampled", "epoch", "expected"),
    [
        ([(STOPPED, 10.0), (STOPPED, 12.0), (STOPPED, 11.0)], 1, 10.0),  # the oldest counts
        ([(STOPPED, 10.0), (ERROR, 12.0), (STOPPED, 11.0)], 1, None),
        ([(STOPPED, 10.0), (STOPPED, 12.0), (STOPPED, 11.0)], 2, None),  # another connection
    ],
)
def test_a_monitor_proof_is_as_old_as_its_oldest_sample(
    sampled: list[tuple[Presence, float]], epoch: int, expected: float | None
) -> None:
    knowledge = Knowledge()
    for resource, (presence, at) in zip(GROUP.resources, sampled, strict=True):
        knowledge.observe(resource, "h1", presence, epoch=1, begun_at=at)
    assert candidate(knowledge, epoch=epoch).stopped_since == expected


def test_a_start_that_was_sent_may_have_worked() -> None:
    knowledge = Knowledge()
    see(knowledge, GROUP, "h1", STOPPED, STOPPED, STOPPED)
    knowledge.note_starting(GROUP.resources[0], "h1", epoch=1, begun_at=20.0)
    assert knowledge.presence(GROUP, "h1") is UNKNOWN
    assert candidate(knowledge, epoch=1).stopped_since is None
    # A monitor that was sent before the start and answered after it proves nothing.
    knowledge.observe(GROUP.resources[0], "h1", STOPPED, epoch=1, begun_at=19.0)
    assert knowledge.presence(GROUP, "h1") is UNKNOWN
    assert candidate(knowledge).last_seen is RUNNING


def test_a_confirmed_fence_stops_everything_there() -> None:
    knowledge = Knowledge()
    see(knowledge, GROUP, "h1", RUNNING, ERROR, RUNNING)
    knowledge.mark_failure("a", "h1", "stop failed")
    knowledge.note_root_running(GROUP, "h1", epoch=1)
    knowledge.host_fenced("h1", list(GROUP.resources))
    assert knowledge.presence(GROUP, "h1") is STOPPED
    assert candidate(knowledge).last_seen is STOPPED
    assert knowledge.of("a", "h1").failure is None
    assert not knowledge.root_seen(GROUP, "h1", 1)
    # It is no monitor proof: only the power proof speaks for a fenced host.
    assert candidate(knowledge, epoch=1).stopped_since in (None, float("-inf"))


def test_a_cleanup_forgets_what_is_known_and_forgives_failures() -> None:
    knowledge = Knowledge()
    see(knowledge, GROUP, "h1", RUNNING, RUNNING, RUNNING)
    knowledge.note_root_running(GROUP, "h1", epoch=1)
    knowledge.mark_failure("g", "h1", "start failed")
    knowledge.drop_group(GROUP, "afresh", now=20.0)
    assert knowledge.presence(GROUP, "h1") is UNKNOWN
    assert knowledge.of("g", "h1").failure is None
    assert not knowledge.root_seen(GROUP, "h1", 1)


def test_an_answer_to_a_question_from_before_a_cleanup_does_not_count() -> None:
    knowledge = Knowledge()
    knowledge.drop_group(GROUP, "afresh", now=20.0)
    resource = GROUP.resources[0]
    for begun_at, counts in ((19.0, False), (21.0, True)):
        taken = knowledge.observe(resource, "h1", RUNNING, epoch=1, begun_at=begun_at)
        assert taken is counts
        assert (knowledge.presence(GROUP, "h1") is RUNNING) is counts


# --- S1's exception: completed in place where the root was seen ---------------------------------


def test_a_root_seen_counts_over_its_own_connection_only() -> None:
    knowledge = Knowledge()
    knowledge.note_root_running(GROUP, "h1", epoch=3)
    assert knowledge.root_seen(GROUP, "h1", 3)
    assert not knowledge.root_seen(GROUP, "h1", 4)
    assert not knowledge.root_seen(GROUP, "h2", 3)


def test_a_root_seen_elsewhere_ends_it_here() -> None:
    knowledge = Knowledge()
    knowledge.note_root_running(GROUP, "h1", epoch=3)
    knowledge.note_root_running(GROUP, "h2", epoch=5)
    assert not knowledge.root_seen(GROUP, "h1", 3)
    assert knowledge.root_seen(GROUP, "h2", 5)


def test_a_leaf_seen_elsewhere_ends_it_here_and_gives_nothing_there() -> None:
    knowledge = Knowledge()
    knowledge.note_root_running(GROUP, "h1", epoch=3)
    knowledge.note_seen_elsewhere(GROUP, "h2")
    assert not knowledge.root_seen(GROUP, "h1", 3)
    assert not knowledge.root_seen(GROUP, "h2", 5)


def test_a_lost_connection_ends_it() -> None:
    knowledge = Knowledge()
    knowledge.note_root_running(GROUP, "h1", epoch=3)
    knowledge.drop_host("h1", "gone")
    assert not knowledge.root_seen(GROUP, "h1", 3)


def test_nothing_is_shared_between_resources_of_the_same_name_on_other_hosts() -> None:
    knowledge = Knowledge()
    resource = Resource("x", "k/d", {})
    knowledge.mark_failure("x", "h1", "bad")
    knowledge.observe(resource, "h2", RUNNING, epoch=1, begun_at=1.0)
    assert knowledge.of("x", "h2").failure is None
    assert knowledge.of("x", "h3").presence is UNKNOWN
