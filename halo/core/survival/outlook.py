"""The forecast for the cluster as it is now: its hosts, and where its groups are.

It says whether there is a place for each group. So it is made also while HALO may not act, as in
observe mode. A group that HALO may not start anywhere is left out: it is unmanaged, or in error
because of a second copy, or it should not run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from halo.core.cluster.state import ClusterState
from halo.core.journal.remembered import ErrorKind
from halo.core.model import HostId, ResourceGroup
from halo.core.questions import candidates, room
from halo.core.survival.forecast import Forecast, look_ahead
from halo.core.survival.takeover import Standing


class Outlook:
    """Makes one forecast in small steps. Note all groups first, then take the steps.

    The state may change between the steps. The forecast is then as old as its oldest step."""

    def __init__(self, state: ClusterState) -> None:
        self.forecast = Forecast()
        self.standing = Standing(state.cluster, self._not_serving)
        self._state = state

    def note(self, group: ResourceGroup, running_on: Sequence[HostId]) -> None:
        """Take in where a group is. `running_on`: where it is seen running."""
        state = self._state
        memory, placed_on = state.memory_of(group), state.groups[group.id].placed_on
        here = placed_on or (running_on[0] if running_on else None)
        elsewhere = [host for host in running_on if host != here]
        if placed_on is not None:
            there = [placed_on, *elsewhere]
        else:
            there = [host for host in group.hosts if room.is_there(state, group, host)]
        target = room.heads_for(state, group) if memory.move_target is not None else None
        if target is not None:
            self.standing.targets[group.id] = target
            if target not in there:
                there.append(target)
        is_movable = (
            memory.managed
            and memory.error_kind is not ErrorKind.SECOND_COPY
            and here in group.candidates
            and not elsewhere
        )
        self.standing.add(group, there, here if memory.wanted else None, movable=is_movable)

    def steps(self) -> Iterator[None]:
        """Make the forecast."""
        return look_ahead(self.standing, self.forecast)

    def _not_serving(self, group: ResourceGroup, host: HostId) -> str | None:
        return candidates.not_serving(self._state, self._state.candidate(group, host))
