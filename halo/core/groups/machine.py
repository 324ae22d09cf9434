"""Managing one group on one host: results of operations in, operations to run out.

The machine is a reconciler. After every event it looks at what each resource is and what the group
is to be (run, stop, or be left alone), and names the operations that lead there: starts parents
first, siblings side by side; stops leaves first; a monitor when one is due. Nothing else is
remembered between steps but the resources' own state, so there is no order of events that it was
not written for.

It knows no clock, socket or task. The caller runs every :class:`Run` it is given, feeds the result
back by :meth:`GroupMachine.finished`, calls :meth:`GroupMachine.step` at :meth:`next_due` and
whenever the cluster's state changed, and is told by :class:`Leave` to hand the token home.
"""

from __future__ import annotations

from collections.abc import Iterable

from halo.core.cluster.knowledge import Presence
from halo.core.cluster.state import ClusterState
from halo.core.groups.actions import (
    Action,
    Leave,
    Left,
    Report,
    ReportMoved,
    ReportRestarted,
    ReportStartFailure,
    ResourceState,
    Run,
    describe,
)
from halo.core.journal.records import ErrorKind
from halo.core.model import Operation, Resource, ResourceGroup, StartFailurePolicy
from halo.core.outcomes import OperationResult, Outcome
from halo.core.peers.ocf import OcfCode, is_present
from halo.core.questions import candidates, departures, holds
from halo.core.spreading import moment

BAD_MONITORS_BEFORE_RESTART = 2


