"""Command lines of the daemons: an administrator must correct mistakes in them.

Also the options of a store, which several programs have.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from halo.adapters.store_files import StoreFiles
from halo.core.errors import EXIT_ADMINISTRATOR

Command = TypeVar("Command", bound=Callable[..., Any])


class _WrongUsage(click.UsageError):
    exit_code = EXIT_ADMINISTRATOR


class DaemonCommand(click.Command):
    """A wrong flag, or a wrong variable such as HALO_PORT, exits with 64: no restart by systemd."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            raise _WrongUsage(error.format_message(), error.ctx) from error


_STORE_OPTIONS = {
    "ca": ("--store-ca", "CA certificate of the store's members: use TLS."),
    "certificate": ("--store-cert", "Client certificate for the store."),
    "key": ("--store-key", "Private key of that certificate."),
    "user": ("--store-user", "User of the store."),
    "password_file": ("--store-password-file", "File with the password of that user."),
}
_META = "halo.store."


def store_options(command: Command) -> Command:
    """Add the options of a store to a command. :func:`store_files` gives their values."""
    for name, (flag, words) in reversed(_STORE_OPTIONS.items()):
        is_user = name == "user"
        command = click.option(
            flag,
            name,
            envvar="HALO_" + flag[2:].upper().replace("-", "_"),
            show_envvar=True,
            metavar="NAME" if is_user else "FILE",
            type=str if is_user else click.Path(path_type=Path),
            expose_value=False,
            callback=_keep,
            help=words,
        )(command)
    return command


def store_files() -> StoreFiles:
    """What the options of a store say, in a command that has them."""
    meta = click.get_current_context().meta
    return StoreFiles(**{name: meta.get(_META + name) for name in _STORE_OPTIONS})


def _keep(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    ctx.meta[f"{_META}{parameter.name}"] = value or None
