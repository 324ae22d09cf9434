"""Deliberate breakages of the manager: the simulator has to find every one of them.

Each is applied to the running code for the time of a test, and is as small as the mistake that it
stands for. One that is not found is a hole in the simulator.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

from halo.core.cluster.candidate import Candidate
from halo.core.cluster.host_state import HostState
from halo.core.cluster.knowledge import Knowledge, Presence
from halo.core.cluster.shared import SharedNeeds
from halo.core.cluster.state import ClusterState
from halo.core.fencing import rules
from halo.core.fencing.attempt import Attempt
from halo.core.groups import placement
from halo.core.groups.machine import GroupMachine
from halo.core.groups.sharing import Sharing
from halo.core.hosts.losing_sight import LossDetector
from halo.core.hosts.machine import HostMachine
from halo.core.journal import fold, places
from halo.core.journal.records import Event
from halo.core.questions import candidates, company, former, holds, proof, room, suspicion, takers
from halo.core.questions.preempting import giving_way
from halo.core.questions.preempting import plan as preempting
from halo.core.questions.starts import order, turn
from halo.manager import manager as manager_module
from halo.manager.common import journal as journal_module
from halo.manager.groups import operations
from halo.manager.groups.group_task import GroupTask
from halo.manager.hosts.host_task import HostTask
from halo.manager.hosts.watcher import Watcher
from halo.manager.placement import placer as placer_module
from halo.manager.placement.whereabouts import Whereabouts
from tests.simulation.model import Action, GroupPlan, Scenario
from tests.simulation.plan import CROWD
from tests.simulation.plan import scenario as planned
from tests.simulation.runner import quiet, run

Patch = tuple[Any, str, Any]
Make = Callable[[], list[Patch]]
MUTANTS: dict[str, Make] = {}
FOCUS: dict[str, tuple[str, ...]] = {}
"""The kinds of faults and commands among which a mutant is hunted; none: all, by swarm."""


def mutant(make: Make) -> Make:
    """Register one that is hunted among all faults."""
    MUTANTS[make.__name__] = make
    return make


def mutant_of(*focus: str) -> Callable[[Make], Make]:
    """Register one whose hunt begins where it matters, to spare time."""

    def register(make: Make) -> Make:
        FOCUS[make.__name__] = focus
        return mutant(make)

    return register


def applied(name: str) -> AbstractContextManager[None]:
    """The manager, broken in one way."""
    return patched(MUTANTS[name]())


@contextmanager
def patched(patches: list[Patch]) -> Iterator[None]:
    """The code with these patches."""
    before = [(target, attribute, _get(target, attribute)) for target, attribute, _ in patches]
    for target, attribute, value in patches:
        _set(target, attribute, value)
    try:
        yield
    finally:
        for target, attribute, value in before:
            _set(target, attribute, value)


def _get(target: Any, attribute: str) -> Any:
    return target[attribute] if isinstance(target, dict) else target.__dict__[attribute]


def _set(target: Any, attribute: str, value: Any) -> None:
    if isinstance(target, dict):
        target[attribute] = value
    else:
        setattr(target, attribute, value)


# --- proof (S1) --------------------------------------------------------------------------------


def _lacks_proof_unless(excuse: Callable[[Any, Any], bool]) -> list[Patch]:
    original = proof.lacks_proof

    def lacks_proof(state: Any, candidate: Any, since: float, now: float) -> Any:
        if excuse(state, candidate.at):
            return None
        return original(state, candidate, since, now)

    return [(proof, "lacks_proof", lacks_proof)]


@mutant
def start_without_waiting_for_the_fence() -> list[Patch]:
    return _lacks_proof_unless(lambda state, at: at.lost_at is not None)


@mutant
def partner_never_seen_counts_as_stopped() -> list[Patch]:
    return _lacks_proof_unless(lambda state, at: at.epoch == 0)


@mutant
def power_proof_never_grows_old() -> list[Patch]:
    return _lacks_proof_unless(lambda state, at: at.power_proof is not None and not at.connected)


@mutant_of("power_off", "stop", "start", "cleanup", "manager_crash")
def a_proof_is_as_old_as_the_question() -> list[Patch]:
    """A device that takes longer to answer than a proof holds never proves anything again."""
    renewed, fenced = ClusterState.renew_power_proof, ClusterState.host_fenced

    def renew(self: Any, host: str, *, asked_at: float, answered_at: float) -> Any:
        return renewed(self, host, asked_at=asked_at, answered_at=asked_at)

    def host_fenced(self: Any, host: str, *args: Any) -> None:
        fenced(self, host, *args)
        proof = self.hosts[host].power_proof
        if proof.level is not None:
            proof.verified_at = min(proof.verified_at, proof.asked_at)

    return [
        (ClusterState, "renew_power_proof", renew),
        (ClusterState, "host_fenced", host_fenced),
    ]


@mutant
def power_proof_survives_a_sign_of_life() -> list[Patch]:
    original = ClusterState.host_connected

    def host_connected(self: Any, host: str, *rest: Any) -> Any:
        proof = self.hosts[host].power_proof
        epoch = original(self, host, *rest)
        self.hosts[host].power_proof = proof
        if proof is not None:
            proof.verified_at = float("inf")
        return epoch

    return [(ClusterState, "host_connected", host_connected)]


@mutant
def knowledge_survives_a_lost_connection() -> list[Patch]:
    """With the epoch check of the gate gone too, as one mistake in the same line of thought."""
    return [
        (Knowledge, "drop_host", lambda self, host, reason: None),
        *_lacks_proof_unless(lambda state, at: not at.connected and at.epoch > 0),
    ]


@mutant
def old_samples_are_proof() -> list[Patch]:
    original = Candidate.stopped_since.fget  # type: ignore[attr-defined]  # a property

    def stopped_since(self: Any) -> Any:
        return None if original(self) is None else float("inf")

    def drop_group(self: Any, *_: Any, **__: Any) -> None:
        return None

    return [
        (Candidate, "stopped_since", property(stopped_since)),
        (Knowledge, "drop_group", drop_group),
    ]


@mutant_of("script", "manager_crash", "agent_crash", "move")
def any_monitor_error_means_stopped() -> list[Patch]:
    original = operations.taught

    def taught(operation: Any, result: Any) -> Any:
        presence, reason = original(operation, result)
        if operation.value == "monitor" and presence is Presence.ERROR:
            return Presence.STOPPED, reason
        return presence, reason

    return [(operations, "taught", taught)]


@mutant
def a_stop_is_believed_without_a_monitor() -> list[Patch]:
    original = operations.taught
    stopped = GroupMachine._stopped

    def taught(operation: Any, result: Any) -> Any:
        presence, reason = original(operation, result)
        if operation.value == "stop" and presence is Presence.UNKNOWN:
            return Presence.STOPPED, ""
        return presence, reason

    def believed(self: Any, state: Any, result: Any, now: float) -> Any:
        actions = stopped(self, state, result, now)
        if state.stopped_by_script:
            state.stopped_by_script, state.presence = False, Presence.STOPPED
        return actions

    return [(operations, "taught", taught), (GroupMachine, "_stopped", believed)]


@mutant_of("power_off", "hole", "die")
def everything_may_be_completed_in_place() -> list[Patch]:
    return [(Knowledge, "root_seen", lambda self, group, host, epoch: True)]


@mutant
def leaves_before_all_is_stopped() -> list[Patch]:
    original = GroupMachine._plan_stop

    def plan_stop(self: Any, departure: Any, now: float) -> Any:
        root = self.resources[self._group.root]
        root_only = [s for s in self.resources.values() if s is not root and s.busy is None]
        for state in root_only:
            state.released = True
        return original(self, departure, now)

    gate = proof.lacks_proof

    def lacks_proof(state: Any, candidate: Any, since: float, now: float) -> Any:
        root = state.knowledge.of(candidate.group.root, candidate.host)
        if root.presence is Presence.STOPPED:
            return None
        return gate(state, candidate, since, now)

    return [(GroupMachine, "_plan_stop", plan_stop), (proof, "lacks_proof", lacks_proof)]


# --- tokens (S2) -------------------------------------------------------------------------------


@mutant
def a_revoked_group_keeps_its_token() -> list[Patch]:
    original = HostMachine._child_left

    def child_left(self: Any, event: Any) -> Any:
        actions = original(self, event)
        return actions[1:] if event.why.value == "revoked" else actions

    return [(HostMachine, "_child_left", child_left)]


# --- fences (S3, S5) ---------------------------------------------------------------------------


@mutant_of("device", "agent_hang", "hole")
def an_unverified_fence_is_believed() -> list[Patch]:
    return [(rules, "judge_status", lambda results, **_: None)]


@mutant
def a_failed_off_is_believed() -> list[Patch]:
    return [
        (rules, "judge_off", lambda results: None),
        (rules, "judge_status", lambda results, **_: None),
    ]


def _with_memory(field: str, value: Any) -> list[Patch]:
    """Judge automatic fences as if this field of the host's memory had this value."""
    original = rules.automatic_refusal

    def refusal(state: Any, host: str, now: float, *rest: Any, **named: Any) -> Any:
        memory = state.memory_of_host(host)
        before = getattr(memory, field)
        setattr(memory, field, value)
        try:
            return original(state, host, now, *rest, **named)
        finally:
            setattr(memory, field, before)

    return [(rules, "automatic_refusal", refusal)]


