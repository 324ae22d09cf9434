"""Small clusters for tests, and plain words for what is known of them.

Times are the numbers that a test hands in: nothing here reads a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

from halo.core.cluster.knowledge import Presence
from halo.core.cluster.state import ClusterState
from halo.core.errors import Loss, LossKind
from halo.core.journal import fold
from halo.core.journal.records import Event, Record
from halo.core.journal.remembered import ErrorKind, Remembered
from halo.core.model import (
    Amounts,
    Cluster,
    FenceDevice,
    Host,
    LossPolicy,
    Resource,
    ResourceGroup,
    Settings,
)
from halo.core.outcomes import AgentIdentity, OperationResult, Outcome

DEVICE = FenceDevice(agent="fence_test", program="/none", parameters={})
SILENT = Loss(LossKind.SILENT)
RUNNING, STOPPED, ERROR = Presence.RUNNING, Presence.STOPPED, Presence.ERROR

OK = OperationResult(Outcome.COMPLETED, 0)
NOT_RUNNING = OperationResult(Outcome.COMPLETED, 7)
GENERIC_ERROR = OperationResult(Outcome.COMPLETED, 1, "it does not work")
TIMED_OUT = OperationResult(Outcome.TIMED_OUT, message="no answer within 60 s")
NOT_RUN = OperationResult(Outcome.NOT_RUN, message="no such script")


def exit_code(code: int, message: str = "") -> OperationResult:
    """A script that ran and ended with this code."""
    return OperationResult(Outcome.COMPLETED, code, message)


def make_group(
    name: str = "g",
    hosts: Iterable[str] = ("h1", "h2"),
    tree: Mapping[str, Iterable[str]] | None = None,
    shared: Iterable[str] = (),
    **options: Any,
) -> ResourceGroup:
    """A group named after its root. `tree`: each resource with its dependents, in start order."""
    edges = {key: tuple(dependents) for key, dependents in (tree or {name: ()}).items()}
    for dependents in list(edges.values()):
        for dependent in dependents:
            edges.setdefault(dependent, ())
    parents: dict[str, list[str]] = {key: [] for key in edges}
    for key, dependents in edges.items():
        for dependent in dependents:
            parents[dependent].append(key)
    resources = tuple(
        Resource(
            id=key,
            kind="heartbeat/Dummy",
            parameters={},
            dependents=edges[key],
            parents=tuple(parents[key]),
            shared=key in shared,
        )
        for key in _in_start_order(edges, parents)
    )
    home, *failover = hosts
    return ResourceGroup(name, resources, home, tuple(failover), **options)


def _in_start_order(
    edges: Mapping[str, Iterable[str]], parents: Mapping[str, list[str]]
) -> list[str]:
    placed: list[str] = []
    while len(placed) < len(edges):
        placed += [
            key
            for key in edges
            if key not in placed and all(parent in placed for parent in parents[key])
        ]
    return placed


def amounts(given: Mapping[str, int]) -> Amounts:
    """As a config has them."""
    return {name: Decimal(amount) for name, amount in given.items()}


def make_cluster(
    *groups: ResourceGroup,
    hosts: Iterable[str] = (),
    on_loss: Mapping[str, LossPolicy] | None = None,
    no_device: Iterable[str] = (),
    fence_levels: Mapping[str, tuple[tuple[FenceDevice, ...], ...]] | None = None,
    capacity: Mapping[str, Mapping[str, int]] | None = None,
    max_starts: Mapping[str, int] | None = None,
    **settings: Any,
) -> Cluster:
    """A cluster of these groups on their candidates, and on the further `hosts`."""
    names = dict.fromkeys([*(host for group in groups for host in group.candidates), *hosts])
    return Cluster(
        name="test",
        hosts={
            name: Host(
                name,
                "127.0.0.1",
                fence_levels=()
                if name in no_device
                else (fence_levels or {}).get(name, ((DEVICE,),)),
                on_loss=(on_loss or {}).get(name, LossPolicy.FENCE),
                capacity=amounts((capacity or {}).get(name, {})),
                max_starts=(max_starts or {}).get(name),
            )
            for name in names
        },
        groups={group.id: group for group in groups},
        settings=replace(Settings(), **settings),
    )


class World:
    """A cluster's state, and sentences that bring it about.

    `now` is the time of whatever happens next; tests set it.
    """

    def __init__(
        self,
        *groups: ResourceGroup,
        observe_only: bool = False,
        remembered: Remembered | None = None,
        **cluster: Any,
    ) -> None:
        self.now = 100.0
        self.cluster = make_cluster(*groups, **cluster)
        self.state = ClusterState(
            self.cluster, remembered or Remembered(), observe_only, started_at=0.0
        )

    # --- the journal ---------------------------------------------------------------------------

    def journal(self, event: Event, name: str, comment: str = "", **data: Any) -> None:
        fold.apply(self.state.remembered, Record(self.now, event, name, comment, data))

    def unmanage(self, group: str, comment: str = "") -> None:
        self.journal(Event.UNMANAGE, group, comment)

    def error(self, group: str, kind: ErrorKind, text: str = "broken") -> None:
        self.journal(Event.ERROR, group, text, kind=kind.value)

    def start_failed(self, group: str, host: str, text: str = "start failed") -> None:
        self.journal(Event.START_FAILED, group, text, host=host)

    # --- hosts ---------------------------------------------------------------------------------

    def connect(self, *hosts: str) -> None:
        """Connections stand, and nothing was looked at yet."""
        for host in hosts:
            self.state.host_connected(host, AgentIdentity("1"), self.now)
            self.state.hosts[host].accepted = True  # its first heartbeat was answered
            self.journal(Event.CONNECT, host)

    def up(self, *hosts: str, running: Iterable[str] = ()) -> None:
        """Connected and looked through: only the groups `running` (named on that host) are up."""
        self.connect(*hosts)
        for host in hosts:
            for group in self.state.groups_of(host):
                self.see(group.id, host, RUNNING if group.id in running else STOPPED)

    def disconnect(self, host: str, loss: Loss = SILENT) -> None:
        self.state.host_disconnected(host, loss, self.now)
        self.journal(Event.DISCONNECT, host, str(loss))

    def suspect(self, host: str, since: float | None = None) -> None:
        self.state.hosts[host].suspect_at = self.now if since is None else since

    def lose(self, *hosts: str) -> None:
        """Silent, disconnected, declared lost."""
        for host in hosts:
            self.suspect(host)
            if self.state.hosts[host].connected:
                self.disconnect(host)
            self.state.hosts[host].lost_at = self.state.last_verdict_at = self.now

    def answers(self, *hosts: str) -> None:
        """A ping sent just after now was answered."""
        for host in hosts:
            self.state.hosts[host].answered_at = self.now + 0.001

    def fenced(self, host: str, verified_at: float | None = None) -> None:
        """A confirmed fence, as the fence runner takes it in."""
        if self.state.hosts[host].connected:
            self.disconnect(host)
        self.journal(Event.FENCE, host)
        self.state.host_fenced(host, self.now if verified_at is None else verified_at)

    # --- what is seen --------------------------------------------------------------------------

    def see(
        self,
        group: str,
        host: str,
        presence: Presence,
        *,
        at: float | None = None,
        only: Iterable[str] | None = None,
        epoch: int | None = None,
        reason: str = "",
        of_setup: bool = False,
    ) -> None:
        """A monitor of the group's resources (or `only` these), sent `at`, told this."""
        found = self.cluster.groups[group]
        for resource in found.resources:
            if only is None or resource.id in only:
                self.state.observe(
                    found,
                    resource,
                    host,
                    presence,
                    epoch=self.state.hosts[host].epoch if epoch is None else epoch,
                    begun_at=self.now if at is None else at,
                    reason=reason,
                    of_setup=of_setup,
                )

    def group(self, name: str = "g") -> ResourceGroup:
        return self.cluster.groups[name]


Step = Callable[[World], object]
"""Something that happens to a world, as a line of a table tells it."""


def then(*steps: Step) -> Step:
    """One step after the other."""
    return lambda world: [step(world) for step in steps]


PAIR = {"g": ["x"], "x": []}
"""The tree of a root and a leaf."""


def world_of_three(**options: Any) -> World:
    """g may run on h1, h2, h3; all are connected and looked through; it is stopped."""
    world = World(make_group("g", ["h1", "h2", "h3"], PAIR), **options)
    world.up("h1", "h2", "h3")
    return world
