"""The lines of `halo status`: a pure function from the status JSON to text."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import halo
from halo.cli.show import view
from halo.cli.show.view import Item, State

Paint: TypeAlias = Callable[[str, str], str]
"""Gives a text a colour: `paint(text, "red")`."""

DEFAULT_EVENT_COUNT = 10
INDENT = "  "

_COLOURS = {view.RUNNING: "green", view.FAILED_OVER: "yellow", view.STOPPED: "yellow"}
_QUIET_STATES = frozenset({"", "connected", "disconnected", "fenced", "deactivated"})


def plain(words: str, _colour: str) -> str:
    return words


def status_lines(
    status: Item,
    *,
    exclude_normal: bool = False,
    event_count: int | None = None,
    verbose: bool = False,
    paint: Paint = plain,
) -> Iterator[str]:
    """The lines of a status.

    `exclude_normal` leaves out resources that run at home, are managed and have no comment (a
    failed stop is a comment). It leaves out connected hosts, and events unless `event_count` asks
    for some. Otherwise the last ten events are shown. A resource comes below its parents, indented.
    Its line is the same at every depth.
    """
    yield from _banners(status, paint)
    yield from _resources(status, exclude_normal, verbose, paint)
    yield from _hosts(status, exclude_normal, verbose, paint)
    if event_count is None and not exclude_normal:
        event_count = DEFAULT_EVENT_COUNT
    if event_count is not None:
        yield from _events(status, event_count)


def event_line(event: Item) -> str:
    """One event as `TIMESTAMP event=NAME object=ID comment="..."`."""
    comment = view.text(event, "comment").replace("\\", "\\\\").replace('"', '\\"')
    return (
        f"{view.text(event, 'timestamp')} event={view.text(event, 'event')}"
        f' object={view.text(event, "obj_id")} comment="{comment}"'
    )


def _banners(status: Item, paint: Paint) -> Iterator[str]:
    manager = view.manager(status)
    if manager.get("mode") == "observe":
        yield paint(
            "OBSERVE MODE: the manager watches, and starts, stops, moves and fences nothing.", "red"
        )
    if manager.get("frozen"):
        comment = view.text(manager, "frozen_comment")
        yield paint(
            "FROZEN: no automatic action, and no start, stop, move or failback, until `halo thaw`"
            + (f" ({comment})." if comment else "."),
            "red",
        )
    journal = view.text(manager, "journal")
    if journal not in ("", "ok"):
        yield paint(f"JOURNAL: {journal}", "red")
    notices = manager.get("notices")
    for notice in notices if isinstance(notices, list) else []:
        yield paint(f"NOTICE: {view.clean(notice)}", "red")
    ours = view.text(manager, "version")
    if ours not in ("", halo.__version__):  # a notice tells of agents
        skew = f"VERSIONS DIFFER: manager {ours}, this command {halo.__version__}; "
        yield paint(f"{skew}finish the upgrade", "yellow")


def _resources(status: Item, exclude_normal: bool, verbose: bool, paint: Paint) -> Iterator[str]:
    groups = {group.get("id"): group for group in view.items(status, "groups")}
    resources = view.items(status, "resources")
    said = _said_of_groups(resources, groups)
    for depth, resource in view.tree(resources):
        state = view.state_of(resource)
        # A comment on the whole group is shown at its root, which has the group's name.
        group = groups.get(resource.get("id"))
        marks = list(_marks(resource, group))
        comment = _comment(resource, group, state)
        own = comment if group is not None else _own(resource, comment, said)
        if exclude_normal and state.status == view.RUNNING and not marks and not own:
            continue
        unclear = not comment and not state.runs and state.status != view.STOPPED
        by_host = verbose or unclear
        yield INDENT * depth + _resource_line(
            resource, state, own, marks, paint, verbose=verbose, by_host=by_host
        )


def _parts(comment: str) -> list[str]:
    return [part for part in comment.split("; ") if part]


def _said_of_groups(
    resources: Iterable[Item], groups: Mapping[Any, Item]
) -> Mapping[Any, frozenset[str]]:
    """For each group's id, the comments at its root that concern the whole group."""
    told: dict[Any, list[set[str]]] = {}
    at_root: dict[Any, tuple[set[str], set[str]]] = {}
    for resource in resources:
        state = view.state_of(resource)
        parts = set(_parts(state.comment))
        told.setdefault(resource.get("group"), []).append(parts)
        group = groups.get(resource.get("id"))
        if group is not None:
            at_root[resource.get("id")] = (parts, set(_parts(_comment(resource, group, state))))
    return {
        group: frozenset(
            part
            for part in shown
            if part in parts or sum(part in others for others in told.get(group, ())) > 1
        )
        for group, (parts, shown) in at_root.items()
    }


def _own(resource: Item, comment: str, said: Mapping[Any, frozenset[str]]) -> str:
    """A comment without the parts that its group's root shows. Its own failures stay."""
    of_group = said.get(resource.get("group"), frozenset())
    failures = view.failures(resource)
    return "; ".join(
        part
        for part in _parts(comment)
        if part not in of_group or any(part in failure for failure in failures)
    )