@mutant_of("power_off", "agent_hang")
def fenced_until_reset_is_ignored() -> list[Patch]:
    return _with_memory("fenced", False)


@mutant_of("miswire", "power_off", "agent_hang", "fence")
def a_distrusted_device_is_used() -> list[Patch]:
    return _with_memory("distrusted", None)


@mutant_of("power_off", "reset")
def a_host_never_seen_is_fenced() -> list[Patch]:
    return _with_memory("seen", True)


@mutant_of("power_off", "agent_hang")
def no_storm_guard() -> list[Patch]:
    original = suspicion.suspects_with
    return [(suspicion, "suspects_with", lambda state, host: original(state, host)[:1])]


@mutant_of("power_off", "agent_hang", "reset")
def no_limit_of_fences() -> list[Patch]:
    original = rules.automatic_refusal

    def refusal(state: Any, *rest: Any, **named: Any) -> Any:
        state.automatic_fences.clear()
        return original(state, *rest, **named)

    return [(rules, "automatic_refusal", refusal)]


@mutant
def the_taker_is_not_pinged() -> list[Patch]:
    return [
        (
            takers,
            "takers",
            lambda able, lost: [candidate.host for candidate in able],
        )
    ]


@mutant
def fences_although_it_holds_unmanaged_groups() -> list[Patch]:
    return [(rules, "_unmanaged_on", lambda state, host: [])]


