"""What goes into a :class:`halo.core.fencing.machine.FenceMachine`, and what comes out of it.

Events tell what happened. Actions say what the caller has to do. An action that takes time is a
:class:`Do`: the caller begins the work. When it ends, the caller hands back the event that the
work's docstring names, with the same `run`. After :class:`Stop` it hands back :class:`Stopped`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias, get_args

from halo.core.fencing.answers import OffWord, ProbeAnswer
from halo.core.journal.records import Event as Journaled
from halo.core.outcomes import FenceResult


class Kind(Enum):
    """Why a host is fenced."""

    AUTOMATIC = "automatic"  # the host was declared lost
    SECOND_COPY = "second copy"  # by policy; the host may still answer
    COMMAND = "command"  # the administrator's order, which nothing but a cancel ends
    CONFIRM_OFF = "confirm off"  # the administrator saw that it is off: no device is asked
    OPEN_INTENT = "open intent"  # the previous manager began it and did not see its end


class Stage(Enum):
    """What the fence of one host waits for."""

    AT_REST = "at rest"  # nothing is under way; `HostState.fence_phase` tells how it ended
    RECORDING = "recording the intent"
    GATHERING = "gathering tokens"
    QUEUED = "waiting for a power-on to end"
    LOOKING = "looking at the agent before the next level"
    SWITCHING = "switching off"
    INQUIRING = "asking the devices and the agent"
    SETTLING = "recording the outcome"
    HELD = "holding the outcome back: a cancellation is being recorded"
    ENDING = "ending what still runs"


# --- events ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begin:
    """Fence the host. `ticket` names the command that waits for an :class:`Answer`, if any."""

    kind: Kind
    comment: str
    ticket: int | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """The administrator gives the fence up. `ticket`: as in :class:`Begin`."""

    comment: str
    ticket: int


@dataclass(frozen=True, slots=True)
class Written:
    """The records are durable. For the manager's own records: or the longest wait is over."""

    run: int


@dataclass(frozen=True, slots=True)
class NotWritten:
    """The records of a command could not be written."""

    run: int
    error: Exception


@dataclass(frozen=True, slots=True)
class TokensHome:
    """No task of the host holds a token."""

    run: int


@dataclass(frozen=True, slots=True)
class Probed:
    """The agent's answer to one probe."""

    run: int
    answer: ProbeAnswer


@dataclass(frozen=True, slots=True)
class AgentAnswered:
    """The agent answered probe `number`, counted from 1."""

    run: int
    number: int


@dataclass(frozen=True, slots=True)
class ProgramsEnded:
    """Every fence program of a level has ended."""

    run: int
    results: list[FenceResult]


@dataclass(frozen=True, slots=True)
class DevicesSaid:
    """The devices answered, or gave no answer within their deadline."""

    run: int
    word: OffWord


@dataclass(frozen=True, slots=True)
class TimeUp:
    """The wait is over."""

    run: int


@dataclass(frozen=True, slots=True)
class Stopped:
    """The work was stopped and has ended. Nothing of it runs any more."""

    run: int


Result: TypeAlias = (
    Written
    | NotWritten
    | TokensHome
    | Probed
    | AgentAnswered
    | ProgramsEnded
    | DevicesSaid
    | TimeUp
    | Stopped
)
RESULTS: tuple[type[Result], ...] = get_args(Result)
Event: TypeAlias = Begin | Cancel | Result


# --- works ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """One record about the host, to be written."""

    event: Journaled
    comment: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Write:
    """Write these records. :class:`Written`; with `must` (a command), or :class:`NotWritten`."""

    entries: tuple[Entry, ...]
    must: bool = False


@dataclass(frozen=True, slots=True)
class GatherTokens:
    """Wait until no task of the host holds a token. :class:`TokensHome`."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask the agent once. :class:`Probed`."""


@dataclass(frozen=True, slots=True)
class Listen:
    """Ask the agent again and again. :class:`AgentAnswered` as soon as it answers."""


@dataclass(frozen=True, slots=True)
class SwitchOff:
    """Run the off of every device of `level`. :class:`ProgramsEnded`.

    In the step that sends each off, the caller asks :meth:`FenceMachine.expired`. If that gives a
    reason, the caller does not send the off."""

    level: int


@dataclass(frozen=True, slots=True)
class SwitchOn:
    """Run the on of every device of every level. :class:`ProgramsEnded`."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask the devices whether the host is off. :class:`DevicesSaid`.

    `level` is the one that has just switched off. None: ask all levels."""

    level: int | None


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait this many seconds. :class:`TimeUp`."""

    seconds: float


Work: TypeAlias = Write | GatherTokens | Probe | Listen | SwitchOff | SwitchOn | Ask | Sleep


# --- actions --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Do:
    """Begin this work."""

    run: int
    work: Work


@dataclass(frozen=True, slots=True)
class Stop:
    """End this work, with the fence programs that it runs."""

    run: int


@dataclass(frozen=True, slots=True)
class StandDown:
    """Drop the host's connection, and do not listen to the host until :class:`Resume`."""


@dataclass(frozen=True, slots=True)
class Resume:
    """Connect to the host again. Its silence counts from now."""


@dataclass(frozen=True, slots=True)
class Poke:
    """The hold of the groups that the host manages is over: have their tasks look again."""


@dataclass(frozen=True, slots=True)
class Learnt:
    """Decide the host's groups again. `afresh`: older samples are not proof any more."""

    afresh: bool = False


@dataclass(frozen=True, slots=True)
class DenyOff:
    """The host is not proven off any more, for this reason. Record it, so that a restart knows."""

    why: str


class Weight(Enum):
    """The level of a line in the log."""

    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Tell:
    """Write a line to the log."""

    weight: Weight
    text: str
    fields: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer the waiting command: done (None), or what went wrong."""

    ticket: int
    error: Exception | None = None


Action: TypeAlias = Do | Stop | StandDown | Resume | Poke | Learnt | DenyOff | Tell | Answer
