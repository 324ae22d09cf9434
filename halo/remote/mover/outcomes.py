"""How an order may end: states, their exit codes, and errors of the system put into them."""

from __future__ import annotations

import errno
import os
from enum import StrEnum

TEXT_LIMIT = 300
"""Characters of a path in a message. What is longer is cut in its middle."""


class State(StrEnum):
    """How an order ended. The agent reads it; docs/staging.md says what to do about each."""

    READY = "ready"
    REMOVED = "removed"
    BUSY = "busy"
    CANCELLED = "cancelled"
    DEADLINE_PASSED = "deadline-passed"
    BAD_ORDER = "bad-order"
    OUTSIDE_ROOTS = "outside-roots"
    OTHER_ORDER = "other-order"
    SOURCE_MISSING = "source-missing"
    SOURCE_CHANGED = "source-changed"
    SOURCE_UNSUPPORTED = "source-unsupported"
    DESTINATION_MISSING = "destination-missing"
    DESTINATION_PRESENT = "destination-present"
    DESTINATION_GONE = "destination-gone"
    PERMISSION_DENIED = "permission-denied"
    NO_SPACE = "no-space"
    QUOTA = "quota"
    PATH_TOO_LONG = "path-too-long"
    NOT_VERIFIED = "not-verified"
    IO_ERROR = "io-error"

    @property
    def exit_code(self) -> int:
        """The exit code of the program: 1 for every failure that has none of its own."""
        return _EXIT_CODES.get(self, 1)


_EXIT_CODES = {
    State.READY: 0,
    State.REMOVED: 0,
    State.BAD_ORDER: 2,
    State.BUSY: 3,
    State.CANCELLED: 4,
    State.DEADLINE_PASSED: 5,
}


class Failure(Exception):
    """The order ends in `state`. The message is one sentence; `numbers` go into the last line."""

    def __init__(self, state: State, message: str, **numbers: object) -> None:
        super().__init__(message)
        self.state = state
        self.message = message
        self.numbers = numbers


class End(StrEnum):
    """The end of a copy at which something happened."""

    SOURCE = "source"
    DESTINATION = "destination"


_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_MOVED = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE, errno.ENXIO, errno.EISDIR}


def failure_of(error: OSError, end: End, path: bytes) -> Failure:
    """What an error means that came while a tree was read or written. `path` is within the tree."""
    number = error.errno or errno.EIO
    state = State.IO_ERROR
    if number == errno.ENOSPC:
        state = State.NO_SPACE
    elif number == errno.EDQUOT:
        state = State.QUOTA
    elif number in _DENIED:
        state = State.PERMISSION_DENIED
    elif number == errno.ENAMETOOLONG:
        state = State.PATH_TOO_LONG
    elif end is End.SOURCE and number in _MOVED:
        return changed(path)
    name = errno.errorcode.get(number, str(number))
    message = f"the {end} failed at {shown(path)}: {os.strerror(number)}"
    return Failure(state, message, path=shown(path), errno=name)


def changed(path: bytes) -> Failure:
    """The source is not any more what it was when the copy began."""
    message = f"the source changed while it was copied: {shown(path)}"
    return Failure(State.SOURCE_CHANGED, message, path=shown(path))


def shown(path: bytes) -> str:
    """A path for a message: one line of printable characters, not too long."""
    text = path.decode("utf-8", "backslashreplace")
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    if len(text) > TEXT_LIMIT:
        half = TEXT_LIMIT // 2
        text = f"{text[:half]}...{text[-half:]}"
    return text or "."
