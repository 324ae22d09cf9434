"""The errors of HALO, split by what the caller does next.

::

    HaloError
     ├─ AdministratorError     an administrator must correct something first: exit status 64
     │   ├─ ConfigError        the config is wrong; carries every mistake with its place
     │   ├─ SocketError        the manager's socket path cannot be used
     │   └─ StateError         the state file is locked, damaged or unreadable
     ├─ LinkError              no answer from an agent; its `loss` says what that proves
     ├─ FenceError             a fence device did not do what it was told
     ├─ RecordError            the journal could not be written: nothing was changed
     ├─ LeadershipError        this manager cannot prove that it still leads: it ends at once
     │   └─ SteppedDown        an administrator told it to give the leadership back
     ├─ PeerError              another manager gave no answer
     │   ├─ PeerUnreachable    it certainly did not take the request
     │   └─ PeerSilent         it may have carried out the request
     ├─ CommandError           an administrator's command was not carried out
     │   ├─ BadRequest         malformed (HTTP 400)
     │   ├─ UnknownObject      no such host or group (HTTP 404)
     │   ├─ CommandRefused     not possible now (HTTP 409)
     │   └─ CommandFailed      tried and failed (HTTP 500)
     └─ InvariantError         a defect of the manager itself: it records this and exits

Library exceptions are translated into these once, in the adapter that calls the library.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

EXIT_ADMINISTRATOR = 64
"""Exit status if an administrator must correct something; systemd does not restart then."""


class HaloError(Exception):
    """Base of all errors that HALO raises on purpose."""


class AdministratorError(HaloError):
    """Something that an administrator must correct before the program can start."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake in a config file: where, what was found, what was expected."""

    line: int
    column: int
    message: str


MISTAKES_TOLD = 100
"""Mistakes of one config that are shown. Thousands of mistakes have one cause, and would flood the
journal or the terminal."""


class ConfigError(AdministratorError):
    """The config file is wrong. `mistakes` holds all mistakes, in the order of the file. The text
    names the first :data:`MISTAKES_TOLD`."""

    def __init__(self, path: str, mistakes: list[Mistake]) -> None:
        self.path = path
        self.mistakes = mistakes
        lines = [
            f"{path}:{m.line}:{m.column}: {m.message}" if m.line else f"{path}: {m.message}"
            for m in mistakes[:MISTAKES_TOLD]
        ]
        if (more := len(mistakes) - len(lines)) > 0:
            lines.append(f"{path}: and {more} more; correct these first")
        super().__init__("\n".join(lines))


class SocketError(AdministratorError):
    """The manager's socket path cannot be used."""


class StateError(AdministratorError):
    """The state file is locked by another manager, damaged, or cannot be read."""


class LossKind(Enum):
    """Why an agent does not answer. The groups differ in what they say about the host."""

    SILENT = "silent"  # a probe was sent, and nothing came back within the deadline
    NO_ROUTE_TO_HOST = "no route to host"  # counts like silence
    REFUSED = "connection refused"  # the host lives, but its agent does not
    RESET = "connection reset"  # the same (also an orderly end of the stream)
    BUSY = "refused by the agent"  # the agent lives, but refuses us
    STALE = "replaced"  # we closed the connection, or a newer one replaced it
    NO_ROUTE_TO_NETWORK = "network unreachable"  # proves nothing about the host
    DNS = "name resolution failed"  # proves nothing
    TLS = "TLS failed"  # proves nothing, although something answered
    PROTOCOL = "protocol error"  # something answered, but wrongly
    LOCAL = "local error"  # our own fault: descriptors, memory, permissions

    @property
    def is_silence(self) -> bool:
        """True if a probe was sent and the host gave no sign of life."""
        return self in (LossKind.SILENT, LossKind.NO_ROUTE_TO_HOST)

    @property
    def proves_nothing(self) -> bool:
        """True if no probe left: the fault is on our side, or between us and the network."""
        return self in (LossKind.NO_ROUTE_TO_NETWORK, LossKind.DNS, LossKind.LOCAL)

    @property
    def is_sign_of_life(self) -> bool:
        """True if something answered, even if it was not an agent that serves us."""
        return self.is_closed_port or self in (LossKind.BUSY, LossKind.TLS, LossKind.PROTOCOL)

    @property
    def is_closed_port(self) -> bool:
        """True if the host's kernel answered, but no agent runs there."""
        return self in (LossKind.REFUSED, LossKind.RESET)


@dataclass(frozen=True, slots=True)
class Loss:
    """Why a connection ended or could not be made."""

    kind: LossKind
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind.value}: {self.detail}" if self.detail else self.kind.value


class LinkError(HaloError):
    """An agent gave no answer."""

    def __init__(self, loss: Loss) -> None:
        self.loss = loss
        super().__init__(str(loss))


class FenceError(HaloError):
    """A fence device failed, hung, or did not do what it had acknowledged."""


class RecordError(HaloError):
    """The journal could not be written."""


class LeadershipError(HaloError):
    """This manager cannot prove any more that it leads. It must end at once. A restart is safe."""


class SteppedDown(LeadershipError):
    """An administrator told this manager to give the leadership back. The text is the reason."""


class PeerError(HaloError):
    """Another manager gave no answer. The text continues a sentence about that manager."""


class PeerUnreachable(PeerError):
    """The other manager certainly did not take the request. It may be sent to another one."""


class PeerSilent(PeerError):
    """The request was sent, and no whole answer came. It may have been carried out."""


class CommandError(HaloError):
    """An administrator's command was not carried out; the text says why, in one sentence."""

    status = 500


class BadRequest(CommandError):
    """The request is malformed."""

    status = 400


class UnknownObject(CommandError):
    """No such host or group."""

    status = 404


class CommandRefused(CommandError):
    """Not possible now; nothing was changed."""

    status = 409


class CommandFailed(CommandError):
    """The command was tried, but a fence device or the journal failed."""

    status = 500


class InvariantError(HaloError):
    """A defect of the manager: a token lost or copied, a start without proof."""
