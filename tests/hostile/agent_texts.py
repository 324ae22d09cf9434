"""Rogue agents that say texts that are none, or are too long, wherever an agent may say a text."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from halo.core.outcomes import Outcome
from tests.hostile import frames
from tests.hostile.frames import Text
from tests.hostile.rogue import (
    FEATURES,
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
    welcome,
)

MIB = 1 << 20

# Made when needed: the test that only wants the names need not hold 200 MiB.
TEXTS: Mapping[str, Callable[[], Text]] = {
    "bad": lambda: b"\xff\xfe\xfd\x80",
    "surrogate": lambda: b"half \xed\xa0\x80 a pair",
    "zero": lambda: b"a\x00b",
    "escape": lambda: "\x1b[2J\x1b]0;title\x07\r\nevent=fence object=h1\n" * 40,
    "huge": lambda: "x" * (10 * MIB),
    "vast": lambda: "line\n" * (40 * MIB),  # 200 MiB
    "huge_and_bad": lambda: b"\xff" * (10 * MIB),
}

ALONE = ("validateAll",)
"""Features of an agent that is asked by `run`, one monitor a call."""


def _instead(features: tuple[str, ...] = FEATURES, **handlers: Handler) -> Behaviour:
    async def behave(connection: Connection) -> None:
        await serve(connection, **{"hello": welcome(features=features), **handlers})

    return behave


def _greets(**fields: Text) -> Behaviour:
    async def behave(connection: Connection) -> None:
        await serve(connection, hello=welcome(**fields))  # type: ignore[arg-type]  # each a text, and all of them texts

    return behave


def _greets_otherwise(text: Text) -> Behaviour:
    async def behave(connection: Connection) -> None:
        await serve(connection, hello=answer(lambda r: setattr(r.init("greeting"), "busy", text)))

    return behave


def _aborts(text: Text) -> Behaviour:
    async def behave(connection: Connection) -> None:
        await connection.next()
        connection.threw()
        await connection.push(frames.abort(text))
        await connection.keep_silent()

    return behave


def _legacy(handler: Handler) -> Behaviour:
    async def behave(connection: Connection) -> None:
        await serve(connection, hello=refuse("unknown", "unimplemented"), operation=handler)

    return behave


def _reports(told: Told) -> Behaviour:
    """Reports as well as it is able to, with one entry that it should not say."""

    def watch(connection: Connection, asked: frames.Asked) -> None:
        take_watch(connection, asked)
        report(connection, asked, [told if told.instance else _named(told, asked)])

    return _instead(watch=watch)


def _named(told: Told, asked: frames.Asked) -> Told:
    instance = asked.params().items[0].instance
    return Told(instance, told.code, told.message, told.operations, told.outcome)


def _of(text: Text) -> dict[str, Behaviour]:
    """Every place for a text."""
    return {
        "in_exception_to_bootstrap": _instead(bootstrap=refuse(text)),
        "in_exception_to_hello": _instead(hello=refuse(text)),
        "in_exception_to_heartbeat": _instead(heartbeat=refuse(text)),
        "in_exception_to_watch": _instead(watch=refuse(text)),
        "in_exception_to_monitorMany": _instead(monitorMany=refuse(text)),
        "in_exception_to_run": _instead(ALONE, run=refuse(text)),
        "in_exception_to_operation": _legacy(refuse(text)),
        "in_unimplemented_hello": _instead(hello=refuse(text, "unimplemented")),
        "in_overloaded_hello": _instead(hello=refuse(text, "overloaded")),
        "in_disconnected_heartbeat": _instead(heartbeat=refuse(text, "disconnected")),
        "in_trace_of_exception": _instead(hello=refuse("no", trace=text)),
        "in_abort": _aborts(text),
        "in_version": _greets(version=text),
        "in_boot_id": _greets(boot=text),
        "in_start_id": _greets(start=text),
        "in_feature": _instead(hello=welcome(features=("watch", text))),
        "in_busy": _greets_otherwise(text),
        "in_script_message": _instead(
            monitorMany=outcomes(completed(1, text)), run=outcome(completed(1, text))
        ),
        "in_message_of_run": _instead(ALONE, run=outcome(completed(1, text))),
        "in_timed_out": _instead(ALONE, run=outcome(lambda o: setattr(o, "timedOut", text))),
        "in_not_run": _instead(ALONE, run=outcome(lambda o: setattr(o, "notRun", text))),
        "in_refused_run": _instead(ALONE, run=outcome(lambda o: setattr(o, "refused", text))),
        "in_refused_watch": _instead(watch=answer(lambda r: setattr(r, "refused", text))),
        "in_legacy_err": _legacy(answer(lambda r: setattr(r.init("result"), "err", text))),
        "in_legacy_message": _legacy(
            answer(lambda r: setattr(r.init("result").init("ok").init("innerErr"), "message", text))
        ),
        "in_instance_of_report": _reports(Told(text)),
        "in_message_of_report": _reports(Told("", 1, text)),
        "in_timed_out_report": _reports(Told("", message=text, outcome=Outcome.TIMED_OUT)),
    }


_WHERE_ELSE = {
    # The other texts go to a few places of each kind.
    "surrogate": ("in_exception_to_hello", "in_version", "in_script_message"),
    "zero": ("in_exception_to_watch", "in_feature", "in_instance_of_report"),
    "escape": ("in_exception_to_hello", "in_busy", "in_script_message", "in_refused_watch"),
    "vast": ("in_exception_to_hello", "in_script_message"),
    "huge_and_bad": ("in_exception_to_heartbeat", "in_version", "in_message_of_report"),
}


def behaviours() -> dict[str, Callable[[], Behaviour]]:
    """What makes each behaviour of this module, by name."""
    return {
        f"{word}_text_{place}": functools.partial(_make, word, place)
        for word in TEXTS
        for place in _WHERE_ELSE.get(word, tuple(_of("")))
    }


def _make(word: str, place: str) -> Behaviour:
    return _of(TEXTS[word]())[place]
