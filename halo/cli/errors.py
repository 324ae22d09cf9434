"""How `halo` ends: its exit statuses, and the exceptions that carry them."""

from __future__ import annotations

import sys

EXIT_REFUSED = 1
"""The manager refused, or tried and failed; its sentence is on stderr."""
EXIT_CONFIG = 64
"""The config is wrong: every mistake is on stderr. (2, a usage error, is click's own.)"""
EXIT_UNREACHABLE = 69
"""No answer from the manager (EX_UNAVAILABLE of sysexits.h)."""
EXIT_NOT_REACHED = 75
"""The command was accepted, and what --wait waits for did not come in time (EX_TEMPFAIL)."""


def tell_error(text: str) -> None:
    """One line on stderr, where there is one that takes it: the exit status tells the rest."""
    if sys.stderr is None:  # closed by whoever began the command
        return
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        sys.stderr = None  # else Python tries again when it ends


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
    """The config, or something like it, must be mended first."""

    exit_code = EXIT_CONFIG


class ManagerUnreachable(CliError):
    """No answer from the manager. `absent`: nothing listens; else the fault may be on our side."""

    exit_code = EXIT_UNREACHABLE

    def __init__(self, message: str, *, absent: bool) -> None:
        super().__init__(message)
        self.absent = absent
