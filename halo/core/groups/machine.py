"""Managing one group on one host: results of operations in, operations to run out.

The machine is a reconciler. After every event it compares what each resource is with what the group
should be (running, stopped, or left alone), and names the operations that lead there. Parents start
first, siblings side by side. Leaves stop first. A monitor runs when it is due. Between steps, only
the resources' own state is remembered. So the machine works for every order of events.

A resource has one of these states; the words are those of :class:`ResourceState`:

================  =====================================================================
unknown           it was not probed over this connection: a monitor comes first
stopped           a monitor said so: it starts when its parents are up
starting          busy with START; then it runs, or it is in error
running           monitored; if it is found stopped, it has crashed, and is started again
wants restart     two bad monitors, or a failed start: it stops when its dependents are down
stopping          busy with STOP; after a success it is unknown, and stopped by script
stopped by script it counts as stopped when a monitor confirms that
in error          a monitor, a start or a stop failed: monitoring continues
failed            not touched until `halo cleanup`: monitored, but not started again
released          shared, and needed by another group: it runs on, and this group ignores it
================  =====================================================================

A step takes the first line that is true for the group:

================  =====================================================================
left              nothing more: the token is on its way home
revoked           nothing new begins; the group leaves when nothing is in flight
held              unmanaged, frozen, two copies, or its host is not ready: only monitors
departing         it has to stop here: leaves stop first; when all are stopped, it leaves
to run            starts, restarts and monitors; when all runs, a planned move is finished
================  =====================================================================

Beside this module: `results` (what a result means for its resource), `planner` (what to do next
with the resources), `looks` (when to look at them), `sharing` (what other groups need of them).

The machine knows no clock, socket or task. The caller runs every :class:`Run` that it gets, and
gives the result to :meth:`GroupMachine.finished`. It calls :meth:`GroupMachine.step` at
:meth:`next_due` and whenever the cluster's state changes. :class:`Leave` means: send the token
home.
"""

from __future__ import annotations

