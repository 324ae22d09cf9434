"""The exit statuses of `halo`, and the exceptions that carry them."""

from __future__ import annotations

import sys
from typing import Any

EXIT_REFUSED = 1
"""The manager refused, or tried and failed. Its sentence is on stderr."""
EXIT_CONFIG = 64
"""The config is wrong. All mistakes are on stderr. (Status 2, a usage error, comes from click.)"""
EXIT_UNREACHABLE = 69
"""No answer from the manager (EX_UNAVAILABLE of sysexits.h)."""
EXIT_NOT_REACHED = 75
"""The command was accepted, but the state of --wait was not reached in time (EX_TEMPFAIL)."""


def tell_error(text: str) -> None:
    """Print one line on stderr, if it can be written. Otherwise only the exit status tells."""
    if sys.stderr is None:  # closed by the caller of the command
        return
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        sys.stderr = None  # else Python tries again at its end


class CliError(Exception):
    """Ends the command with a sentence on stderr: the manager refused, or tried and failed."""

    exit_code = EXIT_REFUSED

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def show(self) -> None:
        """Tell the operator."""
        tell_error(self.message)


class AdministratorMustMend(CliError):
    """The config, or something similar, must be corrected first."""

    exit_code = EXIT_CONFIG


class NoLeader(CliError):
    """No manager leads. `known` is what the one that was asked knows from the journal, or None."""

    exit_code = EXIT_UNREACHABLE

    def __init__(self, message: str, known: Any) -> None:
        super().__init__(message)
        self.known = known


class ManagerUnreachable(CliError):
    """No answer from the manager. `absent`: nothing listens. Otherwise the fault may be ours."""

    exit_code = EXIT_UNREACHABLE

    def __init__(self, message: str, *, absent: bool) -> None:
        super().__init__(message)
        self.absent = absent
