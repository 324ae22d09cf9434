"""Commands on the cluster as a whole: freeze and thaw, and the managers."""

from __future__ import annotations

import json
import time

import click

from halo.cli.client import NOT_THERE, PREFIX, STATUS_DEADLINE_S, path_of, request
from halo.cli.context import Context
from halo.cli.errors import CliError, ManagerUnreachable
from halo.cli.options import reason_option
from halo.cli.send import Command, body_of, send_all
from halo.cli.show import view
from halo.cli.show.managers import is_old, is_silent, table_lines
from halo.cli.show.view import Item


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


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print the manager's answer as JSON.")
@click.pass_context
def managers(ctx: click.Context, as_json: bool) -> None:
    """Show which managers there are, and which leads.

    The manager that is asked answers from its own knowledge, also if no other one can be reached.
    The exit status is 1 if there is a notice, if nobody leads, if the leader is late to renew its
    lease, or if the answer is old, because etcd gives none.
    """
    if ctx.invoked_subcommand is not None:
        if as_json:
            raise click.UsageError("--json belongs to `halo managers` without another command.")
        return
    context: Context = ctx.obj
    found = _asked(context.socket)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        click.echo("\n".join(table_lines(found, time.time())))
    has_leader = view.text(found, "journal") == "file" or bool(view.text(found, "leader"))
    is_well = has_leader and not (is_old(found) or is_silent(found) or found.get("notices"))
    ctx.exit(0 if is_well else 1)


@managers.command(name="step-down")
@reason_option
@click.pass_context
def step_down(ctx: click.Context, reason: str | None) -> None:
    """Let another manager lead.

    The leader records this with the reason, as an event `step-down`. It ends its work, and its
    process ends with exit status 75 and is started again. No group is stopped. The next leader
    first finds out what runs.
    """
    body = body_of("step-down", comment=reason)
    sent = send_all(
        ctx.obj, [Command("", "have the leader step down", "POST", path_of("managers"), body)]
    )
    ctx.exit(sent.exit_code)


def _send(ctx: click.Context, command: str, reason: str | None) -> None:
    words = f"{command} the cluster"
    body = body_of(command, comment=reason)
    sent = send_all(ctx.obj, [Command("", words, "POST", path_of("cluster"), body)])
    ctx.exit(sent.exit_code)


def _asked(socket: str) -> Item:
    answer = request(socket, "GET", PREFIX + "/managers", deadline_s=STATUS_DEADLINE_S)
    if answer.succeeded and isinstance(answer.content, dict):
        return answer.content
    if answer.status in NOT_THERE:
        raise CliError(f"The manager at {socket} knows nothing of other managers: it is older.")
    if not answer.succeeded:
        raise CliError(
            "The manager did not say which managers there are: "
            + (answer.sentence or f"HTTP status {answer.status}")
        )
    raise ManagerUnreachable(
        f"What answers at {socket} is not a HALO manager: its answer is not a JSON object.",
        absent=False,
    )
