"""When a host may be powered off, and what counts as done (S3, S5). Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from halo.core.cluster.host_state import FencePhase, HostState
from halo.core.cluster.knowledge import NO_SIGHTING, Presence
from halo.core.cluster.state import ClusterState
from halo.core.errors import LossKind
from halo.core.journal.remembered import RememberedHost
from halo.core.model import HostId, LossPolicy, ResourceGroup
from halo.core.outcomes import FenceResult, PowerState
from halo.core.questions import candidates, company, proof, suspicion, takers

AUTOMATIC_COMMENT = "Manager service initiated fence action."
"""The comment of every automatic fence begins with these words, which sites search for."""

GROUPS_NAMED = 5
FIRST_RETRY_FACTOR = 2.0


def _is_bereft(state: ClusterState, group: ResourceGroup, lost: HostId) -> bool:
    """Is this a wanted, managed group that waits only for `lost`?

    No group waits for a former host on which it was proven stopped."""
    memory = state.memory_of(group)
    return (
        memory.managed
        and memory.wanted
        and (lost in group.candidates or lost in memory.former)
        and state.groups[group.id].managed_on in (None, lost)
        and not state.knowledge.running_on(group)
    )


def bereft(state: ClusterState, lost: HostId) -> list[ResourceGroup]:
    """The wanted, managed groups that wait only for `lost`."""
    return [group for group in state.groups_of(lost) if _is_bereft(state, group, lost)]


def _unmanaged_on(state: ClusterState, host: HostId) -> list[str]:
    """Unmanaged groups that may be running on `host`."""
    return [
        group.id
        for group in state.groups_of(host)
        if not state.memory_of(group).managed
        and state.candidate(group, host).last_seen is not Presence.STOPPED
        and not _runs_elsewhere(state, group, host)
    ]


def _runs_elsewhere(state: ClusterState, group: ResourceGroup, host: HostId) -> bool:
    """Is something seen running on another host that might also run here? A resource that came from
    another group may still run there, while the rest of its new group runs here."""
    on_host = state.knowledge.on_host
    here = on_host(host)
    in_doubt = [
        resource.id
        for resource in group.exclusive
        if here.get(resource.id, NO_SIGHTING).last_seen is not Presence.STOPPED
    ]
    return any(
        on_host(other).get(name, NO_SIGHTING).presence is Presence.RUNNING
        for other in group.hosts
        if other != host
        for name in in_doubt
    )


@dataclass(slots=True)
class FencePlan:
    """Which of some silent hosts may be fenced in one step, and why the others may not."""

    fence: list[HostId] = field(default_factory=list)
    under_way: list[HostId] = field(default_factory=list)
    refusals: list[tuple[HostId, str]] = field(default_factory=list)
    failed: bool = False  # a fence of one of them failed


def plan_step(state: ClusterState, silent: Iterable[HostId], now: float) -> FencePlan:
    """Plan to fence hosts for which a wanted, managed group lacks proof. The caller fences only if
    all of them may be fenced: one power-off proves nothing while another host is not proven."""
    step = FencePlan()
    for host in silent:
        phase = state.hosts[host].fence_phase
        if phase is FencePhase.RUNNING:
            step.under_way.append(host)
            continue
        refusal = automatic_refusal(state, host, now, planned=len(step.fence))
        if refusal is None:
            step.fence.append(host)
        else:
            step.refusals.append((host, refusal))
            step.failed = step.failed or phase is FencePhase.FAILED
    return step


def automatic_refusal(
    state: ClusterState, host: HostId, now: float, planned: int = 0
) -> str | None:
    """Why the manager may not fence `host` by itself now (S5); None when it may.

    The caller has made sure that a wanted, managed group lacks proof only for `host`, or only for
    it and other hosts that will be fenced in the same step. `planned` is the number of those other
    hosts; they count towards the limit."""
    if state.observe_only:
        return "observe mode"
    if state.remembered.frozen is not None:
        return f"frozen: {state.remembered.frozen}"
    at, memory, config = state.hosts[host], state.memory_of_host(host), state.host_config(host)
    if at.fence_phase is FencePhase.RUNNING:
        return f"{host} is being fenced"
    if at.connected:
        return f"{host} answers"
    if at.lost_at is None and at.loss is not None and at.loss.kind is LossKind.BUSY:
        return f"{host} answers, but its agent does not serve this manager: {at.loss.detail}"
    if config.on_loss is LossPolicy.WAIT:
        return f"{host} has `on_loss: wait`; run `halo fence {host}` to fence it by hand"
    if not config.fence_levels:
        return (
            f"{host} has no fence agent; make sure that the host is off, then run "
            f"`halo fence {host} --confirm-off --reason ...`"
        )
    if memory.fenced:
        return (
            f"{host} was fenced and not reset since, so HALO does not fence it automatically. To "
            f"power it off again and start its groups now, run `halo fence {host} --force`. After "
            f"the repair, run `halo reset {host}`"
        )
    if memory.distrusted:
        return (
            f"the fence device of {host} is not trusted; remove the cause, then run "
            f"`halo reset {host}`. To start its groups before that, make sure that the host is off "
            f"and run `halo fence {host} --confirm-off --reason ...`"
        )
    if memory.fence_cancelled:
        return (
            f"the fencing of {host} was cancelled by the administrator; run `halo fence {host}` to "
            f"try again, or, if you saw that the host is off, "
            f"`halo fence {host} --confirm-off --reason ...`"
        )
    if not memory.seen:
        return (
            f"{host} has not answered since its last reset; start the host, or power it off with "
            f"`halo fence {host}`"
        )
    if at.lost_at is None:
        return _not_lost(at, state.settings.loss_budget_s)
    unmanaged = _unmanaged_on(state, host)
    if unmanaged:
        return _may_hold(host, unmanaged)
    if not state.reboot_is_due(host):
        nobody = takers.why_no_taker(state, bereft(state, host), host)
        if nobody is not None:
            return nobody
    return _storm_or_rate(state, host, now, planned) or _retry_pause(state, host, now)


def automatic_comment(state: ClusterState, host: HostId, now: float) -> str:
    """The comment of an automatic fence that is decided at `now` (monotonic seconds): which host
    was silent, for how long, and for which groups it is fenced."""
    at = state.hosts[host]
    if at.loss is not None and at.loss.kind.is_closed_port:
        how = f"{host} was lost: {at.loss}"
    elif at.suspect_at is not None:
        how = f"{host} was silent for {now - at.suspect_at:.1f} s"
    else:
        how = f"{host} gives no answer"
    waiting = [group.id for group in bereft(state, host)]
    whom = ", ".join(waiting[:GROUPS_NAMED])
    if len(waiting) > GROUPS_NAMED:
        whom += f" and {len(waiting) - GROUPS_NAMED} more"
    return f"{AUTOMATIC_COMMENT} {how}; " + (f"for {whom}" if waiting else "on_loss: reboot")


def was_automatic(memory: RememberedHost) -> bool:
    """Was the fence without an outcome automatic? Old records do not hold this; their comment alone
    tells it."""
    if memory.fence_automatic is None:
        return memory.fence_intent == AUTOMATIC_COMMENT
    return memory.fence_automatic


def _not_lost(at: HostState, budget_s: float) -> str:
    kind = at.loss.kind if at.loss is not None else None
    if kind is LossKind.RESET:
        return (
            f"{at.id} answers, but its agent ends the connection; see `journalctl -u halo-remote` "
            f"on {at.id}"
        )
    if kind is LossKind.REFUSED:
        return (
            f"{at.id} answers, but its agent does not run; run `systemctl start halo-remote` on "
            f"{at.id}, or power the host off with `halo fence {at.id}`"
        )
    if kind is not None and kind.is_sign_of_life:
        return (
            f"{at.id} answers, but HALO cannot talk to its agent ({kind.value}); see `journalctl "
            f"-u halo-remote` on {at.id}, or power the host off with `halo fence {at.id}`"
        )
    if kind is not None and kind.proves_nothing:
        return (
            f"the manager cannot ask {at.id} ({kind.value}), so it does not know whether the host "
            "is alive; remove this cause, or, if you know that the host is dead, run "
            f"`halo fence {at.id}`"
        )
    return f"HALO waits until {at.id} is silent for the loss budget ({budget_s:g} s)"


def _may_hold(host: HostId, unmanaged: Sequence[str]) -> str:
    first = unmanaged[0] if len(unmanaged) == 1 else "GROUP"
    return (
        f"{host} may hold unmanaged groups: {', '.join(unmanaged)}; run `halo manage {first}`, or "
        f"run `halo fence {host} --force` to fence it anyway"
    )


def abandon_reason(state: ClusterState, host: HostId, verdict_at: float | None) -> str | None:
    """Why an automatic fence that was decided on `verdict_at` may not continue; None if it may.

    Ask it again in the step that sends each off: a sign of life, freeze, unmanage or stop comes
    first."""
    at = state.hosts[host]
    if at.connected or verdict_at is None or at.lost_at != verdict_at:
        return "it answered again"
    if not state.reboot_is_due(host):
        waiting = bereft(state, host)
        if not waiting:
            return "no group waits for it any more"
        if not any(candidates.available(state, group, besides=host) for group in waiting):
            return takers.nobody_takes(state, waiting, host)
    return hold_reason(state, host)


def hold_reason(state: ClusterState, host: HostId) -> str | None:
    """Why only a command may power `host` off now (S4); None if HALO may do it by itself."""
    if state.remembered.frozen is not None:
        return f"frozen: {state.remembered.frozen}"
    unmanaged = _unmanaged_on(state, host)
    if unmanaged:
        return f"it may hold unmanaged groups: {', '.join(unmanaged)}"
    return None


def _storm_or_rate(state: ClusterState, host: HostId, now: float, planned: int) -> str | None:
    limits = state.settings
    together = suspicion.suspects_with(state, host)
    if len(together) > limits.storm_hosts and (
        len(together) > limits.storm_fraction * len(state.cluster.hosts)
    ):
        return (
            f"{len(together)} hosts fell silent together ({', '.join(sorted(together))}): "
            "the manager's own network may be at fault. "
            f"If you know that {host} is dead, run `halo fence {host}`"
        )
    back = suspicion.just_back(state, host, now)
    if back:
        were = "was also silent and is" if len(back) == 1 else "were also silent and are"
        return (
            f"{', '.join(back)} {were} back. HALO waits some time for {host} before it fences "
            f"{host}"
        )
    recent = [at for at in state.automatic_fences if now - at < limits.fence_limit_window_s]
    if len(recent) + planned >= limits.fence_limit:
        were = "1 automatic fence" if len(recent) == 1 else f"{len(recent)} automatic fences"
        return (
            f"the limit of {were} within {limits.fence_limit_window_s:g} s is reached; run "
            f"`halo fence {host}` to fence the host by hand"
        )
    return None


def _retry_pause(state: ClusterState, host: HostId, now: float) -> str | None:
    at = state.hosts[host]
    if at.fence_phase is FencePhase.FAILED and at.fence_retry_at == float("inf"):
        return (
            f"fencing {host} ended without success ({at.fence_error}); run `halo fence {host}` to "
            "try again, or, if you saw that the host is off, "
            f"`halo fence {host} --confirm-off --reason ...`"
        )
    if at.fence_phase is FencePhase.FAILED and now < at.fence_retry_at:
        return (
            f"fencing {host} failed ({at.fence_error}); next try in "
            f"{max(1, round(at.fence_retry_at - now))} s. Repair the device, or make sure that the "
            f"host is off and run `halo fence {host} --confirm-off --reason ...`"
        )
    return None


def administrator_refusal(state: ClusterState, host: HostId, *, force: bool) -> str | None:
    """Why an administrator's fence of `host` is refused (S8). `force` overrides some reasons."""
    if state.observe_only:
        return "the manager only observes (started without --manage-resources)"
    at, memory, config = state.hosts[host], state.memory_of_host(host), state.host_config(host)
    if at.fence_phase is FencePhase.RUNNING:
        return f"{host} is being fenced already"
    if not config.fence_levels:
        return f"{host} has no fence agent in the config"
    if memory.distrusted:
        return (
            f"the fence device of {host} is not trusted: {memory.distrusted}; remove the cause, "
            f"then run `halo reset {host}`. To start its groups before that, make sure that the "
            f"host is off and run `halo fence {host} --confirm-off --reason ...`"
        )
    if force:
        return None
    if memory.fenced:
        return (
            f"{host} was fenced already and not reset since; run `halo reset {host}`, or run "
            f"`halo fence {host} --force` to fence it again"
        )
    unmanaged = [
        group.id
        for group in state.groups_of(host)
        if not state.memory_of(group).managed
        and (
            state.knowledge.presence(group, host) is Presence.RUNNING
            or group.id in _unmanaged_on(state, host)
        )
    ]
    if unmanaged:
        return _may_hold(host, unmanaged)
    stranded = [
        group
        for group in state.groups_of(host)
        if state.groups[group.id].managed_on == host
        and state.memory_of(group).wanted
        and not company.led_by(state, group, host)  # it follows one that is asked about itself
        and (
            not candidates.available(state, group, besides=host)
            or proof.obstacle(state, group, host) is not None
        )
    ]
    if stranded:
        names = ", ".join(group.id for group in stranded)
        nobody = takers.nobody_takes(state, stranded, host, names)
        return f"{nobody}; run `halo fence {host} --force` to fence it anyway"
    return None


