"""Cap'n Proto RPC by hand: every message as plain bytes, the wrong ones included.

pycapnp's own RPC system refuses to say most of what a hostile peer may say. Here messages are built
and read by the schema of the protocol itself (`rpc.capnp`), which pycapnp ships. What even that
refuses is made by changing bytes of a finished frame.

A text may be `bytes`: the schema does not care whether it is UTF-8.
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
forged: Any = capnp.load(str(Path(__file__).with_name("forged.capnp")))

# A text is set once in each message here, but pycapnp cannot know.
warnings.filterwarnings("ignore", message="This message has already been written once")

Text: TypeAlias = str | bytes
Fill: TypeAlias = Callable[[Any], None]

AGENT_ID = HaloAgent.schema.node.id
LEGACY_ID = OcfResourceAgent.schema.node.id
OBSERVER_ID = HaloAgent.Observer.schema.node.id

_METHODS = {
    **{
        (AGENT_ID, number): (name, HaloAgent.schema.methods[name])
        for number, name in enumerate(HaloAgent.schema.methods)
    },
    (LEGACY_ID, 0): ("operation", OcfResourceAgent.schema.methods["operation"]),
    (OBSERVER_ID, 0): ("report", HaloAgent.Observer.schema.methods["report"]),
}
_BY_NAME = {name: (*ids, method) for ids, (name, method) in _METHODS.items()}

_LIMIT_WORDS = 1 << 24
"""What we read of the honest end: its frames are small."""

WORD = 8

_RETURN_AT = 3 * WORD
"""Where a `Return` begins, with its question: behind Message and the pointers to both."""

# Pointers as the encoding has them: a struct of no words, and capability 0 of the message's table.
_EMPTY_STRUCT = b"\xfc\xff\xff\xff\0\0\0\0"
_FIRST_CAPABILITY = b"\x03\0\0\0\0\0\0\0"


class Asked:
    """One message of the other end."""

    def __init__(self, data: bytes) -> None:
        # Not copied into a builder: pycapnp ends the process over a capability without an RPC
        # system. So the message is read in `data`, which is kept.
        self._data = data
        self._context = rpc.Message.from_bytes(data)
        message = self._context.__enter__()
        self.kind: str = str(message.which())
        self.body: Any = getattr(message, self.kind)
        self.method = ""
        """The method's name, where this is a call of one that we know."""
        self._schema: Any = None
        if self.kind == "call":
            known = _METHODS.get((self.body.interfaceId, self.body.methodId))
            if known is not None:
                self.method, self._schema = known

    @property
    def question(self) -> int:
        """The number to answer, of a call or a bootstrap."""
        return int(self.body.questionId)

    def params(self) -> Any:
        """The parameters of a call of a known method."""
        return self.body.params.content.as_struct(self._schema.param_type)

    def imported(self) -> list[int]:
        """The capabilities that the other end offers with a call, as numbers to call."""
        found = []
        for descriptor in self.body.params.capTable:
            kind = descriptor.which()
            if kind in ("senderHosted", "senderPromise"):
                found.append(int(getattr(descriptor, str(kind))))
        return found

    def results(self) -> Any:
        """What a return of ours brought, by the schema of `method`. Set that first."""
        return self.body.results.content.as_struct(self._schema.result_type)

    def is_return_of(self, method: str) -> Asked:
        """Read this return as the answer of that method."""
        self.method, self._schema = method, _BY_NAME[method][2]
        return self


async def read_message(reader: asyncio.StreamReader) -> Asked:
    """The next message. Raises IncompleteReadError at the end of the stream."""
    head = await reader.readexactly(4)
    segments = struct.unpack("<I", head)[0] + 1
    if segments > 512:
        raise ValueError(f"{segments} segments")
    table = await reader.readexactly(4 * (segments | 1))
    sizes = struct.unpack_from(f"<{segments}I", table)
    if sum(sizes) > _LIMIT_WORDS:
        raise ValueError(f"{sum(sizes)} words")
    body = await reader.readexactly(WORD * sum(sizes))
    return Asked(head + table + body)


def _frame(fill: Fill) -> bytes:
    message = rpc.Message.new_message()
    fill(message)
    data: bytes = message.to_bytes()
    return data


