"""`halo events`: the whole event history, and its clearing. `halo why`: why a thing is as it is."""

from __future__ import annotations

import json
import time

import click

from halo.cli.client import (
    COMMAND_DEADLINE_S,
    NOT_THERE,
    PREFIX,
    STATUS_DEADLINE_S,
    Answer,
    get_status,
    path_of,
    request,
)
from halo.cli.command import command
from halo.cli.context import Context
from halo.cli.errors import CliError
from halo.cli.options import complete_groups, complete_hosts, reason_option
from halo.cli.send import report
from halo.cli.show import view
from halo.cli.show.render import event_line
from halo.cli.show.why import why_lines


@click.group()
def events() -> None:
    """Show the event history, or clear it."""


@events.command()
@click.pass_obj
def show(context: Context) -> None:
    """Print the last 1,000 events, oldest first, including cleared events."""
    found = view.events(get_status(context.socket))
    for event in found:
        click.echo(event_line(event))
    if not found:
        click.echo("No events.", err=True)  # a script that reads events finds none


@events.command()
@reason_option
@click.pass_context
def clear(ctx: click.Context, reason: str | None) -> None:
    """Remove all events so far from the output of `halo status`."""
    body = {} if reason is None else {"comment": reason}
    answer = command(ctx.obj.socket, "POST", "/clear_events", body, deadline_s=COMMAND_DEADLINE_S)
    ctx.exit(report(answer, "clear the events", "Events cleared."))


def _complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    return [
        *complete_groups(ctx, parameter, incomplete),
        *complete_hosts(ctx, parameter, incomplete),
    ]


@click.command()
@click.argument("name", metavar="GROUP|HOST", shell_complete=_complete)
@click.option(
    "--host", "as_host", is_flag=True, help="NAME is a host, even if a group has it, too."
)
@click.option("--json", "as_json", is_flag=True, help="Print the manager's answer as JSON.")
@click.pass_context
def why(ctx: click.Context, name: str, as_host: bool, as_json: bool) -> None:
    """Say why GROUP runs there or does not run, or why HOST was fenced or is not.

    The answer has the facts, with their age and how they were learnt, then what HALO does next by
    itself, and what you can do.
    """
    context: Context = ctx.obj
    if not name:
        raise click.BadParameter("a name is empty; `halo status` lists groups and hosts")
    answer = _ask(context, "hosts" if as_host else "groups", name)
    if answer.status == 404 and not as_host:
        of_host = _ask(context, "hosts", name)
        answer = of_host if of_host.status != 404 else answer
    if not answer.succeeded:
        ctx.exit(report(answer, "tell why", ""))
    if as_json:
        click.echo(json.dumps(answer.content, indent=2))
    else:
        click.echo("\n".join(why_lines(answer.content, time.time())))


def _ask(context: Context, kind: str, name: str) -> Answer:
    path = PREFIX + path_of(kind, name, "why")
    answer = request(context.socket, "GET", path, deadline_s=STATUS_DEADLINE_S)
    if answer.status in NOT_THERE and not isinstance(answer.content, dict):
        raise CliError(f'The manager at {context.socket} is older, and knows no "why".')
    return answer
