"""How a group respects other groups that need the same shared resources on the same host."""

from __future__ import annotations

from halo.core.cluster.knowledge import Presence
from halo.core.cluster.state import ClusterState
from halo.core.groups.actions import ResourceState
from halo.core.model import HostId, ResourceGroup
from halo.core.questions import holds

OTHERS_POLL_S = 0.25
"""How soon to check again whether the other groups of a shared resource were probed here."""


class Sharing:
    """One group's needs of shared resources on one host. Other resources are not concerned."""

    __slots__ = ("_group", "_host", "_state", "look_again_at")

    def __init__(self, state: ClusterState, group: ResourceGroup, host: HostId) -> None:
        self._state = state
        self._group = group
        self._host = host
        self.look_again_at = float("inf")  # a stop waits until other groups were probed

    def need(self, state: ResourceState) -> None:
        """Register that the group needs the resource here, before its first start and while it
        runs."""
        if state.resource.shared:
            state.released = False
            self._state.needs.need(state.resource.id, self._host, self._group.id)

    def begin_restart(self, state: ResourceState) -> None:
        """The resource is being stopped for a restart. Other groups' starts of it wait."""
        if state.resource.shared:
            self._state.needs.release(state.resource.id, self._host, self._group.id)

    def stop_ended(self, state: ResourceState) -> None:
        """A stop of the resource has ended, or its end will never be known: others may start it."""
        if state.resource.shared:
            self._state.needs.stop_ended(state.resource.id, self._host)

    def release(self, state: ResourceState) -> bool:
        """Release a shared resource. True: it has to be stopped now."""
        name = state.resource.id
        last = self._state.needs.release(name, self._host, self._group.id)
        if last and self.is_needed_by_others(state):
            self._state.needs.stop_ended(name, self._host)
            return False
        return last

    def is_stopped_by_another(self, state: ResourceState) -> bool:
        """Is another group's stop of this shared resource under way? A poke follows at its end."""
        return (
            state.resource.shared
            and state.busy is None
            and self._state.needs.is_stopping(state.resource.id, self._host)
        )

    def is_needed_by_others(self, state: ResourceState) -> bool:
        """Does another group need this shared resource here? It does if it has registered its need,
        or if HALO does not act on it here and it is seen running.

        A group that HALO acts on here registers and releases its needs itself. If it counted as
        running while it stops, two groups that stop together would leave the resource running."""
        if not state.resource.shared:
            return False
        needed = self._state.needs.needed_by(state.resource.id, self._host)
        if needed - {self._group.id}:
            return True
        return any(self._may_run_here(group) for group in self._others(state))

    def _may_run_here(self, group: ResourceGroup) -> bool:
        """Is it seen running here, or was it, and its monitors prove nothing now?"""
        candidate = self._state.candidate(group, self._host)
        if candidate.presence is Presence.RUNNING:
            return True
        return candidate.error is not None and candidate.last_seen is Presence.RUNNING

    def awaits_a_look(self, state: ResourceState, now: float) -> bool:
        """Is there another group of this shared resource that was not probed here yet? It may run,
        and need the resource. The wait ends, because every monitor has a deadline."""
        waits = state.resource.shared and any(
            self._state.candidate(group, self._host).owes_a_look for group in self._others(state)
        )
        if waits:
            self.look_again_at = now + OTHERS_POLL_S
        return waits

    def _others(self, state: ResourceState) -> list[ResourceGroup]:
        """The other groups of a shared resource on which HALO does not act here."""
        return [
            group
            for group in self._state.groups_of(self._host)
            if group.id != self._group.id
            and state.resource.id in group.by_id
            and not self._is_acted_on_here(group)
        ]

    def _is_acted_on_here(self, group: ResourceGroup) -> bool:
        managed_here = self._state.groups[group.id].managed_on == self._host
        return managed_here and holds.hold_reason(self._state, group) is None
