"""What every journal medium must do, whatever it is made of.

Subclass :class:`JournalMediumContract` in a test module, name the class `Test...`, and give it
`open_medium` and `crash`. The same tests then run on that medium.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import Any

import pytest

from halo.core.errors import RecordError, StateError
from halo.ports import JournalMedium, JournalRecord


def record(number: int, **data: Any) -> JournalRecord:
    """A record as the journal writes them, told apart by its number."""
    return {"at": 1.5 * number, "event": "manage", "object": f"g{number}", "data": data}


class JournalMediumContract(ABC):
    """The tests. Each test has a medium of its own: `open_medium` opens the same one again."""

    @abstractmethod
    def open_medium(self) -> JournalMedium:
        """Open this test's medium."""

    async def test_a_new_medium_is_empty(self) -> None:
        medium = self.open_medium()
        assert list(medium.read()) == []
        await medium.close()

    async def test_records_come_back_in_order_after_a_restart(self) -> None:
        medium = self.open_medium()
        await medium.append([record(1), record(2)])
        await medium.append([record(3)])
        await medium.close()
        medium = self.open_medium()
        assert list(medium.read()) == [record(1), record(2), record(3)]
        await medium.append([record(4)])
        await medium.close()
        medium = self.open_medium()
        assert list(medium.read()) == [record(n) for n in (1, 2, 3, 4)]
        await medium.close()

    async def test_records_can_be_read_while_the_medium_is_in_use(self) -> None:
        medium = self.open_medium()
        await medium.append([record(1)])
        assert list(medium.read()) == [record(1)]
        await medium.close()

    async def test_what_a_record_holds_is_kept_exactly(self) -> None:
        odd = record(
            1,
            text="quotes \" ' \\ tab \t newline \n nul \0 umlaut ü snowman ☃ 😀 \udcff",
            numbers=[0, -1, 2**53, 0.1, 1e300],
            nothing=None,
            truth=[True, False],
            nested={"": {"a": []}},
        )
        medium = self.open_medium()
        await medium.append([odd])
        await medium.close()
        medium = self.open_medium()
        assert list(medium.read()) == [odd]
        await medium.close()

    async def test_a_record_is_written_as_it_was_at_the_call(self) -> None:
        medium = self.open_medium()
        mutable = record(1, reason="before")
        append = asyncio.ensure_future(medium.append([mutable]))
        await asyncio.sleep(0)
        mutable["data"]["reason"] = "after"
        await append
        assert list(medium.read()) == [record(1, reason="before")]
        await medium.close()

    async def test_an_empty_batch_changes_nothing(self) -> None:
        medium = self.open_medium()
        await medium.append([])
        assert list(medium.read()) == []
        await medium.close()

    async def test_what_is_not_json_is_refused_and_nothing_of_its_batch_written(self) -> None:
        medium = self.open_medium()
        for bad in (object(), float("nan")):
            with pytest.raises((TypeError, ValueError)):
                await medium.append([record(1), record(2, bad=bad)])
        await medium.append([record(3)])
        assert list(medium.read()) == [record(3)]
        await medium.close()

    async def test_concurrent_appends_all_arrive_in_the_order_of_their_calls(self) -> None:
        medium = self.open_medium()
        await asyncio.gather(*(medium.append([record(n)]) for n in range(100)))
        assert list(medium.read()) == [record(n) for n in range(100)]
        await medium.close()

    async def test_compact_replaces_all_records(self) -> None:
        medium = self.open_medium()
        await medium.append([record(n) for n in range(50)])
        await medium.compact([record(100), record(101)])
        assert list(medium.read()) == [record(100), record(101)]
        await medium.append([record(102)])
        await medium.close()
        medium = self.open_medium()
        assert list(medium.read()) == [record(100), record(101), record(102)]
        await medium.close()

    async def test_compact_to_nothing(self) -> None:
        medium = self.open_medium()
        await medium.append([record(1)])
        await medium.compact([])
        await medium.append([record(2)])
        await medium.close()
        medium = self.open_medium()
        assert list(medium.read()) == [record(2)]
        await medium.close()

    async def test_a_second_manager_is_refused_until_the_first_is_gone(self) -> None:
        first = self.open_medium()
        with pytest.raises(StateError, match="in use by"):
            self.open_medium()
        await first.append([record(1)])
        await first.close()
        second = self.open_medium()
        assert list(second.read()) == [record(1)]
        await second.close()

    async def test_a_refused_second_manager_does_not_weaken_the_lock(self) -> None:
        first = self.open_medium()
        for _ in range(3):
            with pytest.raises(StateError, match="in use by"):
                self.open_medium()
        await first.close()

    async def test_a_closed_medium_refuses_appends(self) -> None:
        medium = self.open_medium()
        await medium.close()
        await medium.close()
        with pytest.raises(RecordError, match="closed"):
            await medium.append([record(1)])
        medium = self.open_medium()
        assert list(medium.read()) == []
        await medium.close()

    async def test_a_cancelled_append_leaves_the_medium_whole(self) -> None:
        medium = self.open_medium()
        for number in range(20):
            task = asyncio.ensure_future(medium.append([record(number), record(number)]))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await medium.append([record(99)])
        await medium.close()
        medium = self.open_medium()
        expected = [record(n) for n in range(20) for _ in (1, 2)]
        assert list(medium.read()) == [*expected, record(99)]
        await medium.close()

    async def test_close_waits_for_what_is_pending(self) -> None:
        medium = self.open_medium()
        appends = [asyncio.ensure_future(medium.append([record(n)])) for n in range(50)]
        await asyncio.sleep(0)
        await medium.close()
        await asyncio.gather(*appends)
        medium = self.open_medium()
        assert list(medium.read()) == [record(n) for n in range(50)]
        await medium.close()
