"""Command lines of the daemons: an administrator must correct mistakes in them."""

from __future__ import annotations

import click

from halo.core.errors import EXIT_ADMINISTRATOR


class _WrongUsage(click.UsageError):
    exit_code = EXIT_ADMINISTRATOR


class DaemonCommand(click.Command):
    """A wrong flag, or a wrong variable such as HALO_PORT, exits with 64: no restart by systemd."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            raise _WrongUsage(error.format_message(), error.ctx) from error
