"""How much of an agent's reports a manager reads."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from halo.adapters.rpc.report_appetite import Appetite
from halo.core.errors import LinkError
from halo.core.outcomes import OperationResult, Outcome, ReportBatch, ReportedResult
from halo.core.peers import bounds
from halo.core.peers.bounds import BATCH_LIMIT, REPORT_LIMIT


def batch(count: int, message: str) -> ReportBatch:
    result = OperationResult(Outcome.NOT_RUN, message=message)
    return ReportBatch(1, False, 0, tuple(ReportedResult("r", 0, result) for _ in range(count)))


def test_a_host_where_everything_changes_all_the_time_is_heard() -> None:
    appetite, bare = Appetite(), batch(BATCH_LIMIT, "")
    for number in range(20 * 60):
        appetite.take(bare, number / 20)


def test_a_full_report_where_everything_fails_is_heard() -> None:
    appetite, full = Appetite(), batch(BATCH_LIMIT, 2048 * "x")
    for number in range(8):
        appetite.take(full, number / 5)


def test_a_stream_of_large_reports_ends_the_connection() -> None:
    appetite, large = Appetite(), batch(1, REPORT_LIMIT * "x")
    for number in range(8):
        appetite.take(large, number / 1000)
    with pytest.raises(LinkError):
        appetite.take(large, 0.01)


@given(st.text())
@example("é\r\n\t\x00\x1b[31m\x9b\ufffd\U0001f600")
def test_what_cannot_be_shown_is_replaced_in_any_text(text: str) -> None:
    expected = text.encode("utf-8", "replace").decode().translate(bounds._SHOWN_AS)
    assert bounds.cut(text, 1_000_000) == expected
