"""Which administrator's commands are possible now, and what each writes into the journal.

Pure functions: (state, command) in, a refusal or records out. A refused command changes nothing
(S8). If the requested state already holds, the check returns a text that says so. Such a command
changes nothing either, and it succeeds.
"""

from __future__ import annotations

from halo.core.cluster.host_state import FencePhase
from halo.core.cluster.knowledge import Presence
from halo.core.cluster.state import ClusterState
from halo.core.errors import BadRequest, CommandRefused, UnknownObject
from halo.core.journal.remembered import ErrorKind
from halo.core.model import GroupId, HostId, ResourceGroup
from halo.core.questions import candidates, company, departures, holds, proof

FROZEN = (
    "frozen: HALO takes no automatic action, and refuses start, stop, move and failback; `halo "
    "thaw` ends this"
)
FROZEN_NOW = "; the cluster is frozen: no group starts before `halo thaw`"


def group_named(state: ClusterState, group: GroupId) -> ResourceGroup:
    """The group of this name, by its root."""
    found = state.cluster.groups.get(group)
    if found is not None:
        return found
    for other in state.cluster.groups.values():
        if group in other.by_id:
            raise UnknownObject(
                f"{group} is a resource of group {other.id}; give the command the group's name"
            )
    if group in state.remembered.removed:
        raise UnknownObject(
            f"{group} was removed from the config; put it back into the config, or stop it by "
            f"hand and then run `halo cleanup {group}`"
        )
    raise UnknownObject(f"there is no resource group {group}; `halo status` lists the groups")


def require_host(state: ClusterState, host: HostId) -> None:
    """Raise UnknownObject unless the config has this host."""
    if host not in state.cluster.hosts:
        raise UnknownObject(f"there is no host {host}; `halo status` lists the hosts")


def require_acting(state: ClusterState) -> None:
    """Raise CommandRefused in observe mode."""
    if state.observe_only:
        raise CommandRefused(
            "the manager only observes (it was started without --manage-resources)"
        )


def where(state: ClusterState, group: ResourceGroup) -> HostId | None:
    """The host that manages the group, or else the only host where it is seen running."""
    running = state.knowledge.running_on(group)
    return state.groups[group.id].managed_on or (running[0] if len(running) == 1 else None)


def check_move(state: ClusterState, group: ResourceGroup, target: HostId, now: float = 0.0) -> None:
    """Raise unless a planned move of `group` to `target` is possible now (monotonic seconds)."""
    if target not in group.candidates:
        raise CommandRefused(
            f"{target} is not a candidate of {group.id}; the candidates are "
            f"{', '.join(group.candidates)}"
        )
    _require_movable(state, group)
    here = where(state, group)
    if here == target:
        if state.memory_of(group).move_target in (None, target):
            raise CommandRefused(f"{group.id} is on {target} already")
        return  # the command takes back a move that has not begun, or has not finished
    reason = candidates.unavailable(state, state.candidate(group, target))
    if reason is not None:
        way_out = f"; remove the cause, then run `halo cleanup {group.id}`"
        failed = target in state.memory_of(group).start_failures
        raise CommandRefused(
            f"{group.id} cannot move to {target}: {reason}{way_out if failed else ''}"
        )
    obstacle = proof.obstacle(state, group, here, now) if here is not None else None
    if obstacle is not None:
        raise CommandRefused(
            f"{group.id} cannot be moved, because it could not start again after the stop: "
            f"{obstacle}"
        )


def _require_movable(state: ClusterState, group: ResourceGroup) -> None:
    held = holds.hold_reason(state, group)
    memory = state.memory_of(group)
    if held is not None:
        way_out = ""
        if not memory.managed:
            way_out = f"; run `halo manage {group.id}` first"
        elif state.remembered.frozen is not None:
            way_out = "; run `halo thaw` first"
        raise CommandRefused(f"{group.id} cannot be moved: {held}{way_out}")
    if not memory.wanted:
        is_so = "stopped" if _is_stopped(state, group) else "to be stopped"
        raise CommandRefused(f"{group.id} is {is_so}; run `halo start {group.id}` first")
    if memory.error is not None:
        raise CommandRefused(
            f"{group.id} cannot be moved: {memory.error}; remove the cause, then run "
            f"`halo cleanup {group.id}`"
        )


