"""Sends commands to the manager, and tells the operator the result of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import click

from halo.cli.client import COMMAND_DEADLINE_S, Answer
from halo.cli.command import command as ask
from halo.cli.context import Context
from halo.cli.errors import EXIT_REFUSED, CliError


class Command(NamedTuple):
    """One request: its target, its words for messages ("fence 'oss01'"), and its content. The path
    is below the prefix of our half of the API."""

    target: str
    words: str
    method: str
    path: str
    body: Mapping[str, Any]


class Sent(NamedTuple):
    """The result of several requests: the worst exit status, and the targets that succeeded."""

    exit_code: int
    done: list[str]


def send_all(
    context: Context, commands: Sequence[Command], *, deadline_s: float = COMMAND_DEADLINE_S
) -> Sent:
    """Send the commands one after the other, and print one line with the result of each.

    They are sent one after the other so that an operator can interrupt, and so that the manager
    checks each against the changes of those before. Without a manager, the rest is not tried.
    """
    worst = 0
    done: list[str] = []
    for index, command in enumerate(commands):
        try:
            answer = ask(
                context.socket, command.method, command.path, command.body, deadline_s=deadline_s
            )
        except CliError as error:
            error.show()
            left = len(commands) - index - 1
            if left:
                click.echo(f"{left} more not tried.", err=True)
            return Sent(max(worst, error.exit_code), done)
        code = report(answer, command.words, "Done.", name_it=len(commands) > 1)
        worst = max(worst, code)
        if code == 0:
            done.append(command.target)
    return Sent(worst, done)


def report(answer: Answer, words: str, default: str, *, name_it: bool = False) -> int:
    """Print the manager's answer. Returns the exit status."""
    if answer.succeeded:
        prefix = f"{words}: " if name_it else ""
        click.echo(prefix + (answer.sentence or default))
        return 0
    said = answer.sentence or f"the manager answered with HTTP status {answer.status}."
    click.echo(f"Could not {words}: {said}", err=True)
    return EXIT_REFUSED


def body_of(command: str | None = None, **values: Any) -> dict[str, Any]:
    """A request's body. Keys without a value are left out, for managers that know fewer keys."""
    body = {"command": command, **values}
    return {key: value for key, value in body.items() if value not in (None, False, "")}