@mutant
def silence_is_judged_too_soon() -> list[Patch]:
    def is_lost(self: Any, now: float) -> bool:
        return bool(self._unanswered >= 2 and now - self._silent_since >= self._budget_s / 3)

    def verdict_at(self: Any) -> float:
        return float(self._silent_since + self._budget_s / 3)

    return [(LossDetector, "is_lost", is_lost), (LossDetector, "verdict_at", verdict_at)]


@mutant_of("power_off", "manager_stall")
def a_standstill_counts_as_silence() -> list[Patch]:
    return [(LossDetector, "woke", lambda self, now, due: None)]


@mutant_of("local", "agent_crash")
def local_trouble_counts_as_silence() -> list[Patch]:
    from halo.core.errors import LossKind

    silence = property(lambda self: self.value not in ("connection refused", "connection reset"))
    nothing = property(lambda self: False)
    return [(LossKind, "proves_nothing", nothing), (LossKind, "is_silence", silence)]


@mutant_of("agent_hang", "hole", "disk_slow", "freeze", "unmanage")
def the_fence_is_not_given_up_when_the_host_answers() -> list[Patch]:
    return [(rules, "abandon_reason", lambda state, host, verdict_at: None)]


@mutant_of("vm_pause", "disk_slow", "hole")
def an_off_that_a_standstill_delayed_is_sent_without_a_look() -> list[Patch]:
    return [(Attempt, "is_look_old", lambda self, now: False)]


# --- the order of groups ------------------------------------------------------------------------


@mutant_of("power_off", "stop", "manager_crash")
def the_order_is_ignored_on_takeover() -> list[Patch]:
    lacking = order.lacking

    def only_at_a_cold_start(state: Any, group: Any) -> Any:
        is_takeover = any(state.hosts[h].power_proof is not None for h in group.candidates)
        return None if is_takeover else lacking(state, group)

    return [(order, "lacking", only_at_a_cold_start)]


@mutant_of("power_off", "stop", "start")
def nobody_is_woken_when_its_turn_comes() -> list[Patch]:
    return [(placer_module.Placer, "followed", lambda self, group: None)]


@mutant_of("stop", "start", "die")
def half_a_group_is_enough_for_the_next() -> list[Patch]:
    def runs(state: Any, group: Any) -> bool:
        return state.memory_of(group).wanted and bool(state.knowledge.running_on(group))

    return [(order, "runs", runs)]


@mutant_of("move", "stop", "start")
def a_group_on_its_way_to_another_host_counts_as_running() -> list[Patch]:
    return [(order, "_is_changing", lambda state, group, host: False)]


# --- room and company ---------------------------------------------------------------------------


@mutant_of("power_off", "move", "stop", "start")
def room_is_not_asked_for() -> list[Patch]:
    return [(room, "lacking", lambda state, group, host: None)]


@mutant_of("power_off", "move", "stop", "start")
def a_group_takes_room_only_once_it_is_seen_running() -> list[Patch]:
    def takes_room(state: Any, group: Any, host: str) -> bool:
        return state.knowledge.presence(group, host) is Presence.RUNNING

    return [(room, "takes_room", takes_room)]


@mutant_of("power_off", "move", "stop", "start")
def what_takes_room_is_added_up_only_once() -> list[Patch]:
    taken = room._taken

    def kept(state: Any, host: str) -> Any:
        return state.room_taken.get(host) or taken(state, host)

    return [(room, "_taken", kept)]


@mutant_of("power_off", "move", "stop", "start")
def any_company_is_good_enough() -> list[Patch]:
    return [(company, "conflict", lambda state, group, host: None)]


@mutant_of("power_off", "move", "stop", "start")
def a_group_does_not_wait_for_its_company() -> list[Patch]:
    return [
        (company, "lacking", lambda state, group: None),
        (company, "_runs_on", lambda state, group: None),
    ]


@mutant_of("power_off", "move", "stop", "start")
def a_group_does_not_follow_its_company() -> list[Patch]:
    return [(company, "host_to_follow", lambda state, group, host: None)]


