"""The entry point of the `halo` command.

Operators and scripts run `halo status` most often. It may take 80 ms as a whole process. The import
of the command-line parser takes longer than all the rest. So the most common forms of `halo status`
do without it. All other commands use it.
"""

from __future__ import annotations

import errno
import os
import sys

from halo.cli.defaults import DEFAULT_SOCKET, SOCKET_VARIABLE
from halo.cli.errors import EXIT_REFUSED, CliError, NoLeader, tell_error

_WITHOUT_PARSER: dict[tuple[str, ...], dict[str, bool]] = {
    ("status",): {},
    ("status", "-x"): {"exclude_normal": True},
    ("status", "--json"): {"as_json": True},
}
"""Whole command lines, with their settings for `status_text`."""


def main() -> None:
    """Entry point of the `halo` command."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # a character that the terminal lacks must not stop the output
            reconfigure(errors="backslashreplace")
    try:
        settings = _WITHOUT_PARSER.get(tuple(sys.argv[1:]))
        if settings is not None:
            sys.exit(_status(settings))
        from halo.cli.main import cli

        cli(prog_name="halo")
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ENOSPC) or sys.stdout is None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing must be flushed
        if error.errno != errno.EPIPE:  # else the reader has ended on purpose
            tell_error(f"The output could not be written: {error.strerror}.")
        sys.exit(EXIT_REFUSED)
    except KeyboardInterrupt:  # in the middle of an import, or of a plain status
        tell_error("\nAborted!")
        sys.exit(EXIT_REFUSED)


def _status(settings: dict[str, bool]) -> int:
    """Run `halo status` with these settings. Returns the exit status."""
    from halo.cli.show.shown import old_text, status_text

    try:
        shown = status_text(os.environ.get(SOCKET_VARIABLE) or DEFAULT_SOCKET, **settings)
    except NoLeader as error:
        error.show()
        print(old_text(error, as_json=settings.get("as_json", False)), flush=True)
        return error.exit_code
    except CliError as error:
        error.show()
        return error.exit_code
    if shown:  # with -x there may be nothing to show
        print(shown, flush=True)
    return 0
