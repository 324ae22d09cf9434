"""The cluster as its config describes it: immutable, without any runtime state or I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from functools import cached_property
from typing import TypeAlias

HostId: TypeAlias = str
GroupId: TypeAlias = str
ResourceId: TypeAlias = str
Amounts: TypeAlias = Mapping[str, Decimal]
"""How much of what, in the units of the site: `{"memory_gb": 512}`."""

DEFAULT_AGENT_PORT = 8000


def in_words(amounts: Amounts) -> str:
    """For example `512 memory_gb, 16 cores`."""
    return ", ".join(f"{amount} {name}" for name, amount in amounts.items())


def as_number(amount: Decimal) -> int | float:
    """An amount for JSON."""
    return int(amount) if amount == amount.to_integral_value() else float(amount)


class Operation(StrEnum):
    """What an agent can be asked to do with a resource (OCF actions)."""

    MONITOR = "monitor"
    START = "start"
    STOP = "stop"
    VALIDATE = "validate-all"  # checks the parameters; starts nothing, and proves nothing

    @property
    def changes(self) -> bool:
        """Is it a start or a stop?"""
        return self in (Operation.START, Operation.STOP)


@dataclass(frozen=True)
class Resource:
    """One OCF resource.

    `parents` start before it and stop after it; `dependents` the other way round. A `shared`
    resource may run on several hosts at once. `shared_by_place`: it is shared only because the
    config puts it below two roots. Timeouts are in seconds. None: the agent uses the timeout that
    the script advertises.
    """

    id: ResourceId
    kind: str
    parameters: Mapping[str, str]
    dependents: tuple[ResourceId, ...] = ()
    parents: tuple[ResourceId, ...] = ()
    shared: bool = False
    monitor_interval_s: float | None = None
    monitor_timeout_s: float | None = None
    start_timeout_s: float | None = None
    stop_timeout_s: float | None = None
    shared_by_place: bool = False

    def timeout_s(self, operation: Operation) -> float | None:
        """The configured deadline of one operation in seconds, if any."""
        return {
            Operation.MONITOR: self.monitor_timeout_s,
            Operation.START: self.start_timeout_s,
            Operation.STOP: self.stop_timeout_s,
        }.get(operation)


class StartFailurePolicy(StrEnum):
    """What happens to a group whose start fails on a host."""

    MOVE = "move"  # prove the group stopped there, and try the next candidate
    STAY = "stay"  # leave running what runs, and report the error


class SecondCopyPolicy(StrEnum):
    """What happens when a group is seen on two hosts."""

    REPORT = "report"
    STOP = "stop"  # stop the copy without the token
    FENCE = "fence"  # fence the host without the token


class LossPolicy(StrEnum):
    """What happens to a host that is lost while it held groups."""

    FENCE = "fence"
    REBOOT = "reboot"  # off, confirmed, then on again; once until reset
    WAIT = "wait"  # no automatic fence


@dataclass(frozen=True)
class Company:
    """Which groups a group shall share its host with, and which not.

    It is started only where the groups `together_with` run, and never where one of `apart_from` is.
    Preferences choose among the hosts that can take it. `apart_from` counts in both directions: the
    config may have it at either group."""

    together_with: tuple[GroupId, ...] = ()
    apart_from: tuple[GroupId, ...] = ()
    prefer_together_with: tuple[GroupId, ...] = ()
    prefer_apart_from: tuple[GroupId, ...] = ()

    @property
    def all(self) -> tuple[GroupId, ...]:
        """All groups that are named."""
        preferred = self.prefer_together_with + self.prefer_apart_from
        return tuple(dict.fromkeys(self.together_with + self.apart_from + preferred))


ALONE = Company()


@dataclass(frozen=True)
class ResourceGroup:
    """A tree of resources that runs on one host at a time, named after its root.

    `resources` stands in start order: every parent before its dependents. The group is started
    only while the groups `after` run; it may run without them. The config has no
    `former_hosts`: the manager adds the hosts that were candidates, and where the group may still
    run (:mod:`halo.core.journal.places`).
    """

    id: GroupId
    resources: tuple[Resource, ...]
    home_host: HostId
    failover_hosts: tuple[HostId, ...] = ()
    on_start_failure: StartFailurePolicy = StartFailurePolicy.MOVE
    second_copy: SecondCopyPolicy = SecondCopyPolicy.REPORT
    former_hosts: tuple[HostId, ...] = ()
    after: tuple[GroupId, ...] = ()
    company: Company = ALONE
    needs: Amounts = field(default_factory=dict)  # of the capacity of its host
    priority: int = 0  # the group with the higher one starts, if there is not room for both
    preempt: bool = False  # groups of a lower priority give way to it: they are stopped for it

    @property
    def root(self) -> ResourceId:
        """The id of the root resource, which is the group's own."""
        return self.id

    @cached_property
    def candidates(self) -> tuple[HostId, ...]:
        """Every host that may run the group, in order of preference."""
        return (self.home_host, *self.failover_hosts)

    @cached_property
    def hosts(self) -> tuple[HostId, ...]:
        """Every host on which the group is looked for: the candidates, then the former hosts."""
        return self.candidates + self.former_hosts

    @cached_property
    def by_id(self) -> Mapping[ResourceId, Resource]:
        """The group's resources by their id."""
        return {resource.id: resource for resource in self.resources}

    @cached_property
    def exclusive(self) -> tuple[Resource, ...]:
        """The resources that may never run on two hosts."""
        return tuple(r for r in self.resources if not r.shared)

    def parents_of(self, resource: Resource) -> tuple[Resource, ...]:
        """The resources of this group that start before `resource`."""
        return self._parents[resource.id]

    def dependents_of(self, resource: Resource) -> tuple[Resource, ...]:
        """The resources of this group that start after `resource`."""
        return self._dependents[resource.id]

    @cached_property
    def _parents(self) -> Mapping[ResourceId, tuple[Resource, ...]]:
        return {r.id: self._known(r.parents) for r in self.resources}

    @cached_property
    def _dependents(self) -> Mapping[ResourceId, tuple[Resource, ...]]:
        return {r.id: self._known(r.dependents) for r in self.resources}

    def _known(self, names: Iterable[ResourceId]) -> tuple[Resource, ...]:
        return tuple(self.by_id[name] for name in names if name in self.by_id)


