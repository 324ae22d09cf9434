"""Rogue agents that break the protocol itself: frames, pointers, questions, capabilities, ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from tests.hostile import frames
from tests.hostile.frames import Asked
from tests.hostile.nonsense import BYTES, MESSAGES, UNKNOWN
from tests.hostile.registry import Registry
from tests.hostile.rogue import (
    Behaviour,
    Connection,
    Handler,
    answer,
    serve,
    take_watch,
    watched,
    welcome,
)

behaviour: Registry[Behaviour] = Registry()


def behaviours() -> dict[str, Callable[[], Behaviour]]:
    """What makes each behaviour of this module, by name."""
    return behaviour.makers()


# Bytes ------------------------------------------------------------------------------------------


def says(data: bytes) -> Behaviour:
    """Say this as soon as the connection stands, and then nothing."""

    async def behave(connection: Connection) -> None:
        connection.threw()
        await connection.push(data)
        await connection.keep_silent()

    return behave


def answers_with(data: bytes) -> Behaviour:
    """Say this in the place of an answer to the greeting."""

    async def behave(connection: Connection) -> None:
        async def hello(connection: Connection, asked: Asked) -> None:
            await connection.push(data)

        await serve(connection, hello=hello)

    return behave


behaviour.update({name: says(data) for name, data in BYTES.items()})
behaviour.update({f"{name}_for_an_answer": answers_with(data) for name, data in BYTES.items()})


@behaviour
async def a_frame_that_never_ends(connection: Connection) -> None:
    """Announces 400 MB, and delivers them as fast as they are taken, up to 64 MB."""
    connection.threw()
    await connection.push(frames.head(50_000_000))
    for _ in range(64):
        await connection.push(bytes(1 << 20))
    await connection.keep_silent()


@behaviour
async def one_byte_at_a_time(connection: Connection) -> None:
    connection.threw()
    for byte in frames.abort("slow") * 100:
        await connection.push(bytes([byte]))
        await asyncio.sleep(0.05)


@behaviour
async def random_bytes(connection: Connection) -> None:
    connection.threw()
    for _ in range(256):
        await connection.push(connection.chance.randbytes(4096))
    await connection.keep_silent()


@behaviour
async def frames_of_random_words(connection: Connection) -> None:
    async def hello(connection: Connection, asked: Asked) -> None:
        for _ in range(50):
            words = connection.chance.randbytes(8 * connection.chance.randrange(1, 40))
            await connection.push(frames.raw_frame(words))

    await serve(connection, hello=hello)


# Questions and answers --------------------------------------------------------------------------


def _says_first(*messages: bytes) -> Behaviour:
    """Greets honestly, and with the answer to each heartbeat come these."""

    async def behave(connection: Connection) -> None:
        def heartbeat(connection: Connection, asked: Asked) -> None:
            for message in messages:
                connection.send(message)
            answer()(connection, asked)

        await serve(connection, heartbeat=heartbeat)

    return behave


behaviour.update({name: _says_first(*messages) for name, messages in MESSAGES.items()})


def _returns(fill: frames.Fill) -> Handler:
    def handle(connection: Connection, asked: Asked) -> None:
        connection.send(frames.answer_with(asked.question, fill))

    return handle


def _greets_with(fill: frames.Fill) -> Behaviour:
    async def behave(connection: Connection) -> None:
        await serve(connection, hello=_returns(fill))

    return behave


def _thousand_capabilities(target: Any) -> None:
    payload = target.init("results")
    table = payload.init("capTable", 1000)
    for number in range(1000):
        table[number].senderPromise = number


behaviour.update(
    says_that_the_greeting_was_cancelled=_greets_with(lambda r: setattr(r, "canceled", None)),
    says_that_the_answer_went_elsewhere=_greets_with(
        lambda r: setattr(r, "resultsSentElsewhere", None)
    ),
    takes_the_answer_from_another_question=_greets_with(
        lambda r: setattr(r, "takeFromOtherQuestion", UNKNOWN)
    ),
    takes_the_answer_from_the_same_question=_greets_with(
        lambda r: setattr(r, "takeFromOtherQuestion", 0)
    ),
    a_thousand_promises_in_the_answer=_greets_with(_thousand_capabilities),
    nothing_in_the_answer=_greets_with(lambda r: r.init("results")),
)


@behaviour
async def every_answer_twice(connection: Connection) -> None:
    def twice(connection: Connection, asked: Asked) -> None:
        for _ in range(2):
            connection.send(frames.results(asked.question, "heartbeat"))

    await serve(connection, heartbeat=twice)


@behaviour
async def answers_in_reverse_order(connection: Connection) -> None:
    held: list[int] = []

    def later(connection: Connection, asked: Asked) -> None:
        held.append(asked.question)
        if len(held) == 4:
            for question in reversed(held):
                connection.send(frames.results(question, "heartbeat"))
            held.clear()

    await serve(connection, heartbeat=later)


@behaviour
async def the_answer_of_another_method(connection: Connection) -> None:
    def mixed(connection: Connection, asked: Asked) -> None:
        connection.send(frames.results(asked.question, "operation"))

    await serve(connection, hello=mixed)


@behaviour
async def heartbeats_answered_with_a_watch(connection: Connection) -> None:
    def mixed(connection: Connection, asked: Asked) -> None:
        connection.send(
            frames.results(asked.question, "watch", lambda r: setattr(r, "refused", "no"))
        )

    await serve(connection, heartbeat=mixed)


# Capabilities -----------------------------------------------------------------------------------


def _bootstrap(kind: str, number: int = 0) -> Behaviour:
    async def behave(connection: Connection) -> None:
        def give(connection: Connection, asked: Asked) -> None:
            connection.send(frames.bootstrap_results(asked.question, kind, number))

        await serve(connection, bootstrap=give)

    return behave


behaviour.update(
    no_interface=_bootstrap("none"),
    a_promise_that_is_never_kept=_bootstrap("senderPromise", 5),
    the_managers_own_interface=_bootstrap("receiverHosted", 0),
    an_interface_of_nobody=_bootstrap("receiverHosted", UNKNOWN),
    the_answer_to_no_question=_bootstrap("receiverAnswer", UNKNOWN),
    an_interface_of_the_highest_number=_bootstrap("senderHosted", 2**32 - 1),
)


def _misuses_the_observer(make: Callable[[Connection, int], Iterator[bytes]]) -> Behaviour:
    async def behave(connection: Connection) -> None:
        async def watch(connection: Connection, asked: Asked) -> None:
            watched(connection, asked)
            for frame in make(connection, asked.imported()[0]):
                await connection.push(frame)

        await serve(connection, watch=watch)

    return behave


def _other_methods(connection: Connection, observer: int) -> Iterator[bytes]:
    for number in (1, 2, 65535):
        yield frames.call(connection.question(), "report", on_import=observer, number=number)
    yield frames.call(connection.question(), "report", on_import=observer, interface=12345)
    yield frames.call(connection.question(), "hello", on_import=observer)


def _same_question(connection: Connection, observer: int) -> Iterator[bytes]:
    for _ in range(3):
        yield frames.call(5, "report", on_import=observer)


def _without_end(connection: Connection, observer: int) -> Iterator[bytes]:
    """As many calls as the other end takes, none of whose answers is let go of."""
    for _ in range(20_000):
        yield frames.call(connection.question(), "report", on_import=observer)


def _offers(connection: Connection, observer: int) -> Iterator[bytes]:
    for _ in range(50):
        yield frames.call(connection.question(), "report", on_import=observer, offers=1000)


behaviour.update(
    other_methods_of_the_observer=_misuses_the_observer(_other_methods),
    the_same_question_again=_misuses_the_observer(_same_question),
    calls_whose_answers_nobody_takes=_misuses_the_observer(_without_end),
    a_thousand_capabilities_with_a_report=_misuses_the_observer(_offers),
    lets_go_of_the_observer_at_once=_misuses_the_observer(
        lambda connection, observer: iter([frames.release(observer, 1)])
    ),
    lets_go_of_the_observer_too_often=_misuses_the_observer(
        lambda connection, observer: iter([frames.release(observer, 2**32 - 1)])
    ),
)


@behaviour
async def calls_that_read_no_answer(connection: Connection) -> None:
    """The answers fill the socket, and then the manager's memory, unless it stops."""

    async def watch(connection: Connection, asked: Asked) -> None:
        take_watch(connection, asked)
        observer = asked.imported()[0]
        while True:
            await connection.push(
                frames.call(connection.question(), "report", on_import=observer) * 1
            )

    await serve(connection, hello=welcome(features=("watch",)), watch=watch)


