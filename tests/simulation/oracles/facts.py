"""One status, made easy to ask. Questions that a status cannot answer for certain give None."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

Maybe = bool | None


def all_of(*parts: Maybe) -> Maybe:
    """Do all hold? None if that depends on one that is not known."""
    if any(part is False for part in parts):
        return False
    return None if any(part is None for part in parts) else True


def any_of(*parts: Maybe) -> Maybe:
    """Does one hold? None if that depends on one that is not known."""
    if any(part is True for part in parts):
        return True
    return None if any(part is None for part in parts) else False


def no(part: Maybe) -> Maybe:
    """The opposite."""
    return None if part is None else not part


class Facts:
    """What one answer of `GET /v1/status` says.

    `elsewhere`: groups that may run on former hosts, or whose services may run on other hosts under
    another name, as the journal says. A status does not show all that counts for them."""

    def __init__(self, status: dict[str, Any], elsewhere: Iterable[str] = ()) -> None:
        self.status = status
        self._elsewhere = frozenset(elsewhere)
        self.manager: dict[str, Any] = status["manager"]

    @cached_property
    def hosts(self) -> dict[str, dict[str, Any]]:
        """The hosts by id."""
        return {host["id"]: host for host in self.status["hosts"]}

    @cached_property
    def groups(self) -> dict[str, dict[str, Any]]:
        """The groups by id."""
        return {group["id"]: group for group in self.status["groups"]}

    @cached_property
    def rows(self) -> dict[str, dict[str, Any]]:
        """The resources by id."""
        return {row["id"]: row for row in self.status["resources"]}

    @cached_property
    def rows_of(self) -> dict[str, list[dict[str, Any]]]:
        """The exclusive resources of each group, in its order."""
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in self.groups}
        for row in self.status["resources"]:
            if not row["shared"]:
                found[row["group"]].append(row)
        return found

    @cached_property
    def errors(self) -> list[str]:
        """What failed, as it was recorded. The longest first: one may be a part of another."""
        found = {
            error
            for group in self.groups.values()
            for error in (group["error"], *group["start_failures"].values())
            if error
        }
        return sorted(found, key=len, reverse=True)

    # --- hosts -------------------------------------------------------------------------------

    def is_fencing(self, host: str) -> bool:
        """Is it being fenced?"""
        return bool(self.hosts[host]["state"] == "fencing")

    def is_ready(self, host: str) -> bool:
        """Is it connected, and does its word count?"""
        at = self.hosts[host]
        greeted = at["legacy"] or at["lifecycle"]["state"] in ("ready", "suspect")
        return bool(at["connected"] and greeted and not self.is_fencing(host))

    def is_proven_off(self, host: str) -> Maybe:
        """Does it count as off?"""
        at = self.hosts[host]
        if at["connected"] or at["state"] in ("lost", "disconnected"):
            return False
        return True if at["state"] == "fenced" else None  # a failed fence may be a second one

    # --- groups ------------------------------------------------------------------------------

    def candidates(self, group: str) -> list[str]:
        """In order of preference."""
        return [self.groups[group]["home_host"], *self.groups[group]["failover_hosts"]]

    def former(self, group: str) -> dict[str, str]:
        """Its former hosts, and what is known of it there."""
        found: dict[str, str] = self.groups[group]["former_hosts"]
        return found

    def may_be_elsewhere(self, group: str) -> bool:
        """Does more count than what is shown of its candidates?"""
        return group in self._elsewhere or bool(self.former(group))

    def running_on(self, group: str) -> list[str]:
        """Where something exclusive of it is seen."""
        at = {**self.groups[group]["candidates"], **self.former(group)}
        return [host for host, said in at.items() if said == "Running"]

    def managed_on(self, group: str) -> str | None:
        """The host whose task holds its token."""
        holder = self.groups[group]["token"] or ""
        is_task = holder.startswith("host ") and ", task " in holder
        return holder.removeprefix("host ").split(",")[0] if is_task else None

    def is_between(self, group: str) -> bool:
        """Is its token on its way to a task, or back from one?"""
        return str(self.groups[group]["token"]).endswith("inbox")

    def where(self, group: str) -> str | None:
        """The host that manages it, or else the only one where it is seen."""
        running = self.running_on(group)
        return self.managed_on(group) or (running[0] if len(running) == 1 else None)

    def can_take(self, group: str, host: str) -> Maybe:
        """Can this candidate take the group now?"""
        if self.is_fencing(host) or not self.is_ready(host) or not self.hosts[host]["active"]:
            return False
        if host in self.groups[group]["start_failures"]:
            return False
        unknown = any(row["candidates"][host]["status"] == "Unknown" for row in self.rows_of[group])
        return None if unknown or self._has_wishes(group) else True

    def _has_wishes(self, group: str) -> bool:
        """Do other groups count for where it may run? What they will do next is not shown."""
        hosts = self.groups[group]["candidates"]
        has_turns = any(self.hosts[host]["max_starts"] for host in hosts)
        return bool(self.groups[group]["needs"] or self.groups[group]["company"] or has_turns)

    def can_leave(self, group: str, leaving: str) -> Maybe:
        """Could the group be proven stopped on all other candidates, after it left this one?"""
        elsewhere = None if self.may_be_elsewhere(group) else True
        others = self._others(group, leaving)
        return all_of(elsewhere, *(self._is_out_of_the_way(group, host) for host in others))

    def has_taker(self, group: str, leaving: str) -> Maybe:
        """Can one of its other candidates take the group?"""
        return any_of(*(self.can_take(group, host) for host in self._others(group, leaving)))

    def _others(self, group: str, than: str) -> list[str]:
        return [host for host in self.candidates(group) if host != than]

    def _is_out_of_the_way(self, group: str, host: str) -> Maybe:
        at, off = self.hosts[host], self.is_proven_off(host)
        if self.is_fencing(host):
            return None if at["connected"] else any_of(None, off)
        if not at["connected"]:
            if off and (not at["fence_agents"] or not at["fence_trusted"]):
                return None  # the proof may be too old, and nobody can renew it
            return off
        return self.is_ready(host) and self.groups[group]["candidates"][host] == "Stopped"

    def is_held(self, group: str) -> Maybe:
        """Does something forbid all action on it?"""
        found = self.groups[group]
        if (
            self.manager["mode"] == "observe"
            or self.manager["frozen"]
            or not found["managed"]
            or found["error_kind"] == "second-copy"
            or len(self.running_on(group)) > 1
        ):
            return True
        seen = self.running_on(group)
        out_of_sight = any(
            not self.is_ready(host) for host in self.candidates(group) if host not in seen
        )
        # One of them may have been seen running before it went out of sight.
        return None if (seen and out_of_sight) or self.may_be_elsewhere(group) else False
