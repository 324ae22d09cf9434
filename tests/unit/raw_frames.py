"""RPC messages by hand, the wrong ones included: what pycapnp's own RPC system would never say.

Built by the schema of the protocol itself, which pycapnp ships. A text may be bytes that are none.
"""

from __future__ import annotations

import asyncio
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import capnp

from halo.adapters.rpc.schema import HaloAgent, OcfResourceAgent

_PACKAGE = Path(capnp.__file__).parent
rpc: Any = capnp.load(str(_PACKAGE / "rpc.capnp"), imports=[str(_PACKAGE.parent)])

warnings.filterwarnings("ignore", message="This message has already been written once")

Fill: TypeAlias = Callable[[Any], None]

OBSERVER = HaloAgent.Observer
AGENT_METHODS = HaloAgent.schema.methods
LEGACY_METHODS = OcfResourceAgent.schema.methods
_METHOD_NAMES = {
    (HaloAgent.schema.node.id, number): name for number, name in enumerate(AGENT_METHODS)
}
WORD = struct.Struct("<Q")


def frame(fill: Fill) -> bytes:
    """Any message: `fill` gets the `Message`."""
    message = rpc.Message.new_message()
    fill(message)
    data: bytes = message.to_bytes()
    return data


def segments(*parts: bytes) -> bytes:
    """A frame of segments as they are."""
    table = struct.pack(f"<{len(parts) + 1}I", len(parts) - 1, *(len(p) // 8 for p in parts))
    return table + bytes(-len(table) % 8) + b"".join(parts)


def results(question: int, method: str, fill: Fill = lambda _: None) -> bytes:
    """Answer a call of a method of the agent's."""

    def fill_message(message: Any) -> None:
        answer = message.init("return")
        answer.answerId = question
        answer.releaseParamCaps = False  # the observer of a watch is kept
        fill(answer.init("results").content.as_struct(AGENT_METHODS[method].result_type))

    return frame(fill_message)


def exception(
    question: int, reason: str | bytes, kind: str = "failed", trace: str | bytes | None = None
) -> bytes:
    """Answer with an exception."""

    def fill(message: Any) -> None:
        answer = message.init("return")
        answer.answerId = question
        error = answer.init("exception")
        error.reason, error.type = reason, kind
        if trace is not None:
            error.trace = trace

    return frame(fill)


def abort(reason: str | bytes, kind: str = "failed") -> bytes:
    def fill(message: Any) -> None:
        error = message.init("abort")
        error.reason, error.type = reason, kind

    return frame(fill)


def interface_results(question: int) -> bytes:
    """Answer a bootstrap with our interface 0, handed over as `senderHosted`."""

    def fill(message: Any) -> None:
        answer = message.init("return")
        answer.answerId = question
        payload = answer.init("results")
        payload.content.as_struct(rpc.Release)  # the place of the interface, filled in below
        payload.init("capTable", 1)[0].senderHosted = 0

    data = frame(fill)
    place = WORD.pack(1 << 32 | 1 << 2)  # one word of data, after the pointer to the table
    assert data.count(place) == 1
    return data.replace(place, WORD.pack(3))


def welcome(question: int, **changes: Any) -> bytes:
    """A proper greeting, but for the changes."""

    def fill(answer: Any) -> None:
        greeting = answer.init("greeting").init("welcome")
        features = ("run", "watch", "monitorMany", "validateAll")
        fields = {"version": "1", "bootId": "boot", "startId": "start", "features": features}
        for name, value in {**fields, **changes}.items():
            if name == "features":
                entries = greeting.init("features", len(value))
                for number, entry in enumerate(value):
                    entries[number] = entry
            else:
                setattr(greeting, name, value)

    return results(question, "hello", fill)


def _method(name: str) -> tuple[int, int, Any]:
    """The interface, the number and the schema of a method of an agent's."""
    of = LEGACY_METHODS if name in LEGACY_METHODS else AGENT_METHODS
    id = (OcfResourceAgent if of is LEGACY_METHODS else HaloAgent).schema.node.id
    return id, list(of).index(name), of[name]


def call(question: int, method: str = "heartbeat", fill: Fill = lambda _: None) -> bytes:
    """Call a method of the interface that the answer to question 0 brings."""

    def fill_message(message: Any) -> None:
        asked = message.init("call")
        asked.questionId = question
        asked.interfaceId, asked.methodId, schema = _method(method)
        asked.init("target").init("promisedAnswer").questionId = 0
        fill(asked.init("params").content.as_struct(schema.param_type))

    return frame(fill_message)


def watch(question: int, fill: Fill = lambda _: None) -> bytes:
    """Ask for a watch, with our interface 0 as the observer."""

    def fill_message(message: Any) -> None:
        asked = message.init("call")
        asked.questionId = question
        asked.interfaceId, asked.methodId, schema = _method("watch")
        asked.init("target").init("promisedAnswer").questionId = 0
        payload = asked.init("params")
        payload.init("capTable", 1)[0].senderHosted = 0
        fill(payload.content.as_struct(schema.param_type))

    data = bytearray(frame(fill_message))
    # The parameters are a struct of two words and two pointers; the second is the observer.
    words = [WORD.unpack_from(data, at)[0] for at in range(0, len(data), 8)]
    (place,) = (number for number, word in enumerate(words) if word >> 32 == 0x0002_0002)
    content = place + 1 + (words[place] >> 2 & 0x3FFF_FFFF)
    WORD.pack_into(data, 8 * (content + 3), 3)
    return bytes(data)


def report(question: int, fill: Fill = lambda _: None, *, to: int = 0) -> bytes:
    """Call the observer that the manager handed over."""

    def fill_message(message: Any) -> None:
        asked = message.init("call")
        asked.questionId = question
        asked.interfaceId = OBSERVER.schema.node.id
        asked.init("target").importedCap = to
        params = asked.init("params").content.as_struct(
            OBSERVER.schema.methods["report"].param_type
        )
        fill(params.init("batch"))

    return frame(fill_message)


def bootstrap(question: int = 0) -> bytes:
    return frame(lambda message: setattr(message.init("bootstrap"), "questionId", question))


def finish(question: int) -> bytes:
    return frame(lambda message: setattr(message.init("finish"), "questionId", question))


class Heard:
    """One message of the other end: its kind, and of a call the method and the question."""

    def __init__(self, data: bytes) -> None:
        with rpc.Message.from_bytes(data) as message:
            self.kind = str(message.which())
            body = getattr(message, self.kind)
            self.question = int(body.questionId) if self.kind in ("call", "bootstrap") else -1
            self.method = ""
            self.observer = -1
            if self.kind == "call":
                self.method = _METHOD_NAMES.get((body.interfaceId, body.methodId), "")
                if len(body.params.capTable):
                    self.observer = int(body.params.capTable[0].senderHosted)
            self.answer = ""
            if self.kind == "return":
                self.answer = str(body.which())
                if self.answer == "exception":
                    self.answer = f"exception {body.exception.reason}"


async def hear(reader: asyncio.StreamReader) -> Heard:
    """The next message. Raises IncompleteReadError where the connection ended."""
    head = await reader.readexactly(4)
    count = struct.unpack("<I", head)[0] + 1
    table = await reader.readexactly(4 * (count | 1))
    sizes = struct.unpack_from(f"<{count}I", table)
    return Heard(head + table + await reader.readexactly(8 * sum(sizes)))
