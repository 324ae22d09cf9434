"""What a watching agent tells, and that a reader's picture is the agent's, whatever happens."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from halo.core.model import ResourceId
from halo.core.outcomes import OperationResult, Outcome, ReportedResult
from halo.core.peers.bounds import BATCH_LIMIT
from halo.core.peers.digest import DigestKeeper, digest_of
from halo.remote.reports import MESSAGE_LIMIT, Reports
from tests.unit.watch_helpers import Reader, bare, completed

NAMES = ("a", "b", "c", "d/e")

names = st.sampled_from(NAMES)
results = st.one_of(
    st.builds(OperationResult, st.just(Outcome.COMPLETED), st.integers(-1, 255), st.text()),
    st.builds(OperationResult, st.sampled_from([Outcome.NOT_RUN, Outcome.TIMED_OUT])),
)
reported = st.builds(ReportedResult, names, st.integers(0, 3), results)
steps = st.lists(st.one_of(reported, st.sampled_from(["send", "refuse", "heartbeat"])), max_size=60)


def looked(name: str, code: int = 0, operations: int = 0, message: str = "") -> ReportedResult:
    return ReportedResult(name, operations, completed(code, message))


@given(steps)
def test_a_readers_picture_and_digest_are_the_agents(taken: list[ReportedResult | str]) -> None:
    reports, reader = Reports(NAMES), Reader()
    latest: dict[ResourceId, ReportedResult] = {}
    for step in taken:
        if isinstance(step, ReportedResult):
            reports.note(step, reports.generation)
            if not reports.refused:
                latest[step.resource] = step
        elif step == "heartbeat" and reports.refused:
            reports.begin_afresh()
            latest.clear()
        elif step != "heartbeat" and not reports.refused:
            batch = reports.next_batch()
            if step == "refuse":
                reports.refuse()
            else:
                reader.read(batch)
    if reports.refused:
        assert not reports.pressing
        return
    while True:
        was_pressing = reports.pressing
        reader.read(reports.next_batch())
        if not was_pressing:
            break
    told = {name: bare(entry) for name, entry in reader.picture.items()}
    assert told == {name: bare(entry) for name, entry in latest.items()}
    assert not reader.faults
    assert reader.complete == (len(latest) == len(NAMES))


pictures = st.dictionaries(st.text(), st.tuples(st.integers(0, 3), results))


def as_reports(picture: dict[str, tuple[int, OperationResult]]) -> list[ReportedResult]:
    return [ReportedResult(name, number, result) for name, (number, result) in picture.items()]


@given(pictures, pictures)
def test_the_digest_says_whether_two_pictures_are_the_same(
    first: dict[str, tuple[int, OperationResult]], second: dict[str, tuple[int, OperationResult]]
) -> None:
    def shown(picture: dict[str, tuple[int, OperationResult]]) -> dict[str, object]:
        return {n: (ended, r.outcome, r.code) for n, (ended, r) in picture.items()}

    one, other = as_reports(first), as_reports(second)
    assert (digest_of(one) == digest_of(other)) == (shown(first) == shown(second))
    keeper = DigestKeeper()
    for entry in [*other, *one]:
        keeper.set(entry)
    assert keeper.value == digest_of(as_reports({**second, **first}))


def test_the_digest_is_the_same_in_every_version() -> None:
    assert digest_of([]) == 0
    picture = [
        looked("tank", 0, operations=2),
        ReportedResult("tank/mgt", 0, OperationResult(Outcome.TIMED_OUT)),
    ]
    assert digest_of(picture) == 15272012206312913562


def test_nothing_is_pressing_while_nothing_changes() -> None:
    reports = Reports(["a"])
    reports.note(looked("a", message="1"), reports.generation)
    assert reports.next_batch().complete
    reports.note(looked("a", message="2"), reports.generation)
    assert not reports.pressing
    batch = reports.next_batch()
    assert (batch.sequence, batch.complete, batch.results) == (2, False, ())


def test_the_first_look_after_an_operation_is_told_though_it_found_the_same() -> None:
    reports = Reports(["a"])
    reports.note(looked("a", 7, operations=0), reports.generation)
    reports.next_batch()
    reports.note(looked("a", 7, operations=1), reports.generation)
    assert reports.next_batch().results == (looked("a", 7, operations=1),)


def test_a_full_report_after_a_refusal_holds_only_what_was_sampled_after_the_heartbeat() -> None:
    reports = Reports(["a", "b"])
    before = reports.generation
    reports.note(looked("a"), before)
    reports.next_batch()
    reports.refuse()
    reports.note(looked("b"), before)
    reports.begin_afresh()
    reports.note(looked("b"), before)
    assert not reports.pressing
    for name in ("a", "b"):
        reports.note(looked(name), reports.generation)
    batch = reports.next_batch()
    assert (batch.sequence, batch.complete, len(batch.results)) == (1, True, 2)


def test_batches_and_messages_are_bounded() -> None:
    count = 2 * BATCH_LIMIT + 1
    reports = Reports(str(n) for n in range(count))
    for n in range(count):
        reports.note(looked(str(n), 1, message="x" * 20000 + "end"), reports.generation)
    batches = [reports.next_batch() for _ in range(3)]
    assert [len(batch.results) for batch in batches] == [BATCH_LIMIT, BATCH_LIMIT, 1]
    assert [batch.complete for batch in batches] == [False, False, True]
    message = batches[0].results[0].result.message
    assert len(message) == MESSAGE_LIMIT
    assert message.endswith("end")


def test_a_watch_of_nothing_is_complete_at_once() -> None:
    reports = Reports([])
    assert reports.pressing
    assert reports.next_batch().complete
    assert not reports.pressing
