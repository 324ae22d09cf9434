"""Carries out what a decision says about groups that give way to another one.

The marks last as long as the decisions on the group that needs the room say so. They are not
recorded. A new manager decides afresh, and a group that was stopped by the old one is placed like
every other group that is down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import structlog

from halo.core.groups.placement import Decision
from halo.core.model import GroupId, HostId
from halo.core.questions.preempting import giving_way
from halo.manager.common.context import Context
from halo.manager.hosts.host_task import HostTask

log = structlog.get_logger("halo.placer")


class GivingWay:
    """Marks the groups that give way, and wakes them."""

    def __init__(
        self,
        context: Context,
        hosts: Mapping[HostId, HostTask],
        mark: Callable[[Iterable[GroupId]], None],
    ) -> None:
        """`mark` has groups decided whose tokens wait at the placer."""
        self._state = context.state
        self._hosts = hosts
        self._mark = mark

    def is_news(self, group: GroupId, decision: Decision) -> bool:
        """Do other groups begin to give way to this one? Its proof has to be as young as for a
        start."""
        return decision.makes_room is not None and self._state.groups[group].makes_room is None

    def follow(self, group: GroupId, decision: Decision) -> bool:
        """From now on, the groups that the decision names give way to this one, and no others.

        True: they begin to."""
        making, begins = decision.makes_room, self.is_news(group, decision)
        if making is not None and begins:
            words = giving_way.in_words(self._state.cluster.groups[group])
            for giver in making.givers:
                log.warning("gives way", group=giver, host=making.host, reason=f"{giver} {words}")
        for giver in self._state.make_room(group, making):
            host = self._state.groups[giver].managed_on
            if host is not None:
                self._hosts[host].poke(giver)
            else:
                self._mark([giver])
        return begins

    def came_home(self, group: GroupId) -> None:
        """It was stopped. If it gave way, its own reason to wait will name the other group."""
        at = self._state.groups[group]
        at.gave_way_to = at.gives_way_to or at.gave_way_to
