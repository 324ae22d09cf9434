"""`halo status`: what runs where, which hosts are connected, what happened lately."""

from __future__ import annotations

import sys

import click

from halo.cli.context import Context
from halo.cli.errors import CliError, NoLeader
from halo.cli.show.shown import old_text, status_text

_CLEAR_SCREEN = "\x1b[H\x1b[2J"


@click.command()
@click.option(
    "-x",
    "exclude_normal",
    is_flag=True,
    help="Show only what is unusual: not running at home, in error, unmanaged, disconnected.",
)
@click.option(
    "-e",
    "--event-count",
    metavar="N",
    type=click.IntRange(min=0),
    help="Show the last N events (default: 10; none with -x).",
)
@click.option("--json", "as_json", is_flag=True, help="Print the manager's answer as JSON.")
@click.option(
    "--watch",
    "watch_s",
    metavar="SECONDS",
    type=click.FloatRange(min=0.1),
    help="Repeat the output every SECONDS seconds, until interrupted.",
)
@click.pass_obj
def status(
    context: Context,
    exclude_normal: bool,
    event_count: int | None,
    as_json: bool,
    watch_s: float | None,
) -> None:
    """Show resources, hosts and recent events."""

    def shown_now() -> str:
        return status_text(
            context.socket,
            exclude_normal=exclude_normal,
            event_count=event_count,
            as_json=as_json,
            verbose=context.verbose,
        )

    if watch_s is None:
        try:
            shown = shown_now()
        except NoLeader as error:
            error.show()
            click.echo(old_text(error, as_json=as_json))
            raise click.exceptions.Exit(error.exit_code) from error
        if shown:  # with -x there may be nothing to say
            click.echo(shown, color=True)
        return
    import time

    while True:
        try:
            shown = shown_now()
        except NoLeader as error:
            shown = f"{error.message}\n{old_text(error)}"
        except CliError as error:  # the manager may be restarting
            shown = error.message
        clear = _CLEAR_SCREEN if sys.stdout.isatty() else ""
        click.echo(f"{clear}{time.strftime('%Y-%m-%d %H:%M:%S')}\n{shown}", color=True)
        time.sleep(watch_s)
