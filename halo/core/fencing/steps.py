"""What goes into a :class:`halo.core.fencing.machine.FenceMachine`, and what comes out of it.

Events tell what happened. Actions say what the caller has to do. Where that takes time it is a
:class:`Do`: the caller begins the work, and hands the event back that the work's docstring names,
with the same `run`. After :class:`Stop` it hands back :class:`Stopped`.
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

    AUTOMATIC = "automatic"  # it was declared lost
    SECOND_COPY = "second copy"  # by policy: the host may well answer
    COMMAND = "command"  # the administrator wants it, whatever happens meanwhile
    CONFIRM_OFF = "confirm off"  # the administrator saw it dark: no device is asked
    OPEN_INTENT = "open intent"  # the manager before this one did not see the end of it


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
    """Fence the host. `ticket`: of the command that waits for an :class:`Answer`."""

    kind: Kind
    comment: str
    ticket: int | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """The administrator wants the fence given up. `ticket`: as of :class:`Begin`."""

    comment: str
    ticket: int


@dataclass(frozen=True, slots=True)
class Written:
    """The records are durable; or, of the manager's own, the disk was waited for long enough."""

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
    """What the agent said to one probe."""

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
    """The time that was to be waited is over."""

    run: int


@dataclass(frozen=True, slots=True)
class Stopped:
    """The work was stopped and has ended; nothing of it runs any more."""

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
    """Write these. :class:`Written`, or, where `must` (a command's), :class:`NotWritten`."""

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
    """Ask the agent again and again. :class:`AgentAnswered`, once it answers."""


@dataclass(frozen=True, slots=True)
class SwitchOff:
    """Run the off of every device of `level`. :class:`ProgramsEnded`.

    The caller asks :meth:`FenceMachine.expired` in the step that sends each, and sends none where
    it gives a reason."""

    level: int


@dataclass(frozen=True, slots=True)
class SwitchOn:
    """Run the on of every device of every level. :class:`ProgramsEnded`."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask the devices whether the host is off. :class:`DevicesSaid`.

    `level`: the one that was just told off; None: whichever level knows."""

    level: int | None


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait so many seconds. :class:`TimeUp`."""

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
    """Drop the host's connection, and hear nothing of it until :class:`Resume`."""


@dataclass(frozen=True, slots=True)
class Resume:
    """Connect to the host again; its silence counts from now."""


@dataclass(frozen=True, slots=True)
class Poke:
    """The groups that are managed on the host were held: have their tasks look again."""


@dataclass(frozen=True, slots=True)
class Learnt:
    """Decide the host's groups again; `afresh`: older samples are no proof any more."""

    afresh: bool = False


@dataclass(frozen=True, slots=True)
class DenyOff:
    """The host is not proven off any more: for this reason, and over a restart."""

    why: str


class Weight(Enum):
    """How much a line in the log matters."""

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
    """Tell the command that waits: done (None), or what went wrong."""

    ticket: int
    error: Exception | None = None


Action: TypeAlias = Do | Stop | StandDown | Resume | Poke | Learnt | DenyOff | Tell | Answer
