"""The manager's whole state as one value, and the questions that decisions ask of it.

Tasks change it in plain synchronous steps; every question here is a pure function of it and of the
time. Monotonic seconds throughout.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from halo.core.cluster.knowledge import Knowledge, Presence
from halo.core.cluster.shared import SharedNeeds
from halo.core.errors import Loss
from halo.core.journal.remembered import ErrorKind, Remembered, RememberedGroup, RememberedHost
from halo.core.model import (
    Cluster,
    GroupId,
    Host,
    HostId,
    LossPolicy,
    Operation,
    Resource,
    ResourceGroup,
    ResourceId,
    Settings,
)
from halo.core.outcomes import AgentIdentity
from halo.core.peers.certificates import OwnCertificates
from halo.core.tokens import TokenLedger

SLOW_DEVICE_S = 5.0
"""A fence device that takes longer to answer is worth a word to whoever waits for it."""


class FencePhase(StrEnum):
    """Where the fencing of one host stands."""

    IDLE = "idle"
    RUNNING = "fencing"  # from the intent to the outcome: its connection is not acted on
    FAILED = "fence failed"  # tried again at `fence_retry_at`, unless the host answers


@dataclass(slots=True)
class PowerProof:
    """A confirmed fence without a sign of life since. Monotonic seconds."""

    verified_at: float  # the oldest answer of a level that last said off; -inf: it has to be asked
    level: int | None = None  # the one that confirmed, from 1; None: not known, or a person's word
    asked_at: float = float("-inf")  # when the question to that answer was put
    doubted_at: float = float("-inf")  # only questions put after this count


@dataclass(slots=True)
class OperationCount:
    """How many starts and stops were sent over this connection, and how many were answered."""

    sent: int = 0
    answered: int = 0
    last: Operation | None = None


@dataclass
class HostState:
    """What one manager knows of one host at run time; nothing of it survives a restart."""

    id: HostId
    connected: bool = False
    epoch: int = 0  # counts connections
    since: float = 0.0  # of the last change of `connected`
    loss: Loss | None = None
    identity: AgentIdentity = field(default_factory=AgentIdentity)
    answered_at: float = float("-inf")  # when the last answered probe was *sent*
    suspect_at: float | None = None  # when its present silence began
    was_suspect_at: float | None = None  # when the silence before that began
    lost_at: float | None = None  # when it was declared lost; None while it is not
    fence_phase: FencePhase = FencePhase.IDLE
    fence_error: str = ""
    fence_attempts: int = 0
    fence_retry_at: float = 0.0
    fence_held: str = ""  # why an automatic fence of it is refused just now
    verifying_since: float | None = None  # its fence devices are being asked for their state
    verify_retry_at: float = float("-inf")
    verify_took_s: float = 0.0  # how long the last such answer took
    verify_error: str = ""  # why that did not prove it off
    closed_since: float | None = None  # something, but no agent, answers at its address
    power_proof: PowerProof | None = None
    accepted: bool = False  # a heartbeat was answered over this connection
    watched: bool = False  # its agent reports changes by itself, and nothing was missed so far
    operations: dict[ResourceId, OperationCount] = field(default_factory=dict)
    counts_certain: bool = True  # no start or stop is without an answer after its deadline

    @property
    def ready(self) -> bool:
        """Connected, greeted, heard: its word may be acted on."""
        return self.connected and self.accepted and self.fence_phase is not FencePhase.RUNNING

    def operation_count(self, resource: ResourceId) -> OperationCount:
        """The starts and stops of one resource over this connection, to be counted on."""
        return self.operations.setdefault(resource, OperationCount())

    def settled_operations(self, resource: ResourceId) -> int | None:
        """How many starts and stops were answered; None while one is not."""
        count = self.operations.get(resource)
        if count is None:
            return 0
        return count.answered if count.answered == count.sent else None


@dataclass
class GroupState:
    """What one manager knows of one group at run time."""

    id: GroupId
    managed_on: HostId | None = None  # the host whose task holds the token
    managed_since: float = float("-inf")  # when it got it
    comment: str = ""  # why it waits, or what is wrong
    failed: bool = False  # the comment tells of a failure


@dataclass
class ClusterState:
    """Everything the manager decides on."""

    cluster: Cluster
    remembered: Remembered
    observe_only: bool
    started_at: float
    knowledge: Knowledge = field(default_factory=Knowledge)
    needs: SharedNeeds = field(default_factory=SharedNeeds)
    ledger: TokenLedger = field(default_factory=TokenLedger)
    hosts: dict[HostId, HostState] = field(default_factory=dict)
    groups: dict[GroupId, GroupState] = field(default_factory=dict)
    automatic_fences: deque[float] = field(default_factory=deque)
    journal_trouble: str | None = None
    own_certificates: OwnCertificates = field(default_factory=OwnCertificates)
    last_verdict_at: float = float("-inf")  # when a host was last declared lost

    def __post_init__(self) -> None:
        for host in self.cluster.hosts:
            state = HostState(host, since=self.started_at)
            if self.remembered.host(host).powered_off:
                state.power_proof = PowerProof(float("-inf"), self._remembered_level(host))
            self.hosts[host] = state
        for group in self.cluster.groups:
            self.groups[group] = GroupState(group)

    def _remembered_level(self, host: HostId) -> int | None:
        """Which fence level confirmed that the host is off, where the config still has it."""
        memory, levels = self.remembered.host(host), self.host_config(host).fence_levels
        number = memory.off_level
        if number is None or not 0 < number <= len(levels):
            return None
        same = [device.agent for device in levels[number - 1]] == memory.off_agents
        return number if same else None

    @property
    def settings(self) -> Settings:
        """Timings and limits."""
        return self.cluster.settings

    def memory_of(self, group: ResourceGroup) -> RememberedGroup:
        """What is remembered of a group."""
        return self.remembered.group(group.id)

    def memory_of_host(self, host: HostId) -> RememberedHost:
        """What is remembered of a host."""
        return self.remembered.host(host)

    # --- knowledge ---------------------------------------------------------------------------

    def observe(
        self,
        group: ResourceGroup,
        resource: Resource,
        host: HostId,
        presence: Presence,
        *,
        epoch: int,
        begun_at: float,
        reason: str = "",
    ) -> bool:
        """Take in what was learnt over connection `epoch`; stale news is dropped.

        Returns True when the presence changed."""
        at = self.hosts[host]
        if not at.ready or at.epoch != epoch:
            return False
        if self.knowledge.is_outdated(resource, host, epoch=epoch, begun_at=begun_at):
            return False  # nor may the root be restarted here on its account
        changed = self.knowledge.observe(
            resource, host, presence, epoch=epoch, begun_at=begun_at, reason=reason
        )
        self._note_where(group, resource, host, presence, epoch)
        return changed

    def observe_report(
        self,
        group: ResourceGroup,
        resource: Resource,
        host: HostId,
        presence: Presence,
        *,
        epoch: int,
        reason: str = "",
    ) -> bool:
        """Take in what a watching agent reported; never proof. True when the presence changed."""
        at = self.hosts[host]
        if not at.ready or at.epoch != epoch:
            return False
        changed = self.knowledge.report(resource, host, presence, epoch=epoch, reason=reason)
        if changed:
            self._note_where(group, resource, host, presence, epoch)
        return changed

    def _note_where(
        self,
        group: ResourceGroup,
        resource: Resource,
        host: HostId,
        presence: Presence,
        epoch: int,
    ) -> None:
        """Keep account of where the root may be restarted in place (S1)."""
        if presence is Presence.RUNNING and not resource.shared:
            if any(
                self.knowledge.presence(group, other) is Presence.RUNNING
                for other in group.candidates
                if other != host
            ):
                for other in group.candidates:
                    self.knowledge.forget_root(group, other)
            elif resource.id == group.root:
                self.knowledge.note_root_running(group, host, epoch)
            else:
                self.knowledge.note_seen_elsewhere(group, host)

    def host_connected(self, host: HostId, identity: AgentIdentity, now: float) -> int:
        """A new connection stands: a sign of life, and nothing is known over it yet.

        Returns its epoch."""
        at = self.hosts[host]
        at.epoch += 1
        at.connected, at.since, at.loss, at.identity = True, now, None, identity
        at.power_proof = None
        at.fence_held = ""
        at.answered_at = now
        at.closed_since = None
        at.accepted = identity.legacy  # such an agent knows no heartbeat
        at.watched = False
        at.operations = {}
        at.counts_certain = True
        if at.fence_phase is FencePhase.FAILED:
            at.fence_phase, at.fence_error, at.fence_attempts = FencePhase.IDLE, "", 0
        self.host_alive(host)
        self.knowledge.drop_host(host, "not looked at yet")
        return at.epoch

    def host_disconnected(self, host: HostId, loss: Loss, now: float) -> None:
        """The connection is gone: what was known over it is unknown now."""
        at = self.hosts[host]
        at.connected, at.since, at.loss = False, now, loss
        at.accepted = at.watched = False
        self.knowledge.drop_host(host, f"{host} is disconnected")

    def host_alive(self, host: HostId) -> None:
        """Any sign of life: it is neither suspect nor lost."""
        at = self.hosts[host]
        if at.suspect_at is not None:
            at.was_suspect_at = at.suspect_at
        at.suspect_at = at.lost_at = None

    def host_fenced(
        self,
        host: HostId,
        verified_at: float,
        level: int | None = None,
        asked_at: float = float("-inf"),
    ) -> None:
        """A fence was confirmed: everything on the host is stopped.

        `verified_at`: when the devices of `level`, asked at `asked_at`, said off; without a level,
        when a person did."""
        at = self.hosts[host]
        at.power_proof = PowerProof(verified_at, level, asked_at)
        at.verify_error = ""
        at.fence_phase, at.fence_error, at.fence_attempts = FencePhase.IDLE, "", 0
        at.fence_held = ""
        self._note_all_stopped(host)
        self.needs.drop_host(host)

    def _note_all_stopped(self, host: HostId) -> None:
        """It is off: what may run there is stopped, until any sign of life."""
        groups = self.cluster.groups_of_host[host]
        resources = {r.id: r for group in groups for r in group.resources}
        self.knowledge.host_fenced(host, list(resources.values()))

    def note_closed_port(self, host: HostId, now: float) -> None:
        """Something answers at its address, and no agent: the device is to say once more that the
        host is off. Once it did, the same port that stays closed is no news."""
        at = self.hosts[host]
        at.closed_since = now if at.closed_since is None else at.closed_since
        self.doubt_power_proof(host, at.closed_since)

    def note_silence(self, host: HostId) -> None:
        """Nothing answers at its address: what answers later is news."""
        self.hosts[host].closed_since = None

    def doubt_power_proof(self, host: HostId, since: float) -> None:
        """Nothing rests on what the devices said to a question from before `since`."""
        proof = self.hosts[host].power_proof
        if proof is not None and since > proof.asked_at:
            proof.verified_at = float("-inf")
            proof.doubted_at = max(proof.doubted_at, since)

    def renew_power_proof(self, host: HostId, *, asked_at: float, answered_at: float) -> bool:
        """The devices of a level say off. False: a doubt is younger than the question.

        The proof is as old as the answer, not as the question: of a device that takes longer to
        answer than a proof holds no answer could be used otherwise."""
        proof = self.hosts[host].power_proof
        if proof is None or asked_at < proof.doubted_at:
            return False
        proof.verified_at, proof.asked_at = answered_at, asked_at
        self._note_all_stopped(host)  # a cleanup, or a restart of the manager, forgot it
        return True

    def void_power_proof(self, host: HostId, reason: str) -> None:
        """What the fence proved does not hold any more."""
        self.hosts[host].power_proof = None
        self.knowledge.drop_host(host, reason)

    def note_automatic_fence(self, now: float) -> None:
        """One more for the rate limit; what is too old to count is dropped."""
        fences, window_s = self.automatic_fences, self.settings.fence_limit_window_s
        while fences and now - fences[0] >= window_s:
            fences.popleft()
        fences.append(now)

    # --- what may be done --------------------------------------------------------------------

    def hold_reason(self, group: ResourceGroup) -> str | None:
        """Why nothing at all may be done to a group now (S4, S9); None when it may."""
        memory = self.memory_of(group)
        if self.observe_only:
            return "observe mode: the manager takes no action"
        if not memory.managed:
            return "unmanaged" + (f": {memory.comment}" if memory.comment else "")
        if self.remembered.frozen is not None:
            return f"frozen: {self.remembered.frozen}"
        if memory.error_kind is ErrorKind.SECOND_COPY:
            return (
                f"{memory.error}; see that no more than one copy runs, "
                f"then `halo cleanup {group.id}`"
            )
        copies = self.knowledge.running_on(group)
        if len(copies) > 1:
            return f"running on {' and '.join(copies)} at once"
        return self._second_copy_out_of_sight(group, copies[0]) if copies else None

    def _second_copy_out_of_sight(self, group: ResourceGroup, seen_on: HostId) -> str | None:
        """Seen here, and last seen running on a host that can neither be asked nor is proven off:
        to complete the group here, or to start it again, may be to start it twice (S1, S9)."""
        for host in group.candidates:
            at = self.hosts[host]
            if host == seen_on or at.power_proof is not None:
                continue
            if self.knowledge.last_seen(group, host) is not Presence.RUNNING:
                continue
            text = f"seen running on {seen_on}, and last seen running on {host} too"
            if at.ready:
                return f"{text}, which has to be looked at"
            return (
                f"{text}, which is out of sight; bring it back, or see that it is off and "
                f"`halo fence {host} --confirm-off --reason ...`"
            )
        return None

    def unavailable(self, group: ResourceGroup, host: HostId) -> str | None:
        """Why `host` cannot take `group` now; None when it can."""
        at = self.hosts[host]
        if at.fence_phase is FencePhase.RUNNING:
            return f"{host} is being fenced"
        if not at.connected:
            return f"{host} is disconnected" + (f" ({at.loss})" if at.loss else "")
        if not at.accepted:
            return f"{host} is reconnecting"
        if not self.memory_of_host(host).active:
            return f"{host} is deactivated"
        if not self.has_reported(group, host):
            return f"{host} has just connected and was not looked through yet"
        failure = self.memory_of(group).start_failures.get(host)
        if failure is not None:
            return f"the start failed on {host}: {failure}"
        return None

    def has_reported(self, group: ResourceGroup, host: HostId) -> bool:
        """Was every resource of the group looked at over the standing connection?"""
        epoch = self.hosts[host].epoch
        return all(self.knowledge.of(r.id, host).epoch == epoch for r in group.exclusive)

    def available_candidates(self, group: ResourceGroup, besides: HostId) -> list[HostId]:
        """Which other candidates could take the group now, in order of preference."""
        return [
            host
            for host in group.candidates
            if host != besides and self.unavailable(group, host) is None
        ]

    def obstacle(self, group: ResourceGroup, leaving: HostId, now: float = 0.0) -> str | None:
        """Why the group could start nowhere once it has stopped on `leaving`: another candidate
        could not be proven stopped (S1). None when nothing stands in the way.

        `now`: also where a power proof is too old that nobody could renew."""
        for host in group.candidates:
            at, proof = self.hosts[host], self.hosts[host].power_proof
            if host == leaving:
                continue
            if proof is not None and not at.connected:
                too_old = now - proof.verified_at > self.settings.power_proof_age_s
                if too_old and now > 0 and not self.may_ask_device(host):
                    return self._needs_vouching(host)
                continue
            if at.fence_phase is FencePhase.RUNNING:
                return f"{host} is being fenced"
            if not at.connected:
                return (
                    f"{host} is disconnected, and could not be proven to run nothing of "
                    f"{group.id}; bring it back, or `halo fence {host}`"
                )
            if not at.ready:
                return f"{host} is reconnecting"
            presence = self.knowledge.presence(group, host)
            if presence is Presence.RUNNING:
                return f"it is seen running on {host}"
            if presence is not Presence.STOPPED:
                error = self.knowledge.error_on(group, host)
                return f"{error}; mend it there" if error else f"{host} is being looked at"
        return None

    def is_being_looked_at(self, group: ResourceGroup, besides: HostId | None = None) -> bool:
        """Does some candidate in sight, `besides` one, owe a first answer on the group, since it
        was forgotten?"""
        return any(
            host != besides
            and self.hosts[host].ready
            and self.knowledge.presence(group, host) is Presence.UNKNOWN
            and self.knowledge.error_on(group, host) is None
            for host in group.candidates
        )

    @staticmethod
    def _needs_vouching(host: HostId) -> str:
        return (
            f"{host} was confirmed off, and has no fence device that could say so again; "
            f"`halo fence {host} --confirm-off --reason ...` once more"
        )

    def departure_reason(
        self, group: ResourceGroup, host: HostId, *, begun: bool = False
    ) -> str | None:
        """Why a group managed on `host` has to stop there; None when it may stay.

        `begun`: something of it was stopped for that already. A departure is not begun where the
        group could start nowhere afterwards; one that is begun minds no monitor that fails."""
        memory = self.memory_of(group)
        if not memory.wanted:
            return "stopped by the administrator"
        if memory.error_kind is not None:
            return None
        target = memory.move_target
        if (
            target in group.candidates
            and target != host
            and self.unavailable(group, target) is None
            and (begun or self.obstacle(group, host) is None)
        ):
            return f"moving to {target}"
        if not self.memory_of_host(host).active:
            others = self.available_candidates(group, besides=host)
            if others and (begun or self.obstacle(group, host) is None):
                return f"{host} is deactivated; moving to {others[0]}"
        return None

    # --- proof (S1) --------------------------------------------------------------------------

    def lacks_proof(
        self, group: ResourceGroup, host: HostId, since: float, now: float
    ) -> str | None:
        """What is missing to prove the group stopped on `host`; None when it is proven.

        `since`: when the decision to start began; a monitor's word must be younger (S1)."""
        at = self.hosts[host]
        if at.fence_phase is FencePhase.RUNNING:
            return f"{host} is being fenced"
        if at.power_proof is not None and not at.connected:
            age = now - at.power_proof.verified_at
            if age > self.settings.power_proof_age_s:
                if not self.may_ask_device(host):
                    return self._needs_vouching(host)
                said = f" (last asked: {at.verify_error})" if at.verify_error else ""
                if at.verifying_since is not None and at.verify_took_s > SLOW_DEVICE_S:
                    said += f" (it is being asked, which took {at.verify_took_s:.0f} s last time)"
                return (
                    f"{host} was fenced; its fence device has to confirm that it is still "
                    f"off{said}, or you: `halo fence {host} --confirm-off --reason ...`"
                )
            return None
        if not at.connected:
            return f"{host} is disconnected" + (f" ({at.loss})" if at.loss else "")
        if not at.ready:
            return f"{host} is reconnecting"
        sampled = self.knowledge.stopped_since(group, host, at.epoch)
        if sampled is not None and sampled >= since:
            return None
        presence = self.knowledge.presence(group, host)
        if presence is Presence.RUNNING:
            return f"it is seen running on {host}"
        error = self.knowledge.error_on(group, host)
        if error is not None:
            return f"{error}; mend it there, or `halo fence {host}`"
        for resource in group.exclusive:
            sighting = self.knowledge.of(resource.id, host)
            if sighting.presence is Presence.UNKNOWN:
                return f"{resource.id} on {host}: {sighting.reason}"
        return f"{host} has to be looked at again"

    def may_ask_device(self, host: HostId) -> bool:
        """Is there a fence device that would be believed?"""
        has_device = bool(self.host_config(host).fence_levels)
        return has_device and self.memory_of_host(host).distrusted is None

    def start_refusal(
        self, group: ResourceGroup, host: HostId, epoch: int, since: float, now: float
    ) -> str | None:
        """The gate every start passes, in the step that sends it (S1, S4); None lets it pass."""
        at = self.hosts[host]
        if not at.ready or at.epoch != epoch:
            return f"{host} is not connected any more"
        held = self.hold_reason(group)
        if held is not None:
            return held
        elsewhere = [h for h in self.knowledge.running_on(group) if h != host]
        if elsewhere:
            return f"it is seen running on {', '.join(elsewhere)}"
        if self.knowledge.root_seen(group, host, epoch):
            # It may have stopped since, and what held it while it ran holds it still.
            return self._second_copy_out_of_sight(group, host)
        for other in group.candidates:
            if other != host:
                lack = self.lacks_proof(group, other, since, now)
                if lack is not None:
                    return f"not proven stopped elsewhere: {lack}"
        return None

    # --- suspicion ---------------------------------------------------------------------------

    def suspects_with(self, host: HostId) -> list[HostId]:
        """Every host, `host` among them, that fell silent within one sliding window with it.

        A host that was fenced meanwhile still counts; one that answered again does not."""
        own = self.hosts[host]
        onset = own.suspect_at if own.suspect_at is not None else own.lost_at
        if onset is None:
            return []
        window = self.settings.storm_window_s
        # One whose silence counts for nothing to others is judged by it all the same.
        near = sorted(
            [(onset, host)]
            + [
                (at.suspect_at, at.id)
                for at in self.hosts.values()
                if at is not own
                and at.suspect_at is not None
                and abs(at.suspect_at - onset) <= window
            ]
        )
        best: list[HostId] = []
        for index, (start, _) in enumerate(near):
            if start > onset:
                break
            together = [name for begun, name in near[index:] if begun - start <= window]
            if len(together) > len(best):
                best = together
        return best

    def just_back(self, host: HostId, now: float) -> list[HostId]:
        """Hosts that were silent together with this one and have just come back.

        When the manager's own network is mended, hosts come back one after the other, and the
        last ones must not look like the only ones that are lost."""
        own = self.hosts[host]
        onset = own.suspect_at if own.suspect_at is not None else own.lost_at
        if onset is None:
            return []
        grace_s = self.settings.loss_budget_s + self.settings.connect_timeout_s
        return [
            at.id
            for at in self.hosts.values()
            if at.connected
            and at.was_suspect_at is not None
            and max(at.was_suspect_at, onset) < at.since  # it came back while this one was silent
            and now - at.since <= grace_s
            and abs(at.was_suspect_at - onset) <= self.settings.storm_window_s
        ]

    def host_config(self, host: HostId) -> Host:
        """The config of a host."""
        return self.cluster.hosts[host]

    def groups_of(self, host: HostId) -> Iterable[ResourceGroup]:
        """Every group that may run on a host."""
        return self.cluster.groups_of_host[host]

    def reboot_is_due(self, host: HostId) -> bool:
        """May a loss of this host be answered by off-and-on (`on_loss: reboot`)?"""
        return (
            self.host_config(host).on_loss is LossPolicy.REBOOT
            and not self.memory_of_host(host).rebooted
        )
