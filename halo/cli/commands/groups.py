"""Commands on groups: start, stop, move, cleanup, manage, unmanage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NoReturn

import click

from halo.cli.client import get_status, path_of
from halo.cli.options import (
    groups_argument,
    groups_or_all,
    host_option,
    reason_option,
    require_groups,
    wait_option,
)
from halo.cli.order import start_steps, with_dependents
from halo.cli.send import Command, body_of, send_all
from halo.cli.wait import Missing, groups_running, groups_settled, groups_stopped, wait_until

STEP_DEADLINE_S = 3600.0
"""Longest wait for one step of several, unless `--wait` says another."""


@click.command()
@groups_or_all
@reason_option
@wait_option("Wait up to SECONDS seconds until the group runs; with --all, for each step.")
@click.pass_context
def start(
    ctx: click.Context,
    groups: tuple[str, ...],
    every: bool,
    reason: str | None,
    wait_s: float | None,
) -> None:
    """Start GROUP on the first candidate that can run it, and keep it running.

    With --all, the groups come in their order. The manager keeps it, also without --wait.
    """
    require_groups(groups, every)
    if not every:
        _send(ctx, groups, "start", reason, wait_s, groups_running)
    steps = start_steps(get_status(ctx.obj.socket))
    _in_steps(ctx, steps, "start", reason, wait_s, groups_running)


@click.command()
@groups_or_all
@click.option(
    "--with-dependents", "dependents", is_flag=True, help="First those that are started after it."
)
@reason_option
@wait_option("Wait up to SECONDS seconds until the group is proven stopped on all candidates.")
@click.pass_context
def stop(
    ctx: click.Context,
    groups: tuple[str, ...],
    every: bool,
    dependents: bool,
    reason: str | None,
    wait_s: float | None,
) -> None:
    """Stop GROUP, and keep it stopped until `halo start`.

    With --all or --with-dependents, the groups are stopped against their order, step by step. A
    step begins when the one before is proven stopped. If a step fails, nothing more is stopped.
    """
    require_groups(groups, every)
    if not every and not dependents:
        _send(ctx, groups, "stop", reason, wait_s, groups_stopped)
    status = get_status(ctx.obj.socket)
    steps = start_steps(status, None if every else with_dependents(status, groups))
    wait_s = STEP_DEADLINE_S if wait_s is None else wait_s
    _in_steps(ctx, steps[::-1], "stop", reason, wait_s, groups_stopped)


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
    groups: Sequence[str],
    command: str,
    reason: str | None,
    wait_s: float | None,
    missing: Callable[[Sequence[str]], Missing],
    **values: str | None,
) -> NoReturn:
    ctx.exit(_sent(ctx, groups, command, reason, wait_s, missing, **values))


def _in_steps(
    ctx: click.Context,
    steps: Sequence[Sequence[str]],
    command: str,
    reason: str | None,
    wait_s: float | None,
    missing: Callable[[Sequence[str]], Missing],
) -> NoReturn:
    """One step after the other, until one fails. With `wait_s`, each waits for the one before."""
    for number, names in enumerate(steps, start=1):
        click.echo(f"Step {number} of {len(steps)}: {command} {', '.join(names)}")
        code = _sent(ctx, names, command, reason, wait_s, missing)
        if code != 0:
            left = [name for step in steps[number:] for name in step]
            if left:
                click.echo(f"Ended here. Not tried: {', '.join(left)}", err=True)
            ctx.exit(code)
    ctx.exit(0)


def _sent(
    ctx: click.Context,
    groups: Sequence[str],
    command: str,
    reason: str | None,
    wait_s: float | None,
    missing: Callable[[Sequence[str]], Missing],
    **values: str | None,
) -> int:
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
    return code


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