@dataclass(frozen=True)
class FenceDevice:
    """One power switch of a host, which a fence-agent program controls.

    `agent` is the name in the config, `program` the executable. `parameters` may hold secrets: they
    are never shown. Values `file:/path` and `env:NAME` are read only when they are used.
    """

    agent: str
    program: str
    parameters: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class Host:
    """One cluster host: where its agent listens and how it is powered off.

    `fence_levels` are tried in order. A level confirms if all its devices confirm. If there is no
    level, the host cannot be fenced.
    """

    id: HostId
    address: str
    port: int = DEFAULT_AGENT_PORT
    fence_levels: tuple[tuple[FenceDevice, ...], ...] = ()
    on_loss: LossPolicy = LossPolicy.FENCE
    capacity: Amounts = field(default_factory=dict)  # what is not named has no limit
    max_starts: int | None = None  # so many groups are started at a time; None: no limit


@dataclass(frozen=True)
class Settings:
    """Timings and limits of one manager; all times in seconds."""

    monitor_interval_s: float = 5.0
    survey_interval_s: float = 30.0
    watch_interval_s: float = 1.0
    digest_interval_s: float = 5.0
    heartbeat_interval_s: float = 1.0
    loss_budget_s: float = 3.0
    connect_timeout_s: float = 2.0
    reconnect_interval_s: float = 0.5
    operation_deadline_s: float = 900.0
    fence_timeout_s: float = 60.0
    fence_retry_min_s: float = 5.0
    fence_retry_max_s: float = 300.0
    fence_limit: int = 10
    fence_limit_window_s: float = 600.0
    storm_hosts: int = 2
    storm_fraction: float = 1 / 3
    storm_window_s: float = 60.0
    power_proof_age_s: float = 10.0
    device_check_interval_s: float = 3600.0
    restart_limit: int = 5
    restart_window_s: float = 600.0
    restart_grace_s: float = 10.0
    fence_on_connection_close: bool = False


NODE_ID_LIMIT = 63
"""Characters in the id of a manager."""


@dataclass(frozen=True, slots=True)
class ConfiguredManager:
    """A manager, as the config names it, and the host that it runs on."""

    id: str
    host: str


@dataclass(frozen=True)
class Cluster:
    """All hosts and groups of one config, by id, in config order."""

    name: str
    hosts: Mapping[HostId, Host]
    groups: Mapping[GroupId, ResourceGroup]
    settings: Settings = Settings()
    managers: tuple[ConfiguredManager, ...] = ()

    @cached_property
    def groups_of_shared(self) -> Mapping[ResourceId, tuple[ResourceGroup, ...]]:
        """Every group that a shared resource belongs to, by that resource."""
        found: dict[ResourceId, list[ResourceGroup]] = {}
        for group in self.groups.values():
            for resource in group.resources:
                if resource.shared:
                    found.setdefault(resource.id, []).append(group)
        return {resource: tuple(groups) for resource, groups in found.items()}

    @cached_property
    def places_are_short(self) -> bool:
        """Does any group need room, or have a wish about its company? Then a candidate that serves
        may still have no place for it."""
        return any(group.needs or group.company.all for group in self.groups.values())

    @cached_property
    def followers(self) -> Mapping[GroupId, tuple[GroupId, ...]]:
        """Every group whose place or start depends on a group, by that group: it is started after
        it, or together with it, or apart from it. Others have no entry."""
        found: dict[GroupId, list[GroupId]] = {}
        for group in self.groups.values():
            for name in dict.fromkeys(group.after + group.company.all):
                found.setdefault(name, []).append(group.id)
        return {name: tuple(groups) for name, groups in found.items()}

    @cached_property
    def places_matter(self) -> bool:
        """Does any group need room, or have a wish about its company, or is a host limited in its
        starts? Then a group that comes to a host, leaves one, or was started may concern others."""
        return self.places_are_short or any(
            host.max_starts is not None for host in self.hosts.values()
        )

    @cached_property
    def preempting(self) -> tuple[ResourceGroup, ...]:
        """The groups to which others give way."""
        return tuple(group for group in self.groups.values() if group.preempt)

    @cached_property
    def groups_of_host(self) -> Mapping[HostId, tuple[ResourceGroup, ...]]:
        """Every group that may run on a host, by that host."""
        found: dict[HostId, list[ResourceGroup]] = {host: [] for host in self.hosts}
        for group in self.groups.values():
            for host in group.hosts:
                found[host].append(group)
        return {host: tuple(groups) for host, groups in found.items()}
