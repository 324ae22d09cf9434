"""Commands on the cluster as a whole: freeze and thaw."""

from __future__ import annotations

import click

from halo.cli.client import path_of
from halo.cli.options import reason_option
from halo.cli.send import Command, body_of, send_all


@click.command()
@reason_option
@click.pass_context
def freeze(ctx: click.Context, reason: str | None) -> None:
    """Stop all action on groups, until `halo thaw`.

    HALO then starts, restarts, moves and fences nothing automatically. If a host dies while the
    cluster is frozen, its groups stay down.
    """
    _send(ctx, "freeze", reason)


@click.command()
@reason_option
@click.pass_context
def thaw(ctx: click.Context, reason: str | None) -> None:
    """Allow action on groups again. HALO first probes all groups."""
    _send(ctx, "thaw", reason)


def _send(ctx: click.Context, command: str, reason: str | None) -> None:
    words = f"{command} the cluster"
    body = body_of(command, comment=reason)
    sent = send_all(ctx.obj, [Command("", words, "POST", path_of("cluster"), body)])
    ctx.exit(sent.exit_code)