# Silence and ends -------------------------------------------------------------------------------

STEPS = ("bootstrap", "hello", "heartbeat", "watch", "monitorMany", "run")


def _at(step: str, act: Callable[[Connection], Any]) -> Behaviour:
    async def behave(connection: Connection) -> None:
        async def there(connection: Connection, asked: Asked) -> None:
            done = act(connection)
            if done is not None:
                await done

        features = ("monitorMany",) if step == "monitorMany" else ("watch", "validateAll")
        instead: dict[str, Handler] = {step: there}
        if step != "hello":
            instead["hello"] = welcome(features=features)
        await serve(connection, **instead)

    return behave


@behaviour
async def closes_at_once(connection: Connection) -> None:
    connection.threw()
    await connection.close()


@behaviour
async def resets_at_once(connection: Connection) -> None:
    connection.threw()
    connection.reset()


@behaviour
async def says_nothing_at_all(connection: Connection) -> None:
    connection.threw()
    await connection.keep_silent()


@behaviour
async def reads_nothing_at_all(connection: Connection) -> None:
    connection.threw()
    await connection.read_nothing()


behaviour.update(
    {f"closes_at_{step}": _at(step, Connection.close) for step in STEPS},
)
behaviour.update({f"resets_at_{step}": _at(step, Connection.reset) for step in STEPS})
behaviour.update({f"silent_at_{step}": _at(step, Connection.keep_silent) for step in STEPS})
behaviour.update(
    {f"reads_nothing_after_{step}": _at(step, Connection.read_nothing) for step in STEPS}
)
