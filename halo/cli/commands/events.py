"""`halo events`: the whole event history, and its clearing."""

from __future__ import annotations

import click

from halo.cli.client import COMMAND_DEADLINE_S, get_status
from halo.cli.command import command
from halo.cli.context import Context
from halo.cli.options import reason_option
from halo.cli.send import report
from halo.cli.show import view
from halo.cli.show.render import event_line


@click.group()
def events() -> None:
    """Show the event history, or clear it."""


@events.command()
@click.pass_obj
def show(context: Context) -> None:
    """Print the last 1,000 events, oldest first, including cleared events."""
    for event in view.events(get_status(context.socket)):
        click.echo(event_line(event))


@events.command()
@reason_option
@click.pass_context
def clear(ctx: click.Context, reason: str | None) -> None:
    """Remove all events so far from the output of `halo status`."""
    body = {} if reason is None else {"comment": reason}
    answer = command(ctx.obj.socket, "POST", "/clear_events", body, deadline_s=COMMAND_DEADLINE_S)
    ctx.exit(report(answer, "clear the events", "Events cleared."))
