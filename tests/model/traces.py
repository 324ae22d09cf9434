"""Holds runs of the real manager against the model: TLC has to find each run among its behaviours.

python -m tests.model.traces 0..40        # the first event of each run that the model forbids
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.model import tlc
from tests.model.recorder import Trace, record

DEADLINE_S = 600.0
CONTEXT = 12
_REACHED = re.compile(r'<<"reached", (\d+), (\d+)>>')


@dataclass(frozen=True)
class Verdict:
    """How far the model could follow one trace. `place` counts from 0; it is the event at which it
    stopped, or the length of the trace."""

    trace: Trace
    place: int

    @property
    def is_accepted(self) -> bool:
        """Is the whole run a behaviour of the model?"""
        return self.place == len(self.trace)

    def __str__(self) -> str:
        if self.is_accepted:
            return f"a behaviour of the model, {len(self.trace)} events"
        before = self.trace[max(self.place - CONTEXT, 0) : self.place]
        lines = [f"  {event}" for event in before] + [f"> {self.trace[self.place]}"]
        return "\n".join([f"event {self.place} is no step of the model:", *lines])


def check(jar: Path, traces: Sequence[Trace], *, deadline_s: float = DEADLINE_S) -> list[Verdict]:
    """Hold traces against the model, all in one run of TLC."""
    text = tlc.run(
        jar,
        tlc.config("trace"),
        deadline_s=deadline_s,
        module="HaloTrace",
        modules={"TraceData": _module(traces)},
        workers=1,  # the registers of TLC, which tell how far it came, are of one worker
    )
    if "No error has been found" not in text:
        raise RuntimeError(f"TLC came to no result:\n{text[-3000:]}")
    reached = [0] * len(traces)
    for number, place in _REACHED.findall(text):
        reached[int(number) - 1] = max(reached[int(number) - 1], int(place) - 1)
    return [Verdict(trace, place) for trace, place in zip(traces, reached, strict=True)]


def _module(traces: Sequence[Trace]) -> str:
    body = ",\n\n".join("<<" + ",\n".join(map(_value, trace)) + ">>" for trace in traces)
    return f"---- MODULE TraceData ----\nEXTENDS TLC\nTraces == <<\n{body}\n>>\n====\n"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        if "what" in value:
            return "[" + ", ".join(f"{key} |-> {_value(v)}" for key, v in value.items()) + "]"
        return "(" + " @@ ".join(f"{_value(k)} :> {_value(v)}" for k, v in value.items()) + ")"
    return f'"{value}"'


def main(seeds: str) -> int:
    """Record the runs of these seeds (`A..B`), and tell what the model says of each."""
    first, last = map(int, seeds.split(".."))
    numbers = range(first, last)
    verdicts = check(tlc.require_tlc(), [record(seed) for seed in numbers])
    for seed, verdict in zip(numbers, verdicts, strict=True):
        print(f"seed {seed}: {verdict}", flush=True)
    return 0 if all(verdict.is_accepted for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