def second_copy_refusal(state: ClusterState, host: HostId, now: float) -> str | None:
    """Why a host that runs a second copy may not be fenced for it (`second_copy: fence`)."""
    return administrator_refusal(state, host, force=False) or _storm_or_rate(
        state, host, now, planned=0
    )


def retry_pause_s(attempts: int, shortest_s: float, longest_s: float) -> float:
    """The pause after the n-th failed attempt in a row. It doubles up to the longest one."""
    doubled = shortest_s * FIRST_RETRY_FACTOR ** min(max(attempts - 1, 0), 16)
    return min(longest_s, doubled)


def judge_off(results: Sequence[FenceResult]) -> str | None:
    """What went wrong with the offs of one level; None if all succeeded."""
    failed = [result.message or "the device reports failure" for result in results
              if not result.succeeded]  # fmt: skip
    return "; ".join(failed) or None


def judge_status(results: Sequence[FenceResult], *, after_off: bool) -> str | None:
    """Why the reported states do not show that the host is off; None if all devices say off.
    `after_off`: the devices have just acknowledged an off."""
    wrong = []
    for result in results:
        if result.power is PowerState.ON:
            says_on = "the device says that the outlet is on"
            acknowledged = "the device acknowledged the off but says that the outlet is on"
            wrong.append(acknowledged if after_off else says_on)
        elif result.power is not PowerState.OFF:
            wrong.append(result.message or "the device does not say whether the outlet is off")
    return "; ".join(wrong) or None
