"""The next operations on the resources of one group, towards what the group should be.

Between two plans, only the resources' own state is remembered. So the order of events does not
matter.
"""

from __future__ import annotations

from collections.abc import Iterable

from halo.core.cluster.knowledge import Presence
from halo.core.cluster.state import ClusterState
from halo.core.groups.actions import Action, Report, ResourceState, Run
from halo.core.groups.looks import Looks, look_again
from halo.core.groups.sharing import Sharing
from halo.core.journal.remembered import ErrorKind
from halo.core.model import HostId, Operation, ResourceGroup, ResourceId
from halo.core.questions import former


class Planner:
    """Plans for one group on one host. A planned operation counts as begun: run all of them."""

    __slots__ = ("_epoch", "_group", "_host", "_looks", "_resources", "_sharing", "_state")

    def __init__(
        self,
        state: ClusterState,
        group: ResourceGroup,
        host: HostId,
        epoch: int,
        resources: dict[ResourceId, ResourceState],
        sharing: Sharing,
        looks: Looks,
    ) -> None:
        self._state = state
        self._group = group
        self._host = host
        self._epoch = epoch
        self._resources = resources  # parents first
        self._sharing = sharing
        self._looks = looks

    def to_run(self, now: float) -> list[Action]:
        """The next operations of a group that should run here: parents first, siblings together.

        An empty list means that nothing can be improved."""
        if self._nothing_is_to_be_mended():
            return self.monitors_due(now)
        actions: list[Action] = []
        doomed: set[str] = set()  # some parent has stopped, or has to be stopped first
        self._doubt_what_was_seen_running(now)
        for state in self._resources.values():
            self._sharing.need(state)
            parents = [self._resources[p.id] for p in self._group.parents_of(state.resource)]
            if any(p.resource.id in doomed or self._is_gone(p) for p in parents):
                doomed.add(state.resource.id)
            if state.busy is None:
                ready = all(parent.is_up for parent in parents)
                actions += self._tend(state, ready, state.resource.id in doomed, now)
        return actions

    def to_stop(self, now: float) -> list[Action]:
        """The next operations of a group that should stop here: leaves first."""
        actions: list[Action] = []
        for state in reversed(self._resources.values()):
            if state.busy is not None:
                continue
            dependents_down = all(
                self._resources[d.id].is_down for d in self._group.dependents_of(state.resource)
            )
            is_down = state.is_down and not self._may_be_left_behind(state)
            stays = state.failed is not None or is_down or not dependents_down
            if stays or self._sharing.awaits_a_look(state, now):
                actions += self._monitors_of([state], now)
            elif state.resource.shared and not self._sharing.release(state):
                state.released = True
                actions += self._monitors_of([state], now)
            else:
                state.released = False
                actions.append(self._run(state, Operation.STOP))
        return actions

    def _may_be_left_behind(self, state: ResourceState) -> bool:
        """Is this a shared resource that was left to another group, and does this group still run
        here? The other group may have been found elsewhere since."""
        return (
            state.released
            and not state.stopped_by_script
            and state.presence is not Presence.STOPPED
            and all(self._resources[p.id].is_up for p in self._group.parents_of(state.resource))
        )

    def monitors_due(self, now: float) -> list[Action]:
        """Only the monitors: for a group that HALO must not change."""
        return self._monitors_of(self._resources.values(), now)

    def _nothing_is_to_be_mended(self) -> bool:
        """Does everything run, without shared resources? Then a plan has only monitors."""
        return all(
            state.is_up and not state.stopped_by_script and not state.resource.shared
            for state in self._resources.values()
        )

    def _doubt_what_was_seen_running(self, now: float) -> None:
        """Monitor resources again that we found stopped, but that were seen running since.

        Until the answer, they are not started, and their dependents are not stopped."""
        seen_running = self._state.knowledge.is_seen_running
        for state in self._resources.values():
            if (
                state.busy in (None, Operation.MONITOR)
                and state.presence is Presence.STOPPED
                and seen_running(state.resource, self._host, self._epoch)
            ):
                look_again(state, now)

    @staticmethod
    def _is_gone(parent: ResourceState) -> bool:
        """Do the dependents of this parent have to stop, so that the parent can start again?"""
        return parent.failed is None and (
            parent.wants_restart
            or parent.stopped_by_script
            or parent.busy is Operation.STOP
            or parent.presence is Presence.STOPPED
        )

    def _tend(
        self, state: ResourceState, parents_up: bool, doomed: bool, now: float
    ) -> list[Action]:
        """The next operation on one idle resource of a group that should run here."""
        if self._sharing.is_stopped_by_another(state):
            state.presence, state.due_at = Presence.UNKNOWN, now
            return []
        dependents_down = all(
            self._is_out_of_the_way(self._resources[d.id])
            for d in self._group.dependents_of(state.resource)
        )
        present = state.presence in (Presence.RUNNING, Presence.ERROR)
        # If the monitor after a stop fails, another monitor has to tell, and not another stop.
        stays = state.failed is not None or state.stopped_by_script
        has_to_stop = state.wants_restart or (doomed and present and not stays)
        if has_to_stop and dependents_down and not self._sharing.is_needed_by_others(state):
            if self._sharing.awaits_a_look(state, now):
                return self._monitors_of([state], now)
            self._sharing.begin_restart(state)
            return [self._run(state, Operation.STOP)]
        startable = state.presence is Presence.STOPPED and state.failed is None and not doomed
        if startable and parents_up and dependents_down and self._may_be_completed(state):
            return self._start(state, now)
        return self._monitors_of([state], now)

    def _may_be_completed(self, state: ResourceState) -> bool:
        """May this resource be started now beside a root that runs? Not while a service that the
        group gained may run elsewhere: what runs here goes on, and the rest waits for proof.

        The root is started in any case. If that start lacks proof, it is refused (S1), and the
        group leaves. Nothing of it runs then."""
        return (
            state.resource.id == self._group.root
            or former.gained_elsewhere(self._state, self._group, self._host) is None
        )

    def _is_out_of_the_way(self, state: ResourceState) -> bool:
        """Does this dependent allow a stop of its parents? Yes, if it is down, or if it is shared
        and another group needs it."""
        return state.is_down or (state.busy is None and self._sharing.is_needed_by_others(state))

    def _start(self, state: ResourceState, now: float) -> list[Action]:
        """Start a stopped resource, unless it was restarted too often."""
        if state.crashed:
            limits = self._state.settings
            while state.restarts and now - state.restarts[0] > limits.restart_window_s:
                del state.restarts[0]
            if len(state.restarts) >= limits.restart_limit:
                text = (
                    f"{state.resource.id} was restarted {limits.restart_limit} times within "
                    f"{limits.restart_window_s:g} s on {self._host}"
                )
                state.failed = text
                return [Report(ErrorKind.RESTART_LIMIT, text, state.resource.id)]
            state.restarts.append(now)
            state.crashed = False
        return [self._run(state, Operation.START)]

    def _monitors_of(self, states: Iterable[ResourceState], now: float) -> list[Action]:
        return [self._run(state, Operation.MONITOR) for state in self._looks.due(states, now)]

    def _run(self, state: ResourceState, operation: Operation) -> Run:
        state.busy = operation
        if operation is Operation.START:
            state.presence = Presence.UNKNOWN
        return Run(state.resource, operation)
