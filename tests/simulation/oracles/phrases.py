"""What the manager says in words is true: each phrase that names somebody, with its fact."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache

from tests.simulation.oracles.facts import Facts, Maybe, any_of, no

Fact = Callable[[Facts, str], Maybe]
Claim = tuple[str, str, Fact]
"""Of whom it is, the phrase, and what it says."""


def _host(field: str, value: object) -> Fact:
    return lambda facts, host: facts.hosts[host][field] == value


def _may_have_failed(facts: Facts, host: str) -> Maybe:
    return any(host in group["start_failures"] for group in facts.groups.values())


def _is_reconnecting(facts: Facts, host: str) -> Maybe:
    at = facts.hosts[host]
    return bool(at["connected"] and at["lifecycle"]["state"] == "reconnecting")


def _has_waiting_group(facts: Facts, host: str) -> Maybe:
    return any(
        row["candidates"].get(host, {}).get("status") == "Unknown"
        for row in facts.status["resources"]
    )


def _proven_off(facts: Facts, host: str) -> Maybe:
    at = facts.hosts[host]
    return not at["connected"] and at["state"] in ("fenced", "fence failed")


def _is_silent(facts: Facts, host: str) -> Maybe:
    return not facts.hosts[host]["connected"]


HOST_PHRASES: tuple[tuple[str, Fact], ...] = (
    (r"(\w+) is disconnected", _host("connected", False)),
    (r"(\w+) is not connected any more", _host("connected", False)),
    (r"(\w+) is being fenced", lambda facts, host: facts.is_fencing(host)),
    (r"; fencing (\w+)\b(?! failed)", lambda facts, host: facts.is_fencing(host)),
    (r"(\w+) is reconnecting", _is_reconnecting),
    (r"(\w+) is deactivated", _host("active", False)),
    (r"(\w+) was fenced already", _host("fenced", True)),
    (r"(\w+) was fenced; its fence device", _proven_off),
    (r"(\w+) was confirmed off", _proven_off),
    (r"(\w+) is not fenced", lambda f, h: not f.hosts[h]["fenced"] and f.hosts[h]["fence_trusted"]),
    (r"the fence device of (\w+) is not trusted", _host("fence_trusted", False)),
    (r"(\w+) has no fence agent", _host("fence_agents", [])),
    (r"the start failed on (\w+):", _may_have_failed),
    (r"(\w+) answers, so it is not off", _host("state", "connected")),
    (r"(\w+) is not declared lost", lambda facts, host: facts.hosts[host]["state"] != "lost"),
    (r"fencing (\w+) failed \(", _host("state", "fence failed")),
    (r"(\w+) has just connected, and", _host("connected", True)),
    (r"(\w+) has not answered since its last reset", _is_silent),
    (r"the fencing of (\w+) was cancelled", _is_silent),
    (r"(\w+) is being probed", _has_waiting_group),
)
"""A host that is named, and what has to be true of it."""

GROUP_PHRASES: tuple[tuple[str, Fact], ...] = (
    (r"([\w~]+) is unmanaged", lambda facts, group: not facts.groups[group]["managed"]),
    (r"([\w~]+) is (?:stopped|to be stopped);", lambda f, g: f.groups[g]["wanted"] == "stopped"),
    (
        r"([\w~]+) was told to run already, but",
        lambda f, g: bool(f.groups[g]["error"] or f.groups[g]["start_failures"]),
    ),
    (
        r"([\w~]+) was told to stop already, but",
        lambda f, g: f.groups[g]["error_kind"] == "stop-failed",
    ),
    (
        r"([\w~]+) was stopped by the administrator",
        lambda facts, group: facts.groups[group]["wanted"] == "stopped",
    ),
    (r"([\w~]+) does not run completely yet", lambda facts, group: _is_not_whole(facts, group)),
    (r"no other host can take ([\w~]+) from", lambda f, g: _cannot_go(f, g)),
    (r"gives way to ([\w~]+), which has", lambda facts, group: facts.groups[group]["preempt"]),
)

_HOSTS = tuple((re.compile(pattern), fact) for pattern, fact in HOST_PHRASES)
_GROUPS = tuple((re.compile(pattern), fact) for pattern, fact in GROUP_PHRASES)
_NAMES_NOTHING = re.compile(
    r"\bNone\b|\binf\b|\bnan\b|<[a-z_.]+ object|\bTrue\b|\bFalse\b|: *;|; *;"
)
_SEEN = re.compile(r"seen running on ([\w, ]+?)(?:;|$|,? and last seen|, which)")
_COPIES = re.compile(r"running on (\w+(?: and \w+)+) at once")
_UNMANAGED = re.compile(r"may hold unmanaged groups: ([\w~, ]+?)(?:;|$)")


def _is_not_whole(facts: Facts, group: str) -> Maybe:
    if any(facts.is_fencing(host) for host in facts.candidates(group)):
        return None  # what is known there is not believed
    if facts.groups[group]["under_way"]:
        return None  # what is seen of a resource may be older than its start or stop
    where = facts.where(group)
    shared = [row for row in facts.status["resources"] if row["shared"] and group in row["groups"]]
    at_hand = [row["candidates"].get(where, {"status": "Unknown"}) for row in shared]
    if where is None or any(found["status"] != "Running" for found in at_hand):
        return True
    return not facts.groups[group]["status"].startswith("Running")


def _cannot_go(facts: Facts, group: str) -> Maybe:
    where = facts.where(group)
    if where is None:
        return None
    return no(_both(facts.has_taker(group, where), facts.can_leave(group, where)))


def _both(one: Maybe, other: Maybe) -> Maybe:
    return no(any_of(no(one), no(other)))


def _without_history(text: str, facts: Facts) -> str:
    """Errors are told as they were recorded, and why a fence was abandoned as it was then."""
    for error in facts.errors:
        text = text.replace(error, "(an error)")
    return text.partition("abandoned: ")[0]


@lru_cache(maxsize=4096)
def _claims(text: str) -> tuple[list[Claim], list[Claim]]:
    """What a text says of hosts, and what of groups. Most texts are read again and again."""
    of_hosts, of_groups = (
        [(match[1], match[0], fact) for pattern, fact in known for match in pattern.finditer(text)]
        for known in (_HOSTS, _GROUPS)
    )
    return of_hosts, of_groups


def untrue(text: str, facts: Facts) -> Iterator[tuple[str, str]]:
    """The phrases in a text that are plainly not true: the host or group, and the phrase."""
    if not text:
        return
    text = _without_history(text, facts)
    if found := _NAMES_NOTHING.search(text):
        yield "", f"{found.group()!r} where a name or a reason should be"
    of_hosts, of_groups = _claims(text)
    for who, phrase, fact in of_hosts:
        if who in facts.hosts and fact(facts, who) is False:
            yield who, phrase
    for who, phrase, fact in of_groups:
        if who in facts.groups and fact(facts, who) is False:
            yield who, phrase
    if found := _UNMANAGED.search(text):
        for group in found[1].split(", "):
            if group in facts.groups and facts.groups[group]["managed"]:
                yield group, found[0]
    if "frozen" in text.split(":")[0].lower() and not facts.manager["frozen"]:
        yield "", "frozen"
    if "only observes" in text and facts.manager["mode"] != "observe":
        yield "", "observes"


def copies_named(text: str) -> list[str]:
    """The hosts of "running on A and B at once"."""
    found = _COPIES.search(text)
    return found[1].split(" and ") if found else []


def seen_on(text: str) -> list[str]:
    """The hosts of "seen running on A, B"."""
    found = _SEEN.search(text)
    return re.findall(r"\w+", found[1]) if found else []
