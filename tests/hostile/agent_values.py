"""Rogue agents whose words are well formed and make no sense: values, counts, order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from halo.core.outcomes import Outcome
from tests.hostile import frames
from tests.hostile.frames import Asked, Fill
from tests.hostile.registry import Registry
from tests.hostile.rogue import (
    FEATURES,
    NOT_RUNNING,
    Behaviour,
    Connection,
    Handler,
    Told,
    answer,
    completed,
    outcome,
    outcomes,
    refuse,
    report,
    serve,
    take_watch,
    watched,
    welcome,
)

ALONE = ("validateAll",)
POLLED = ("monitorMany", "validateAll")
HUGE_U64 = 2**64 - 1
INT_MIN, INT_MAX = -(2**31), 2**31 - 1

_TAG_AT = 80
"""Where the tag of a union stands that is all of a method's answer: behind the table of segments,
Message, Return, Payload and their pointers."""

_MARK = 0x1122334455667788

behaviour: Registry[Behaviour] = Registry()


def behaviours() -> dict[str, Callable[[], Behaviour]]:
    """What makes each behaviour of this module, by name."""
    return behaviour.makers()


def _answer_with_tag(fill: Fill, tag: int = 77) -> Handler:
    """Answer with a union, whose tag is then changed to one that nobody knows."""

    def handle(connection: Connection, asked: Asked) -> None:
        frame = frames.results(asked.question, asked.method, fill)
        connection.send(_with_tag(frame, _TAG_AT, tag))

    return handle


def _with_tag(frame: bytes, at: int, tag: int) -> bytes:
    return frame[:at] + tag.to_bytes(2, "little") + frame[at + 2 :]


_MANY_FEATURES = welcome(features=[f"feature{n}" for n in range(100_000)])
_SAME_FEATURE = welcome(features=["watch"] * 100_000)


# Greetings --------------------------------------------------------------------------------------


@behaviour
async def a_hundred_thousand_features(connection: Connection) -> None:
    await serve(connection, hello=_MANY_FEATURES)


@behaviour
async def the_same_feature_over_and_over(connection: Connection) -> None:
    await serve(connection, hello=_SAME_FEATURE)


@behaviour
async def nothing_in_the_welcome(connection: Connection) -> None:
    await serve(connection, hello=welcome("", "", "", ()))


@behaviour
async def another_boot_at_each_connection(connection: Connection) -> None:
    async def leave(connection: Connection, asked: Asked) -> None:
        await connection.close()

    boot = str(connection.number)
    await serve(connection, hello=welcome(boot=boot, start=boot), heartbeat=leave)


@behaviour
async def other_features_at_each_connection(connection: Connection) -> None:
    await serve(connection, hello=welcome(features=(FEATURES, ALONE, ())[connection.number % 3]))


@behaviour
async def another_manager_is_served(connection: Connection) -> None:
    await serve(
        connection, hello=answer(lambda r: setattr(r.init("greeting"), "busy", "me myself"))
    )


@behaviour
async def a_term_of_all_ones(connection: Connection) -> None:
    await serve(
        connection, hello=answer(lambda r: setattr(r.init("greeting"), "staleTerm", HUGE_U64))
    )


@behaviour
async def an_unknown_greeting(connection: Connection) -> None:
    await serve(connection, hello=_answer_with_tag(lambda r: r.init("greeting")))


@behaviour
async def no_greeting_in_the_answer(connection: Connection) -> None:
    await serve(connection, hello=answer())


# Operations and monitors ------------------------------------------------------------------------


@behaviour
async def codes_beyond_all_sense(connection: Connection) -> None:
    codes = (INT_MIN, INT_MAX, -1, 255, 256, 0x7FFF, 10, 99)

    def any_code(target: Any) -> None:
        completed(connection.chance.choice(codes))(target)

    await serve(
        connection, hello=welcome(features=POLLED), monitorMany=outcomes(any_code),
        run=outcome(any_code),
    )  # fmt: skip


@behaviour
async def running_and_stopped_in_turn(connection: Connection) -> None:
    state = [0]

    def toggle(target: Any) -> None:
        state[0] = NOT_RUNNING - state[0]
        completed(state[0])(target)

    await serve(
        connection, hello=welcome(features=POLLED), monitorMany=outcomes(toggle),
        run=outcome(toggle),
    )  # fmt: skip


@behaviour
async def every_operation_succeeds_and_nothing_runs(connection: Connection) -> None:
    def run(connection: Connection, asked: Asked) -> None:
        code = NOT_RUNNING if asked.params().op == "monitor" else 0
        outcome(completed(code))(connection, asked)

    await serve(connection, hello=welcome(features=ALONE), run=run)


@behaviour
async def an_unknown_outcome(connection: Connection) -> None:
    await serve(
        connection, hello=welcome(features=ALONE), run=_answer_with_tag(lambda r: r.init("outcome"))
    )


@behaviour
async def pending_where_it_may_not_be(connection: Connection) -> None:
    pending = outcome(lambda o: setattr(o, "pending", None))
    await serve(connection, hello=welcome(features=ALONE), run=pending)


@behaviour
async def pending_for_ever(connection: Connection) -> None:
    await serve(
        connection,
        hello=welcome(features=POLLED),
        monitorMany=outcomes(lambda o: setattr(o, "pending", None)),
        run=lambda *_: None,
    )


@behaviour
async def a_stale_term_from_every_operation(connection: Connection) -> None:
    def stale(outcome: Any) -> None:
        outcome.staleTerm = HUGE_U64

    await serve(
        connection, hello=welcome(features=POLLED), monitorMany=outcomes(stale), run=outcome(stale)
    )


def _so_many_outcomes(count: int) -> Handler:
    def fill(results: Any) -> None:
        for each in results.init("outcomes", count):
            completed()(each)

    return answer(fill)


@behaviour
async def no_outcomes(connection: Connection) -> None:
    await serve(connection, hello=welcome(features=POLLED), monitorMany=_so_many_outcomes(0))


@behaviour
async def far_too_many_outcomes(connection: Connection) -> None:
    many = _so_many_outcomes(50_000)
    await serve(connection, hello=welcome(features=POLLED), monitorMany=many)


@behaviour
async def an_unknown_answer_of_a_legacy_agent(connection: Connection) -> None:
    await serve(
        connection,
        hello=refuse("unknown", "unimplemented"),
        operation=_answer_with_tag(lambda r: r.init("result")),
    )


# Reports ----------------------------------------------------------------------------------------


def _watching(*told: Told, **how: Any) -> Behaviour:
    async def behave(connection: Connection) -> None:
        def watch(connection: Connection, asked: Asked) -> None:
            take_watch(connection, asked)
            named = [Told(i.instance) for i in asked.params().items]
            report(connection, asked, told or named, **how)

        await serve(connection, watch=watch)

    return behave


behaviour.update(
    reports_of_the_honest_groups=_watching(Told("g1"), Told("g2")),
    reports_of_the_honest_groups_as_running=_watching(Told("g1", 0), Told("g2", 0)),
    reports_of_nothing_known=_watching(Told("no such resource")),
    reports_without_a_name=_watching(Told("\t")),
    reports_with_a_path_as_name=_watching(Told("../../etc/passwd")),
    reports_of_a_huge_count_of_operations=_watching(Told("g1", 0, operations=2**32 - 1)),
    batch_zero=_watching(sequence=0),
    batch_of_all_ones=_watching(sequence=HUGE_U64),
    batch_from_the_future=_watching(sequence=17),
    another_digest=_watching(digest=HUGE_U64),
    ten_thousand_reports_at_once=_watching(*[Told(f"r{n}") for n in range(10_000)]),
    a_batch_that_never_ends=_watching(complete=False),
)


@behaviour
async def an_unknown_report(connection: Connection) -> None:
    """The batch is well formed, its outcome is of a kind that nobody knows."""

    def watch(connection: Connection, asked: Asked) -> None:
        take_watch(connection, asked)

        def fill(params: Any) -> None:
            batch = params.init("batch")
            batch.sequence = 1
            entry = batch.init("reports", 1)[0]
            entry.instance = _first(asked)
            entry.init("outcome").staleTerm = _MARK

        frame = frames.call(connection.question(), "report", fill, on_import=asked.imported()[0])
        tag_at = frame.index(_MARK.to_bytes(8, "little")) - frames.WORD
        connection.send(_with_tag(frame, tag_at, 77))

    await serve(connection, watch=watch)


def _flood(pause_every: int, make: Callable[[Connection, Asked, int], None]) -> Behaviour:
    """Report as fast as the connection takes it."""

    async def behave(connection: Connection) -> None:
        flooding: list[asyncio.Task[None]] = []

        async def flood(asked: Asked) -> None:
            number = 0
            while True:
                make(connection, asked, number)
                number += 1
                if number % pause_every == 0:
                    await connection.writer.drain()
                    await asyncio.sleep(0.01)

        def watch(connection: Connection, asked: Asked) -> None:
            watched(connection, asked)
            flooding.append(asyncio.create_task(flood(asked)))

        try:
            await serve(connection, watch=watch)
        finally:
            for task in flooding:
                task.cancel()

    return behave


def _first(asked: Asked) -> str:
    return str(asked.params().items[0].instance)


behaviour.update(
    a_flood_of_reports=_flood(20, lambda c, a, n: report(c, a, [Told(_first(a))])),
    a_flood_of_bad_reports=_flood(
        20, lambda c, a, n: report(c, a, [Told(_first(a), 1, b"\xff\xfe")])
    ),
    a_flood_of_toggling_reports=_flood(
        5, lambda c, a, n: report(c, a, [Told(_first(a), NOT_RUNNING * (n % 2))])
    ),
    a_flood_of_empty_reports=_flood(50, lambda c, a, n: report(c, a, [])),
    a_flood_of_replayed_reports=_flood(
        20, lambda c, a, n: report(c, a, [Told(_first(a))], sequence=1)
    ),
    a_flood_of_reports_that_count_backwards=_flood(
        20, lambda c, a, n: report(c, a, [Told(_first(a))], sequence=max(1, 100_000 - n))
    ),
    a_flood_of_counts=_flood(
        20, lambda c, a, n: report(c, a, [Told(_first(a), operations=n % 2**32)])
    ),
    a_flood_of_timeouts=_flood(
        5,
        lambda c, a, n: report(c, a, [Told(_first(a), message=str(n), outcome=Outcome.TIMED_OUT)]),
    ),
)
