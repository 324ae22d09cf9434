"""Reads the status JSON. Missing keys, and the status of other managers, are handled here.

The status of a HALO (Rust) manager has only `resources`, `hosts` and `events`. The latest version
gives a resource's status by host.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

Item: TypeAlias = Mapping[str, Any]

RUNNING = "Running"
FAILED_OVER = "Running (Failed Over)"
STOPPED = "Stopped"


class State(NamedTuple):
    """The state of a resource or group: its word, where it runs (or ""), and why.

    `host` is a nodeset if a shared resource runs on several hosts."""

    status: str
    host: str
    comment: str

    @property
    def runs(self) -> bool:
        return self.status in (RUNNING, FAILED_OVER)


def items(status: Item, key: str) -> list[Item]:
    """The objects of one list of the status."""
    found = status.get(key)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def text(item: Item, key: str) -> str:
    """One value as printable text on one line, or "" if it is missing."""
    return clean(item.get(key))


def clean(value: Any) -> str:
    """A value as text that cannot control a terminal: no line breaks, no control characters."""
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(clean(part) for part in value)
    words = " ".join(str(value).split())
    if words.isprintable():
        return words
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in words)


def manager(status: Item) -> Item:
    """What the manager says about itself."""
    found = status.get("manager")
    return found if isinstance(found, dict) else {}


def is_managed(item: Item) -> bool:
    return item.get("managed") is not False


def state_of(item: Item) -> State:
    """The state of one resource or group."""
    found = item.get("status")
    if isinstance(found, dict):
        return _state_by_host(item, found)
    word = clean(found) or "Unknown"
    host = text(item, "host")
    if not host and word == RUNNING:
        host = text(item, "home_host")
    if not host and word == FAILED_OVER:
        host = text(item, "failover_host")
    several = item.get("hosts")
    if isinstance(several, list) and len(several) > 1 and word in (RUNNING, FAILED_OVER):
        host = folded(map(clean, several))
    return State(word, host, text(item, "comment"))


def _state_by_host(item: Item, by_host: Item) -> State:
    home = text(item, "home_host")
    states: dict[str, tuple[str, str]] = {}
    for host in sorted(by_host, key=lambda name: (name != home, name)):
        one = by_host[host]
        if isinstance(one, dict):
            states[host] = (text(one, "status"), text(one, "comment"))
        else:
            states[host] = (clean(one), "")
    running = [host for host, (word, _comment) in states.items() if word == RUNNING]
    if running and item.get("exclusive") is False:
        return State(RUNNING, folded(map(clean, running)), "")
    for host in running:
        return State(RUNNING if host == home else FAILED_OVER, clean(host), "")
    if states and all(word == STOPPED for word, _comment in states.values()):
        return State(STOPPED, "", "")
    for wanted in ("Error", "Unknown"):
        for word, comment in states.values():
            if word == wanted:
                return State(wanted, "", comment)
    return State("Unknown", "", "")


def folded(names: Iterable[str]) -> str:
    """Host names as one nodeset. Names that do not fit into one, such as [fe80::1], come after."""
    listed = list(names)
    if len(listed) == 1:
        return listed[0]  # most clusters' lists of disconnected hosts are short
    from halo.config.nodesets.folding import fold

    try:
        return fold(listed)
    except ValueError:
        return ", ".join(listed)


def tree(resources: Iterable[Item]) -> Iterator[tuple[int, Item]]:
    """Each resource once, with its depth: below its first parent, or else at the top.

    If a manager gives no dependents, all resources are at the top, in their order."""
    listed = list(resources)
    by_name: dict[str, Item] = {}
    for resource in listed:  # HALO (Rust) lists a shared resource once for each group
        by_name.setdefault(_name(resource), resource)
    below = {name for resource in listed for name in _dependents(resource)}
    roots = [resource for resource in listed if _name(resource) not in below]
    shown: set[str] = set()
    waiting = [(0, resource) for resource in reversed([*roots, *listed])]
    while waiting:
        depth, resource = waiting.pop()
        if _name(resource) in shown:
            continue
        shown.add(_name(resource))
        yield depth, resource
        known = [by_name[name] for name in _dependents(resource) if name in by_name]
        waiting += [(depth + 1, dependent) for dependent in reversed(known)]


def _name(resource: Item) -> str:
    """The resource's id. Without one, a text that distinguishes it from the others."""
    found = resource.get("id")
    return found if isinstance(found, str) else f"\0{id(resource)}"


def _dependents(resource: Item) -> list[str]:
    found = resource.get("dependents")
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def candidates(item: Item) -> dict[str, str]:
    """The status on each candidate host, in words."""
    found = item.get("candidates")
    if not isinstance(found, dict):
        return {}
    words = {}
    for host, one in found.items():
        if isinstance(one, dict):
            comment = text(one, "comment")
            words[clean(host)] = text(one, "status") + (f" ({comment})" if comment else "")
        else:
            words[clean(host)] = clean(one)
    return words


def failures(item: Item) -> list[str]:
    """The failures of a resource's own operations, on candidates where it runs or is in error."""
    found = item.get("candidates")
    by_host = found.values() if isinstance(found, dict) else ()
    return [
        text(one, "comment")
        for one in by_host
        if isinstance(one, dict) and text(one, "status") in (RUNNING, "Error")
    ]


def groups(status: Item) -> list[Item]:
    """The groups. If a manager has no such list, the resources are used instead."""
    found = items(status, "groups")
    if found or "groups" in status:
        return found
    return items(status, "resources")


def find_group(status: Item, name: str) -> Item | None:
    return next((group for group in groups(status) if group.get("id") == name), None)


def find_host(status: Item, name: str) -> Item | None:
    return next((host for host in items(status, "hosts") if host.get("id") == name), None)


def is_wanted(group: Item) -> bool:
    """Should the group run?"""
    return group.get("wanted") != "stopped"


def events(status: Item) -> list[Item]:
    """The whole history, oldest first."""
    found = items(status, "events")
    if len(found) > 1 and text(found[0], "timestamp") > text(found[-1], "timestamp"):
        found.reverse()
    return found


def recent_events(status: Item) -> list[Item]:
    """The events since the history was last cleared, oldest first."""
    found = events(status)
    for index in range(len(found) - 1, -1, -1):
        if found[index].get("event") == "clear":
            return found[index + 1 :]
    return found
