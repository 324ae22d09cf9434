"""What a group owes to others that need the same shared resources on the same host."""

from __future__ import annotations

from halo.core.cluster.knowledge import Presence
from halo.core.cluster.state import ClusterState
from halo.core.groups.actions import ResourceState
from halo.core.model import HostId, ResourceGroup
from halo.core.questions import holds

OTHERS_POLL_S = 0.25
"""How soon it is looked again whether other groups of a shared resource were looked at here."""


class Sharing:
    """One group's needs of shared resources on one host. All of it is true of those alone."""

    __slots__ = ("_group", "_host", "_state", "look_again_at")

    def __init__(self, state: ClusterState, group: ResourceGroup, host: HostId) -> None:
        self._state = state
        self._group = group
        self._host = host
        self.look_again_at = float("inf")  # a stop waits for a look at other groups

    def need(self, state: ResourceState) -> None:
        """Register that the group needs it here: before its first start, and while it runs."""
        if state.resource.shared:
            state.released = False
            self._state.needs.need(state.resource.id, self._host, self._group.id)

    def begin_restart(self, state: ResourceState) -> None:
        """It is stopped now, to be started again; other groups' starts of it wait."""
        if state.resource.shared:
            self._state.needs.release(state.resource.id, self._host, self._group.id)

    def stop_ended(self, state: ResourceState) -> None:
        """A stop of it has ended, or will never be told of: those who wait may go on."""
        if state.resource.shared:
            self._state.needs.stop_ended(state.resource.id, self._host)

    def release(self, state: ResourceState) -> bool:
        """Let go of a shared resource; True when it has to be stopped now."""
        name = state.resource.id
        last = self._state.needs.release(name, self._host, self._group.id)
        if last and self.is_needed_by_others(state):
            self._state.needs.stop_ended(name, self._host)
            return False
        return last

    def is_stopped_by_another(self, state: ResourceState) -> bool:
        """Is another group's stop of this shared resource under way? Its end is told by a poke."""
        return (
            state.resource.shared
            and state.busy is None
            and self._state.needs.is_stopping(state.resource.id, self._host)
        )

    def is_needed_by_others(self, state: ResourceState) -> bool:
        """Does another group need this shared resource here, registered or seen running?

        What is seen counts for groups alone that nobody acts on here. One that is acted on has
        registered, or let go: of two that stop side by side, the last would else leave it running
        for the sake of the first, whose root is still being stopped."""
        if not state.resource.shared:
            return False
        needed = self._state.needs.needed_by(state.resource.id, self._host)
        if needed - {self._group.id}:
            return True
        presence = self._state.knowledge.presence
        return any(presence(group, self._host) is Presence.RUNNING for group in self._others(state))

    def awaits_a_look(self, state: ResourceState, now: float) -> bool:
        """Was another group of this shared resource not looked at here yet? It may run, and need
        it. Every monitor has a deadline, so that this ends."""
        waits = state.resource.shared and any(
            seen.presence is Presence.UNKNOWN and seen.first(Presence.ERROR) is None
            for seen in (self._state.candidate(group, self._host) for group in self._others(state))
        )
        if waits:
            self.look_again_at = now + OTHERS_POLL_S
        return waits

    def _others(self, state: ResourceState) -> list[ResourceGroup]:
        """The other groups of a shared resource that nobody acts on here."""
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
