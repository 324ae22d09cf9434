"""Commands on hosts: failback, fence, reset, activate, deactivate."""

from __future__ import annotations

from collections.abc import Callable

import click

from halo.cli.client import COMMAND_DEADLINE_S, FENCE_DEADLINE_S, path_of
from halo.cli.options import (
    force_option,
    hosts_argument,
    onto_option,
    reason_option,
    wait_option,
)
from halo.cli.send import Command, body_of, send_all
from halo.cli.wait import Missing, home_groups_back, hosts_active, hosts_empty, wait_until


@click.command()
@onto_option
@reason_option
@wait_option("Wait up to SECONDS seconds until the groups run on HOST.")
@click.pass_context
def failback(
    ctx: click.Context, hosts: list[str], reason: str | None, wait_s: float | None
) -> None:
    """Move the groups whose home host is HOST back to HOST."""
    _send(ctx, hosts, "failback", "fail back onto", reason, wait_s, home_groups_back)


@click.command()
@hosts_argument
@force_option(
    "Fence even if no partner can take the groups, the host may hold unmanaged groups, or it was "
    "fenced and not reset."
)
@click.option(
    "--confirm-off",
    is_flag=True,
    help="Confirm that you saw that the host is off; this counts as a fence. Needs --reason.",
)
@click.option(
    "--cancel", is_flag=True, help="Stop trying to fence the host, until it has answered again."
)
@reason_option
@click.pass_context
def fence(
    ctx: click.Context,
    hosts: list[str],
    force: bool,
    confirm_off: bool,
    cancel: bool,
    reason: str | None,
) -> None:
    """Power HOST off, and start its groups on their other candidates.

    The command makes one attempt. It ends when the fence device confirms that the host is off, or
    when the attempt fails. If the attempt failed, the host is lost and a group needs it off, HALO
    tries again automatically. `halo fence HOST --cancel` ends this.
    """
    if confirm_off and cancel:
        raise click.UsageError("Give either --confirm-off or --cancel, not both.")
    if confirm_off and not (reason or "").strip():
        raise click.UsageError(
            "--confirm-off needs --reason: who saw that the host is off, and how. If the host is"
            " not off, its groups will run twice."
        )
    if confirm_off:
        _send(ctx, hosts, "confirm-off", "confirm the power-off of", reason, force=force)
    elif cancel:
        _send(ctx, hosts, "cancel-fence", "cancel the fencing of", reason, force=force)
    else:
        _send(ctx, hosts, "fence", "fence", reason, force=force, deadline_s=FENCE_DEADLINE_S)


@click.command()
@hosts_argument
@reason_option
@click.pass_context
def reset(ctx: click.Context, hosts: list[str], reason: str | None) -> None:
    """Mark a fenced HOST as repaired, so that HALO may fence it automatically again."""
    _send(ctx, hosts, "reset", "reset", reason)


@click.command()
@hosts_argument
@reason_option
@wait_option("Wait up to SECONDS seconds until the host is connected and can run groups.")
@click.pass_context
def activate(
    ctx: click.Context, hosts: list[str], reason: str | None, wait_s: float | None
) -> None:
    """Let HOST run groups again."""
    _send(ctx, hosts, "activate", "activate", reason, wait_s, hosts_active)


@click.command()
@hosts_argument
@force_option("Deactivate even if a group could then start nowhere else.")
@reason_option
@wait_option("Wait up to SECONDS seconds until no managed group runs on the host.")
@click.pass_context
def deactivate(
    ctx: click.Context, hosts: list[str], force: bool, reason: str | None, wait_s: float | None
) -> None:
    """Keep groups off HOST, for example for maintenance. Its groups move away."""
    _send(ctx, hosts, "deactivate", "deactivate", reason, wait_s, hosts_empty, force=force)


def _send(
    ctx: click.Context,
    hosts: list[str],
    command: str,
    verb: str,
    reason: str | None,
    wait_s: float | None = None,
    missing: Callable[[list[str]], Missing] | None = None,
    *,
    force: bool = False,
    deadline_s: float = COMMAND_DEADLINE_S,
) -> None:
    body = body_of(command, force=force, comment=reason)
    commands = [
        Command(host, f"{verb} '{host}'", "POST", path_of("hosts", host), body) for host in hosts
    ]
    sent = send_all(ctx.obj, commands, deadline_s=deadline_s)
    code = sent.exit_code
    if missing is not None and sent.done:
        code = max(code, wait_until(ctx.obj, wait_s, missing(sent.done)))
    ctx.exit(code)
