"""`halo why`: why a group or host is as it is, what HALO does next, and what you can do."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

import click

from halo.cli.client import NOT_THERE, PREFIX, STATUS_DEADLINE_S, Answer, path_of, request
from halo.cli.context import Context
from halo.cli.errors import EXIT_REFUSED, CliError, tell_error
from halo.cli.options import complete_groups, complete_hosts

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86400


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
        said = answer.sentence or f"the manager answered with HTTP status {answer.status}."
        tell_error(f"Could not tell why: {said}")
        ctx.exit(EXIT_REFUSED)
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


def why_lines(answer: Mapping[str, Any], now: float) -> Iterator[str]:
    """The answer as text. `now`: seconds since the epoch."""
    yield str(answer["text"])
    waiting = answer["waiting"]
    if waiting is not None:
        since = waiting["since"]
        waits = f"for {_duration(now - since)}" if since is not None else "now"
        yield f"Reason: {waiting['reason']} ({waits})"
        yield f"The wait ends when {waiting['ends_when']}."
    yield "Facts:"
    for fact in answer["facts"]:
        learnt = fact["how"]
        if fact["at"] is not None:
            learnt += f", {_duration(now - fact['at'])} ago"
        yield f"  {fact['about']}: {fact['text']} ({learnt})"
    yield from _listed("HALO:", answer["halo_does"])
    yield from _listed("You can:", answer["you_can"])


def _listed(title: str, sentences: list[str]) -> Iterator[str]:
    if sentences:
        yield title
        yield from (f"  - {sentence}" for sentence in sentences)


def _duration(seconds: float) -> str:
    if seconds < _MINUTE_S:
        return f"{max(seconds, 0.0):.1f} s"
    if seconds < _HOUR_S:
        return f"{seconds / _MINUTE_S:.0f} min"
    if seconds < 2 * _DAY_S:
        return f"{seconds / _HOUR_S:.0f} h"
    return f"{seconds / _DAY_S:.0f} days"