def failback_groups(state: ClusterState, target: HostId, now: float = 0.0) -> list[ResourceGroup]:
    """The groups with home host `target` that run elsewhere and can be moved to it now.

    Raises CommandRefused with the reason if the target cannot take any of them."""
    away = [
        group
        for group in state.cluster.groups.values()
        if group.home_host == target and where(state, group) not in (None, target)
    ]
    movable, refusals = [], []
    for group in away:
        try:
            check_move(state, group, target, now)
            movable.append(group)
        except CommandRefused as refusal:
            refusals.append(str(refusal))
    if refusals and not movable:
        raise CommandRefused("; ".join(refusals))
    if not away:
        _require_host_usable(state, target)
    return movable


def _require_host_usable(state: ClusterState, target: HostId) -> None:
    at = state.hosts[target]
    if not at.connected:
        raise CommandRefused(f"{target} is disconnected" + (f" ({at.loss})" if at.loss else ""))
    if not state.memory_of_host(target).active:
        raise CommandRefused(f"{target} is deactivated; run `halo activate {target}` first")


def check_activation(state: ClusterState, host: HostId, *, active: bool, force: bool) -> str | None:
    """Raise unless the host may be (de)activated now. Returns a text if it already is."""
    if state.memory_of_host(host).active == active:
        return f"{host} is {'active' if active else 'deactivated'} already"
    if active or force:
        return None
    for group in state.groups_of(host):
        if host not in group.candidates:
            continue
        others = [
            other
            for other in group.candidates
            if other != host and state.memory_of_host(other).active
        ]
        if not others and len(group.candidates) > 1:
            raise CommandRefused(
                f"{host} is the last active candidate of {group.id}; activate another candidate "
                "first, or use --force"
            )
        if not others:
            raise CommandRefused(
                f"{host} is the only candidate of {group.id}; run `halo stop {group.id}` first, "
                "or use --force"
            )
        memory = state.memory_of(group)
        here = where(state, group) == host
        if company.led_by(state, group, host):
            continue  # it follows a group that is asked about itself
        why = _why_it_stays(state, group, host)
        if here and memory.managed and why is not None:
            raise CommandRefused(
                f"no other host can take {group.id} from {host} now: {why}; use --force to "
                "deactivate the host anyway"
            )
    return None


def _why_it_stays(state: ClusterState, group: ResourceGroup, host: HostId) -> str | None:
    """Why the group cannot leave `host` for another candidate now; None when it can."""
    if candidates.available(state, group, besides=host):
        return proof.obstacle(state, group, host)
    others = [other for other in group.candidates if other != host]
    why = (candidates.unavailable(state, state.candidate(group, other)) for other in others)
    return "; ".join(filter(None, why))


def leaving_and_staying(
    state: ClusterState, host: HostId
) -> tuple[list[GroupId], dict[GroupId, str]]:
    """For a deactivated host: the groups that leave it, and the groups that stay, with reasons."""
    leaving: list[GroupId] = []
    staying: dict[GroupId, str] = {}
    for group in state.groups_of(host):
        memory = state.memory_of(group)
        if state.groups[group.id].managed_on != host or not memory.wanted:
            continue
        has_to_leave = departures.departure_reason(state, group, host) is not None
        if has_to_leave and holds.hold_reason(state, group) is None:
            leaving.append(group.id)
        else:
            leaders = company.led_by(state, group, host)
            why = holds.hold_reason(state, group) or memory.error
            if leaders and not why:
                why = f"it follows {' and '.join(leaders)}"
            staying[group.id] = why or _why_it_stays(state, group, host) or "no other candidate"
    return leaving, staying


def what_leaves(state: ClusterState, host: HostId) -> str:
    """The groups that leave a deactivated host, and the groups that stay, in words."""
    leaving, staying_why = leaving_and_staying(state, host)
    staying = [f"{group} ({why})" for group, why in staying_why.items()]
    return (f"; moving away: {', '.join(leaving)}" if leaving else "") + (
        f"; staying here: {', '.join(staying)}" if staying else ""
    )


def check_managed(state: ClusterState, group: ResourceGroup, *, managed: bool) -> str | None:
    """A text if the group already is managed, or unmanaged; else None."""
    if state.memory_of(group).managed == managed:
        return f"{group.id} is {'managed' if managed else 'unmanaged'} already"
    return None


