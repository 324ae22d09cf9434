"""Why HALO does not start what is missing of a group that a host manages."""

from __future__ import annotations

from halo.core import reasons
from halo.core.cluster.state import ClusterState
from halo.core.model import HostId, ResourceGroup
from halo.core.questions import former, holds
from halo.core.questions.starts import order
from halo.core.reasons import Reason


def reason(state: ClusterState, group: ResourceGroup, host: HostId) -> Reason | None:
    """Why `host`, which manages the group, does not start what is missing of it. None if nothing is
    missing, if HALO is about to start it, or if the group should be stopped."""
    memory = state.memory_of(group)
    if not memory.wanted or order.runs_whole(state, group, host):
        return None
    held = holds.hold(state, group)
    if held is not None:
        return held
    failures = [state.knowledge.of(each.id, host).failure for each in group.resources]
    text = memory.error or "; ".join(dict.fromkeys(filter(None, failures)))
    if text:
        return reasons.held_by_error(group.id, text, {host: text})
    elsewhere = former.gained_elsewhere(state, group, host)
    if elsewhere is not None:
        places = [other for other in memory.former if other != host]
        return reasons.unproven(group.id, elsewhere, dict.fromkeys(places, elsewhere))
    return None
