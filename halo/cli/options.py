"""Arguments and options of several commands, with their shell completion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from halo.cli.context import Context, context_of

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

COMPLETION_DEADLINE_S = 0.5


def expand_hosts(texts: tuple[str, ...]) -> list[str]:
    """The host names that nodesets stand for, each once. Raises BadParameter."""
    if not all(text.strip() for text in texts):
        raise click.BadParameter("the name of a host is empty")
    if not any(set(text) & set(",[] ") for text in texts):
        return list(dict.fromkeys(texts))
    from halo.config.nodesets.nodeset import expand

    names: dict[str, None] = {}
    for text in texts:
        try:
            names.update(dict.fromkeys(expand(text)))
        except ValueError as error:
            raise click.BadParameter(str(error)) from error
    return list(names)


def _names(ctx: click.Context, kind: str) -> list[str]:
    """All host or group names, from the manager, or else from the config."""
    from halo.cli.client import get_status
    from halo.cli.errors import CliError
    from halo.cli.show import view

    context: Context = context_of(ctx)
    try:
        status = get_status(context.socket, deadline_s=COMPLETION_DEADLINE_S)
        return [view.text(item, "id") for item in view.items(status, kind)]
    except CliError:
        pass
    from halo.config import load
    from halo.core.errors import HaloError

    try:
        cluster = load(context.config)
    except (HaloError, OSError):
        return []
    return list(cluster.hosts if kind == "hosts" else cluster.groups)


def complete_hosts(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """The names of hosts, after the part of a comma list that is there already."""
    before, comma, last = incomplete.rpartition(",")
    return [before + comma + name for name in _names(ctx, "hosts") if name.startswith(last)]


def complete_groups(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """The names of groups."""
    return [name for name in _names(ctx, "groups") if name.startswith(incomplete)]


def _expanded(_ctx: click.Context, _parameter: click.Parameter, value: Any) -> list[str]:
    return expand_hosts(value if isinstance(value, tuple) else (value,))


def hosts_argument(command: Decorated) -> Decorated:
    """One or more hosts or nodesets, as the list `hosts`."""
    return click.argument(
        "hosts",
        nargs=-1,
        required=True,
        metavar="HOST...",
        callback=_expanded,
        shell_complete=complete_hosts,
    )(command)


def host_option(
    name: str, parameter: str, description: str, *, required: bool = True
) -> Callable[[Decorated], Decorated]:
    """An option that names one host."""
    return click.option(
        name,
        parameter,
        required=required,
        metavar="HOST",
        shell_complete=complete_hosts,
        help=description,
    )


def onto_option(command: Decorated) -> Decorated:
    """`--onto HOST`: a host or nodeset, as the list `hosts`."""
    return click.option(
        "--onto",
        "hosts",
        required=True,
        metavar="HOST",
        callback=_expanded,
        shell_complete=complete_hosts,
        help="Home host (or nodeset) of the groups to move back.",
    )(command)


def _named(_ctx: click.Context, _parameter: click.Parameter, value: tuple[str, ...]) -> Any:
    if "" in value:
        raise click.BadParameter("a name is empty; `halo status` lists the groups")
    return value


def groups_argument(command: Decorated) -> Decorated:
    """One or more groups, as the tuple `groups`."""
    return click.argument(
        "groups",
        nargs=-1,
        required=True,
        metavar="GROUP...",
        callback=_named,
        shell_complete=complete_groups,
    )(command)


def groups_or_all(command: Decorated) -> Decorated:
    """Groups as the tuple `groups`, or `--all` as `every`: :func:`require_groups` checks it."""
    option = click.option(
        "--all", "every", is_flag=True, help="All groups of the config, in order."
    )
    argument = click.argument(
        "groups", nargs=-1, metavar="GROUP...", callback=_named, shell_complete=complete_groups
    )
    return argument(option(command))


def require_groups(groups: tuple[str, ...], every: bool) -> None:
    """Raise UsageError unless there are either groups or `--all`."""
    if every and groups:
        raise click.UsageError("Give either GROUP... or --all.")
    if not every and not groups:
        raise click.UsageError("Missing argument 'GROUP...'.")


def reason_option(command: Decorated) -> Decorated:
    """`--reason TEXT`: recorded with the event."""
    return click.option(
        "--reason", metavar="TEXT", help="The reason; it is recorded with the event."
    )(command)


def force_option(description: str) -> Callable[[Decorated], Decorated]:
    """`--force`. Each command defines what it overrides."""
    return click.option("--force", is_flag=True, help=description)


def wait_option(description: str) -> Callable[[Decorated], Decorated]:
    """`--wait SECONDS`, as `wait_s`."""
    return click.option(
        "--wait", "wait_s", metavar="SECONDS", type=click.FloatRange(min=0), help=description
    )