def check_wanted(state: ClusterState, group: ResourceGroup, *, wanted: bool) -> str | None:
    """Raise unless a start or stop of the group may be ordered now. Returns a text if the same
    order was given before, and no error keeps it from being carried out."""
    memory = state.memory_of(group)
    if not memory.managed:
        raise CommandRefused(f"{group.id} is unmanaged; run `halo manage {group.id}` first")
    if state.remembered.frozen is not None:
        raise CommandRefused(f"frozen: {state.remembered.frozen}; run `halo thaw` first")
    if memory.wanted != wanted:
        return None
    trouble = memory.error or "; ".join(memory.start_failures.values())
    if wanted and trouble:
        raise CommandRefused(
            f"{group.id} was told to run already, but an error holds it: {trouble}; "
            f"remove the cause, then run `halo cleanup {group.id}`"
        )
    if wanted:
        return f"{group.id} was told to run already{_what_it_waits_for(state, group)}"
    if memory.error_kind is ErrorKind.STOP_FAILED:
        raise CommandRefused(
            f"{group.id} was told to stop already, but an error holds it: {memory.error}; "
            f"remove the cause, then run `halo cleanup {group.id}`"
        )
    if _is_stopped(state, group):
        return f"{group.id} is stopped already"
    return f"{group.id} was told to stop already{_what_it_waits_for(state, group)}"


def check_frozen(state: ClusterState, *, frozen: bool) -> str | None:
    """A text if the cluster already is frozen, or already is not; else None."""
    if frozen and state.remembered.frozen is not None:
        return f"frozen already: {state.remembered.frozen}"
    if not frozen and state.remembered.frozen is None:
        return "not frozen"
    return None


def _what_it_waits_for(state: ClusterState, group: ResourceGroup) -> str:
    at = state.groups[group.id]
    return f"; it waits: {at.comment}" if at.managed_on is None and at.comment else ""


def _is_stopped(state: ClusterState, group: ResourceGroup) -> bool:
    presence = state.knowledge.presence
    return all(presence(group, host) is Presence.STOPPED for host in group.hosts)


def check_reset(state: ClusterState, host: HostId) -> None:
    """Raise unless there is something to reset."""
    memory, at = state.memory_of_host(host), state.hosts[host]
    if at.fence_phase is FencePhase.RUNNING:
        raise CommandRefused(f"{host} is being fenced; wait for the outcome")
    if not memory.fenced and not memory.distrusted:
        why = f"{host} is not fenced, so there is nothing to reset"
        if at.fence_phase is FencePhase.FAILED:
            why += (
                ". Its fence failed: `halo status` says why. To stop the tries, run "
                f"`halo fence {host} --cancel`"
            )
        raise CommandRefused(why)


def check_confirm_off(
    state: ClusterState, host: HostId, comment: str | None, *, force: bool = False
) -> None:
    """Raise unless an administrator may confirm that the host is off. With `force` this is allowed
    even if the last connection attempt was answered: another machine may use the address."""
    at = state.hosts[host]
    if not comment:
        raise BadRequest("confirm-off needs a comment (--reason): who saw the host off, and how")
    if at.fence_phase is FencePhase.RUNNING:
        raise CommandRefused(
            f"{host} is being fenced; wait for the outcome, or `halo fence {host} --cancel`"
        )
    if at.connected and at.suspect_at is None:
        raise CommandRefused(f"{host} answers, so it is not off")
    kind = at.loss.kind if at.loss is not None else None
    died = kind is not None and kind.is_closed_port and state.settings.fence_on_connection_close
    if kind is not None and kind.is_sign_of_life and not died and not force:
        raise CommandRefused(
            f"something answers at the address of {host} ({kind.value}), so the host is probably "
            "not off; look again. If another machine answers there, use --force"
        )


def check_confirm_stopped(
    state: ClusterState, group: ResourceGroup, host: HostId, comment: str | None
) -> None:
    """Raise unless an administrator may confirm that the group is stopped on `host`: only where
    HALO cannot see that for itself."""
    if not comment:
        raise BadRequest("--stopped-on needs a comment (--reason): who saw it stopped, and how")
    if host in state.cluster.hosts:
        raise CommandRefused(
            f"{host} is in the config, so HALO asks it; bring the host back, or run "
            f"`halo fence {host}`"
        )
    if host not in state.memory_of(group).former:
        raise CommandRefused(f"nothing says that {group.id} may still run on {host}")


def check_cleanup(state: ClusterState, group: ResourceGroup) -> None:
    """Raise CommandRefused if the group is unmanaged."""
    if not state.memory_of(group).managed:
        raise CommandRefused(f"{group.id} is unmanaged; run `halo manage {group.id}` first")
