"""Hosts where a group may still run though they are no candidates any more (decision 0007).

The journal names them (:mod:`halo.core.journal.places`). Those that the config still has are asked
for proof like candidates. The others can give no proof: the group starts nowhere until the
administrator confirms that it is stopped there.
"""

from __future__ import annotations

from halo.core.cluster.candidate import Candidate
from halo.core.cluster.host_state import HostState
from halo.core.cluster.knowledge import Presence
from halo.core.cluster.state import ClusterState
from halo.core.journal.places import places
from halo.core.model import HostId, ResourceGroup

NAMED = 8

NEVER = float("-inf")


def to_ask(state: ClusterState, group: ResourceGroup) -> list[Candidate]:
    """The former hosts that have to prove that the group is stopped there."""
    if not group.former_hosts:
        return []
    memory = state.memory_of(group)
    return [former for former in state.former_of(group) if former.host in memory.former]


def _unproven(state: ClusterState, group: ResourceGroup) -> list[Candidate]:
    """All that may still have to prove it, also candidates from which a service was gained."""
    memory = state.memory_of(group)
    return [state.candidate(group, host) for host in memory.former if host in state.hosts]


def gained_elsewhere(state: ClusterState, group: ResourceGroup, here: HostId) -> str | None:
    """Why the group may not be completed on `here` though its root runs there: a service that it
    gained from another group may run elsewhere. None if it may."""
    for host, origin in state.memory_of(group).former.items():
        if origin == group.id or host == here:
            continue
        if host not in state.hosts:
            return beyond_reach(state, group)
        text = f"what {group.id} has from {origin} may still run on {host}"
        if state.hosts[host].ready:
            return f"{text}; HALO asks the host"
        if state.hosts[host].is_proven_off:
            return f"{text}; HALO asks its fence device whether the host is still off"
        return f"{text}, which is out of sight; bring the host back, or run `halo fence {host}`"
    return None


def gone(state: ClusterState, group: ResourceGroup) -> list[HostId]:
    """The former hosts that are not in the config any more, so that HALO cannot ask them."""
    memory = state.memory_of(group)
    return [host for host in memory.former if host not in state.hosts]


def beyond_reach(state: ClusterState, group: ResourceGroup) -> str | None:
    """Why no start of the group can be proven safe: a host where it may run has left the config."""
    hosts = gone(state, group)
    if not hosts:
        return None
    return (
        f"{_may_run(state, group, hosts)}, which the config does not have any more, so HALO "
        f"cannot ask; make sure that it is stopped there, then run {_confirmation(group, hosts)}, "
        "or put the host back into the config"
    )


def runs_there(group: ResourceGroup, host: HostId) -> str:
    """Why nothing is done with a group that is seen running on a host that is no candidate."""
    return (
        f"running on {host}, which is no candidate of {group.id} any more; stop it there by hand, "
        f"or make {host} a candidate again"
    )


def _may_run(state: ClusterState, group: ResourceGroup, hosts: list[HostId]) -> str:
    memory = state.memory_of(group)
    names = sorted({memory.former[host] for host in hosts} - {group.id})
    known_as = f" (as {', '.join(names)}, in an earlier config)" if names else ""
    return f"{group.id} may still run on {' and '.join(hosts)}{known_as}"


def _confirmation(group: ResourceGroup, hosts: list[HostId]) -> str:
    return " and ".join(
        f"`halo cleanup {group.id} --stopped-on {host} --reason ...`" for host in hosts
    )


def shown(state: ClusterState, group: ResourceGroup) -> dict[HostId, str]:
    """The hosts that are no candidates any more, and where the group may run, with what is known
    there. If it is seen running on one that the journal has as stopped, the journal learns that
    some seconds later."""
    may_run, presence = state.memory_of(group).former, state.knowledge.presence
    asked = [
        host
        for host in group.former_hosts
        if host in may_run or presence(group, host) is Presence.RUNNING
    ]
    others = [host for host in may_run if host not in group.hosts]
    return {host: presence(group, host).value for host in (*asked, *others)}


def notices(state: ClusterState) -> list[str]:
    """What an operator has to know about former hosts, before a group has to start elsewhere."""
    told = [
        text
        for group in state.cluster.groups.values()
        if state.memory_of(group).former
        for text in (beyond_reach(state, group), _asked(state, group))
        if text is not None
    ]
    if len(told) <= NAMED:
        return told
    more = f"{len(told) - NAMED} more groups may still run on hosts that are no candidates any more"
    return [*told[:NAMED], f"{more}; `halo status --json` names them under former_hosts"]


def _asked(state: ClusterState, group: ResourceGroup) -> str | None:
    asked = [former.host for former in to_ask(state, group)]
    if not asked:
        return None
    return (
        f"{_may_run(state, group, asked)}, which is no candidate any more; HALO asks the host, and "
        "starts the group on no other host before it is proven stopped there"
    )


# --- what the journal should learn ----------------------------------------------------------------


def newly_stopped(state: ClusterState, group: ResourceGroup) -> list[HostId]:
    """The hosts on which the group is known to be stopped now, and the journal does not know.

    A former host needs proof. Of candidates, it is noted while another host manages the group: a
    group that waits at the placer may be started anywhere in the next step."""
    memory, managed_on = state.memory_of(group), state.groups[group.id].managed_on
    may_start = group.candidates if managed_on is None else (managed_on, memory.move_target)
    found = [
        former.host
        for former in (_unproven(state, group) if memory.former else ())
        if former.host not in may_start and _is_proven(former)
    ]
    if managed_on is None or len(memory.stopped_on) >= len(group.candidates) - 1:
        return found
    return found + [
        candidate.host
        for candidate in state.candidates_of(group)
        if candidate.host not in (*may_start, *memory.stopped_on, *memory.former)
        and candidate.presence is Presence.STOPPED
    ]


def newly_running(state: ClusterState, group: ResourceGroup) -> list[HostId]:
    """The hosts on which the group is seen running, though the journal has it as stopped there:
    somebody started it by hand. They count also while HALO may not act on the group (S4)."""
    memory, presence = state.memory_of(group), state.knowledge.presence
    doubtful = group.hosts if memory.at_rest else (*memory.stopped_on, *group.former_hosts)
    running = [host for host in doubtful if presence(group, host) is Presence.RUNNING]
    if not running:
        return []
    known = places(state.remembered, group.id)
    return [host for host in running if host not in known]


def to_probe(state: ClusterState, group: ResourceGroup) -> list[HostId]:
    """The former hosts whose agents only reported that the group is stopped: ask for proof."""
    return [
        former.host
        for former in (_unproven(state, group) if state.memory_of(group).former else ())
        if former.at.ready and former.presence is Presence.STOPPED and not _is_proven(former)
    ]


def to_verify(state: ClusterState, group: ResourceGroup) -> list[HostState]:
    """The former hosts that were fenced in an earlier life of the manager, while another host
    manages the group: their fence devices were not asked since. Of a group that waits, the placer
    asks them."""
    if state.groups[group.id].managed_on is None or not state.memory_of(group).former:
        return []
    found = [each.at for each in _unproven(state, group)]
    return [at for at in found if at.is_proven_off and at.verified_at == NEVER]


def _is_proven(former: Candidate) -> bool:
    """Was the group proven stopped there in this life of the manager, so after the change?"""
    at = former.at
    if at.is_proven_off:
        return at.verified_at > NEVER
    sampled = former.stopped_since
    return at.ready and sampled is not None and sampled > NEVER
