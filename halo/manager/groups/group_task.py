"""The shell around a :class:`GroupMachine`: it runs operations, and sleeps until something is due.

It holds its group's token from start to end, and gives it back on every path. A message tells it to
leave. It is cancelled only at shutdown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from halo.core.cluster.knowledge import Presence
from halo.core.errors import LinkError
from halo.core.groups.actions import (
    Action,
    Leave,
    Left,
    Report,
    ReportMoved,
    ReportRestarted,
    ReportStartFailure,
    Run,
)
from halo.core.groups.machine import GroupMachine
from halo.core.hosts.machine import ManageOrder
from halo.core.journal.records import Event
from halo.core.model import HostId, Operation, Resource, ResourceGroup
from halo.core.outcomes import OperationResult
from halo.manager.common.context import Context
from halo.manager.groups.agenda import Agenda
from halo.manager.groups.operations import SeenRunning, StartRefused, monitor, operate
from halo.ports import AgentConnection

log = structlog.get_logger("halo.group")


class GroupTask:
    """Manages one group on one host until it is revoked or has to leave."""

    def __init__(
        self,
        context: Context,
        group: ResourceGroup,
        host: HostId,
        connection: AgentConnection,
        order: ManageOrder,
        agenda: Agenda,
        poke_siblings: Callable[[], None],
        operation_ended: Callable[[str], None],
    ) -> None:
        self._context = context
        self._state = context.state
        self._group = group
        self._host = host
        self._connection = connection
        self._order = order
        self._agenda = agenda
        self._poke_siblings = poke_siblings
        self._operation_ended = operation_ended
        self._loop = asyncio.get_running_loop()
        self._machine = GroupMachine(context.state, group, host, order.epoch, self._loop.time())
        self._running: set[asyncio.Task[None]] = set()  # starts and stops
        self._turn_is_near = False
        self._due_at: float | None = None  # on the agenda
        self._leaving: asyncio.Future[Leave] = self._loop.create_future()
        self._departing_since: float | None = None

    @property
    def in_flight(self) -> list[str]:
        """Starts and stops that run now, in words."""
        return self._machine.in_flight

    def poke(self) -> None:
        """The cluster's state changed: look at it again."""
        if not self._turn_is_near:
            self._turn_is_near = True
            self._loop.call_soon(self._turn)

    def reported(self, resource: str, result: OperationResult) -> None:
        """A watching agent reported a result of one of the group's resources."""
        if not self._leaving.done():
            self._carry_out(self._machine.reported(resource, result, self._loop.time()))
            self.poke()

    def revoke(self, why: str) -> None:
        """Begin nothing more, and leave when the operations in flight have ended."""
        self._machine.revoke(why)
        self.poke()

    async def run(self) -> tuple[Left, str, float]:
        """Manage the group. On return the token goes home. Returns why, in words, and the time
        after which samples over this connection may serve as proof for a start elsewhere."""
        try:
            self._turn()
            leave = await self._leaving
            self._before_leaving(leave)
            since = self._loop.time()
            if leave.why in (Left.STOPPED, Left.MOVING) and self._departing_since is not None:
                since = self._departing_since
            return leave.why, leave.detail, since
        finally:
            self._leaving.cancel()
            for task in self._running:
                task.cancel()

    def due(self, when: float) -> None:
        """The moment on the agenda has come. Ignore it if there is another moment now."""
        if when == self._due_at:
            self._due_at = None
            self._turn()

    def _turn(self) -> None:
        """Check everything, do what has to be done, and be called again when a monitor is due.

        The event loop calls this, and nobody else would notice a defect here."""
        self._turn_is_near = False
        if self._leaving.done():
            return
        try:
            self._carry_out(self._machine.step(self._loop.time()))
            self._show_failures()
            self._note_due()
        except Exception as error:
            self._context.fatal(error)

    def _note_due(self) -> None:
        due = self._machine.next_due()
        if due is None:
            self._due_at = None
            return
        moment = self._agenda.moment(due)
        if moment != self._due_at:
            self._due_at = moment
            self._agenda.at(moment, self)

    def _carry_out(self, actions: list[Action]) -> None:
        self._note_departure()
        for action in actions:
            match action:
                case Run():
                    self._launch(action.resource, action.operation)
                case Leave():
                    if not self._leaving.done():  # else the manager ends
                        self._leaving.set_result(action)
                case Report():
                    self._report(action)
                case ReportStartFailure():
                    self._report_start_failure(action)
                case ReportMoved():
                    self._report_moved()
                case ReportRestarted():
                    self._report_restarted(action)
        self._note_start()

    def _note_start(self) -> None:
        """If the group's start is over, it is the turn of others."""
        at = self._state.groups[self._group.id]
        if at.starting and not self._machine.is_starting:
            at.starting = False
            self._context.placer.followed(self._group.id)
            self._context.placer.room_changed(self._group.id)

    def _note_departure(self) -> None:
        if not self._machine.is_departing:
            self._departing_since = None  # called off: samples since then prove nothing
        elif self._departing_since is None:
            self._departing_since = self._loop.time()

    def _launch(self, resource: Resource, operation: Operation) -> None:
        if operation is Operation.MONITOR:
            monitor(
                self._context,
                self._connection,
                self._group,
                resource,
                self._host,
                epoch=self._order.epoch,
                taker=self._monitored,
            )
            return
        task = self._context.spawn(self._operate(resource, operation))
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self.poke()

    def _monitored(self, resource: Resource, answer: OperationResult | LinkError) -> None:
        """A monitor was answered. In a quiet cluster, this happens thousands of times a second."""
        if self._leaving.done():
            return
        if isinstance(answer, LinkError):
            self._interrupted(resource.id, answer)
            return
        actions = self._machine.finished(resource.id, Operation.MONITOR, answer, self._loop.time())
        is_starting = self._state.groups[self._group.id].starting
        if actions or is_starting or self._departing_since is not None:
            self._carry_out(actions)
        self._note_due()

    def _interrupted(self, resource: str, error: LinkError) -> None:
        self._operation_ended(resource)  # without an answer, its end cannot be counted
        self._carry_out(self._machine.interrupted(resource, str(error), self._loop.time()))

    async def _operate(self, resource: Resource, operation: Operation) -> None:
        name = resource.id
        log.info(operation.value, group=self._group.id, resource=name, host=self._host)
        copies_before = len(self._state.knowledge.running_on(self._group))
        try:
            result = await operate(
                self._state,
                self._connection,
                self._group,
                resource,
                self._host,
                operation,
                epoch=self._order.epoch,
                since=self._order.since,
            )
        except StartRefused as refusal:
            log.warning("start refused", group=self._group.id, resource=name, reason=str(refusal))
            self._carry_out(self._machine.start_refused(name, self._loop.time()))
            return
        except SeenRunning:
            self._carry_out(self._machine.start_withdrawn(name, self._loop.time()))
            return
        except LinkError as error:
            self._interrupted(name, error)
            return
        self._log_result(resource, operation, result)
        actions = self._machine.finished(name, operation, result, self._loop.time())
        self._show_failures()
        self._carry_out(actions)
        self._operation_ended(name)
        if operation is Operation.STOP and resource.shared:
            self._poke_siblings()
        if copies_before < 2 and len(self._state.knowledge.running_on(self._group)) > 1:
            self._context.placer.second_copy(self._group.id)

    def _log_result(
        self, resource: Resource, operation: Operation, result: OperationResult
    ) -> None:
        log.info(
            f"{operation.value} ended",
            group=self._group.id,
            resource=resource.id,
            host=self._host,
            outcome=result.outcome.value,
            code=result.code,
            message=result.message,
        )

    def _show_failures(self) -> None:
        """Let the status show what the machine has given up, until a cleanup."""
        if self._machine.is_revoked:
            return
        for name, state in self._machine.resources.items():
            if self._state.knowledge.of(name, self._host).failure != state.failed:
                self._state.knowledge.mark_failure(name, self._host, state.failed)

    def _report(self, action: Report) -> None:
        log.error("error", group=self._group.id, host=self._host, reason=action.text)
        records = [
            self._context.journal.make(
                Event.ERROR,
                self._group.id,
                action.text,
                kind=action.kind.value,
                host=self._host,
                resource=action.resource,
            )
        ]
        if self._state.memory_of(self._group).move_target is not None:
            records.append(
                self._context.journal.make(Event.MOVE_FAILED, self._group.id, action.text)
            )
        self._context.journal.note(*records)
        self._context.placer.followed(self._group.id)
        self._show_failures()

    def _report_start_failure(self, action: ReportStartFailure) -> None:
        text = action.text
        log.error("start failed", group=self._group.id, host=self._host, reason=text)
        make = self._context.journal.make
        about = {"host": self._host, "resource": action.resource}
        records = [make(Event.START_FAILED, self._group.id, text, **about)]
        if self._state.memory_of(self._group).move_target == self._host:
            records.append(make(Event.MOVE_FAILED, self._group.id, text, host=self._host))
        self._context.journal.note(*records)
        self._context.placer.followed(self._group.id)
        self._show_failures()

    def _report_moved(self) -> None:
        record = self._context.journal.make(
            Event.MOVED, self._group.id, f"runs on {self._host}", host=self._host
        )
        self._context.journal.note(record)  # folded at once, so that it is not reported again

    def _report_restarted(self, action: ReportRestarted) -> None:
        log.warning("restarted", group=self._group.id, host=self._host, reason=action.text)
        self._context.journal.note(
            self._context.journal.make(
                Event.RESTARTED,
                self._group.id,
                action.text,
                host=self._host,
                resource=action.resource,
            )
        )

    def _before_leaving(self, leave: Leave) -> None:
        if leave.why is not Left.REVOKED:
            self._state.knowledge.forget_root(self._group, self._host)
            for resource in self._group.resources:
                if resource.shared:
                    self._state.needs.drop_group(self._group.id, self._host)

    def presence(self, resource: str) -> Presence:
        """What the machine knows of one resource, for tests and the status."""
        return self._machine.resources[resource].presence
