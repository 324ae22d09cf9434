"""When a group's resources are monitored next, and which of them the agent monitors by itself."""

from __future__ import annotations

from collections.abc import Iterable

from halo.core.cluster.knowledge import Presence
from halo.core.cluster.state import ClusterState
from halo.core.groups.actions import ResourceState
from halo.core.model import HostId, Resource, ResourceGroup
from halo.core.spreading import moment


class Looks:
    """The monitors of one group on one host over one connection. Times are monotonic seconds."""

    __slots__ = ("_epoch", "_group", "_host", "_phase", "_state")

    def __init__(self, state: ClusterState, group: ResourceGroup, host: HostId, epoch: int) -> None:
        self._state = state
        self._group = group
        self._host = host
        self._epoch = epoch
        self._phase = moment(host, group.id)

    def due(self, states: Iterable[ResourceState], now: float) -> list[ResourceState]:
        """Which of these resources have to be monitored now."""
        return [
            state
            for state in states
            if state.busy is None and state.due_at <= now and not self.is_watched(state)
        ]

    def is_watched(self, state: ResourceState) -> bool:
        """Does the agent monitor it by itself, so that the manager need not ask?"""
        return (
            self._state.hosts[self._host].watched
            and state.presence in (Presence.RUNNING, Presence.STOPPED)
            and not state.stopped_by_script
            and state.bad_monitors == 0
            and not self._is_root_in_doubt(state)
        )

    def _is_root_in_doubt(self, state: ResourceState) -> bool:
        """Does the root run here, but without the right to complete the group in place? When a
        second copy is gone, a monitor restores that right. The agent reports no change then."""
        return (
            state.resource.id == self._group.root
            and state.presence is Presence.RUNNING
            and not self._state.knowledge.root_seen(self._group, self._host, self._epoch)
        )

    def first(self, resource: Resource, now: float) -> float:
        """When a resource that was adopted or started is first monitored.

        Ten thousand groups that were adopted or started together must not be monitored together.
        The first monitor comes at one of a few moments of their host."""
        interval_s = self.interval_s(resource)
        since = (now - self._phase * interval_s) % interval_s
        return now - since + interval_s

    def interval_s(self, resource: Resource) -> float:
        """The time between two monitors of the resource."""
        return resource.monitor_interval_s or self._state.settings.monitor_interval_s


def look_again(state: ResourceState, now: float) -> None:
    """Forget the presence of the resource: a monitor has to decide."""
    state.presence, state.due_at, state.in_doubt = Presence.UNKNOWN, now, True