@mutant_of("power_off", "move", "stop", "start")
def nobody_is_told_when_company_leaves() -> list[Patch]:
    return [
        (placer_module.Placer, "room_changed", lambda self, group: None),
        (placer_module.Placer, "followed", lambda self, group: None),
    ]


@mutant_of("power_off", "move", "stop", "start", "script")
def all_groups_have_their_turn_at_once() -> list[Patch]:
    return [(turn, "lacking", lambda state, group, host, now: None)]


@mutant_of("power_off", "move", "stop", "start")
def a_start_that_is_over_keeps_its_turn() -> list[Patch]:
    return [(GroupTask, "_note_start", lambda self: None)]


@mutant_of(CROWD, "power_off", "stop", "start")
def groups_give_way_before_there_is_proof() -> list[Patch]:
    """With the second look before the first stop gone too, as one mistake in the same line of
    thought."""

    def kept_up(state: Any, group: Any, lacking: Any, now: float) -> Any:
        seen = state.candidates_of(group)
        able = [each.host for each in seen if candidates.out_of_service(state, each) is None]
        making = state.groups[group.id].makes_room
        is_lost = group.preempt and all(each.at.lost_at is not None for each in lacking)
        return making or (preempting.plan(state, group, able, now) if is_lost else None)

    return [
        (giving_way, "kept_up", kept_up),
        (giving_way, "may_begin", lambda state, group, other, host: True),
    ]


@mutant_of(CROWD, "power_off", "stop", "start")
def groups_of_equal_priority_give_way() -> list[Patch]:
    original = preempting._may_give_way

    def may_give_way(state: Any, other: Any, group: Any, host: str) -> bool:
        return original(state, other, replace(group, priority=group.priority + 1), host)

    return [(preempting, "_may_give_way", may_give_way)]


@mutant_of(CROWD, "power_off", "stop", "start")
def a_group_gives_way_for_ever() -> list[Patch]:
    original = ClusterState.make_room

    def make_room(self: Any, group: str, making: Any) -> Any:
        return [] if making is None else original(self, group, making)

    return [(ClusterState, "make_room", make_room)]


# --- hands off (S4) ----------------------------------------------------------------------------


def _holds_except(word: str) -> list[Patch]:
    standing, whole = holds.standing_hold, holds.hold_reason

    def standing_hold(state: Any, group: Any) -> Any:
        reason = standing(state, group)
        return None if reason is not None and reason.text.startswith(word) else reason

    def hold_reason(state: Any, group: Any) -> Any:
        held = standing(state, group)
        reason = whole(state, group) if held is None else held.text
        return None if reason is not None and reason.startswith(word) else reason

    return [(holds, "standing_hold", standing_hold), (holds, "hold_reason", hold_reason)]


@mutant_of("unmanage", "manage", "die", "power_off", "move")
def acts_while_unmanaged() -> list[Patch]:
    return _holds_except("unmanaged")


@mutant_of("freeze", "die", "power_off", "move")
def acts_while_frozen() -> list[Patch]:
    return _holds_except("frozen")


@mutant_of("manager_crash", "die")
def acts_while_observing() -> list[Patch]:
    return _holds_except("observe")


@mutant_of("hand_start", "die", "agent_crash")
def acts_on_second_copies() -> list[Patch]:
    return _holds_except("running on")


# --- memory (S7) -------------------------------------------------------------------------------


@mutant_of("deactivate", "activate", "manager_crash", "reset")
def one_kind_of_record_is_forgotten() -> list[Patch]:
    from halo.core.journal import fold

    return [(fold.HANDLERS, Event.DEACTIVATE, lambda remembered, record: None)]


@mutant_of("manager_crash", "manage", "unmanage", "freeze", "thaw")
def records_are_read_back_to_front() -> list[Patch]:
    from tests.simulation.disk import SimMedium

    original = SimMedium.read
    return [(SimMedium, "read", lambda self: reversed(list(original(self))))]


@mutant_of("manager_crash", "manage", "unmanage", "disk_slow", "deactivate", "activate")
def answers_before_the_disk() -> list[Patch]:
    async def command(self: Any, *records: Any) -> None:
        self.note(*records)

    return [(journal_module.Journal, "command", command)]


@mutant
def waits_for_the_disk_for_ever() -> list[Patch]:
    async def command(self: Any, *records: Any) -> None:
        await asyncio.shield(self._enqueue(records, keep=True).done)
        await asyncio.get_running_loop().create_future()

    return [(journal_module.Journal, "command", command)]


# --- shared resources, liveness ------------------------------------------------------------------


@mutant_of("move", "die", "script", "start", "stop")
def what_is_shared_is_stopped_while_needed() -> list[Patch]:
    original = SharedNeeds.release

    def release(self: Any, resource: str, host: str, group: str) -> bool:
        original(self, resource, host, group)
        return True

    return [
        (SharedNeeds, "release", release),
        (Sharing, "is_needed_by_others", lambda self, state: False),
    ]


