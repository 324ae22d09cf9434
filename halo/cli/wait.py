"""`--wait`: ask for the status until what was commanded is so, or say what is missing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import click

from halo.cli import view
from halo.cli.client import get_status
from halo.cli.context import Context
from halo.cli.errors import EXIT_NOT_REACHED, CliError
from halo.cli.view import Item

Missing: TypeAlias = Callable[[Item], list[str]]
"""From a status to sentences about what is not yet so; empty when all is."""

POLL_INTERVAL_S = 0.3


def wait_until(context: Context, wait_s: float | None, missing: Missing) -> int:
    """Wait at most `wait_s` seconds; gives the exit status, and says on stderr what is missing.

    A manager that does not answer meanwhile may be restarting: that is waited out too.
    """
    if wait_s is None:
        return 0
    ends = time.monotonic() + wait_s
    while True:
        left = ends - time.monotonic()
        try:
            sentences = missing(get_status(context.socket, deadline_s=max(left, 1.0)))
        except CliError as error:
            sentences = [error.message]
        if not sentences:
            return 0
        if time.monotonic() + POLL_INTERVAL_S >= ends:
            click.echo(f"Not reached within {wait_s:g} s:", err=True)
            for sentence in sentences:
                click.echo(f"  {sentence}", err=True)
            return EXIT_NOT_REACHED
        time.sleep(POLL_INTERVAL_S)


def groups_running(names: Sequence[str], on: str | None = None) -> Missing:
    """Until the groups run, on the host `on` where one is named."""

    def missing(status: Item) -> Iterator[str]:
        for name in names:
            group = view.find_group(status, name)
            if group is None:
                yield f"{name} is not known to the manager"
                continue
            state = view.state_of(group)
            if not state.runs or (on is not None and state.host != on):
                yield _described(name, state)

    return lambda status: list(missing(status))


def groups_stopped(names: Sequence[str]) -> Missing:
    """Until the groups are known to be stopped on all their candidates."""

    def missing(status: Item) -> Iterator[str]:
        for name in names:
            group = view.find_group(status, name)
            state = view.State("Unknown", "", "") if group is None else view.state_of(group)
            if state.status != view.STOPPED:
                yield _described(name, state)

    return lambda status: list(missing(status))


def groups_settled(names: Sequence[str]) -> Missing:
    """Until the groups run, or are stopped where that is wanted."""

    def missing(status: Item) -> Iterator[str]:
        for name in names:
            group = view.find_group(status, name)
            state = view.State("Unknown", "", "") if group is None else view.state_of(group)
            wanted = group is None or view.is_wanted(group)
            if state.runs if wanted else state.status == view.STOPPED:
                continue
            yield _described(name, state)

    return lambda status: list(missing(status))


def home_groups_back(hosts: Sequence[str]) -> Missing:
    """Until all managed, wanted groups whose home is among `hosts` run there."""

    def missing(status: Item) -> Iterator[str]:
        for group in view.groups(status):
            if group.get("home_host") not in hosts:
                continue
            state = view.state_of(group)
            concerned = view.is_managed(group) and view.is_wanted(group)
            if concerned and not (state.runs and state.host == group.get("home_host")):
                yield _described(view.text(group, "id"), state)

    return lambda status: list(missing(status))


def hosts_active(hosts: Sequence[str]) -> Missing:
    """Until the hosts are activated and connected: able to run groups."""

    def missing(status: Item) -> Iterator[str]:
        for name in hosts:
            host = view.find_host(status, name)
            if host is None:
                yield f"{name} is not known to the manager"
            elif not host.get("active"):
                yield f"{name} is not activated"
            elif not host.get("connected"):
                yield f"{name} is not connected"

    return lambda status: list(missing(status))


def hosts_empty(hosts: Sequence[str]) -> Missing:
    """Until the hosts are deactivated and no managed group runs there."""

    def missing(status: Item) -> Iterator[str]:
        for name in hosts:
            host = view.find_host(status, name)
            if host is None or host.get("active"):
                yield f"{name} is not deactivated"
        for group in view.groups(status):
            state = view.state_of(group)
            if state.runs and state.host in hosts and view.is_managed(group):
                yield _described(view.text(group, "id"), state)

    return lambda status: list(missing(status))


def _described(name: str, state: view.State) -> str:
    where = f" on {state.host}" if state.host else ""
    why = f": {state.comment}" if state.comment else ""
    return f"{name} is {state.status}{where}{why}"
