"""One task for each host: a link to its agent, an inbox, and a child for every group managed there.

The inbox never blocks its sender, and the tokens limit its length. A message revokes a child, and
the child gives its token back on every path. The link connects again only when all tokens are home.
"""

from __future__ import annotations

import asyncio
from collections import deque

import structlog

from halo.core.cluster.host_state import FencePhase
from halo.core.cluster.knowledge import Presence
from halo.core.errors import Loss
from halo.core.groups.actions import Left
from halo.core.hosts.machine import (
    Action,
    ChildLeft,
    Event,
    HostMachine,
    LinkDown,
    LinkUp,
    ManageOrder,
    Recall,
    Released,
    RevokeChild,
    SendHome,
    StartChild,
    TokenArrived,
)
from halo.core.journal.records import Event as Journaled
from halo.core.model import GroupId, HostId, ResourceGroup
from halo.core.outcomes import OperationResult
from halo.core.tokens import ResourceToken
from halo.manager.common.context import Context
from halo.manager.groups.agenda import Agenda
from halo.manager.groups.group_task import GroupTask
from halo.manager.hosts.link import HostLink
from halo.manager.hosts.surveyor import Surveyor
from halo.ports import AgentConnection
from halo.telling import PeerLog

log = structlog.get_logger("halo.host")
peer_log = PeerLog("halo.host")
"""The log for events that an agent can cause as often as it likes."""