from halo.core.cluster.knowledge import Presence
from halo.core.cluster.state import ClusterState
from halo.core.groups import results
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
)
from halo.core.groups.looks import Looks, look_again
from halo.core.groups.planner import Planner
from halo.core.groups.sharing import Sharing
from halo.core.journal.remembered import ErrorKind
from halo.core.model import Operation, Resource, ResourceGroup, StartFailurePolicy
from halo.core.outcomes import OperationResult
from halo.core.questions import candidates, departures, holds
from halo.core.questions.preempting import giving_way


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
        self._held_back = False  # an operation was in flight when the last plan was made
        self._sharing = Sharing(state, group, host)
        self._looks = Looks(state, group, host, epoch)
        self.resources = {resource.id: self._adopt(resource, now) for resource in group.resources}
        self._planner = Planner(
            state, group, host, epoch, self.resources, self._sharing, self._looks
        )

    def _adopt(self, resource: Resource, now: float) -> ResourceState:
        """Begin with what was just seen over this connection, or else with nothing."""
        sighting = self._state.knowledge.of(resource.id, self._host)
        failed = sighting.failure
        if resource.shared:  # another group's failed start is not a failure of this group
            left_alone = self._state.memory_of(self._group).left_alone
            failed = left_alone.get(self._host, {}).get(resource.id)
        state = ResourceState(resource, due_at=now, failed=failed)
        if sighting.epoch == self._epoch and sighting.presence in (
            Presence.RUNNING,
            Presence.STOPPED,
        ):
            state.presence = sighting.presence
            state.due_at = self._looks.first(resource, now)
        self._sharing.need(state)  # also if it is to stop here: the departure may be called off
        return state

    # --- what the caller tells ---------------------------------------------------------------

    def revoke(self, why: str) -> None:
        """Begin nothing more, and leave when the operations in flight have ended."""
        self._revoked = self._revoked or why

    def finished(
        self, resource_id: str, operation: Operation, result: OperationResult, now: float
    ) -> list[Action]:
        """Take in the result of a :class:`Run`, and say what to do next."""
        state = self.resources[resource_id]
        state.busy = None
        state.due_at = now + self._looks.interval_s(state.resource)
        if operation is Operation.MONITOR:
            if state.overtaken:
                state.overtaken = False
                if state.presence is Presence.UNKNOWN:
                    state.due_at = now  # the group waits for this monitor
                return self.step(now)
            if results.is_as_before(state, result) and self._is_settled(now):
                return []
            return self._monitored(state, result) + self.step(now)
        if operation is Operation.START:
            state.due_at = self._looks.first(state.resource, now)
            return self._started(state, result) + self.step(now)
        return self._stopped(state, result, now) + self.step(now)

    def _is_settled(self, now: float) -> bool:
        """Is a new plan needless? Making one after each monitor would be a third of polling's cost.

        False if an operation was in flight at the last plan: the plan may have waited for it."""
        return (
            not self._held_back
            and self._revoked is None
            and all(
                state.is_up and (state.busy is not None or state.due_at > now)
                for state in self.resources.values()
            )
        )

    def reported(self, resource_id: str, result: OperationResult, now: float) -> list[Action]:
        """Take in what a watching agent reported. No start or stop of the resource is under way."""
        state = self.resources[resource_id]
        if state.stopped_by_script or state.busy in (Operation.START, Operation.STOP):
            return []  # a start, a stop, or the monitor that confirms a stop gives a newer result
        if state.busy is Operation.MONITOR:
            # Nobody can tell whether the monitor that is under way was sampled before the report or
            # after it. The agent tells when its report becomes wrong, but not when the answer does.
            state.overtaken = True
        state.due_at = now + self._looks.interval_s(state.resource)
        if results.shows_present(result) and (state.in_doubt or state.presence is Presence.STOPPED):
            # A first report may have been sampled before the monitor that found it stopped: started
            # on the word of that, its dependents would find nothing under them.
            look_again(state, now)
            return self.step(now)
        return self._monitored(state, result) + self.step(now)

    def start_refused(self, resource_id: str, now: float) -> list[Action]:
        """A start was not sent, because proof is missing. Stop what runs, and decide again."""
        state = self.resources[resource_id]
        state.busy = None
        state.presence = Presence.STOPPED
        self._needs_proof = holds.hold_reason(self._state, self._group) is None
        return self.step(now)

    def start_withdrawn(self, resource_id: str, now: float) -> list[Action]:
        """A start was not sent, because the resource was just seen running: monitor it again."""
        state = self.resources[resource_id]
        state.busy = None
        if state.crash:  # the start was counted as a restart
            del state.restarts[-1:]
            state.crashed = True
        look_again(state, now)
        return self.step(now)

    def interrupted(self, resource_id: str, why: str, now: float) -> list[Action]:
        """An operation got no answer because the connection ended: leave."""
        state = self.resources[resource_id]
        if state.busy is Operation.STOP:
            # The agent runs the script to its end before it begins the resource's next operation.
            self._sharing.stop_ended(state)
        state.busy = None
        state.presence = Presence.UNKNOWN
        self.revoke(why)
        return self.step(now)

    def next_due(self) -> float | None:
        """When the next monitor is due, if nothing happens before that."""
        times = [
            state.due_at
            for state in self.resources.values()
            if state.busy is None
            and not self._sharing.is_stopped_by_another(state)
            and not self._looks.is_watched(state)
        ]
        if self._left or self._revoked is not None:
            return None
        due = min([self._sharing.look_again_at, *times])
        return None if due == float("inf") else due

    @property
    def is_revoked(self) -> bool:
        """Was the group told to leave?"""
        return self._revoked is not None

    @property
    def is_starting(self) -> bool:
        """Is an operation in flight that its start, or the look before it, consists of?

        A resource in error is monitored for ever. That is no part of a start: other groups wait for
        their turn until this ends."""
        return any(
            state.busy in (Operation.START, Operation.STOP)
            or (
                state.busy is Operation.MONITOR
                and state.presence is Presence.UNKNOWN
                and state.failed is None
            )
            for state in self.resources.values()
        )

    @property
    def in_flight(self) -> list[str]:
        """The starts and stops that run now, in words."""
        return [
            f"{state.busy.value} of {state.resource.id} on {self._host}"
            for state in self.resources.values()
            if state.busy in (Operation.START, Operation.STOP)
        ]

    # --- what a result means for the group ----------------------------------------------------

    def _monitored(self, state: ResourceState, result: OperationResult) -> list[Action]:
        failure = results.monitored(state, result, self._sharing.is_needed_by_others)
        return [] if failure is None else self._stop_failed(state, failure)

    def _started(self, state: ResourceState, result: OperationResult) -> list[Action]:
        crash, state.crash = state.crash, ""
        failure = results.started(state, result)
        if failure is not None:
            return self._start_failed(state, failure)
        name = state.resource.id
        text = f"{name} was started again on {self._host}: {crash}"
        return [ReportRestarted(text, name)] if crash else []

    def _start_failed(self, state: ResourceState, why: str) -> list[Action]:
        """The group tries another host, or does not touch the resource here any more."""
        if self._revoked is not None:
            return []
        text = f"start of {state.resource.id} on {self._host}: {why}"
        move = self._group.on_start_failure is StartFailurePolicy.MOVE
        if move and candidates.available(self._state, self._group, besides=self._host):
            self._leaving = (Left.START_FAILED, text)
        else:
            state.failed = text
        return [ReportStartFailure(text, state.resource.id)]

    def _stopped(self, state: ResourceState, result: OperationResult, now: float) -> list[Action]:
        self._sharing.stop_ended(state)
        failure = results.stopped(state, result, now)
        return [] if failure is None else self._stop_failed(state, failure)

    def _stop_failed(self, state: ResourceState, why: str) -> list[Action]:
        """The group stays here. The resources that were stopped already are started again."""
        text = f"stop of {state.resource.id} on {self._host}: {why}"
        results.left_alone(state, text)
        self._leaving = None
        self._needs_proof = False
        if self._revoked is not None:
            return []
        return [Report(ErrorKind.STOP_FAILED, text, state.resource.id)]

    # --- what to do with the group --------------------------------------------------------------

    def step(self, now: float) -> list[Action]:
        """What to do now. Call it after every change of the cluster's state."""
        if self._left:
            return []
        self._sharing.look_again_at = float("inf")
        self._held_back = any(state.busy is not None for state in self.resources.values())
        if self._revoked is not None:
            return self._leave_when_idle(Left.REVOKED, self._revoked)
        # While a fence command waits for the disk, its host is not ready, but may be ready later.
        is_ready = self._state.hosts[self._host].ready
        at = self._state.groups[self._group.id]
        if not is_ready or holds.hold_reason(self._state, self._group) is not None:
            at.departing = False
            return self._planner.monitors_due(now)
        departure = self._departure()
        at.departing = departure is not None and departure[0] is Left.MOVING
        if departure is not None:
            return self._plan_stop(departure, now)
        at.stop_begun = False
        return self._planner.to_run(now) or self._rest()

    @property
    def is_departing(self) -> bool:
        """Does the cluster's state say that the group has to stop here?"""
        return self._departure_reason() is not None

    def _departure_reason(self) -> str | None:
        begun = self._state.groups[self._group.id].stop_begun
        return departures.departure_reason(self._state, self._group, self._host, begun=begun)

    def _departure(self) -> tuple[Left, str] | None:
        """Why the group has to stop here; None if it may stay."""
        why = self._departure_reason()
        if why is not None:
            return (Left.MOVING if self._is_moving() else Left.STOPPED), why
        if self._leaving is None and self._needs_proof:
            return Left.NO_PROOF, "its start needs proof that it is stopped elsewhere"
        return self._leaving

    def _is_moving(self) -> bool:
        """Is this a group that ran here, and is to run elsewhere? One that gives way to another may
        have to wait, and no room is kept for it."""
        ran_here = self._state.knowledge.root_seen(self._group, self._host, self._epoch)
        gives_way = giving_way.gives_way_to(self._state, self._group, self._host) is not None
        return ran_here and self._state.memory_of(self._group).wanted and not gives_way

    def _plan_stop(self, departure: tuple[Left, str], now: float) -> list[Action]:
        actions = self._planner.to_stop(now)
        if any(isinstance(a, Run) and a.operation is Operation.STOP for a in actions):
            self._state.groups[self._group.id].stop_begun = True
        if actions:
            return actions
        if all(
            state.presence is Presence.STOPPED or state.released
            for state in self.resources.values()
        ):
            return self._leave_when_idle(*departure)
        return []

    def _rest(self) -> list[Action]:
        """Nothing is to be done now."""
        target = self._state.memory_of(self._group).move_target
        if target == self._host and all(
            s.presence is Presence.RUNNING for s in self.resources.values()
        ):
            return [ReportMoved()]
        return self._leave_if_nothing_started()

    def _leave_if_nothing_started(self) -> list[Action]:
        """Leave after a failed start if nothing runs here. The placer may find another host."""
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

    def _leave_when_idle(self, why: Left, detail: str) -> list[Action]:
        if any(state.busy is not None for state in self.resources.values()):
            return []
        self._left = True
        return [Leave(why, detail)]