@mutant_of("move", "failback", "deactivate", "activate", "stop", "start")
def what_is_shared_is_left_behind() -> list[Patch]:
    """The last group that leaves does not stop it."""

    def release(self: Any, state: Any) -> bool:
        self._state.needs.release(state.resource.id, self._host, self._group.id)
        self._state.needs.stop_ended(state.resource.id, self._host)
        return False

    return [(Sharing, "release", release)]


@mutant_of("move", "failback", "deactivate", "activate", "stop", "start")
def a_group_forgets_its_need_when_another_leaves() -> list[Patch]:
    """So what both need is stopped by the next that leaves, though one stays."""
    original = SharedNeeds.release

    def release(self: Any, resource: str, host: str, group: str) -> bool:
        last = original(self, resource, host, group)
        self._needs.get((resource, host), set()).clear()
        return last

    return [(SharedNeeds, "release", release)]


@mutant
def what_comes_in_wakes_nobody() -> list[Patch]:
    """Found by nothing but a group that stays down."""

    def learnt(self: Any, groups: Any) -> None:
        return None

    def changed(self: Any, groups: Any) -> None:
        if not self._since:
            original(self, groups)

    original = placer_module.Placer.changed
    return [
        (placer_module.Placer, "learnt", learnt),
        (placer_module.Placer, "changed", changed),
        (placement, "RECHECK_S", 1e9),
    ]


@mutant_of("power_off", "device")
def a_failed_fence_is_never_tried_again() -> list[Patch]:
    return [(rules, "retry_pause_s", lambda *_: 1e9)]  # an endless one a new verdict would end


@mutant
def the_link_is_not_resumed_after_a_fence() -> list[Patch]:
    from halo.manager.hosts.link import HostLink

    return [(HostLink, "resume", lambda self: None)]


@mutant
def the_verdict_wakes_nobody() -> list[Patch]:
    def link_lost(self: Any, loss: Any) -> None:
        self._state.hosts[self.host].lost_at = None

    return [(HostTask, "link_lost", link_lost)]


# --- watching, hosts that come back --------------------------------------------------------------


@mutant_of("fence", "disk_slow", "die", "reset")
def a_report_counts_before_the_host_is_ready() -> list[Patch]:
    return [(HostState, "ready", property(lambda self: self.connected))]


@mutant_of("manager_crash", "agent_crash", "power_off")
def only_the_edge_of_a_return_is_acted_on() -> list[Patch]:
    original = HostTask._begin_to_look

    def begin_to_look(self: Any, connection: Any) -> None:
        if self._state.remembered.lifecycle(self.host).away:
            original(self, connection)

    return [(HostTask, "_begin_to_look", begin_to_look)]


@mutant_of("report_lost", "die", "agent_crash")
def a_stale_digest_is_trusted() -> list[Patch]:
    original = Watcher._doubt

    def doubt(self: Any, sight: Any, batch: Any) -> Any:
        problem = original(self, sight, batch)
        return None if problem == "the agent's results differ from the manager's" else problem

    return [(Watcher, "_doubt", doubt)]


@mutant_of("power_off", "boot_services")
def a_reboot_proves_that_all_is_stopped() -> list[Patch]:
    original = HostTask._begin_to_look

    def begin_to_look(self: Any, connection: Any) -> None:
        before = self._state.memory_of_host(self.host).boot_id
        at = self._state.hosts[self.host]
        at.rebooted = before not in ("", connection.identity.boot_id)
        original(self, connection)

    excuse = _lacks_proof_unless(lambda state, at: at.ready and getattr(at, "rebooted", False))
    return [(HostTask, "_begin_to_look", begin_to_look), *excuse]


@mutant_of("hole", "agent_crash", "manager_crash")
def what_runs_is_adopted_and_started() -> list[Patch]:
    """With the check gone too that finds out a machine that took what runs for stopped."""
    original = GroupMachine._adopt

    def adopt(self: Any, resource: Any, now: float) -> Any:
        found = original(self, resource, now)
        if found.presence is Presence.RUNNING:
            found.presence = Presence.STOPPED
        return found

    return [
        (GroupMachine, "_adopt", adopt),
        (Knowledge, "is_seen_running", lambda self, resource, host, epoch: False),
    ]


# --- hosts that are back before they are missed, shortage ---------------------------------------


@mutant_of("blink", "die", "move")
def a_quick_return_leaves_knowledge_as_it_was() -> list[Patch]:
    """Of a host that is back before it is missed, all counts that was seen before."""
    return [
        (Knowledge, "drop_host", lambda self, host, reason: None),
        *_lacks_proof_unless(lambda state, at: at.epoch > 0 and at.lost_at is None),
    ]


@mutant_of("burst", "move", "stop", "start", "failback")
def a_start_is_sent_some_steps_after_its_gate() -> list[Patch]:
    original = operations._change

    async def change(*args: Any) -> Any:
        for _ in range(5):
            await asyncio.sleep(0)
        return await original(*args)

    return [(operations, "_change", change)]


@mutant_of("shortage", "agent_crash", "reset")
def a_shortage_counts_as_silence() -> list[Patch]:
    return local_trouble_counts_as_silence()