class HostTask:
    """Everything the manager does about one host."""

    def __init__(self, context: Context, host: HostId, grace_s: float) -> None:
        self._context = context
        self._state = context.state
        self.host = host
        self._loop = asyncio.get_running_loop()
        self._machine = HostMachine(host)
        self._inbox: deque[Event] = deque()
        self._wake = asyncio.Event()
        self._agenda = Agenda()
        self._children: dict[GroupId, GroupTask] = {}
        self._tokens: dict[GroupId, ResourceToken] = {}
        self._child_tasks: set[asyncio.Task[None]] = set()
        self._surveyor: Surveyor | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self.link = HostLink(
            context.state.host_config(host),
            context.connector,
            context.state.settings,
            self,
            context.greetings,
            grace_s,
        )

    # --- messages ----------------------------------------------------------------------------

    def manage(self, token: ResourceToken, order: ManageOrder) -> None:
        """Manage a group. From now on, this host holds the token."""
        self._post(TokenArrived(token.hand_to(f"host {self.host}, inbox"), order))

    def recall(self, group: GroupId, why: str) -> None:
        """Have a group's token sent home for a new decision. Nothing more begins here."""
        for action in self._machine.handle(Recall(group, why)):
            self._carry_out(action)

    def probe(self, group: GroupId) -> None:
        """Probe a group here now."""
        if self._surveyor is not None:
            self._surveyor.probe(group)

    def poke(self, group: GroupId | None = None) -> None:
        """The state changed: the group's task (or every task) has to look at it."""
        for name, child in self._children.items():
            if group is None or name == group:
                child.poke()

    def in_flight(self, group: GroupId | None = None) -> list[str]:
        """Starts and stops that run here now, in words."""
        return [
            text
            for name, child in self._children.items()
            if group is None or name == group
            for text in child.in_flight
        ]

    def tokens_held(self) -> list[ResourceToken]:
        """Every token this host holds, for the audit."""
        waiting = [e.token for e in self._inbox if isinstance(e, TokenArrived | ChildLeft)]
        return waiting + list(self._tokens.values())

    async def wait_idle(self) -> None:
        """Return when no child is left. The caller sets the deadline."""
        await self._idle.wait()

    def _post(self, event: Event) -> None:
        self._inbox.append(event)
        self._wake.set()

    # --- the loop ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Handle messages until cancelled."""
        link = self._context.spawn(self.link.run())
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._inbox:
                    for action in self._machine.handle(self._inbox.popleft()):
                        self._carry_out(action)
        finally:
            link.cancel()
            if self._surveyor is not None:
                self._surveyor.stop()
            for task in self._child_tasks:
                task.cancel()

    def _carry_out(self, action: Action) -> None:
        match action:
            case StartChild():
                self._start_child(action)
            case RevokeChild():
                child = self._children.get(action.group)
                if child is not None:  # else it ended by itself, and ChildLeft is in the inbox
                    child.revoke(action.why)
            case SendHome():
                if action.why is not Left.REVOKED:
                    log.info("left", host=self.host, group=action.token.group, why=action.detail)
                self._state.groups[action.token.group].managed_on = None
                self._context.placer.accept(action.token, action.detail, action.since, action.why)
            case Released():
                self.link.release()

    def _start_child(self, action: StartChild) -> None:
        group = self._state.cluster.groups[action.token.group]
        connection = self.link.connection
        if connection is None:  # it closed, and the message about that comes after this one
            self._machine.children.discard(group.id)
            detail = f"{self.host} is not connected any more"
            self._context.placer.accept(action.token, detail, action.order.since)
            return
        self._tokens[group.id] = action.token.hand_to(f"host {self.host}, task {group.id}")
        child = GroupTask(
            self._context,
            group,
            self.host,
            connection,
            action.order,
            self._agenda,
            poke_siblings=self.poke,
            operation_ended=self._operation_ended,
        )
        self._children[group.id] = child
        at = self._state.groups[group.id]
        at.managed_on, at.managed_since = self.host, self._loop.time()
        self._idle.clear()
        task = self._context.spawn(self._run_child(group.id, child))
        self._child_tasks.add(task)
        task.add_done_callback(self._child_tasks.discard)
        log.info("managing", host=self.host, group=group.id)

    def _operation_ended(self, resource: str) -> None:
        if self._surveyor is not None:
            self._surveyor.operation_ended(resource)

    async def _run_child(self, group: GroupId, child: GroupTask) -> None:
        """Run a child. However it ends, its token comes back as a message."""
        why, detail, since = await child.run()
        del self._children[group]
        token = self._tokens.pop(group).hand_to(f"host {self.host}, inbox")
        if not self._children:
            self._idle.set()
        self._post(ChildLeft(token, why, detail, since))

    # --- what the link tells (LinkOwner) -----------------------------------------------------

    def link_up(self, connection: AgentConnection) -> None:
        """A connection stands. The host is ready when it has answered a heartbeat over it."""
        epoch = self._state.host_connected(self.host, connection.identity, self._loop.time())
        self._post(LinkUp(epoch))
        self._note(Journaled.RECONNECT)
        if self._state.hosts[self.host].accepted:
            self._begin_to_look(connection)

    def _begin_to_look(self, connection: AgentConnection) -> None:
        """The host is ready. Nothing is known over this connection yet, so probe everything."""
        identity, at = connection.identity, self._state.hosts[self.host]
        if at.fence_phase is FencePhase.RUNNING:
            return  # what it says is ignored; it is greeted again after the fence's outcome (S3)
        memory, make = self._state.memory_of_host(self.host), self._context.journal.make
        boot = _boot(memory.boot_id, identity.boot_id)
        if not memory.connected:
            peer_log.info("connected", host=self.host, version=identity.version, boot=boot)
        records = [make(Journaled.CONNECT, self.host, boot_id=identity.boot_id)]
        if self._state.remembered.lifecycle(self.host).away:
            records.insert(0, make(Journaled.RETURN, self.host, boot))
        self._context.journal.note(*records)  # together: a crash in between would tell it twice
        self._surveyor = Surveyor(
            self._context,
            self.host,
            connection,
            at.epoch,
            self._children.__contains__,
            self._take_report,
            self.poke,
        )
        self._surveyor.start()
        self._context.device_check.check_device(self.host)
        self._context.placer.changed(self._context.groups_of(self.host))

    def _note(self, event: Journaled, comment: str = "", **data: object) -> None:
        """Write a transition of the host into the journal, without waiting for the disk."""
        self._context.journal.note(self._context.journal.make(event, self.host, comment, **data))

    def _take_report(self, group: ResourceGroup, resource: str, result: OperationResult) -> None:
        """A watching agent reported a change."""
        child = self._children.get(group.id)
        if child is not None:
            child.reported(resource, result)
        else:
            self._context.placer.learnt([group.id])

    def link_down(self, loss: Loss) -> None:
        """The connection is gone."""
        peer_log.warning("disconnected", host=self.host, reason=str(loss))
        self._state.host_disconnected(self.host, loss, self._loop.time())
        if self._surveyor is not None:
            self._surveyor.stop()
            self._surveyor = None
        self._note(Journaled.DISCONNECT, str(loss))
        self._post(LinkDown(f"{self.host} is disconnected: {loss}"))
        self._context.placer.changed(self._context.groups_of(self.host))

    def link_alive(self, loss: Loss) -> None:
        """Something answers, but the agent does not serve us: wait, and say so."""
        self._say_loss(loss)
        self._answered_there(loss, is_alive=True)

    def link_probed(self, loss: Loss | None) -> None:
        """A probe met a sign of life. It counts at once; the fence that asked handles it later.

        An answer of the agent ends the verdict. So a fence that is called off because of it is not
        tried again."""
        self._answered_there(loss, is_alive=loss is None or not loss.kind.is_closed_port)

    def _answered_there(self, loss: Loss | None, *, is_alive: bool) -> None:
        """Something answers at the host's address.

        A closed port may be the answer of another machine or of a firewall. So the device is asked
        again. See docs/decisions/0005."""
        was_proven = self._state.hosts[self.host].power_proof is not None
        if loss is not None and loss.kind.is_closed_port:
            self._state.note_closed_port(self.host, self._loop.time())
        else:
            what = "its agent answers" if loss is None else loss.kind.value
            self.void_power_proof(f"it gave a sign of life ({what})")
        if is_alive and not was_proven:  # else it still counts as fallen silent with others
            self._state.host_alive(self.host)

    def void_power_proof(self, why: str) -> None:
        """The host was fenced, but is not proven off any more, even after a restart (S1)."""
        if self._state.hosts[self.host].power_proof is None:
            return
        log.warning("not proven off any more", host=self.host, reason=why)
        self._state.void_power_proof(self.host, f"{self.host} was fenced, but {why}")
        self._note(Journaled.NOT_OFF, why)
        self._context.placer.changed(self._context.groups_of(self.host))

    def link_missed(self, loss: Loss) -> None:
        """There is no sign of life, but no verdict either."""
        if loss.kind.is_silence:
            self.link_unheard()
        self._say_loss(loss)

    def link_unheard(self) -> None:
        """Nothing answers at the host's address: a closed port counts again from now on."""
        self._state.note_silence(self.host)

    def _say_loss(self, loss: Loss) -> None:
        at = self._state.hosts[self.host]
        if self._state.memory_of_host(self.host).connected:
            # The journal still says connected, from the last manager. The status shows this, and a
            # reset relies on it: a reset must not allow the fence of a host that was not seen.
            self._note(Journaled.DISCONNECT, str(loss))
        if at.loss is None or at.loss.kind is not loss.kind:
            peer_log.info("not connected", host=self.host, reason=str(loss))
            at.loss = loss
            self._context.placer.learnt(self._context.groups_of(self.host))

    def link_answered(self, sent_at: float) -> None:
        """A heartbeat was answered."""
        at = self._state.hosts[self.host]
        if at.suspect_at is not None:
            peer_log.info("answers again", host=self.host)
            if at.accepted:
                self._note(Journaled.ANSWERS)
            self._state.host_alive(self.host)
        if not at.accepted and self.link.connection is not None:
            at.accepted = True
            self._begin_to_look(self.link.connection)
        waited_for = at.answered_at <= self._state.last_verdict_at < sent_at
        at.answered_at = max(at.answered_at, sent_at)
        if waited_for:
            self._context.placer.heard(self._context.groups_of(self.host))

    def link_suspect(self, since: float) -> None:
        """An answer is overdue."""
        at, memory = self._state.hosts[self.host], self._state.memory_of_host(self.host)
        idle = not memory.active and not self._may_hold_groups()
        if not memory.seen or idle or at.power_proof is not None:
            return  # its silence is expected, and does not count
        if at.suspect_at is None:
            at.suspect_at = since
            peer_log.warning("suspect", host=self.host)
            if at.accepted:
                self._note(Journaled.SUSPECT, "a heartbeat is overdue")

    def _may_hold_groups(self) -> bool:
        """Was anything last seen running here?"""
        return any(
            self._state.candidate(group, self.host).last_seen is Presence.RUNNING
            for group in self._state.groups_of(self.host)
        )

    def link_lost(self, loss: Loss) -> None:
        """The host is lost: its silence became a verdict."""
        at = self._state.hosts[self.host]
        if at.power_proof is not None:
            return  # the host is off, as it should be
        if at.lost_at is not None and at.fence_phase is FencePhase.RUNNING:
            return  # nothing answered since the verdict that the fence goes by
        at.lost_at = self._state.last_verdict_at = self._loop.time()
        at.loss = loss
        if at.fence_phase is FencePhase.FAILED and at.fence_retry_at == float("inf"):
            at.fence_retry_at = at.lost_at  # an administrator's one attempt came before this loss
        log.error("declared lost", host=self.host, reason=str(loss))
        self._context.placer.changed(self._context.groups_of(self.host))


def _boot(before: str, now: str) -> str:
    """Says whether the host has booted between two boot identities. Each may be unknown."""
    if not before or not now:
        return "it is not known whether the host has booted since"
    if before != now:
        return "the host has booted since: nothing from before still runs"
    return "the host has not booted since: what ran there may still run"