class GroupMachine:
    """Manages one group on one host over one connection."""

    def __init__(
        self, state: ClusterState, group: ResourceGroup, host: str, epoch: int, now: float
    ) -> None:
        self._state = state
        self._group = group
        self._host = host
        self._epoch = epoch
        self._revoked: str | None = None
        self._leaving: tuple[Left, str] | None = None
        self._needs_proof = False
        self._left = False
        self._departure_begun = False  # something was stopped for it
        self._held_back = False  # something was in flight when the last plan was made
        self._phase = moment(host, group.id)
        self.resources = {resource.id: self._adopt(resource, now) for resource in group.resources}

    def _adopt(self, resource: Resource, now: float) -> ResourceState:
        """Begin with what was just seen over this connection, else with nothing."""
        sighting = self._state.knowledge.of(resource.id, self._host)
        failed = sighting.failure
        if resource.shared:  # what another group could not start there is no failure of ours
            left_alone = self._state.memory_of(self._group).left_alone
            failed = left_alone.get(self._host, {}).get(resource.id)
        state = ResourceState(resource, due_at=now, failed=failed)
        if sighting.epoch == self._epoch and sighting.presence in (
            Presence.RUNNING,
            Presence.STOPPED,
        ):
            state.presence = sighting.presence
            state.due_at = self._first_look(resource, now)
        if resource.shared and self._departure() is None:
            self._state.needs.need(resource.id, self._host, self._group.id)
        return state

    # --- what the caller tells ---------------------------------------------------------------

    def revoke(self, why: str) -> None:
        """Begin nothing more; leave when what is in flight has ended."""
        self._revoked = self._revoked or why

    def finished(
        self, resource_id: str, operation: Operation, result: OperationResult, now: float
    ) -> list[Action]:
        """Take in the result of a :class:`Run`, and say what to do next."""
        state = self.resources[resource_id]
        state.busy = None
        state.due_at = now + self._interval_s(state.resource)
        if operation is Operation.MONITOR:
            if state.overtaken:
                state.overtaken = False
                if state.presence is Presence.UNKNOWN:
                    state.due_at = now  # the group waits for it
                return self.step(now)
            if self._is_as_before(state, result) and self._is_settled(now):
                return []
            return self._monitored(state, result) + self.step(now)
        if operation is Operation.START:
            state.due_at = self._first_look(state.resource, now)
            return self._started(state, result) + self.step(now)
        return self._stopped(state, result, now) + self.step(now)

    def _is_as_before(self, state: ResourceState, result: OperationResult) -> bool:
        """It ran and it runs: nearly every monitor."""
        return (
            state.presence is Presence.RUNNING
            and state.bad_monitors == 0
            and not state.stopped_by_script
            and _shows_present(result)
        )

    def _is_settled(self, now: float) -> bool:
        """Would a plan come to nothing? Making it for each monitor is a third of polling's cost.

        Not where the last one was made with something in flight: it may have waited for that."""
        return (
            not self._held_back
            and self._revoked is None
            and all(
                state.is_up and (state.busy is not None or state.due_at > now)
                for state in self.resources.values()
            )
        )

    def reported(self, resource_id: str, result: OperationResult, now: float) -> list[Action]:
        """Take in what a watching agent reported; no start or stop of it is under way."""
        state = self.resources[resource_id]
        if state.stopped_by_script or state.busy in (Operation.START, Operation.STOP):
            return []  # what is asked for is younger: a start, a stop, a monitor that bears it out
        if state.busy is Operation.MONITOR:
            # Of a monitor on its way nobody can tell whether it was sampled before or after. The
            # agent tells when the report does not hold any more; of the answer it does not.
            state.overtaken = True
        state.due_at = now + self._interval_s(state.resource)
        if _shows_present(result) and (state.in_doubt or state.presence is Presence.STOPPED):
            # A first report may have been sampled before the monitor that found it stopped: started
            # on the word of that, its dependents would find nothing under them.
            self._look_again(state, now)
            return self.step(now)
        return self._monitored(state, result) + self.step(now)

    def start_refused(self, resource_id: str, now: float) -> list[Action]:
        """A start was not sent: it lacks proof. Stop what runs, and have it decided afresh."""
        state = self.resources[resource_id]
        state.busy = None
        state.presence = Presence.STOPPED
        self._needs_proof = holds.hold_reason(self._state, self._group) is None
        return self.step(now)

    def start_withdrawn(self, resource_id: str, now: float) -> list[Action]:
        """A start was not sent, since the resource was just seen running: have another look."""
        state = self.resources[resource_id]
        state.busy = None
        if state.crash:  # it was counted as a restart
            del state.restarts[-1:]
            state.crashed = True
        self._look_again(state, now)
        return self.step(now)

    def interrupted(self, resource_id: str, why: str, now: float) -> list[Action]:
        """An operation got no answer because the connection ended: leave."""
        state = self.resources[resource_id]
        if state.resource.shared and state.busy is Operation.STOP:
            # The agent runs the script to its end before it begins the resource's next operation.
            self._state.needs.stop_ended(resource_id, self._host)
        state.busy = None
        state.presence = Presence.UNKNOWN
        self.revoke(why)
        return self.step(now)

    def next_due(self) -> float | None:
        """When the next monitor is due, if nothing happens before."""
        times = [
            state.due_at
            for state in self.resources.values()
            if state.busy is None
            and not self._waits_for_stop(state)
            and not self._is_watched(state)
        ]
        return None if self._left or self._revoked is not None or not times else min(times)

    @property
    def is_revoked(self) -> bool:
        """Was it told to leave?"""
        return self._revoked is not None

    @property
    def in_flight(self) -> list[str]:
        """What runs now, in words, without monitors."""
        return [
            f"{state.busy.value} of {state.resource.id} on {self._host}"
            for state in self.resources.values()
            if state.busy in (Operation.START, Operation.STOP)
        ]

    # --- results -----------------------------------------------------------------------------

    def _monitored(self, state: ResourceState, result: OperationResult) -> list[Action]:
        state.in_doubt = False
        if result.outcome is not Outcome.COMPLETED:
            # It proves nothing and a restart may hang as well: Error, and monitoring goes on.
            state.presence = Presence.ERROR
            return []
        if is_present(result.code):
            state.bad_monitors = 0
            if state.stopped_by_script:
                state.stopped_by_script = False
                return self._stop_failed(state, "stop reported success, but it still runs")
            state.presence = Presence.RUNNING
            if not state.wants_restart:  # it had not stopped, or somebody else started it
                state.crashed, state.crash = False, ""
            return []
        if result.code == OcfCode.NOT_RUNNING:
            state.bad_monitors = 0
            if state.presence in (Presence.RUNNING, Presence.ERROR):
                self._note_crash(state, "it had stopped by itself")
            state.presence = Presence.STOPPED
            state.stopped_by_script = False
            state.wants_restart = False
            return []
        state.bad_monitors += 1
        if state.presence is not Presence.RUNNING:
            state.presence = Presence.ERROR
        if state.bad_monitors < BAD_MONITORS_BEFORE_RESTART or state.failed is not None:
            return []
        if state.stopped_by_script:
            # Another stop would tell no more: without this, a broken monitor stops it for ever.
            return self._stop_failed(
                state, f"reported success, but its monitor cannot tell: {describe(result)}"
            )
        if not self._needed_by_others(state):
            state.wants_restart = True
            text = f"its monitor failed {state.bad_monitors} times in a row: {describe(result)}"
            self._note_crash(state, text)
        return []

    @staticmethod
    def _note_crash(state: ResourceState, how: str) -> None:
        if not state.crashed:
            state.crashed, state.crash = True, how

    def _started(self, state: ResourceState, result: OperationResult) -> list[Action]:
        crash, state.crash = state.crash, ""
        if result.outcome is Outcome.COMPLETED and result.code == OcfCode.SUCCESS:
            state.presence = Presence.RUNNING
            state.bad_monitors = 0
            name = state.resource.id
            text = f"{name} was started again on {self._host}: {crash}"
            return [ReportRestarted(text, name)] if crash else []
        state.presence = Presence.ERROR
        state.wants_restart = True  # what a failed start left behind has to go
        text = f"start of {state.resource.id} on {self._host}: {describe(result)}"
        if self._revoked is not None:
            return []
        actions: list[Action] = [ReportStartFailure(text, state.resource.id)]
        move = self._group.on_start_failure is StartFailurePolicy.MOVE
        if move and candidates.available(self._state, self._group, besides=self._host):
            self._leaving = (Left.START_FAILED, text)
        else:
            state.failed = text
        return actions

    def _stopped(self, state: ResourceState, result: OperationResult, now: float) -> list[Action]:
        if state.resource.shared:
            self._state.needs.stop_ended(state.resource.id, self._host)
        if result.outcome is Outcome.COMPLETED and result.code in (
            OcfCode.SUCCESS,
            OcfCode.NOT_RUNNING,
        ):
            state.presence = Presence.UNKNOWN
            state.stopped_by_script = True
            state.wants_restart = False
            state.bad_monitors = 0
            state.due_at = now
            return []
        state.presence = Presence.ERROR
        return self._stop_failed(state, describe(result))

    def _stop_failed(self, state: ResourceState, why: str) -> list[Action]:
        """The group stays here; what was stopped on the way is started again."""
        text = f"stop of {state.resource.id} on {self._host}: {why}"
        state.failed = text
        state.wants_restart = False
        state.due_at = 0.0
        if state.presence is not Presence.ERROR:
            state.presence = Presence.RUNNING
        self._leaving = None
        self._needs_proof = False
        if self._revoked is not None:
            return []
        return [Report(ErrorKind.STOP_FAILED, text, state.resource.id)]

    # --- planning ----------------------------------------------------------------------------

    def step(self, now: float) -> list[Action]:
        """What to do now. Call it after every change of the cluster's state."""
        if self._left:
            return []
        self._held_back = any(state.busy is not None for state in self.resources.values())
        if self._revoked is not None:
            return self._leave_when_idle(Left.REVOKED, self._revoked)
        # While a fence command waits for the disk its host is not ready, and may be so again.
        is_ready = self._state.hosts[self._host].ready
        if not is_ready or holds.hold_reason(self._state, self._group) is not None:
            return self._monitors_due(self.resources.values(), now)
        departure = self._departure()
        if departure is not None:
            return self._plan_stop(departure, now)
        self._departure_begun = False
        return self._plan_run(now)

    @property
    def is_departing(self) -> bool:
        """Is the group to stop here, by what its cluster's state says?"""
        return self._departure_reason() is not None

    def _departure_reason(self) -> str | None:
        begun = self._departure_begun
        return departures.departure_reason(self._state, self._group, self._host, begun=begun)

    def _departure(self) -> tuple[Left, str] | None:
        """Why the group has to stop here, if it has to."""
        why = self._departure_reason()
        if why is not None:
            return Left.STOPPED, why
        if self._leaving is None and self._needs_proof:
            return Left.NO_PROOF, "its start needs proof that it is stopped elsewhere"
        return self._leaving

    def _leave_when_idle(self, why: Left, detail: str) -> list[Action]:
        if any(state.busy is not None for state in self.resources.values()):
            return []
        self._left = True
        return [Leave(why, detail)]

    def _plan_run(self, now: float) -> list[Action]:
        if self._nothing_is_to_be_mended():
            return self._monitors_due(self.resources.values(), now) or self._rest(now)
        actions: list[Action] = []
        doomed: set[str] = set()  # some parent is gone, or has to go first
        self._doubt_what_was_seen_running(now)
        for state in self.resources.values():
            self._register_need(state)
            parents = [self.resources[p.id] for p in self._group.parents_of(state.resource)]
            if any(p.resource.id in doomed or self._is_gone(p) for p in parents):
                doomed.add(state.resource.id)
            if state.busy is None:
                ready = all(parent.is_up for parent in parents)
                actions += self._tend(state, ready, state.resource.id in doomed, now)
        return actions or self._rest(now)

    def _nothing_is_to_be_mended(self) -> bool:
        """Does everything run, and nothing concern another group? Then a plan has only monitors."""
        return all(
            state.is_up and not state.stopped_by_script and not state.resource.shared
            for state in self.resources.values()
        )

    def _doubt_what_was_seen_running(self, now: float) -> None:
        """Look again at what another look, or a report, found running after ours found it stopped.

        Until then it is neither started nor are its dependents stopped."""
        seen_running = self._state.knowledge.is_seen_running
        for state in self.resources.values():
            if (
                state.busy in (None, Operation.MONITOR)
                and state.presence is Presence.STOPPED
                and seen_running(state.resource, self._host, self._epoch)
            ):
                self._look_again(state, now)

    @staticmethod
    def _look_again(state: ResourceState, now: float) -> None:
        state.presence, state.due_at, state.in_doubt = Presence.UNKNOWN, now, True

    def _register_need(self, state: ResourceState) -> None:
        if state.resource.shared:
            state.released = False
            self._state.needs.need(state.resource.id, self._host, self._group.id)

    @staticmethod
    def _is_gone(parent: ResourceState) -> bool:
        """Do this parent's dependents have to stop, so that it can start again?"""
        return parent.failed is None and (
            parent.wants_restart
            or parent.stopped_by_script
            or parent.busy is Operation.STOP
            or parent.presence is Presence.STOPPED
        )

    def _tend(
        self, state: ResourceState, parents_up: bool, doomed: bool, now: float
    ) -> list[Action]:
        """One idle resource of a group that is to run here."""
        if self._waits_for_stop(state):
            state.presence, state.due_at = Presence.UNKNOWN, now
            return []
        dependents_down = all(
            self._is_out_of_the_way(self.resources[d.id])
            for d in self._group.dependents_of(state.resource)
        )
        present = state.presence in (Presence.RUNNING, Presence.ERROR)
        has_to_stop = state.wants_restart or (doomed and present and state.failed is None)
        if has_to_stop and dependents_down and not self._needed_by_others(state):
            return self._stop_to_restart(state)
        startable = state.presence is Presence.STOPPED and state.failed is None and not doomed
        if startable and parents_up and dependents_down:
            return self._start(state, now)
        return self._monitors_due([state], now)

    def _waits_for_stop(self, state: ResourceState) -> bool:
        """Is another group's stop of this shared resource under way? Its end is told by a poke."""
        return (
            state.resource.shared
            and state.busy is None
            and self._state.needs.is_stopping(state.resource.id, self._host)
        )

    def _is_out_of_the_way(self, state: ResourceState) -> bool:
        """May a parent be stopped or started? What another group holds up does not stand in it."""
        return state.is_down or (state.busy is None and self._needed_by_others(state))

    def _stop_to_restart(self, state: ResourceState) -> list[Action]:
        """Stop a resource that will be started again; other groups' starts of it wait."""
        if state.resource.shared:
            self._state.needs.release(state.resource.id, self._host, self._group.id)
        return [self._run(state, Operation.STOP)]

    def _start(self, state: ResourceState, now: float) -> list[Action]:
        """Start a stopped resource, unless it was restarted too often by now."""
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

    def _rest(self, now: float) -> list[Action]:
        """Nothing is to be done now."""
        target = self._state.memory_of(self._group).move_target
        if target == self._host and all(
            s.presence is Presence.RUNNING for s in self.resources.values()
        ):
            return [ReportMoved()]
        return self._leave_if_nothing_started()

    def _leave_if_nothing_started(self) -> list[Action]:
        """A failed start that left nothing running: the desk may find a better place one day."""
        states = self.resources.values()
        exclusive = [s for s in states if not s.resource.shared]
        root = self.resources[self._group.root]
        if root.failed is None or any(s.busy is not None for s in states):
            return []
        if self._state.memory_of(self._group).error_kind is not None:
            return []
        if all(s.presence is Presence.STOPPED for s in exclusive):
            return self._leave_when_idle(Left.START_FAILED, root.failed)
        return []

    def _plan_stop(self, departure: tuple[Left, str], now: float) -> list[Action]:
        actions: list[Action] = []
        for state in reversed(self.resources.values()):
            if state.busy is not None:
                continue
            dependents_down = all(
                self.resources[d.id].is_down for d in self._group.dependents_of(state.resource)
            )
            if state.failed is not None or state.is_down or not dependents_down:
                actions += self._monitors_due([state], now)
            elif state.resource.shared and not self._release(state):
                state.released = True
            else:
                self._departure_begun = True
                actions.append(self._run(state, Operation.STOP))
        if actions:
            return actions
        if all(
            state.presence is Presence.STOPPED or state.released
            for state in self.resources.values()
        ):
            return self._leave_when_idle(*departure)
        return []

    def _release(self, state: ResourceState) -> bool:
        """Let go of a shared resource; True when it has to be stopped now."""
        last = self._state.needs.release(state.resource.id, self._host, self._group.id)
        if last and self._needed_by_others(state):
            self._state.needs.stop_ended(state.resource.id, self._host)
            return False
        return last

    def _needed_by_others(self, state: ResourceState) -> bool:
        """Does another group need this shared resource here, registered or seen running?

        What is seen counts for groups alone that nobody acts on here. One that is acted on has
        registered, or let go: of two that stop side by side, the last would else leave it running
        for the sake of the first, whose root is still being stopped."""
        if not state.resource.shared:
            return False
        needed = self._state.needs.needed_by(state.resource.id, self._host)
        if needed - {self._group.id}:
            return True
        return any(
            group.id != self._group.id
            and state.resource.id in group.by_id
            and self._state.knowledge.presence(group, self._host) is Presence.RUNNING
            and not self._is_acted_on_here(group)
            for group in self._state.groups_of(self._host)
        )

    def _is_acted_on_here(self, group: ResourceGroup) -> bool:
        managed_here = self._state.groups[group.id].managed_on == self._host
        return managed_here and holds.hold_reason(self._state, group) is None

    def _monitors_due(self, states: Iterable[ResourceState], now: float) -> list[Action]:
        return [
            self._run(state, Operation.MONITOR)
            for state in states
            if state.busy is None and state.due_at <= now and not self._is_watched(state)
        ]

    def _is_watched(self, state: ResourceState) -> bool:
        """Does the agent look at it by itself, so that there is nothing to ask?"""
        return (
            self._state.hosts[self._host].watched
            and state.presence in (Presence.RUNNING, Presence.STOPPED)
            and not state.stopped_by_script
            and state.bad_monitors == 0
            and not self._is_root_in_doubt(state)
        )

    def _is_root_in_doubt(self, state: ResourceState) -> bool:
        """Does the root run without the right to complete the group in place? Once a second copy
        is gone, another look gives it back; the agent tells of no change."""
        return (
            state.resource.id == self._group.root
            and state.presence is Presence.RUNNING
            and not self._state.knowledge.root_seen(self._group, self._host, self._epoch)
        )

    def _run(self, state: ResourceState, operation: Operation) -> Run:
        state.busy = operation
        if operation is Operation.START:
            state.presence = Presence.UNKNOWN
        return Run(state.resource, operation)

    def _first_look(self, resource: Resource, now: float) -> float:
        """Ten thousand groups that were adopted or started together are not looked at together:
        the first look comes at one of a few moments of their host."""
        interval_s = self._interval_s(resource)
        since = (now - self._phase * interval_s) % interval_s
        return now - since + interval_s

    def _interval_s(self, resource: Resource) -> float:
        return resource.monitor_interval_s or self._state.settings.monitor_interval_s


def _shows_present(result: OperationResult) -> bool:
    return result.outcome is Outcome.COMPLETED and is_present(result.code)
