"""Commands on groups: start, stop, move, cleanup, manage, unmanage."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click

from halo.cli.client import path_of
from halo.cli.options import (
    groups_argument,
    host_option,
    reason_option,
    wait_option,
)
from halo.cli.send import Command, body_of, send_all
from halo.cli.wait import Missing, groups_running, groups_settled, groups_stopped, wait_until


@click.command()
@groups_argument
@reason_option
@wait_option("Wait up to SECONDS seconds until the group runs.")
@click.pass_context
def start(
    ctx: click.Context,
    groups: tuple[str, ...],
    reason: str | None,
    wait_s: float | None,
) -> None:
    """Start GROUP on the first candidate that can run it, and keep it running."""
    _send(ctx, groups, "start", reason, wait_s, groups_running)


@click.command()
@groups_argument
@reason_option
@wait_option("Wait up to SECONDS seconds until the group is proven stopped on all candidates.")
@click.pass_context
def stop(
    ctx: click.Context,
    groups: tuple[str, ...],
    reason: str | None,
    wait_s: float | None,
) -> None:
    """Stop GROUP, and keep it stopped until `halo start`."""
    _send(ctx, groups, "stop", reason, wait_s, groups_stopped)


@click.command()
@groups_argument
@host_option("--to", "host", "The host to move to.")
@reason_option
@wait_option("Wait up to SECONDS seconds until the group runs there.")
@click.pass_context
def move(
    ctx: click.Context,
    groups: tuple[str, ...],
    host: str,
    reason: str | None,
    wait_s: float | None,
) -> None:
    """Stop GROUP where it runs, and start it on another candidate."""

    def there(names: Sequence[str]) -> Missing:
        return groups_running(names, on=host)

    _send(ctx, groups, "move", reason, wait_s, there, to=host)


@click.command()
@groups_argument
@reason_option
@host_option(
    "--stopped-on",
    "stopped_on",
    "Only confirm that the group is stopped on HOST, which has left the config. Check it first.",
    required=False,
)
@wait_option("Wait up to SECONDS seconds until the group runs, or is stopped if it should be.")
@click.pass_context
def cleanup(
    ctx: click.Context,
    groups: tuple[str, ...],
    reason: str | None,
    stopped_on: str | None,
    wait_s: float | None,
) -> None:
    """Forget GROUP's failures, probe it on all candidates, and continue from there."""
    _send(ctx, groups, "cleanup", reason, wait_s, groups_settled, stopped_on=stopped_on)


@click.command()
@groups_argument
@reason_option
@click.pass_context
def manage(ctx: click.Context, groups: tuple[str, ...], reason: str | None) -> None:
    """Let HALO act on GROUP again: start, restart and move it, and fence hosts for it."""
    _send_managed(ctx, groups, True, reason)


@click.command()
@groups_argument
@reason_option
@click.pass_context
def unmanage(ctx: click.Context, groups: tuple[str, ...], reason: str | None) -> None:
    """Monitor GROUP without acting on it, so that you can work on it by hand."""
    _send_managed(ctx, groups, False, reason)


def _send(
    ctx: click.Context,
    groups: tuple[str, ...],
    command: str,
    reason: str | None,
    wait_s: float | None,
    missing: Callable[[Sequence[str]], Missing],
    **values: str | None,
) -> None:
    body = body_of(command, **values, comment=reason)
    verb = "clean up" if command == "cleanup" else command
    commands = [
        Command(group, f"{verb} '{group}'", "POST", path_of("groups", group), body)
        for group in dict.fromkeys(groups)
    ]
    sent = send_all(ctx.obj, commands)
    code = sent.exit_code
    if sent.done:
        code = max(code, wait_until(ctx.obj, wait_s, missing(sent.done)))
    ctx.exit(code)


def _send_managed(
    ctx: click.Context, groups: tuple[str, ...], managed: bool, reason: str | None
) -> None:
    body = {"managed": managed, **body_of(comment=reason)}
    verb = "manage" if managed else "unmanage"
    commands = [
        Command(group, f"{verb} '{group}'", "PATCH", path_of("resources", group), body)
        for group in dict.fromkeys(groups)
    ]
    ctx.exit(send_all(ctx.obj, commands).exit_code)