def _marks(resource: Item, group: Item | None) -> Iterator[str]:
    if group is not None:
        target = view.text(group, "move_target")
        if target:
            yield f"(Moving to {target})"
        if not view.is_wanted(group):
            yield "(Wanted Stopped)"
    if not view.is_managed(resource):
        yield "(Unmanaged)"


def _comment(resource: Item, group: Item | None, state: State) -> str:
    """The comment on a resource, and on the group if the resource is its root."""
    comment = state.comment
    if group is not None:
        of_group = view.text(group, "comment")
        if not view.is_managed(resource):
            of_group = of_group.removeprefix("unmanaged").lstrip(":; ")  # a mark says it
        if comment in of_group:
            comment = of_group  # it includes the resource's comment
        elif of_group and of_group not in comment:
            said = _parts(comment)
            comment = "; ".join([*said, *(p for p in _parts(of_group) if p not in said)])
    return comment


def _resource_line(
    resource: Item,
    state: State,
    comment: str,
    marks: list[str],
    paint: Paint,
    *,
    verbose: bool,
    by_host: bool,
) -> str:
    line = f"{view.text(resource, 'id')} ({view.text(resource, 'kind')}): "
    line += paint(state.status, _COLOURS.get(state.status, "red"))
    if state.host:
        line += f" on {state.host}"
    if verbose:
        line += _parameters(resource)
    if comment:
        line += f": {comment}"
    if by_host:
        line += _by_host(resource)
    return " ".join([line, *marks])


def _parameters(resource: Item) -> str:
    found = resource.get("parameters")
    if not isinstance(found, dict) or not found:
        return ""
    shown = "; ".join(f"{view.clean(key)}: {view.clean(found[key])}" for key in sorted(found))
    return f" [{shown}]"


def _by_host(resource: Item) -> str:
    found = view.candidates(resource)
    return " [" + ", ".join(f"{h}: {words}" for h, words in found.items()) + "]" if found else ""


def _hosts(status: Item, exclude_normal: bool, verbose: bool, paint: Paint) -> Iterator[str]:
    hosts = view.items(status, "hosts")
    connected = [host for host in hosts if host.get("connected")]
    others = [host for host in hosts if not host.get("connected")]
    if not exclude_normal:
        yield "Connected hosts: " + _host_list(connected, paint)
    if not exclude_normal or others:
        yield "Disconnected hosts: " + _host_list(others, paint)
    for host in hosts:
        is_listed = not exclude_normal or not host.get("connected")
        detail = _host_detail(host, verbose and is_listed)
        if detail:
            yield paint(f"  {view.text(host, 'id')}: {detail}", "red")


def _host_list(hosts: list[Item], paint: Paint) -> str:
    """The hosts as nodesets: first the hosts without a mark, then those with the same marks."""
    alike: dict[tuple[bool, tuple[str, ...]], list[str]] = {}
    for host in hosts:
        marks = _host_marks(host)
        alike.setdefault((_is_alarming(host, marks), tuple(marks)), []).append(
            view.text(host, "id")
        )
    shown = []
    for (alarming, same), names in sorted(alike.items(), key=lambda entry: bool(entry[0][1])):
        words = view.folded(names) + (f" ({', '.join(same)})" if same else "")
        colour = "red" if alarming else "yellow" if same else ""
        shown.append(paint(words, colour) if colour else words)
    return ", ".join(shown) or "none"


def _is_alarming(host: Item, marks: list[str]) -> bool:
    return not host.get("connected") or bool(
        marks and view.text(host, "state") not in _QUIET_STATES
    )


def _host_marks(host: Item) -> list[str]:
    marks = []
    state = view.text(host, "state")
    if host.get("fenced") and state != "fencing":
        marks.append("fenced")
    elif state == "fenced":  # and reset since
        marks.append("off")
    if state not in _QUIET_STATES:
        marks.append(state)
    if host.get("active") is False:
        marks.append("deactivated")
    return marks


def _host_detail(host: Item, verbose: bool) -> str:
    """What an operator must know about a host besides its place in the lists."""
    state = view.text(host, "state")
    comment = view.text(host, "comment")
    since = _time_of(host.get("since"))
    parts = []
    if comment:
        parts.append(comment)
    if host.get("fence_trusted") is False and "not trusted" not in comment:
        parts.append("its fence device is not trusted, since it said off while the agent answered")
    if verbose and since:
        parts.append(f"{state or 'unchanged'} since {since}")
    return "; ".join(parts)


def _time_of(value: object) -> str:
    """Seconds since the epoch as local time. A text is returned as it is."""
    if isinstance(value, int | float):
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
    return view.clean(value)


def _events(status: Item, count: int) -> Iterator[str]:
    if count == 0:
        return
    found = view.recent_events(status)
    shown = found[max(0, len(found) - count) :]
    if not shown:
        yield "Events: none"
        return
    yield "Events:"
    yield from map(event_line, shown)