def raw_frame(*segments: bytes) -> bytes:
    """A frame of segments as they are; each is filled up to whole words."""
    padded = [segment + bytes(-len(segment) % WORD) for segment in segments]
    table = struct.pack(
        f"<{len(padded) + 1}I", len(padded) - 1, *(len(segment) // WORD for segment in padded)
    )
    return table + bytes(-len(table) % WORD) + b"".join(padded)


def head(*sizes_words: int, count: int | None = None) -> bytes:
    """The beginning of a frame that announces segments of these sizes."""
    table = struct.pack(f"<I{len(sizes_words)}I", (count or len(sizes_words)) - 1, *sizes_words)
    return table + bytes(-len(table) % WORD)


# Calls ------------------------------------------------------------------------------------------


def bootstrap(question: int) -> bytes:
    """Ask for the other end's main interface."""

    def fill(message: Any) -> None:
        message.init("bootstrap").questionId = question

    return _frame(fill)


def call(
    question: int,
    method: str,
    fill_params: Fill | None = None,
    *,
    on_answer: int | None = None,
    on_import: int = 0,
    offers: int = 0,
    interface: int | None = None,
    number: int | None = None,
) -> bytes:
    """Call a method, of what the answer to question `on_answer` will bring, else of an import.

    `offers` capabilities of ours go with it, numbered from 0. `interface` and `number` replace the
    method's own.
    """
    interface_id, method_id, schema = _BY_NAME[method]

    def fill(message: Any) -> None:
        asked = message.init("call")
        asked.questionId = question
        asked.interfaceId = interface_id if interface is None else interface
        asked.methodId = method_id if number is None else number
        if on_answer is None:
            asked.init("target").importedCap = on_import
        else:
            asked.init("target").init("promisedAnswer").questionId = on_answer
        payload = asked.init("params")
        params = payload.content.as_struct(schema.param_type)
        if fill_params is not None:
            fill_params(params)
        _offer(payload, offers)

    return _frame(fill)


def watch(
    question: int,
    fill_params: Fill,
    *,
    on_answer: int | None = None,
    observer: str = "senderHosted",
) -> bytes:
    """Ask for a watch; `fill_params` as in halo.capnp. Its observer is capability 0, by that kind
    of CapDescriptor."""
    interface_id, method_id, _ = _BY_NAME["watch"]

    def fill(message: Any) -> None:
        asked = message.init("call")
        asked.questionId = question
        asked.interfaceId, asked.methodId = interface_id, method_id
        if on_answer is None:
            asked.init("target").importedCap = 0
        else:
            asked.init("target").init("promisedAnswer").questionId = on_answer
        payload = asked.init("params")
        params = payload.content.as_struct(forged.WatchParams)
        params.init("observer")
        fill_params(params)
        setattr(payload.init("capTable", 1)[0], observer, 0)

    return _with_capability(_frame(fill))


def finish(question: int) -> bytes:
    """Let go of a question."""

    def fill(message: Any) -> None:
        message.init("finish").questionId = question

    return _frame(fill)


def release(number: int, count: int) -> bytes:
    """Let go of an import."""

    def fill(message: Any) -> None:
        released = message.init("release")
        released.id, released.referenceCount = number, count

    return _frame(fill)


# Answers ----------------------------------------------------------------------------------------


def results(
    question: int, method: str, fill_results: Fill | None = None, *, offers: int = 0
) -> bytes:
    """Answer a call of a method. The observer that came with a `watch` is kept."""
    schema = _BY_NAME[method][2]

    def fill(message: Any) -> None:
        answer = message.init("return")
        answer.answerId = question
        answer.releaseParamCaps = method != "watch"
        payload = answer.init("results")
        content = payload.content.as_struct(schema.result_type)
        if fill_results is not None:
            fill_results(content)
        _offer(payload, offers)

    return _frame(fill)


def exception(
    question: int, reason: Text, kind: str = "failed", *, trace: Text | None = None
) -> bytes:
    """Answer with an exception."""

    def fill(message: Any) -> None:
        answer = message.init("return")
        answer.answerId = question
        _set_exception(answer.init("exception"), reason, kind, trace)

    return _frame(fill)


def to_question(frame: bytes, question: int) -> bytes:
    """The same answer to another question. A long text need not be copied into a message again."""
    segments = struct.unpack_from("<I", frame)[0] + 1
    at = 4 * (1 + segments + (1 + segments) % 2) + _RETURN_AT
    number = struct.pack("<I", question)
    if frame[at : at + 4] == number:
        return frame
    return frame[:at] + number + frame[at + 4 :]


def answer_with(question: int, fill_return: Fill) -> bytes:
    """Any other answer: `fill_return` gets the `Return`."""

    def fill(message: Any) -> None:
        answer = message.init("return")
        answer.answerId = question
        fill_return(answer)

    return _frame(fill)


def bootstrap_results(question: int, kind: str = "senderHosted", number: int = 0) -> bytes:
    """Answer a bootstrap with a capability (in one of the ways of CapDescriptor)."""

    def fill(answer: Any) -> None:
        payload = answer.init("results")
        payload.content.as_struct(forged.Nothing)
        descriptor = payload.init("capTable", 1)[0]
        if kind == "receiverAnswer":
            descriptor.init("receiverAnswer").questionId = number
        elif kind == "none":
            descriptor.none = None
        else:
            setattr(descriptor, kind, number)

    return _with_capability(answer_with(question, fill))


def _with_capability(frame: bytes) -> bytes:
    """AnyPointer takes no capability without an RPC system: an empty struct is in its place."""
    if frame.count(_EMPTY_STRUCT) != 1:
        raise ValueError("the place of the capability is not unique")
    return frame.replace(_EMPTY_STRUCT, _FIRST_CAPABILITY)


def other(fill: Fill) -> bytes:
    """Any message at all: `fill` gets the `Message`."""
    return _frame(fill)


def abort(reason: Text) -> bytes:
    """End the connection, in the protocol's way."""

    def fill(message: Any) -> None:
        _set_exception(message.init("abort"), reason, "failed", None)

    return _frame(fill)


def _set_exception(target: Any, reason: Text, kind: str, trace: Text | None) -> None:
    target.reason = reason
    target.type = kind
    if trace is not None:
        target.trace = trace


def _offer(payload: Any, count: int) -> None:
    if count:
        table = payload.init("capTable", count)
        for number in range(count):
            table[number].senderHosted = number
