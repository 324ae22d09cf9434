"""Every story is played, and its log is what stands in its file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.simulation.mutants import applied
from tests.stories.__main__ import difference
from tests.stories.mistakes import Mistake
from tests.stories.stage import play
from tests.stories.story import FOLDER, Story, load, names, read

pytestmark = pytest.mark.simulation

FOUND_OUT = [
    ("slow-device", "a_proof_is_as_old_as_the_question"),
    ("stop-and-start", "power_proof_never_grows_old"),
    ("device-does-nothing", "an_unverified_fence_is_believed"),
    ("device-lies", "a_distrusted_device_is_used"),
    ("two-levels", "a_failed_off_is_believed"),
    ("cold-start", "a_host_never_seen_is_fenced"),
    ("lost-again", "fenced_until_reset_is_ignored"),
    ("storm", "no_storm_guard"),
    ("fence-limit", "no_limit_of_fences"),
    ("unmanaged", "fences_although_it_holds_unmanaged_groups"),
    ("unmanaged-alone", "acts_while_unmanaged"),
    ("freeze", "acts_while_frozen"),
    ("short-silence", "silence_is_judged_too_soon"),
    ("stands-still", "a_standstill_counts_as_silence"),
    ("last-look", "the_fence_is_not_given_up_when_the_host_answers"),
    ("second-copy", "acts_on_second_copies"),
    ("disk-full", "waits_for_the_disk_for_ever"),
    ("shared", "what_is_shared_is_stopped_while_needed"),
    ("fence-fails", "a_failed_fence_is_never_tried_again"),
    ("order", "the_order_is_ignored_on_takeover"),
    ("order", "nobody_is_woken_when_its_turn_comes"),
]

HEAD = "It is short.\n\nhosts: h1 h2\ngroup g1: h1 h2\n\n"


def short(steps: str, head: str = HEAD) -> Story:
    return read(Path("short.txt"), head + steps)


@pytest.mark.parametrize("name", names())
def test_a_story_goes_as_it_is_written(name: str) -> None:
    story = load(name)
    told, written = story.with_logs(play(story)), story.path.read_text()
    assert told == written, (
        f"{difference(name, written, told)}\n"
        f"if it is meant to go like this: python -m tests.stories --update {name}"
    )


def test_what_was_told_once_is_told_again() -> None:
    story = load("power-cut")
    assert play(story) == play(story)


def test_another_log_is_another_story() -> None:
    """One line more, one line less, one word else: the comparison sees it."""
    story = load("power-cut")
    log = play(story)
    written = story.path.read_text()
    for other in ([log[0][:-1], *log[1:]], [[*log[0], log[0][0]], *log[1:]]):
        assert story.with_logs(other) != written
    assert difference("power-cut", written, written.replace("start of g1", "stop of g1"))


def test_a_broken_rule_is_told_whatever_stands_in_the_log() -> None:
    """The oracle of the simulation runs along."""
    with (
        applied("start_without_waiting_for_the_fence"),
        pytest.raises(Mistake, match=r"power-cut.txt:9: `> power cut h1`: a rule is broken: S1: "),
    ):
        play(load("power-cut"))


@pytest.mark.parametrize(("name", "mutant"), FOUND_OUT)
def test_a_manager_that_acts_otherwise_tells_another_story(name: str, mutant: str) -> None:
    """Deliberate breakages of the manager, and the stories that tell them."""
    story = load(name)
    with applied(mutant):
        try:
            told = story.with_logs(play(story))
        except Mistake:
            return
    assert told != story.path.read_text()


@pytest.mark.parametrize(
    ("steps", "line", "why"),
    [
        ("> power cut h9\n", 6, "there is no host h9"),
        ("> power cot h1\n", 6, "is not understood"),
        ("\n\n> halo fly g1\n", 8, "no such command"),
        ("> halo move g1 --fast\n", 6, "unknown option --fast"),
        ("> halo move g7 --to h1\n", 6, "no such object: move g7"),
        ("> power cut h1\n> wait a while\n", 7, "`wait` takes seconds"),
        ("> power cut h1\n> wait until it rains\n", 7, "nothing says 'it rains'"),
        ("> wait 3\n", 6, "does not begin with a wait"),
        ("> \n", 6, "nothing happens here"),
        ("> power cut h1\nwhat happens\n", 7, "a step begins with `>`"),
        (
            "> power cut h1\n\n> power back h1\n> wait 1\n"
            "> halo fence h1 --confirm-off --reason seen\n",
            10,
            "it has power",
        ),
        ("> resource g1 is started by hand on h1\n", 6, "g1 runs there"),
        ("> device 2 of h1 fails\n", 6, "h1 has no fence device 2"),
        ("> power cut h1\n# that was it\n", 7, "a remark stands above a step"),
    ],
)
def test_a_mistake_is_told_with_its_line(steps: str, line: int, why: str) -> None:
    with pytest.raises(Mistake, match=rf"short.txt:{line}: .*{re.escape(why)}"):
        play(short(steps))


@pytest.mark.parametrize(
    ("cluster", "line", "why"),
    [
        ("hosts: h1 h2\ngroup g1: h1 h3\n", 4, "h3 is not among the hosts"),
        ("hosts: h1 h2\ngroup g1: h1 h2, start failure run\n", 4, "unknown of a group"),
        ("hosts: h1 h2\nhost h1: on fire\ngroup g1: h1 h2\n", 4, "unknown of a host: 'on fire'"),
        ("hosts: h1 h2\nsetting: patience_s 3\n", 4, "there is no setting patience_s"),
        ("hosts: h1 h2\nsetting: loss_budget_s long\n", 4, "long is no number"),
        ("hosts: h1 h2\ncluster of mine\n", 4, "a line here begins with"),
        ("hosts: h1 h2\n", 3, "a cluster has hosts and groups"),
    ],
)
def test_so_is_one_of_the_cluster(cluster: str, line: int, why: str) -> None:
    with pytest.raises(Mistake, match=rf"short.txt:{line}: .*{re.escape(why)}"):
        short("\n> power cut h1\n", head="It is short.\n\n" + cluster)


def test_every_story_says_what_it_shows() -> None:
    for name in names():
        sentence = load(name).head[0]
        assert len(sentence) > 20, name
        assert not re.match(r"(hosts|group)\b.*:", sentence), name


def test_the_manual_names_all_that_a_story_can_say() -> None:
    manual = (FOLDER / "README.md").read_text()
    for word in ("power cut", "power back", "network of", "agent of", "device of", "switches",
                 "by hand on", "manager stands still", "disk is full", "wait until"):  # fmt: skip
        assert word in manual
