"""`halo check`: one line and an exit status for a monitoring system.

Exit statuses and the line's form are those of the Monitoring Plugins guidelines
(https://www.monitoring-plugins.org/doc/guidelines.html): 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN;
a text, a bar, and performance data.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

import click

from halo.cli.client import get_status
from halo.cli.context import Context
from halo.cli.errors import CliError, ManagerUnreachable
from halo.cli.show import view
from halo.cli.show.view import Item

PROBLEMS_SHOWN = 8


class Level(IntEnum):
    """The result for a monitoring system."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


class Problem(NamedTuple):
    """One thing that is not as it should be."""

    level: Level
    words: str


@click.command()
@click.pass_context
def check(ctx: click.Context) -> None:
    """Report the cluster's health: exit 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.

    If the manager does not answer, the result is CRITICAL, because nothing supervises the groups
    then. If this check may not use the socket, or the program that answers is not a manager, the
    result is UNKNOWN.
    """
    context: Context = ctx.obj
    try:
        status = get_status(context.socket)
    except ManagerUnreachable as error:
        level = Level.CRITICAL if error.absent else Level.UNKNOWN
        line = _line(level, [error.message])
    except CliError as error:
        level = Level.CRITICAL
        line = _line(level, [error.message])
    else:
        problems = sorted(problems_of(status), key=lambda problem: -problem.level)
        level = problems[0].level if problems else Level.OK
        line = _line(level, [p.words for p in problems] or [_all_well(status)])
        line += " | " + _performance_data(status)
    click.echo(line)
    ctx.exit(int(level))


def problems_of(status: Item) -> Iterator[Problem]:
    """Everything that is not as it should be, in no order."""
    manager = view.manager(status)
    journal = view.text(manager, "journal")
    if journal not in ("", "ok"):
        yield Problem(Level.CRITICAL, f"journal: {journal}")
    if manager.get("mode") == "observe":
        yield Problem(Level.WARNING, "the manager only observes")
    if manager.get("frozen"):
        yield Problem(Level.WARNING, "the cluster is frozen")
    notices = manager.get("notices")
    for notice in notices if isinstance(notices, list) else []:
        yield Problem(Level.WARNING, view.clean(notice))
    for host in view.items(status, "hosts"):
        yield from _of_host(host)
    for group in view.groups(status):
        yield from _of_group(group)


def _of_host(host: Item) -> Iterator[Problem]:
    name = view.text(host, "id")
    state = view.text(host, "state")
    comment = view.text(host, "comment")
    why = f" ({comment})" if comment else ""
    if "fail" in state:  # it says so as long as the host does not answer
        yield Problem(Level.CRITICAL, f"host {name}: {state}{why}")
    elif host.get("fenced"):
        yield Problem(Level.WARNING, f"host {name} is fenced")
    elif state == "fenced":
        yield Problem(Level.WARNING, f"host {name} is off")
    elif not host.get("connected") and host.get("active") is not False:
        yield Problem(Level.WARNING, f"host {name} is {state or 'disconnected'}{why}")
    if host.get("fence_trusted") is False:
        yield Problem(Level.WARNING, f"the fence device of {name} is not trusted")


def _of_group(group: Item) -> Iterator[Problem]:
    name = view.text(group, "id")
    state = view.state_of(group)
    why = f" ({state.comment})" if state.comment else ""
    if not view.is_wanted(group) and state.status == view.STOPPED:
        return
    if not state.runs:
        planned = not view.is_wanted(group) or bool(view.text(group, "move_target"))
        is_alarm = view.is_managed(group) and (state.status == "Error" or not planned)
        level = Level.CRITICAL if is_alarm else Level.WARNING
        unmanaged = "" if view.is_managed(group) else " and unmanaged"
        yield Problem(level, f"{name} is {state.status}{unmanaged}{why}")
    elif not view.is_wanted(group):
        yield Problem(Level.WARNING, f"{name} runs on {state.host} and should be stopped")
    elif state.status == view.FAILED_OVER:
        yield Problem(Level.WARNING, f"{name} is failed over to {state.host}")
    elif not view.is_managed(group):
        yield Problem(Level.WARNING, f"{name} is unmanaged")
    else:
        unable = group.get("cannot_take")
        for host, reason in unable.items() if isinstance(unable, dict) else ():
            words = f"{view.clean(host)} cannot take {name} ({view.clean(reason)})"
            yield Problem(Level.WARNING, words)


def _all_well(status: Item) -> str:
    groups = view.groups(status)
    running = sum(view.state_of(group).runs for group in groups)
    stopped = len(groups) - running
    return f"{running} groups run at home" + (f", {stopped} stopped on request" if stopped else "")


def _performance_data(status: Item) -> str:
    states = [view.state_of(group) for group in view.groups(status)]
    hosts = view.items(status, "hosts")
    counts = {
        "groups": len(states),
        "running": sum(s.status == view.RUNNING for s in states),
        "failed_over": sum(s.status == view.FAILED_OVER for s in states),
        "stopped": sum(s.status == view.STOPPED for s in states),
        "error": sum(s.status == "Error" for s in states),
        "unknown": sum(not s.runs and s.status not in (view.STOPPED, "Error") for s in states),
        "hosts": len(hosts),
        "connected": sum(bool(host.get("connected")) for host in hosts),
        "fenced": sum(bool(host.get("fenced")) for host in hosts),
    }
    return " ".join(f"{label}={count}" for label, count in counts.items())


def _line(level: Level, parts: list[str]) -> str:
    shown = parts[:PROBLEMS_SHOWN]
    if len(parts) > len(shown):
        shown.append(f"and {len(parts) - len(shown)} more")
    # A bar would start the performance data.
    return f"HALO {level.name} - " + view.clean("; ".join(shown)).replace("|", "/")
