"""Every behaviour of a rogue manager, by name."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping
from typing import Any

from tests.hostile import frames
from tests.hostile.frames import Fill, Text
from tests.hostile.nonsense import BYTES, MESSAGES, UNKNOWN
from tests.hostile.registry import Registry
from tests.hostile.rogue_manager import Behaviour, Line, RogueManager

MIB = 1 << 20
HUGE_U64, HUGE_U32 = 2**64 - 1, 2**32 - 1
KIND = "test/Script"

TEXTS: Mapping[str, Callable[[], Text]] = {
    "bad": lambda: b"\xff\xfe\xfd\x80",
    "zero": lambda: b"a\x00b",
    "escape": lambda: "\x1b[2J\x1b]0;title\x07\r\nevent=fence object=h1\n" * 40,
    "path": lambda: "../../../../etc/passwd",
    "huge": lambda: "x" * (10 * MIB),
}

behaviour: Registry[Behaviour] = Registry()


def run_params(
    resource: Text = KIND,
    op: int = 0,
    key: Text = "k",
    value: Text = "v",
    instance: Text = "r1",
    timeout_ms: int = 5000,
    term: int = 0,
) -> Fill:
    """The parameters of `run`, and of what resembles it."""

    def fill(params: Any) -> None:
        _fill_item(params, resource, key, value, instance)
        params.timeoutMs = timeout_ms
        if "op" in params.schema.fields:
            params.op = op
        params.term = term

    return fill


def _fill_item(target: Any, resource: Text, key: Text, value: Text, instance: Text) -> None:
    target.resource, target.instance = resource, instance
    arguments = target.init("args", 1)
    arguments[0].key, arguments[0].value = key, value


def items_params(
    count: int = 1,
    resource: Text = KIND,
    key: Text = "k",
    value: Text = "v",
    instance: Text | None = None,
    period_ms: int = 200,
    term: int = 0,
    patience_ms: int = 200,
) -> Fill:
    """The parameters of `watch` and `monitorMany`."""

    def fill(params: Any) -> None:
        items = params.init("items", count)
        for number in range(count):
            _fill_item(items[number], resource, key, value, instance or f"r{number}")
            items[number].periodMs = period_ms
        params.term = term
        if "patienceMs" in params.schema.fields:
            params.patienceMs = patience_ms
        else:
            params.digestMs = 200

    return fill


# Texts ------------------------------------------------------------------------------------------


def _asks(method: str, fill: Fill) -> Behaviour:
    async def behave(rogue: RogueManager) -> None:
        line = await rogue.greeted()
        asked = await (line.watch(fill) if method == "watch" else line.call(method, fill))
        await line.answer(asked)

    return behave


def _greets(**how: Any) -> Behaviour:
    async def behave(rogue: RogueManager) -> None:
        await rogue.greeted(**how)

    return behave


def _bare_params(resource: Text = KIND, key: Text = "k", value: Text = "v", op: int = 0) -> Fill:
    def fill(params: Any) -> None:
        params.resource, params.op = resource, op
        arguments = params.init("args", 1)
        arguments[0].key, arguments[0].value = key, value

    return fill


def _of(text: Text) -> dict[str, Behaviour]:
    """Every place for a text."""
    return {
        "as_its_name": _greets(name=text),
        "as_the_clusters_name": _greets(cluster=text),
        "as_kind_of_run": _asks("run", run_params(resource=text)),
        "as_key_of_run": _asks("run", run_params(key=text)),
        "as_value_of_run": _asks("run", run_params(value=text)),
        "as_instance_of_run": _asks("run", run_params(instance=text)),
        "as_instance_of_validate": _asks("validateAll", run_params(instance=text)),
        "as_kind_of_monitors": _asks("monitorMany", items_params(2, resource=text)),
        "as_instance_of_monitors": _asks("monitorMany", items_params(1, instance=text)),
        "as_kind_of_a_watch": _asks("watch", items_params(2, resource=text)),
        "as_value_of_a_watch": _asks("watch", items_params(2, value=text)),
        "as_instance_of_a_watch": _asks("watch", items_params(1, instance=text)),
        "as_kind_of_operation": _asks("operation", _bare_params(resource=text)),
        "as_key_of_operation": _asks("operation", _bare_params(key=text)),
        "as_value_of_operation": _asks("operation", _bare_params(value=text)),
        "in_the_observers_exception": _observer_refuses(text),
        "in_the_observers_unimplemented": _observer_refuses(text, "unimplemented"),
        "in_an_abort": _says(frames.abort(text)),
    }


def _observer_refuses(text: Text, kind: str = "failed") -> Behaviour:
    async def behave(rogue: RogueManager) -> None:
        line = await rogue.greeted()
        await line.watch(items_params())
        report = await line.report()
        await line.push(frames.exception(report.question, text, kind))
        await line.answer(await line.call("heartbeat"))
        report = await line.report()  # it tells everything again after a heartbeat
        await line.push(frames.exception(report.question, text, kind, trace=text))
        await line.answer(await line.call("heartbeat"))

    return behave


# Bytes and messages -----------------------------------------------------------------------------


def _says(*messages: bytes) -> Behaviour:
    """Say this on a connection that was greeted, and on one that was not."""

    async def behave(rogue: RogueManager) -> None:
        for line in (await rogue.connect(), await rogue.greeted()):
            for message in messages:
                await line.push(message)
            await line.until_closed(0.1)

    return behave


behaviour.update({name: _says(data) for name, data in BYTES.items()})
behaviour.update({name: _says(*messages) for name, messages in MESSAGES.items()})


# Values -----------------------------------------------------------------------------------------

_PATHS = (
    *(
        "",
        "/",
        "a",
        "a/",
        "/b",
        "a/b/c",
        "../a",
        "a/..",
        "./Script",
        "test/../../x",
        "test//Script",
    ),
    *("/bin/sh", "test/Script ", "test/Script\n", "tést/Script", "-rf/--", "a/" + "b" * 5000),
)


@behaviour
async def kinds_that_are_paths(rogue: RogueManager) -> None:
    line = await rogue.greeted()
    for kind in _PATHS:
        for method in ("run", "validateAll"):
            await line.answer(await line.call(method, run_params(resource=kind)))
        await line.answer(await line.call("operation", _bare_params(resource=kind)))


@behaviour
async def keys_that_are_no_variables(rogue: RogueManager) -> None:
    line = await rogue.greeted()
    for key in ("", "=", "A=B", " ", "\n", "ü", "x" * 5000, "()"):
        await line.answer(await line.call("run", run_params(key=key)))


behaviour.update(
    a_term_of_all_ones=_greets(term=HUGE_U64),
    a_term_of_all_ones_with_a_run=_asks("run", run_params(term=HUGE_U64)),
    a_term_of_all_ones_with_a_watch=_asks("watch", items_params(term=HUGE_U64)),
    a_term_of_all_ones_with_monitors=_asks("monitorMany", items_params(term=HUGE_U64)),
    the_longest_timeout=_asks("run", run_params(timeout_ms=HUGE_U32)),
    an_operation_of_no_kind=_asks("run", run_params(op=77)),
    a_bare_operation_of_no_kind=_asks("operation", _bare_params(op=77)),
    periods_of_zero=_asks("watch", items_params(period_ms=0)),
    periods_of_weeks=_asks("watch", items_params(period_ms=HUGE_U32)),
    no_items_to_watch=_asks("watch", items_params(0)),
    no_monitors=_asks("monitorMany", items_params(0)),
    a_hundred_thousand_items_to_watch=_asks("watch", items_params(100_000)),
    a_hundred_thousand_monitors=_asks("monitorMany", items_params(100_000, patience_ms=0)),
    patience_for_weeks=_asks("monitorMany", items_params(patience_ms=HUGE_U32)),
    a_value_of_ten_megabytes=_asks("run", run_params(value="v" * (10 * MIB))),
    no_parameters_at_all=_asks("run", lambda params: None),
)


@behaviour
async def a_hundred_thousand_parameters(rogue: RogueManager) -> None:
    def fill(params: Any) -> None:
        params.resource, params.instance = KIND, "r1"
        arguments = params.init("args", 100_000)
        for number in range(100_000):
            arguments[number].key, arguments[number].value = f"k{number}", "v"

    line = await rogue.greeted()
    await line.answer(await line.call("run", fill))


# Watches and observers --------------------------------------------------------------------------


@behaviour
async def two_hundred_watches_one_after_the_other(rogue: RogueManager) -> None:
    line = await rogue.greeted()
    for _ in range(200):
        asked = await line.watch(items_params(20))
    await line.answer(asked)


@behaviour
async def an_observer_that_never_answers(rogue: RogueManager) -> None:
    line = await rogue.greeted()
    await line.watch(items_params(50))
    await line.report()
    for _ in range(5):
        await line.answer(await line.call("heartbeat"))


@behaviour
async def an_observer_that_is_nothing(rogue: RogueManager) -> None:
    line = await rogue.greeted()
    await line.answer(await line.call("watch", items_params()))
    for _ in range(3):
        await line.answer(await line.call("heartbeat"))


@behaviour
async def an_observer_that_accepts_what_is_no_answer(rogue: RogueManager) -> None:
    line = await rogue.greeted()
    await line.watch(items_params())
    report = await line.report()
    await line.push(frames.results(report.question, "hello") * 3)
    await line.push(frames.answer_with(report.question, lambda r: setattr(r, "canceled", None)))
    await line.answer(await line.call("heartbeat"))


@behaviour
async def an_observer_that_is_the_agent_itself(rogue: RogueManager) -> None:
    line = await rogue.greeted()
    await line.watch(items_params(), observer="receiverHosted")
    for _ in range(3):
        await line.answer(await line.call("heartbeat"))
        await asyncio.sleep(0.05)  # a report may be on its way to itself


# Floods -----------------------------------------------------------------------------------------


@behaviour
async def five_hundred_connections_that_say_nothing(rogue: RogueManager) -> None:
    for _ in range(500):
        await rogue.connect()


@behaviour
async def five_hundred_connections_that_end_at_once(rogue: RogueManager) -> None:
    for _ in range(500):
        (await rogue.connect()).drop()


@behaviour
async def two_hundred_managers(rogue: RogueManager) -> None:
    for number in range(200):
        await rogue.greeted(name=f"manager {number}")


@behaviour
async def a_thousand_greetings_on_one_connection(rogue: RogueManager) -> None:
    line = await rogue.greeted()
    for number in range(1000):

        def fill(params: Any, number: int = number) -> None:
            params.manager, params.cluster, params.term = f"m{number}", "cluster", 0

        asked = await line.call("hello", fill)
    await line.answer(asked)


@behaviour
async def two_thousand_operations_at_once(rogue: RogueManager) -> None:
    line = await rogue.greeted()
    for number in range(2000):
        asked = await line.call("run", run_params(instance=f"r{number}"))
    await line.answer(asked)


@behaviour
async def a_thousand_operations_of_one_resource(rogue: RogueManager) -> None:
    line = await rogue.greeted()
    for _ in range(1000):
        await line.call("run", run_params(op=1))


@behaviour
async def heartbeats_whose_answers_nobody_reads(rogue: RogueManager) -> None:
    line = await rogue.greeted()
    async with asyncio.timeout(1.0):
        while True:
            await line.call("heartbeat")


@behaviour
async def operations_before_a_greeting(rogue: RogueManager) -> None:
    line = await rogue.connect()
    await line.bootstrap()
    for method, fill in (
        ("run", run_params(op=1)),
        ("validateAll", run_params()),
        ("monitorMany", items_params(3)),
        ("watch", items_params(3)),
    ):
        await line.answer(await line.call(method, fill))


@behaviour
async def unknown_methods_and_interfaces(rogue: RogueManager) -> None:
    line = await rogue.greeted()
    for number in (6, 7, 1000, 65535):
        await line.answer(await line.call("heartbeat", number=number))
    await line.answer(await line.call("heartbeat", interface=0x1234))
    await line.answer(await line.call("report"))


@behaviour
async def a_thousand_capabilities_with_a_call(rogue: RogueManager) -> None:
    line = await rogue.greeted()
    for _ in range(20):
        await line.answer(await line.call("heartbeat", offers=1000))


@behaviour
async def the_same_question_again_and_again(rogue: RogueManager) -> None:
    line = await rogue.greeted()
    for _ in range(3):
        await line.push(frames.call(7, "run", run_params(), on_answer=0))
    await line.until_closed(0.2)


@behaviour
async def a_thousand_bootstraps(rogue: RogueManager) -> None:
    line = await rogue.connect()
    await line.push(b"".join(frames.bootstrap(number) for number in range(1000)))
    await line.until_closed(0.2)


@behaviour
async def a_frame_that_never_ends(rogue: RogueManager) -> None:
    line = await rogue.greeted()
    await line.push(frames.head(50_000_000))
    for _ in range(64):
        await line.push(bytes(MIB))


@behaviour
async def random_bytes(rogue: RogueManager) -> None:
    for _ in range(20):
        line = await rogue.greeted()
        await line.push(rogue.chance.randbytes(1 << rogue.chance.randrange(3, 16)))


# Ends -------------------------------------------------------------------------------------------


@behaviour
async def ends_after_the_bootstrap(rogue: RogueManager) -> None:
    for _ in range(20):
        line = await rogue.connect()
        await line.bootstrap()
        line.drop()


@behaviour
async def ends_in_the_middle_of_operations(rogue: RogueManager) -> None:
    for number in range(10):
        line = await rogue.greeted()
        await line.call("run", run_params(op=1, instance=f"r{number}"))
        await line.call("monitorMany", items_params(5))
        line.drop()


@behaviour
async def ends_in_the_middle_of_a_report(rogue: RogueManager) -> None:
    for _ in range(10):
        line = await rogue.greeted()
        await line.watch(items_params())
        await line.report()
        line.drop()


@behaviour
async def ends_questions_before_their_answers(rogue: RogueManager) -> None:
    line = await rogue.greeted()
    for number in range(20):
        question = await line.call("run", run_params(op=1, instance=f"r{number}"))
        await line.push(frames.finish(question))
    await line.push(frames.finish(UNKNOWN))
    await line.until_closed(0.2)


def _lines_left_open(act: Callable[[Line], Any]) -> Behaviour:
    async def behave(rogue: RogueManager) -> None:
        for _ in range(100):
            await act(await rogue.connect())

    return behave


behaviour.update(
    a_hundred_that_never_greet=_lines_left_open(Line.bootstrap),
    a_hundred_halves_of_a_frame=_lines_left_open(lambda line: line.push(BYTES["half_a_frame"])),
)


def _make(word: str, place: str) -> Behaviour:
    return _of(TEXTS[word]())[place]


BEHAVIOURS: Mapping[str, Callable[[], Behaviour]] = {
    **{
        f"{word}_text_{place}": functools.partial(_make, word, place)
        for word in TEXTS
        for place in _of("")
    },
    **behaviour.makers(),
}
"""What makes each behaviour."""