# --- nothing is stopped that could start nowhere -------------------------------------------------


@mutant_of("move", "deactivate", "power_off", "agent_crash", "agent_hang")
def stops_what_could_start_nowhere() -> list[Patch]:
    return [(proof, "obstacle", lambda state, group, leaving, now=0.0: None)]


@mutant_of("fence", "power_off", "agent_crash")
def every_fence_by_command_is_forced() -> list[Patch]:
    original = rules.administrator_refusal

    def refusal(state: Any, host: str, *, force: bool) -> Any:
        return original(state, host, force=True)

    return [(rules, "administrator_refusal", refusal)]


# --- changes of the config ----------------------------------------------------------------------


def _without(*keys: str) -> list[Patch]:
    """The record of the config lacks these."""
    original = places.config_change

    def config_change(remembered: Any, cluster: Any) -> Any:
        data = original(remembered, cluster)
        return data and {key: value for key, value in data.items() if key not in keys}

    return [(manager_module, "config_change", config_change)]


@mutant_of("config", "move", "power_off")
def former_hosts_are_forgotten() -> list[Patch]:
    return _without("former")


@mutant_of("config", "power_off", "move")
def a_start_on_a_host_that_was_seen_stopped_is_not_recorded() -> list[Patch]:
    return [
        (Whereabouts, "are_known", lambda self, group, hosts: True),
        (fold.HANDLERS, Event.MAY_RUN, lambda remembered, record: None),
        *_gate_that_ignores_the_journal(),
    ]


def _gate_that_ignores_the_journal() -> list[Patch]:
    original = proof.start_refusal

    def start_refusal(state: Any, group: Any, *rest: Any) -> Any:
        memory = state.memory_of(group)
        kept, memory.stopped_on = memory.stopped_on, []
        try:
            return original(state, group, *rest)
        finally:
            memory.stopped_on = kept

    return [(proof, "start_refusal", start_refusal)]


@mutant_of("config", "move", "power_off")
def a_service_is_known_by_its_name_alone() -> list[Patch]:
    return [(places, "_digest", lambda resource: resource.id)]


@mutant_of("config", "die", "script", "cleanup", "power_off")
def any_cleanup_lifts_a_former_host() -> list[Patch]:
    original = fold.HANDLERS[Event.CLEANUP]

    def cleanup(remembered: Any, record: Any) -> None:
        original(remembered, record)
        remembered.group(record.object).former.clear()

    return [(fold.HANDLERS, Event.CLEANUP, cleanup)]


@mutant_of("config", "move", "power_off")
def a_former_host_that_left_the_config_is_asked_nothing() -> list[Patch]:
    return [(former, "beyond_reach", lambda state, group: None)]


@mutant_of("config", "move", "power_off")
def a_gained_service_is_started_in_place() -> list[Patch]:
    return [(former, "gained_elsewhere", lambda state, group, here: None)]


@mutant_of("config", "move", "power_off")
def a_service_that_no_group_has_is_forgotten() -> list[Patch]:
    return _without("dropped")


@mutant_of("config", "move", "power_off")
def a_former_host_in_the_config_is_asked_nothing() -> list[Patch]:
    return [
        (former, "to_ask", lambda state, group: []),
        (places, "with_former_hosts", lambda cluster, remembered: cluster),
        (manager_module, "with_former_hosts", lambda cluster, remembered: cluster),
    ]


def _giving_way(
    priority: int, *further: GroupPlan, home: tuple[str, ...] = ("a", "b"), stop_at_s: float = 0.0
) -> Scenario:
    """b dies, where the group p was at home. a has room for p only if v gives way."""
    stop = Action(stop_at_s, "command", {"name": "stop", "object": "p", "force": False})
    return Scenario(
        seed=1,
        hosts={"a": {"capacity": 1}, "b": {"capacity": 1}},
        groups=(
            GroupPlan(("b", "a"), (("p", ""),), needs=1, priority=priority, preempt=True),
            GroupPlan(home, (("v", ""),), needs=1),
            *further,
        ),
        settings={},
        actions=(
            Action(20.0, "power_off", {"host": "b", "back_s": 0.0}),
            *((stop,) if stop_at_s else ()),
        ),
        duration_s=80.0,
        options={"leave_off": True},
    )


NEEDS_NOTHING = GroupPlan(("b", "a"), (("n", ""),))
"""b is fenced for this group, so p is proven stopped."""

