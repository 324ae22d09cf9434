"""The administrator's commands: checked, written down, carried out, answered, in this order.

With :mod:`halo.manager.views`, it implements :class:`halo.ports.Operations`. With one lock, no
other command can come between check and record. The cluster may change between the two. The
decisions handle that, because they look at the state again in every step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog

from halo.core import admin
from halo.core.admin import FROZEN_NOW
from halo.core.cluster.host_state import FencePhase
from halo.core.errors import BadRequest, CommandFailed, CommandRefused, RecordError, SteppedDown
from halo.core.fencing import rules
from halo.core.journal.records import Event, Record, is_step_down
from halo.core.model import GroupId, HostId, ResourceGroup
from halo.core.questions import candidates, holds
from halo.core.questions.starts import order
from halo.manager.common.context import Context
from halo.manager.fencing.fence_runner import FenceRunner
from halo.manager.hosts.host_task import HostTask
from halo.manager.placement.placer import Placer
from halo.manager.views import Views
from halo.ports import WallClock

FAILBACK_WAIT_S = 3.0
POLL_S = 0.05

log = structlog.get_logger("halo.command")


class Commands(Views):
    """What operators can do."""

    def __init__(
        self,
        context: Context,
        hosts: dict[HostId, HostTask],
        placer: Placer,
        fence_runner: FenceRunner,
        clock: WallClock,
    ) -> None:
        super().__init__(context, hosts, clock)
        self._placer = placer
        self._fence_runner = fence_runner
        self._lock = asyncio.Lock()

    # --- groups ------------------------------------------------------------------------------

    async def set_managed(self, group: str, managed: bool, comment: str | None) -> str:
        """Take a group under management, or leave it alone from now on."""
        found = admin.group_named(self._state, group)
        admin.require_acting(self._state)
        event = Event.MANAGE if managed else Event.UNMANAGE

        def records() -> list[Record]:
            if managed:
                self._forget(found)
            return [self._make(event, group, comment)]

        already = await self._record(
            lambda: admin.check_managed(self._state, found, managed=managed), records
        )
        if already is not None:
            return already
        if managed:
            self._look_afresh(found)
            return f"{group} is managed"
        self._changed(found)
        return f"{group} is unmanaged: HALO only monitors it{self._still_running(found)}"

    async def group_command(
        self, group: str, command: str, *, to: str | None, comment: str | None
    ) -> str:
        """`start`, `stop`, `move`, `cleanup`."""
        if command == "cleanup" and group in self._state.remembered.removed:
            return await self._forget_removed(group, comment)
        found = admin.group_named(self._state, group)
        admin.require_acting(self._state)
        log.info("command", command=command, group=group, to=to)
        match command:
            case "start" | "stop":
                return await self._set_wanted(found, command == "start", comment)
            case "move":
                if to is None:
                    raise BadRequest("the command move needs the key `to`: the target host")
                return await self._move(found, to, comment)
            case "cleanup":
                return await self._cleanup(found, comment)
        raise BadRequest(f"unknown command {command!r}; use start, stop, move or cleanup")

    async def _set_wanted(self, group: ResourceGroup, wanted: bool, comment: str | None) -> str:
        event = Event.START if wanted else Event.STOP
        already = await self._record(
            lambda: admin.check_wanted(self._state, group, wanted=wanted),
            lambda: [self._make(event, group.id, comment)],
        )
        if already is not None:
            return already + self._still_running(group)
        self._changed(group)
        verb = "will be started" if wanted else "will be stopped, and will stay stopped"
        held = holds.hold_reason(self._state, group)
        if held:
            verb = f"waits: the order is recorded, and is carried out when this has ended: {held}"
        elif wanted and self._placer.holds(group.id):
            too_early = order.lacking(self._state, group)
            verb += f" when {too_early.ends_when}" if too_early is not None else ""
        return f"{group.id} {verb}{self._still_running(group)}"

    async def _move(self, group: ResourceGroup, target: HostId, comment: str | None) -> str:
        admin.require_host(self._state, target)
        await self._looked_at([group])
        await self._record(
            lambda: admin.check_move(self._state, group, target, self._loop.time()),
            lambda: [self._make(Event.MOVE, group.id, comment, to=target)],
        )
        self._changed(group)
        return f"{group.id} is moving to {target}{self._still_running(group)}"

    async def _cleanup(self, group: ResourceGroup, comment: str | None) -> str:
        await self._record(
            lambda: admin.check_cleanup(self._state, group),
            lambda: [self._make(Event.CLEANUP, group.id, comment)],
        )
        self._look_afresh(group, forgive=True)
        return f"{group.id} is probed again{self._still_running(group)}"

    async def _forget_removed(self, group: GroupId, comment: str | None) -> str:
        """The operator confirms that a group is stopped that is not in the config any more."""
        admin.require_acting(self._state)
        log.info("command", command="cleanup", group=group)
        await self._record(lambda: None, lambda: [self._make(Event.CLEANUP, group, comment)])
        return f"{group} is not in the config; HALO now takes it as stopped"

    async def confirm_stopped(self, group: str, host: str, comment: str | None) -> str:
        """The operator confirms that a group is stopped on a host that left the config."""
        found = admin.group_named(self._state, group)
        admin.require_acting(self._state)
        await self._record(
            lambda: admin.check_confirm_stopped(self._state, found, host, comment),
            lambda: [self._make(Event.CONFIRM_STOPPED, group, comment, host=host)],
        )
        self._changed(found)
        return f"{group} counts as stopped on {host}: you confirmed it"

    # --- hosts -------------------------------------------------------------------------------

    async def host_command(
        self, host: str, command: str, *, force: bool, comment: str | None
    ) -> str:
        """`failback`, `fence`, `confirm-off`, `cancel-fence`, `activate`, `deactivate`, `reset`."""
        admin.require_host(self._state, host)
        admin.require_acting(self._state)
        log.info("command", command=command, host=host, force=force)
        match command:
            case "failback":
                return await self._failback(host, comment)
            case "fence":
                return await self._fence(host, force, comment)
            case "confirm-off":
                admin.check_confirm_off(self._state, host, comment, force=force)
                await self._durably(self._fence_runner.confirm_off(host, comment or ""))
                frozen = self._state.remembered.frozen is not None
                return f"{host} counts as fenced: you confirmed it" + (FROZEN_NOW if frozen else "")
            case "cancel-fence":
                await self._durably(self._fence_runner.cancel(host, comment or ""))
                return (
                    f"cancelled: {host} is not fenced automatically until it has answered again. "
                    f"To try again, run `halo fence {host}`. If you saw that the host is off, run "
                    f"`halo fence {host} --confirm-off --reason ...`"
                )
            case "activate" | "deactivate":
                return await self._set_active(host, command == "activate", force, comment)
            case "reset":
                await self._record(
                    lambda: admin.check_reset(self._state, host),
                    lambda: [self._make(Event.RESET, host, comment)],
                )
                self._placer.changed(self._context.groups_of(host))
                if self._state.hosts[host].ready:
                    # The device is trusted again. If its outlet is still wrong, it says off now.
                    self._context.device_check.check_device(host)
                return f"{host} is reset: it may be fenced again"
        raise BadRequest(f"unknown command {command!r} for a host")

    async def _failback(self, host: HostId, comment: str | None) -> str:
        await self._wait_for(host)
        await self._looked_at([g for g in self._state.groups_of(host) if g.home_host == host])
        groups: list[ResourceGroup] = []

        def check() -> None:
            groups[:] = admin.failback_groups(self._state, host, self._loop.time())

        await self._record(
            check,
            lambda: [self._make(Event.MOVE, group.id, comment, to=host) for group in groups],
        )
        for group in groups:
            self._changed(group)
        if not groups:
            return f"no group whose home host is {host} runs elsewhere"
        return f"moving to {host}: {', '.join(group.id for group in groups)}"

    async def _wait_for(self, host: HostId) -> None:
        """Give a host that is just connecting a moment to become ready."""
        deadline = self._loop.time() + FAILBACK_WAIT_S
        while self._loop.time() < deadline:
            at = self._state.hosts[host]
            groups = [g for g in self._state.groups_of(host) if g.home_host == host]
            if at.ready and all(candidates.has_reported(self._state, g, host) for g in groups):
                return
            await asyncio.sleep(POLL_S)

    async def _looked_at(self, groups: list[ResourceGroup], besides: HostId | None = None) -> None:
        """Give candidates that are being probed, such as after a cleanup, a moment to answer."""
        deadline = self._loop.time() + FAILBACK_WAIT_S
        while self._loop.time() < deadline:
            if not any(candidates.is_being_looked_at(self._state, g, besides) for g in groups):
                return
            await asyncio.sleep(POLL_S)

    async def _fence(self, host: HostId, force: bool, comment: str | None) -> str:
        if not force:
            await self._looked_at(list(self._state.groups_of(host)), besides=host)
        refusal = rules.administrator_refusal(self._state, host, force=force)
        if refusal is not None:
            raise CommandRefused(refusal)
        await self._fence_runner.fence_by_command(host, comment or "")
        frozen = self._state.remembered.frozen is not None
        return f"{host} is fenced" + (FROZEN_NOW if frozen else "")

    async def _set_active(
        self, host: HostId, active: bool, force: bool, comment: str | None
    ) -> str:
        event = Event.ACTIVATE if active else Event.DEACTIVATE
        if not active and not force:
            await self._looked_at(list(self._state.groups_of(host)), besides=host)
        already = await self._record(
            lambda: admin.check_activation(self._state, host, active=active, force=force),
            lambda: [self._make(event, host, comment)],
        )
        if already is not None:
            return already + ("" if active else admin.what_leaves(self._state, host))
        self._placer.changed(self._context.groups_of(host))
        self._hosts[host].poke()
        if active:
            return f"{host} is active"
        return f"{host} is deactivated{admin.what_leaves(self._state, host)}"

    # --- the cluster -------------------------------------------------------------------------

    async def cluster_command(self, command: str, *, comment: str | None) -> str:
        """`freeze`, `thaw`, `clear_events`."""
        if command != "clear_events":  # which acts on nothing
            admin.require_acting(self._state)
        event = {
            "freeze": Event.FREEZE,
            "thaw": Event.THAW,
            "clear_events": Event.CLEAR_EVENTS,
        }.get(command)
        if event is None:
            raise BadRequest(f"unknown command {command!r}; use freeze or thaw")

        def check() -> str | None:
            if event is Event.CLEAR_EVENTS:
                return None
            return admin.check_frozen(self._state, frozen=event is Event.FREEZE)

        name = "events" if event is Event.CLEAR_EVENTS else self._state.cluster.name
        thawed = self._state.cluster.groups.values() if event is Event.THAW else ()

        def records() -> list[Record]:
            for group in thawed:
                self._forget(group)
            return [self._make(event, name, comment)]

        already = await self._record(check, records)
        if already is not None:
            return already + (self._all_still_running() if event is Event.FREEZE else "")
        for group in thawed:
            self._look_afresh(group)
        self._placer.changed(self._state.cluster.groups)
        for host in self._hosts.values():
            host.poke()
        return {
            Event.FREEZE: f"{admin.FROZEN}{self._all_still_running()}",
            Event.THAW: "thawed: automatic action continues",
            Event.CLEAR_EVENTS: "events cleared",
        }[event]

    def _all_still_running(self) -> str:
        in_flight = [text for host in self._hosts.values() for text in host.in_flight()]
        in_flight += [
            f"fencing {at.id}"
            for at in self._state.hosts.values()
            if at.fence_phase is FencePhase.RUNNING
        ]
        return f"; still running: {', '.join(in_flight)}" if in_flight else ""

    async def record_step_down(self, manager: str, comment: str | None) -> None:
        """Record that this manager gives its leadership back. Raises CommandFailed: then it has to
        keep it."""
        said = f"manager {manager} gives the leadership back by command"
        said += f": {comment}" if comment else ""
        await self._record(
            lambda: None,
            lambda: [self._make(Event.DEFECT, manager, said, step_down=manager)],
        )

    def took_effect(self, records: tuple[Record, ...]) -> None:
        """The disk was so slow that a command was given up. It is carried out now.

        The command may have ended a hold. So every group is probed again, whatever it was."""
        forgiven = {record.object for record in records if record.event is Event.CLEANUP}
        log.warning("a slow command took effect", events=[r.event.value for r in records])
        for record in filter(is_step_down, records):
            self._context.fatal(SteppedDown(record.comment))
        for group in self._state.cluster.groups.values():
            self._look_afresh(group, forgive=group.id in forgiven)

    # --- how each is done --------------------------------------------------------------------

    def _make(self, event: Event, obj: str, comment: str | None, **data: object) -> Record:
        return self._context.journal.make(event, obj, comment or "", **data)

    async def _record(
        self, check: Callable[[], str | None], records: Callable[[], list[Record]]
    ) -> str | None:
        """Check and write down, so that no other command comes in between.

        If the check returns a text, the state holds already: return the text, and write nothing.
        But if a command that was given up may still change that state, write the record again."""
        async with self._lock:
            already = check()
            if already is not None and not self._context.journal.may_yet_write_commands:
                return already
            to_write = records()
            if to_write:
                try:
                    await self._context.journal.command(*to_write)
                except RecordError as error:
                    raise CommandFailed(str(error)) from error
        return None

    async def _durably(self, work: Any) -> None:
        try:
            await work
        except RecordError as error:
            raise CommandFailed(str(error)) from error

    def _forget(self, group: ResourceGroup, *, forgive: bool = False) -> None:
        """Forget what is known of a group, and the right to restart it in place (S1).

        While it was held, people may have stopped it here and started it elsewhere. So forget it
        before the record that ends the hold, and no step can come in between."""
        self._state.groups[group.id].moving = False  # the next start waits for its turn
        self._state.knowledge.drop_group(
            group, "being probed again", now=self._loop.time(), forgive=forgive
        )

    def _look_afresh(self, group: ResourceGroup, *, forgive: bool = False) -> None:
        """Have a group decided again, from what all its candidates answer now."""
        self._forget(group, forgive=forgive)
        for host in group.hosts:
            self._hosts[host].recall(group.id, "to be probed again")
            self._hosts[host].probe(group.id)
        self._placer.changed([group.id])

    def _changed(self, group: ResourceGroup) -> None:
        """Have the holder of the group's token look at the group again."""
        self._placer.changed([group.id])
        for host in group.hosts:
            self._hosts[host].poke(group.id)

    def _still_running(self, group: ResourceGroup) -> str:
        in_flight: list[GroupId] = []
        for host in group.hosts:
            in_flight += self._hosts[host].in_flight(group.id)
        return f"; still running: {', '.join(in_flight)}" if in_flight else ""
