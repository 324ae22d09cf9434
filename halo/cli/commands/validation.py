"""`halo validate --agents`: asks the manager for each host, and shows what the scripts said."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import click

from halo.cli.client import get_status, path_of
from halo.cli.command import command
from halo.cli.context import Context
from halo.cli.errors import EXIT_REFUSED, CliError
from halo.cli.show import view
from halo.cli.show.view import Item

DEADLINE_S = 420.0
"""Longer than the manager takes for one host (400 s)."""
HOSTS_AT_ONCE = 16


class HostAnswer(NamedTuple):
    """The answer of one host: its rows, or why it could not be asked."""

    host: str
    rows: list[Item]
    refusal: str = ""


def validate_agents(context: Context, *, as_json: bool) -> int:
    """Have every host's agent run `validate-all`, and show the results. Returns the exit status."""
    hosts = [view.text(host, "id") for host in view.items(get_status(context.socket), "hosts")]
    answers = []
    for answer in _side_by_side(lambda host: _ask(context, host), hosts):
        answers.append(answer)
        if not as_json:
            for line in lines_of(answer):
                click.echo(line)
    if as_json:
        click.echo(_json(answers))
    else:
        click.echo(summary(answers))
    return 0 if all(_is_well(answer) for answer in answers) else EXIT_REFUSED


def lines_of(answer: HostAnswer) -> Iterator[str]:
    """`ID (KIND) on HOST: OUTCOME` for each resource, or one line if the host was not asked."""
    if answer.refusal:
        yield f"{answer.host}: could not be asked: {answer.refusal}"
    for row in answer.rows:
        about = f"{view.text(row, 'resource')} ({view.text(row, 'kind')}) on {answer.host}"
        yield f"{about}: {_outcome(row)}"


def _outcome(row: Item) -> str:
    outcome, message = view.text(row, "outcome"), view.text(row, "message")
    if outcome == "ok":
        return outcome
    if outcome == "failed":
        name = view.text(row, "ocf_name")
        outcome = f"exit {view.text(row, 'code')}" + (f" ({name})" if name else "")
    return f"{outcome}: {message}" if message else outcome


def summary(answers: Sequence[HostAnswer]) -> str:
    """The numbers of good and bad results, in one line."""
    outcomes = [view.text(row, "outcome") for answer in answers for row in answer.rows]
    parts = [f"{outcomes.count('ok')} of {len(outcomes)} ok"]
    for outcome in ("failed", "timed out", "not run"):
        if outcome in outcomes:
            parts.append(f"{outcomes.count(outcome)} {outcome}")
    unasked = [answer.host for answer in answers if answer.refusal]
    line = "validate-all: " + ", ".join(parts)
    return f"{line}; not asked: {', '.join(unasked)}" if unasked else line


def _is_well(answer: HostAnswer) -> bool:
    return not answer.refusal and all(row.get("outcome") == "ok" for row in answer.rows)


def _ask(context: Context, host: str) -> HostAnswer:
    try:
        answer = command(
            context.socket, "POST", path_of("validate", host), {}, deadline_s=DEADLINE_S
        )
    except CliError as error:
        return HostAnswer(host, [], view.clean(error.message))
    if answer.succeeded and isinstance(answer.content, dict):
        return HostAnswer(host, view.items(answer.content, "results"))
    return HostAnswer(
        host, [], view.clean(answer.sentence) or f"the manager answered with {answer.status}"
    )


def _side_by_side(ask: Callable[[str], HostAnswer], hosts: Sequence[str]) -> Iterator[HostAnswer]:
    """The hosts' answers in the order of the hosts. The threads end with the program, so that an
    operator can interrupt it."""
    answers: dict[str, Future[HostAnswer]] = {host: Future() for host in hosts}
    waiting = deque(hosts)

    def work() -> None:
        while True:
            try:
                host = waiting.popleft()
            except IndexError:
                return
            try:
                answers[host].set_result(ask(host))
            except BaseException as error:
                answers[host].set_exception(error)

    for _ in range(min(HOSTS_AT_ONCE, len(hosts))):
        threading.Thread(target=work, daemon=True).start()
    for host in hosts:
        yield answers[host].result()


def _json(answers: Sequence[HostAnswer]) -> str:
    import json

    content: dict[str, Any] = {
        "results": [row for answer in answers for row in answer.rows],
        "not_asked": {answer.host: answer.refusal for answer in answers if answer.refusal},
    }
    return json.dumps(content, indent=2)
