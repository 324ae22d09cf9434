"""Where a group may still run after a change of the config (docs/decisions/0007).

A start needs proof that the group is stopped on every other candidate. The config may lose a
candidate while the group still runs there. So the journal remembers for each group where it may
run. A host that is no candidate any more, and where the group is not known to be stopped, is a
*former host* of the group. It is asked for proof like a candidate. It is never chosen for a start.

A group may also gain a service that runs elsewhere. The hosts of that service are remembered in the
same way, also those that are candidates: the group may not be completed in place before the service
is proven stopped there.

The journal knows a service by two keys: the id of its resource, and a digest of kind and
parameters. If one of the two is found under another group, that group has the service now.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from halo.core.journal.remembered import ErrorKind, Remembered, RememberedGroup, Services
from halo.core.model import Cluster, GroupId, HostId, Resource, ResourceGroup, ResourceId
from halo.core.secrets import is_secret_name

DIGEST_LENGTH = 16

_NO_MEMORY = RememberedGroup()
"""The memory of a group of which nothing was recorded. Do not change it."""


def services_of(group: ResourceGroup) -> Services:
    """The exclusive resources of a group: id, and digest of kind and parameters."""
    return {resource.id: _digest(resource) for resource in group.exclusive}


def _digest(resource: Resource) -> str:
    """Names the service without its parameters, which may be secret. A secret names no disk."""
    names = sorted(name for name in resource.parameters if not is_secret_name(name))
    text = json.dumps([resource.kind, [(name, resource.parameters[name]) for name in names]])
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]


def places(remembered: Remembered, group: GroupId) -> dict[HostId, GroupId]:
    """Where a group may run, as far as the journal knows, and under which name it was there."""
    if group in remembered.removed:
        return dict.fromkeys(remembered.removed[group], group)
    memory = remembered.groups.get(group, _NO_MEMORY)
    candidates = () if memory.at_rest else remembered.configured.get(group, ())
    own = [host for host in candidates if host not in memory.stopped_on]
    return {**dict.fromkeys(own, group), **memory.former}


def with_former_hosts(cluster: Cluster, remembered: Remembered) -> Cluster:
    """The cluster, in which each group also names the former hosts that the config still has."""
    found: dict[GroupId, ResourceGroup] = {}
    for group in cluster.groups.values():
        memory = remembered.groups.get(group.id)
        former = memory.former if memory is not None else {}
        known = [host for host in former if host in cluster.hosts]
        if hosts := tuple(host for host in known if host not in group.candidates):
            found[group.id] = replace(group, former_hosts=hosts)
    return replace(cluster, groups={**cluster.groups, **found}) if found else cluster


def config_change(remembered: Remembered, cluster: Cluster) -> dict[str, Any] | None:
    """The data of a record `config` that brings the memory up to this config; None: not needed."""
    change = _Change(remembered, cluster)
    now = {group.id: group.candidates for group in cluster.groups.values()}
    before = remembered.configured
    data: dict[str, Any] = {
        "groups": {name: list(hosts) for name, hosts in now.items() if before.get(name) != hosts},
        "gone": sorted(before.keys() - now.keys()),
    }
    for group in cluster.groups.values():
        for key, value in change.of(group).items():
            data.setdefault(key, {})[group.id] = value
    for name, services in change.left_behind().items():
        data.setdefault("services", {})[name] = services
    if taken_over := change.taken_over():
        data["taken_over"] = taken_over
    if dropped := change.dropped():
        data["dropped"] = dropped
    if orders := change.orders():
        data["orders"] = orders
    return data if any(data.values()) else None


class _Change:
    """What a new config changes in the memory of each group."""

    def __init__(self, remembered: Remembered, cluster: Cluster) -> None:
        self._remembered = remembered
        self._now = {group.id: services_of(group) for group in cluster.groups.values()}
        self._owner_before = _owners(remembered.services)
        self._owner_now = _owners(self._now)
        self._resources_now = {r.id for group in cluster.groups.values() for r in group.resources}

    def of(self, group: ResourceGroup) -> dict[str, Any]:
        """The values that differ from what is remembered of the group, by their key."""
        name, services = group.id, self._now[group.id]
        memory = self._remembered.groups.get(name, _NO_MEMORY)
        inherited = self._inherited(name)
        own = {
            host: origin
            for host, origin in places(self._remembered, name).items()
            if host not in group.candidates or origin != name
        }
        former = {**own, **inherited}  # the origin tells that a service was gained
        stopped_on = self._stopped_on(group, memory, inherited)
        has_gained = bool(inherited) or not self._knows_all(name)
        is_old = name in self._remembered.configured and name not in self._remembered.services
        return {
            key: value
            for key, value, differs in (
                ("services", services, services != self._remembered.services.get(name)),
                ("former", former, former != memory.former),
                ("stopped_on", stopped_on, stopped_on != memory.stopped_on),
                ("unsettled", True, memory.at_rest and has_gained and not is_old),
            )
            if differs
        }

    def _inherited(self, name: GroupId) -> dict[HostId, GroupId]:
        """Where services of this group may run because another group had them before."""
        found: dict[HostId, GroupId] = {}
        for key in _keys(self._now[name]):
            before = self._owner_before.get(key)
            if before not in (None, name) and self._owner_now.get(key) == name:
                found.update(places(self._remembered, str(before)))
        return found

    def _stopped_on(
        self, group: ResourceGroup, memory: RememberedGroup, inherited: Mapping[HostId, GroupId]
    ) -> list[HostId]:
        """The candidates on which the group is known to be stopped.

        A new candidate is one of them if the journal knows all places of the group: naming a host
        in the config starts nothing there."""
        if not self._knows_all(group.id):
            return []
        known = self._remembered.configured.get(group.id, ())
        return [
            host
            for host in group.candidates
            if (host in memory.stopped_on or host not in known)
            and host not in memory.former
            and host not in inherited
        ]

    def _knows_all(self, name: GroupId) -> bool:
        """Does the journal know of every service of the group where it may run?

        It does not in the first start after an upgrade from a release that did not record this."""
        before = self._remembered
        return (name in before.configured and name in before.services) and all(
            resource in self._owner_before or digest in self._owner_before
            for resource, digest in self._now[name].items()
        )

    def taken_over(self) -> list[GroupId]:
        """The groups that left the config while other groups have all their services now."""
        return sorted(
            name
            for name in self._remembered.services
            if name not in self._now and not self._not_found_again(name)
        )

    def left_behind(self) -> dict[GroupId, Services]:
        """What is left of groups that are not in the config and lost a part of their services to
        other groups. If they kept that part, its keys would belong to two groups, and name no
        service in the next change."""
        return {
            name: left
            for name, services in self._remembered.services.items()
            if name not in self._now
            and (left := self._not_found_again(name))
            and left != services
            and places(self._remembered, name)
        }

    def orders(self) -> dict[GroupId, dict[str, Any]]:
        """Of groups whose name is new: what holds for the services that they have from other groups
        (S4, S9). An unmanaged group that gets another name stays unmanaged, for example."""
        found: dict[GroupId, dict[str, Any]] = {}
        for name in self._now.keys() - self._remembered.configured.keys():
            owners = {self._owner_before.get(key) for key in _keys(self._now[name])} - {None, name}
            memories = [self._remembered.groups[o] for o in owners if o in self._remembered.groups]
            if orders := _orders_of(memories):
                found[name] = orders
        return found

    def dropped(self) -> dict[ResourceId, dict[str, Any]]:
        """The services that left a group which stays, and that no group has now. Nobody stops them.
        Another group may get them in a later change."""
        return {
            resource: {"digest": digest, "hosts": hosts}
            for name in self._now.keys() & self._remembered.services.keys()
            if (services := self._not_found_again(name))  # asked first: hardly any group has some
            and (hosts := sorted(places(self._remembered, name)))
            for resource, digest in services.items()
        }

    def _not_found_again(self, name: GroupId) -> Services:
        """The services that a group had, and that no group of this config has."""
        return {
            resource: digest
            for resource, digest in self._remembered.services[name].items()
            if resource not in self._resources_now
            and not (self._owner_before.get(digest) == name and digest in self._owner_now)
        }


def _orders_of(memories: Iterable[RememberedGroup]) -> dict[str, Any]:
    """What of these forbids HALO to act. The strictest counts."""
    orders: dict[str, Any] = {}
    for memory in memories:
        if not memory.managed:
            orders |= {"managed": False, "comment": memory.comment}
        if not memory.wanted:
            orders["wanted"] = False
        if memory.error_kind is ErrorKind.SECOND_COPY:
            orders["error"] = memory.error
    return orders


def _keys(services: Services) -> Iterable[str]:
    """The names by which a service is found again."""
    return (*services, *services.values())


def _owners(services: Mapping[GroupId, Services]) -> dict[str, GroupId]:
    """The group that has a service, by its keys. A key of several groups names no service: for
    example, resources without parameters have equal digests."""
    owners: dict[str, GroupId] = {}
    ambiguous = set[str]()
    for group, found in services.items():
        for key in _keys(found):
            if owners.setdefault(key, group) != group:
                ambiguous.add(key)
    return {key: group for key, group in owners.items() if key not in ambiguous}
