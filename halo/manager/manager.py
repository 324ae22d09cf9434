"""The manager put together: state, tasks, commands. No flags, signals or sockets: see `main`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cached_property

import structlog

from halo.core.cluster.host_state import FencePhase
from halo.core.cluster.knowledge import Presence
from halo.core.cluster.state import ClusterState
from halo.core.errors import InvariantError, LeadershipError, StateError
from halo.core.journal import fold
from halo.core.journal.places import config_change, with_former_hosts
from halo.core.journal.records import Event, Record
from halo.core.journal.remembered import Remembered
from halo.core.journal.removed import notices as removed_notices
from halo.core.model import Cluster
from halo.core.questions import candidates, holds, proof
from halo.core.questions.starts import order
from halo.manager.commands import Commands
from halo.manager.common.context import Context
from halo.manager.common.journal import Journal
from halo.manager.fencing.device_runner import DeviceRunner
from halo.manager.fencing.fence_runner import FenceRunner
from halo.manager.hosts.host_task import HostTask
from halo.manager.placement.placer import Placer
from halo.manager.placement.second_copy import SecondCopies
from halo.manager.placement.whereabouts import Whereabouts
from halo.ports import AgentConnector, FenceDevices, JournalMedium, WallClock

AUDIT_INTERVAL_S = 5.0

log = structlog.get_logger("halo.manager")


class Manager:
    """One manager of one cluster. Create it in a running loop, then :meth:`run` it once."""

    def __init__(
        self,
        cluster: Cluster,
        connector: AgentConnector,
        fence_devices: FenceDevices,
        medium: JournalMedium,
        clock: WallClock,
        *,
        observe_only: bool = False,
        term: Callable[[], int] = lambda: 0,
    ) -> None:
        """`term` gives the term of the leadership; 0 if there is only one manager.

        Raises StateError if the journal cannot be used."""
        self._loop = asyncio.get_running_loop()
        remembered = Remembered()
        records_read = 0
        for raw in medium.read():
            fold.apply(remembered, Record.from_json(raw))
            records_read += 1
        _require_higher(term(), remembered.term)
        now = self._loop.time()
        self._failure: asyncio.Future[None] = self._loop.create_future()
        journal = Journal(
            medium,
            remembered,
            clock,
            self._journal_trouble,
            records_read,
            on_late=lambda records: self.operations.took_effect(records),
            term=term,
        )
        self._journal = journal
        self._note_config(remembered, cluster)
        cluster = with_former_hosts(cluster, remembered)
        self.state = ClusterState(cluster, remembered, observe_only, started_at=now)
        self._show_remembered_failures()
        self._context = Context(self.state, journal, connector, fence_devices, self.fatal)
        grace_s = cluster.settings.restart_grace_s
        self.hosts = {host: HostTask(self._context, host, grace_s) for host in cluster.hosts}
        self.device_runner = DeviceRunner(self._context, self.hosts)
        self.fence_runner = FenceRunner(self._context, self.hosts, self.device_runner)
        copies = SecondCopies(self._context, self.hosts, self.fence_runner)
        self._whereabouts = Whereabouts(self._context, self.hosts, self.device_runner)
        self.placer = Placer(
            self._context,
            self.hosts,
            self.fence_runner,
            self.device_runner,
            copies,
            self._whereabouts,
        )
        self._context.placer = self.placer
        self._context.device_check = self.device_runner
        self.operations = Commands(self._context, self.hosts, self.placer, self.fence_runner, clock)
        self.placer.mint()  # so that even an early status names the holder of every token

    def _show_remembered_failures(self) -> None:
        for group in self.state.cluster.groups.values():
            for host, failures in self.state.memory_of(group).left_alone.items():
                for resource, text in failures.items():
                    if host in group.candidates and resource in group.by_id:
                        self.state.knowledge.mark_failure(resource, host, text)

    async def run(self) -> None:
        """Manage until cancelled. Raises a fatal error; a restart is always safe."""
        self._context.spawn(self._journal.run())
        try:
            # In the first step, so that no command comes before an open intent of the same host.
            self.fence_runner.resolve_open_intents()
            self.fence_runner.resume_reboots()
            self.device_runner.watch_devices()
            await self._journal.settled()  # the config: nothing is started before it is recorded
            for work in (self.placer.run(), self._upkeep()):
                self._context.spawn(work)
            for host in self.hosts.values():
                self._context.spawn(host.run())
            await self._failure
        except LeadershipError:
            raise  # no defect, and nothing can be recorded any more
        except Exception as error:
            # Other exceptions may hold anything. Only the log has their text.
            what = str(error) if isinstance(error, InvariantError) else type(error).__name__
            text = f"the manager ended itself ({what}); please report it with the manager's log"
            self._journal.note(self._journal.make(Event.DEFECT, self.state.cluster.name, text))
            raise
        finally:
            self.fence_runner.close()
            # The next manager may begin as soon as the journal is closed.
            await self._context.end_all()
            await self._journal.close()

    def _note_config(self, remembered: Remembered, cluster: Cluster) -> None:
        """Record what the new config changes: groups, candidates, and where groups may still run.

        If the record does not reach the disk, the next manager finds the same change again."""
        change = config_change(remembered, cluster)
        if change is None:
            return
        self._journal.note(self._journal.make(Event.CONFIG, cluster.name, **change))
        for notice in removed_notices(remembered.removed):
            log.warning("removed from the config", problem=notice)

    async def settled(self) -> bool:
        """Wait until what is shown now is on disk. False: the journal is in trouble since now."""
        return await self._journal.settled()

    def progress(self) -> tuple[float, ...] | None:
        """A value that stays the same while the cluster is at rest: the numbers of connected hosts,
        of groups with a task, and of answered starts and stops; and the time, while something is
        under way. None while a host has just fallen silent, or is being fenced."""
        hosts = list(self.state.hosts.values())
        if any(
            at.fence_phase is FencePhase.RUNNING
            or (at.suspect_at is not None and at.lost_at is None)
            for at in hosts
        ):
            return None
        connected = [at for at in hosts if at.connected]
        counts = [count for at in connected for count in at.operations.values()]
        is_looked_through = all(
            len(self.state.knowledge.on_host(at.id)) >= self._resources_of[at.id]
            for at in connected
        )
        waiting = [at.id for at in self.state.groups.values() if at.managed_on is None]
        if (
            not (connected and is_looked_through)
            or any(count.sent != count.answered for count in counts)
            or any(map(self._is_to_start, waiting))
        ):
            return (self._loop.time(),)
        managed = len(self.state.groups) - len(waiting)
        return len(connected), managed, sum(count.answered for count in counts)

    def _is_to_start(self, group: str) -> bool:
        """Will this group start by itself, as far as the manager can see?"""
        found = self.state.cluster.groups[group]
        memory = self.state.memory_of(found)
        return (
            memory.wanted
            and not memory.start_failures
            and holds.hold_reason(self.state, found) is None
            and order.lacking(self.state, found) is None
            and all(self.state.hosts[host].connected for host in found.candidates)
        )

    @cached_property
    def _resources_of(self) -> dict[str, int]:
        """How many resources may run on each host."""
        return {
            host: len({resource.id for group in groups for resource in group.resources})
            for host, groups in self.state.cluster.groups_of_host.items()
        }

    def fatal(self, error: BaseException) -> None:
        """End :meth:`run` with this error."""
        if not self._failure.done():
            self._failure.set_exception(error)

    def _journal_trouble(self, trouble: str | None) -> None:
        self.state.journal_trouble = trouble

    async def _upkeep(self) -> None:
        """Regular checks: the tokens, moves that cannot finish, where groups are seen."""
        unreachable_since: dict[str, float] = {}
        while True:
            await asyncio.sleep(AUDIT_INTERVAL_S)
            self.check_invariants()
            await asyncio.sleep(0)  # with ten thousand groups, each check takes some time
            self._give_up_moves(unreachable_since)
            await asyncio.sleep(0)
            await self._whereabouts.note_changes()

    def _give_up_moves(self, unreachable_since: dict[str, float]) -> None:
        """If a move's target stays away, give the move up. It does not continue later."""
        settings = self.state.settings
        patience_s = settings.loss_budget_s + settings.restart_grace_s
        now = self._loop.time()
        for group in self.state.cluster.groups.values():
            target = self.state.memory_of(group).move_target
            reason = None
            managed_on = self.state.groups[group.id].managed_on
            if target is not None and managed_on != target:
                reason = (
                    candidates.unavailable(self.state, self.state.candidate(group, target))
                    if target in group.candidates
                    else f"{target} is not a candidate any more"
                )
                reason = reason or proof.obstacle(self.state, group, managed_on or target, now)
            if reason is None:
                unreachable_since.pop(group.id, None)
            elif now - unreachable_since.setdefault(group.id, now) >= patience_s:
                text = f"the move to {target} was given up: {reason}"
                make = self._journal.make
                self._journal.note(make(Event.MOVE_FAILED, group.id, text, host=target))
                del unreachable_since[group.id]
                self.placer.learnt([group.id])
                self.placer.room_changed(group.id)

    def check_invariants(self) -> None:
        """Raise InvariantError unless every token is held exactly once, by the right owner."""
        held = self.placer.tokens_held()
        for host in self.hosts.values():
            held += host.tokens_held()
        self.state.ledger.audit(held)
        for group in self.state.cluster.groups.values():
            on = self.state.groups[group.id].managed_on
            if on is not None and self.placer.holds(group.id):
                raise InvariantError(f"{group.id} is managed on {on}, and its token is at the desk")

    def where(self, group: str) -> dict[str, Presence]:
        """What is known of a group on each of its candidates."""
        found = self.state.cluster.groups[group]
        return {host: self.state.knowledge.presence(found, host) for host in found.candidates}


def _require_higher(term: int, recorded: int) -> None:
    """A leader's records must not look older than those before them. A term of 0 may follow any: a
    single manager goes on with a journal that was exported."""
    if 0 < term <= recorded:
        raise StateError(
            f"this leadership has the term {term}, but the journal has records of the term "
            f"{recorded}: etcd was built anew, and counts from 1 again. Stop all managers, then "
            f"say `halo store raise-term STORE --above {recorded} --reason TEXT`"
        )
