"""The options that all commands share: config, socket, verbosity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import click

from halo.cli.defaults import DEFAULT_CONFIG, DEFAULT_SOCKET, SOCKET_VARIABLE

_META = "halo.cli."


@dataclass
class Context:
    """The settings that all commands share. Get it with `click.pass_obj`."""

    config: str = DEFAULT_CONFIG
    socket: str = DEFAULT_SOCKET
    verbose: bool = False


def context_of(ctx: click.Context) -> Context:
    """The settings that were parsed so far, even during shell completion."""
    given = {name: ctx.meta[_META + name] for name in _NAMES if _META + name in ctx.meta}
    return Context(**given)


def add_shared_options(command: click.Command, *, read_environment: bool = False) -> None:
    """Let `command`, and the commands below it, take the shared options, too.

    The options may come before the command or after it. The last one counts. An option that the
    command defines itself is not replaced.
    """
    taken = {name for parameter in command.params for name in parameter.opts}
    for option in _shared_options(read_environment):
        option.opts = [name for name in option.opts if name not in taken]
        if option.name not in {parameter.name for parameter in command.params} and option.opts:
            command.params.append(option)
    if isinstance(command, click.Group):
        for below in command.commands.values():
            add_shared_options(below)


def _shared_options(read_environment: bool) -> list[click.Option]:
    def environment(name: str) -> str | None:
        return name if read_environment else None

    return [
        click.Option(
            ["--config"],
            metavar="FILE",
            envvar=environment("HALO_CONFIG"),
            type=click.Path(readable=False),  # else an unreadable file would be a usage error
            expose_value=False,
            callback=_store,
            help=f"The cluster's config file (HALO_CONFIG; default {DEFAULT_CONFIG}).",
        ),
        click.Option(
            ["--socket"],
            metavar="FILE",
            envvar=environment(SOCKET_VARIABLE),
            type=click.Path(readable=False),
            expose_value=False,
            callback=_store,
            help=f"The manager's socket (HALO_SOCKET; default {DEFAULT_SOCKET}).",
        ),
        click.Option(
            ["-v", "--verbose"],
            is_flag=True,
            expose_value=False,
            callback=_store,
            help="Show more details.",
        ),
    ]


_NAMES = ("config", "socket", "verbose")


def _store(ctx: click.Context, parameter: click.Parameter, value: Any) -> Any:
    if value and parameter.name is not None:
        ctx.meta[_META + parameter.name] = value
        known = ctx.find_object(Context)
        if known is not None:
            setattr(known, parameter.name, value)
    return value