DIRECTED = {
    "groups_give_way_before_there_is_proof": _giving_way(1, home=("a",)),
    "groups_of_equal_priority_give_way": _giving_way(0, NEEDS_NOTHING),
    "a_group_gives_way_for_ever": _giving_way(
        1, NEEDS_NOTHING, home=("a",), stop_at_s=50.0
    ),
    # The group that another one belongs to is moved.
    "a_group_does_not_follow_its_company": Scenario(
        seed=1,
        hosts={"a": {}, "b": {}},
        groups=(
            GroupPlan(("a", "b"), (("m", ""),)),
            GroupPlan(("a", "b"), (("g", ""),), company={"together_with": ["m"]}),
        ),
        settings={},
        actions=(
            Action(20.0, "command", {"name": "move", "object": "m", "to": "b", "force": False}),
        ),
        duration_s=40.0,
    ),
    # A fence that fails at first, a device that works later, and nothing else: seeds seldom line
    # these up with a host that stays dark to the end.
    "a_failed_fence_is_never_tried_again": Scenario(
        seed=1,
        hosts={"a": {}, "b": {}},
        groups=(GroupPlan(("a", "b"), (("g", ""),)),),
        settings={"fence_timeout_s": 4.0, "fence_retry_min_s": 2.0, "fence_retry_max_s": 15.0},
        actions=(
            Action(10.0, "device", {"host": "a", "level": 0, "number": 0, "fault": "fail",
                                    "for_s": 30.0}),
            Action(15.0, "power_off", {"host": "a", "back_s": 0.0}),
        ),
        duration_s=60.0,
        options={"leave_off": True},
    ),
    # A device that acknowledges an off and does nothing, for a host that is silent and runs on: a
    # device that works, or a host that is dead indeed, hides the mistake.
    "an_unverified_fence_is_believed": Scenario(
        seed=1,
        hosts={"a": {}, "b": {}},
        groups=(GroupPlan(("a", "b"), (("g", ""),)),),
        settings={"fence_timeout_s": 4.0, "fence_retry_min_s": 2.0, "fence_retry_max_s": 15.0},
        actions=(
            Action(10.0, "device", {"host": "a", "level": 0, "number": 0, "fault": "no-effect",
                                    "for_s": 30.0}),
            Action(15.0, "hole", {"host": "a", "way": "both", "for_s": 40.0}),
        ),
        duration_s=60.0,
    ),
    # The report has to come in while the intent of the fence waits for the disk.
    "a_report_counts_before_the_host_is_ready": Scenario(
        seed=1,
        hosts={"a": {"watches": True}, "b": {"watches": True}},
        groups=(GroupPlan(("a", "b"), (("g", ""),)),),
        settings={"watch_interval_s": 1.0},
        actions=(
            Action(20.0, "disk_slow", {"delay_s": 3.0, "for_s": 6.0}),
            Action(20.5, "command", {"name": "fence", "object": "a", "force": False}),
            Action(21.0, "die", {"resource": "g"}),
        ),
        duration_s=40.0,
    ),
    # The leaf of g goes to k, whose root runs, as its host leaves the config.
    "a_gained_service_is_started_in_place": Scenario(
        seed=1,
        hosts={"a": {}, "b": {}, "c": {}},
        groups=(
            GroupPlan(("c", "b"), (("g", ""), ("g.0", "g"))),
            GroupPlan(("a", "b"), (("k", ""),)),
        ),
        settings={},
        actions=(
            Action(20.0, "config", {"edits": [["give", 0, 1], ["drop_host", 2, 0]],
                                    "kill": True, "down_s": 1.0}),
        ),
        duration_s=40.0,
    ),
    # The only disk of g gets another name, as its host leaves the candidates.
    "a_service_is_known_by_its_name_alone": Scenario(
        seed=1,
        hosts={"a": {}, "b": {}},
        groups=(GroupPlan(("a", "b"), (("g", ""),)), GroupPlan(("b", "a"), (("k", ""),))),
        settings={},
        actions=(
            Action(20.0, "config", {"edits": [["rename_elsewhere", 0, 0]], "kill": True,
                                    "down_s": 1.0}),
        ),
        duration_s=40.0,
    ),
    # The leaf of g is taken out of the config, and given to k by a second change.
    "a_service_that_no_group_has_is_forgotten": Scenario(
        seed=1,
        hosts={"a": {}, "b": {}, "c": {}, "d": {}},
        groups=(
            GroupPlan(("a", "b"), (("g", ""), ("g.0", "g"))),
            GroupPlan(("c", "d"), (("k", ""),)),
        ),
        settings={},
        actions=(
            Action(20.0, "config", {"edits": [["drop_leaf", 0, 0]], "kill": True, "down_s": 1.0}),
            Action(40.0, "config", {"edits": [["take_leaf", 1, 0]], "kill": True, "down_s": 1.0}),
        ),
        duration_s=60.0,
    ),
    # Two standstills, each too short to be told of, that overlap: together they are long.
    "a_standstill_counts_as_silence": Scenario(
        seed=1,
        hosts={"a": {}, "b": {}},
        groups=(GroupPlan(("a", "b"), (("g", ""),)),),
        settings={"loss_budget_s": 3.0},
        actions=(
            Action(20.0, "power_off", {"host": "a", "back_s": 0.0}),
            Action(20.5, "manager_stall", {"for_s": 2.0}),
            Action(22.0, "manager_stall", {"for_s": 2.0}),
        ),
        duration_s=40.0,
    ),
    # The network is back before the manager's machine is.
    "an_off_that_a_standstill_delayed_is_sent_without_a_look": Scenario(
        seed=1,
        hosts={"a": {}, "b": {}},
        groups=(GroupPlan(("a", "b"), (("g", ""),)),),
        settings={"loss_budget_s": 3.0},
        actions=(
            Action(20.0, "disk_slow", {"delay_s": 0.9, "for_s": 20.0}),
            Action(20.0, "hole", {"host": "a", "way": "both", "for_s": 8.0}),
            Action(22.5, "vm_pause", {"for_s": 10.0}),  # the intent is being written
        ),
        duration_s=60.0,
    ),
    # The third candidate is out of sight, and nothing proves that it is off.
    "stops_what_could_start_nowhere": Scenario(
        seed=1,
        hosts={"a": {}, "b": {}, "c": {}},
        groups=(GroupPlan(("a", "b", "c"), (("g", ""),)),),
        settings={},
        actions=(
            Action(15.0, "agent_crash", {"host": "c", "for_s": 20.0}),
            Action(20.0, "command", {"name": "move", "object": "g", "to": "b", "force": False}),
        ),
        duration_s=40.0,
    ),
    # The connection to the host that the group left ends between the gate and the start.
    "a_start_is_sent_some_steps_after_its_gate": Scenario(
        seed=1,
        hosts={"a": {"watches": True}, "b": {"watches": True}},
        groups=(GroupPlan(("a", "b"), (("g", ""),)),),
        settings={"monitor_interval_s": 10.0},
        actions=(
            Action(12.0, "command", {"name": "move", "object": "g", "to": "b", "force": False}),
            Action(12.88, "burst", {"host": "*", "faults": [
                {"kind": "cut", "args": {"host": "*"}, "steps": 12},
            ]}, "monitor-answered"),
        ),
        duration_s=30.0,
    ),
    # The group before it is stopped by request, and then its host dies.
    "the_order_is_ignored_on_takeover": Scenario(
        seed=1,
        hosts={"a": {}, "b": {}, "c": {}},
        groups=(GroupPlan(("c",), (("m", ""),)), GroupPlan(("a", "b"), (("g", ""),), after=("m",))),
        settings={},
        actions=(
            Action(20.0, "command", {"name": "stop", "object": "m", "force": False}),
            Action(30.0, "power_off", {"host": "a", "back_s": 0.0}),
        ),
        duration_s=60.0,
        options={"leave_off": True},
    ),
    "a_group_on_its_way_to_another_host_counts_as_running": Scenario(
        seed=1,
        hosts={"a": {}, "b": {}},
        groups=(
            GroupPlan(("a", "b"), (("m", ""),)),
            GroupPlan(("b",), (("g", ""),), after=("m",)),
        ),
        settings={},
        actions=(
            Action(30.0, "command", {"name": "stop", "object": "g", "force": False}),
            Action(50.0, "command", {"name": "move", "object": "m", "to": "b", "force": False}),
            Action(50.5, "command", {"name": "start", "object": "g", "force": False}),
        ),
        duration_s=70.0,
        options={"script_time_s": 3.0},
    ),
    "nobody_is_woken_when_its_turn_comes": Scenario(
        seed=1,
        hosts={"a": {}, "b": {}},
        groups=(GroupPlan(("a",), (("m", ""),)), GroupPlan(("b",), (("g", ""),), after=("m",))),
        settings={"monitor_interval_s": 60.0},
        actions=(),
        duration_s=30.0,
        options={"script_time_s": 3.0},
    ),
    # The only report of a resource's end is lost.
    "a_stale_digest_is_trusted": Scenario(
        seed=1,
        hosts={"a": {"watches": True}, "b": {"watches": True}},
        groups=(GroupPlan(("a", "b"), (("g", ""), ("g.0", "g"))),),
        settings={"watch_interval_s": 1.0},
        actions=(
            Action(20.0, "report_lost", {"host": "a", "count": 1}),
            Action(20.5, "die", {"resource": "g.0"}),
        ),
        duration_s=40.0,
    ),
}  # fmt: skip
"""Scenarios that are tried before any seed."""


def hunt(name: str, limit: int, first: int = 0) -> tuple[int, str] | None:
    """How many seeds it takes to find a mutant, and by which rule; None when `limit` do not."""
    with quiet():
        if name in DIRECTED:
            with applied(name):
                found = first_violation(DIRECTED[name])
            if counts(found) and not first_violation(DIRECTED[name]):
                return 1, found
        for number in range(limit):
            scenario = planned(first + number, focus=FOCUS.get(name, ()))
            with applied(name):
                found = first_violation(scenario)
            if counts(found) and not first_violation(scenario):
                return number + 1, found
    return None


def counts(found: str) -> bool:
    """An exception of the manager shows that a mutant does not fit the code any more, not that it
    breaks a rule."""
    return bool(found) and not found.startswith("defect")


def first_violation(scenario: Scenario) -> str:
    """What a run breaks first; empty if nothing."""
    try:
        result = run(scenario)
    except Exception as error:
        return f"crash: {error!r}"
    return result.violations[0] if result.violations else ""
