"""Keeps the journal up to date on where groups may run (docs/decisions/0007).

Before a group is managed on a host, the journal has to have it that the group may run there. When
the group is known to be stopped on a host, the journal learns it some seconds later, for all groups
in one record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

import structlog

from halo.core.fencing import rounds
from halo.core.journal.records import Event
from halo.core.model import GroupId, HostId, ResourceGroup
from halo.core.questions import former
from halo.manager.common.context import Context
from halo.manager.hosts.host_task import HostTask

AT_ONCE = 500
"""Groups between two turns of the event loop: each takes some microseconds."""

log = structlog.get_logger("halo.whereabouts")


class Verifying(Protocol):
    """What placement needs of the device runner."""

    def verify(self, host: HostId) -> None: ...


class Whereabouts:
    """Records where groups may run, and where they are known to be stopped."""

    def __init__(self, context: Context, hosts: dict[HostId, HostTask], devices: Verifying) -> None:
        self._context = context
        self._devices = devices
        self._state = context.state
        self._hosts = hosts
        self._under_way: dict[GroupId, set[HostId]] = {}

    def are_known(self, group: GroupId, hosts: Iterable[HostId]) -> bool:
        """Does the journal have it that the group may run on these hosts? If not, it is recorded.
        The placer is told when that is done, or when the disk gave no answer for a second (S7)."""
        stopped_on = self._state.remembered.group(group).stopped_on
        unknown = {host for host in hosts if host in stopped_on} if stopped_on else None
        if not unknown:
            return True
        missing = unknown - self._under_way.get(group, set())
        if missing:
            self._context.spawn(self._record(group, missing))
        return False

    async def _record(self, group: GroupId, hosts: set[HostId]) -> None:
        under_way = self._under_way.setdefault(group, set())
        under_way |= hosts
        journal = self._context.journal
        await journal.rescue(
            journal.make(Event.MAY_RUN, self._state.cluster.name, on={group: sorted(hosts)})
        )
        under_way -= hosts
        if not under_way:
            self._under_way.pop(group, None)
        self._context.placer.learnt([group])

    def note_seen(self, group: ResourceGroup) -> None:
        """The group is seen running: the journal learns where, without any wait."""
        self._note_running({group.id: former.newly_running(self._state, group)})

    def note_proven(self, group: ResourceGroup, target: HostId) -> None:
        """A start on `target` is decided, so the group is proven stopped on all other hosts. What
        is below its root need not wait for the next look."""
        former_hosts = self._state.memory_of(group).former
        self._note_stopped(
            {group.id: [h for h in group.hosts if h in former_hosts and h != target]}
        )

    async def note_changes(self) -> None:
        """Record the hosts on which groups are newly known to be stopped, or are seen running. Have
        former hosts probed whose answer is missing, or the devices asked of those that are off."""
        now = asyncio.get_running_loop().time()
        stopped: dict[GroupId, list[HostId]] = {}
        running: dict[GroupId, list[HostId]] = {}
        for number, group in enumerate(self._state.cluster.groups.values(), start=1):
            stopped[group.id] = former.newly_stopped(self._state, group)
            running[group.id] = former.newly_running(self._state, group)
            for host in former.to_probe(self._state, group):
                self._hosts[host].probe(group.id)
            off = former.to_verify(self._state, group)
            for host in rounds.to_ask_unhurried(self._state, off, now):
                self._devices.verify(host)
            if number % AT_ONCE == 0:
                self._note(stopped, running)
                stopped, running = {}, {}
                await asyncio.sleep(0)
        self._note(stopped, running)

    def _note(
        self, stopped: dict[GroupId, list[HostId]], running: dict[GroupId, list[HostId]]
    ) -> None:
        self._note_running(running)
        self._note_stopped(stopped)

    def _note_running(self, seen: dict[GroupId, list[HostId]]) -> None:
        found = {group: hosts for group, hosts in seen.items() if hosts}
        if found:
            journal, name = self._context.journal, self._state.cluster.name
            journal.note(journal.make(Event.MAY_RUN, name, on=found))

    def _note_stopped(self, seen: dict[GroupId, list[HostId]]) -> None:
        found = {group: hosts for group, hosts in seen.items() if hosts}
        if not found:
            return
        lifted = [group for group in found if self._state.remembered.group(group).former]
        journal = self._context.journal
        journal.note(journal.make(Event.SEEN_STOPPED, self._state.cluster.name, on=found))
        for group in lifted:
            log.info("stopped on its former hosts", group=group, hosts=found[group])
        self._context.placer.learnt(lifted)
