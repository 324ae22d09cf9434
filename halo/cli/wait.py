"""`--wait`: asks for the status until the requested state is reached, or says what is missing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import click

from halo.cli.client import get_status
from halo.cli.context import Context
from halo.cli.errors import EXIT_NOT_REACHED, EXIT_REFUSED, CliError
from halo.cli.show import view
from halo.cli.show.view import Item

Missing: TypeAlias = Callable[[Item], list[str]]
"""From a status to sentences about what is missing. There are none when the state is reached."""


class GivenUp(str):
    """A sentence about something that will not happen, because the manager gave it up."""

    __slots__ = ()


POLL_INTERVAL_S = 0.3


def wait_until(context: Context, wait_s: float | None, missing: Missing) -> int:
    """Wait at most `wait_s` seconds. Returns the exit status. Prints how long it took, or on stderr
    what is missing.

    A manager that does not answer may be restarting, so the wait continues. If the manager has
    given up everything that is missing, the wait ends.
    """
    if wait_s is None:
        return 0
    began = time.monotonic()
    ends = began + wait_s
    while True:
        left = ends - time.monotonic()
        try:
            sentences = missing(get_status(context.socket, deadline_s=max(left, 1.0)))
        except CliError as error:
            sentences = [error.message]
        if not sentences:
            click.echo(f"The requested state was reached after {time.monotonic() - began:.1f} s.")
            return 0
        if all(isinstance(sentence, GivenUp) for sentence in sentences):
            return _failed("Given up:", sentences, EXIT_REFUSED)
        if time.monotonic() + POLL_INTERVAL_S >= ends:
            return _failed(f"Not reached within {wait_s:g} s:", sentences, EXIT_NOT_REACHED)
        time.sleep(POLL_INTERVAL_S)


def _failed(headline: str, sentences: Sequence[str], code: int) -> int:
    for line in (headline, *(f"  {sentence}" for sentence in sentences)):
        click.echo(line, err=True)
    return code


def groups_running(names: Sequence[str], on: str | None = None) -> Missing:
    """Until the groups run. If `on` is given, until they run on that host."""

    def missing(status: Item) -> Iterator[str]:
        for name in names:
            group = view.find_group(status, name)
            if group is None:
                yield f"the manager does not know {name}"
                continue
            state = view.state_of(group)
            if not state.runs or (on is not None and state.host != on):
                yield (_given_up(status, name) if on else None) or _described(name, state)
            elif group.get("under_way"):  # such as a stop from before the start command
                yield f"{name}: {view.text(group, 'under_way')} is still running"

    return lambda status: list(missing(status))


def groups_stopped(names: Sequence[str]) -> Missing:
    """Until the groups are known to be stopped on all their candidates."""

    def missing(status: Item) -> Iterator[str]:
        for name in names:
            group = view.find_group(status, name)
            state = view.State("Unknown", "", "") if group is None else view.state_of(group)
            if state.status != view.STOPPED:
                is_held = group is not None and group.get("error_kind") == "stop-failed"
                described = _described(name, state)
                yield GivenUp(described) if is_held else described

    return lambda status: list(missing(status))


def groups_settled(names: Sequence[str]) -> Missing:
    """Until the groups run, or are stopped if they should be."""

    def missing(status: Item) -> Iterator[str]:
        for name in names:
            group = view.find_group(status, name)
            if group is None:
                continue  # it is not in the config any more, so there is nothing to wait for
            state = view.state_of(group)
            if state.runs if view.is_wanted(group) else state.status == view.STOPPED:
                continue
            yield _described(name, state)

    return lambda status: list(missing(status))


def home_groups_back(hosts: Sequence[str]) -> Missing:
    """Until all managed, wanted groups whose home host is in `hosts` run there."""

    def missing(status: Item) -> Iterator[str]:
        for group in view.groups(status):
            if group.get("home_host") not in hosts:
                continue
            state = view.state_of(group)
            concerned = view.is_managed(group) and view.is_wanted(group)
            if concerned and not (state.runs and state.host == group.get("home_host")):
                name = view.text(group, "id")
                yield _given_up(status, name) or _described(name, state)

    return lambda status: list(missing(status))


def hosts_active(hosts: Sequence[str]) -> Missing:
    """Until the hosts are activated and connected: able to run groups."""

    def missing(status: Item) -> Iterator[str]:
        for name in hosts:
            host = view.find_host(status, name)
            if host is None:
                yield f"the manager does not know {name}"
            elif not host.get("active"):
                yield f"{name} is not activated"
            elif not host.get("connected"):
                yield f"{name} is not connected"

    return lambda status: list(missing(status))


def hosts_empty(hosts: Sequence[str]) -> Missing:
    """Until the hosts are deactivated and no managed group runs there, or may run there."""

    def missing(status: Item) -> Iterator[str]:
        for name in hosts:
            host = view.find_host(status, name)
            if host is None or host.get("active"):
                yield f"{name} is not deactivated"
        for group in view.groups(status):
            if not view.is_managed(group):
                continue
            state = view.state_of(group)
            if state.runs and state.host in hosts:
                yield _described(view.text(group, "id"), state)
            elif not state.runs:  # else it is proven that the group runs nowhere else
                yield from _may_run(group, hosts)

    return lambda status: list(missing(status))


def _may_run(group: Item, hosts: Sequence[str]) -> Iterator[str]:
    """The hosts on which a group is not known to be stopped. None if the manager does not say."""
    for host, words in view.candidates(group).items():
        if host in hosts and not words.startswith(view.STOPPED):
            yield f"{view.text(group, 'id')} may still run on {host}"


def _given_up(status: Item, name: str) -> GivenUp | None:
    """Why a group's last planned move was given up, if it was. The move is among the events before
    the command is answered. So an earlier failure does not count for this command."""
    for event in reversed(view.events(status)):
        if event.get("obj_id") == name and event.get("event") in ("move", "moved", "move-failed"):
            if event.get("event") != "move-failed":
                return None
            return GivenUp(f"{name} was not moved: {view.text(event, 'comment')}")
    return None


def _described(name: str, state: view.State) -> str:
    where = f" on {state.host}" if state.host else ""
    why = f": {state.comment}" if state.comment else ""
    return f"{name} is {state.status}{where}{why}"
