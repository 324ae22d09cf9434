"""The manager's whole state as one value, and the steps that change it.

Tasks change it in plain synchronous steps. What decisions ask of it stands in
:mod:`halo.core.questions`. Monotonic seconds throughout.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from halo.core.cluster.candidate import Candidate
from halo.core.cluster.group_state import GroupState, MakingRoom, Placings, RoomTaken
from halo.core.cluster.host_state import FencePhase, HostState, PowerProof
from halo.core.cluster.knowledge import Knowledge, Presence
from halo.core.cluster.shared import SharedNeeds
from halo.core.errors import Loss
from halo.core.journal.remembered import Remembered, RememberedGroup, RememberedHost
from halo.core.model import (
    Cluster,
    GroupId,
    Host,
    HostId,
    LossPolicy,
    Resource,
    ResourceGroup,
    Settings,
)
from halo.core.outcomes import AgentIdentity
from halo.core.peers.certificates import OwnCertificates
from halo.core.tokens import TokenLedger


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
    placings: Placings = field(default_factory=Placings)
    room_taken: dict[HostId, RoomTaken] = field(default_factory=dict)  # see questions.room
    automatic_fences: deque[float] = field(default_factory=deque)
    journal_trouble: str | None = None
    own_certificates: OwnCertificates = field(default_factory=OwnCertificates)
    redundancy: list[str] = field(default_factory=list)  # wrong with other managers, or the store
    last_verdict_at: float = float("-inf")  # when a host was last declared lost
    # Told of each group that others are started after, when something of it is seen otherwise.
    tell_followers: Callable[[GroupId], None] = lambda _: None

    def __post_init__(self) -> None:
        for host in self.cluster.hosts:
            state = HostState(host, since=self.started_at)
            if self.remembered.host(host).powered_off:
                state.power_proof = PowerProof(float("-inf"), self._remembered_level(host))
            self.hosts[host] = state
        for group in self.cluster.groups:
            self.groups[group] = GroupState(group, self.placings)

    def _remembered_level(self, host: HostId) -> int | None:
        """The fence level that confirmed that the host is off, if the config still has it."""
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
        found = self.remembered.groups.get(group.id)
        return self.remembered.group(group.id) if found is None else found

    def memory_of_host(self, host: HostId) -> RememberedHost:
        """What is remembered of a host."""
        return self.remembered.host(host)

    def candidate(self, group: ResourceGroup, host: HostId) -> Candidate:
        """What is known now of one host as a candidate for a group."""
        return Candidate(group, host, self.hosts[host], self.knowledge.on_host(host))

    def candidates_of(self, group: ResourceGroup) -> list[Candidate]:
        """What is known now of every candidate, in order of preference."""
        hosts, on_host = self.hosts, self.knowledge.on_host
        return [Candidate(group, host, hosts[host], on_host(host)) for host in group.candidates]

    def former_of(self, group: ResourceGroup) -> list[Candidate]:
        """What is known now of each host where the group is looked for, though the config does not
        name it as a candidate any more."""
        return [self.candidate(group, host) for host in group.former_hosts]

    # --- room that is made -------------------------------------------------------------------

    def make_room(self, group: GroupId, making: MakingRoom | None) -> list[GroupId]:
        """From now on, these groups give way to `group`, and no others; with None, no group does.

        Returns the groups for which something changed. Their tasks and the placer have to know."""
        at = self.groups[group]
        before, at.makes_room = at.makes_room, making
        if making == before:
            return []
        changed: dict[GroupId, None] = {}
        if before is not None:
            changed |= dict.fromkeys(before.givers)
            for giver in before.givers:
                if self.groups[giver].gives_way_to == group:
                    self.groups[giver].gives_way_to = None
            failed = (giver for giver in before.givers if self.remembered.group(giver).error)
            at.resisted = next(failed, None)
        if making is not None:
            changed |= dict.fromkeys(making.givers)
            at.made_room_at = making.since
            for giver in making.givers:
                self.groups[giver].gives_way_to = group
        return list(changed)

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
        of_setup: bool = False,
    ) -> bool:
        """Take in what was learnt over connection `epoch`. Outdated answers are dropped.

        Returns True if the presence changed."""
        at = self.hosts[host]
        if not at.ready or at.epoch != epoch:
            return False
        if self.knowledge.is_outdated(resource, host, epoch=epoch, begun_at=begun_at):
            return False  # an outdated answer gives no right to restart the root here either
        changed = self.knowledge.observe(
            resource,
            host,
            presence,
            epoch=epoch,
            begun_at=begun_at,
            reason=reason,
            of_setup=of_setup,
        )
        self._note_where(group, resource, host, presence, epoch)
        if changed and self.cluster.followers:
            self._tell_followers(group, resource)
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
        of_setup: bool = False,
    ) -> bool:
        """Take in a watching agent's report. It is never proof. True if the presence changed."""
        at = self.hosts[host]
        if not at.ready or at.epoch != epoch:
            return False
        changed = self.knowledge.report(
            resource, host, presence, epoch=epoch, reason=reason, of_setup=of_setup
        )
        if changed:
            self._note_where(group, resource, host, presence, epoch)
            if self.cluster.followers:
                self._tell_followers(group, resource)
        return changed

    def operation_ended(self, group: ResourceGroup, resource: Resource) -> None:
        """A start or stop has ended. What was seen before its answer may count from now on."""
        if self.cluster.followers:
            self._tell_followers(group, resource)

    def _tell_followers(self, group: ResourceGroup, resource: Resource) -> None:
        """A group may have come to run: no group that waits for it may be forgotten."""
        of_shared = self.cluster.groups_of_shared if resource.shared else {}
        for each in of_shared.get(resource.id, (group,)):
            if each.id in self.cluster.followers:
                self.tell_followers(each.id)

    def _note_where(
        self,
        group: ResourceGroup,
        resource: Resource,
        host: HostId,
        presence: Presence,
        epoch: int,
    ) -> None:
        """Remember on which host the root may be restarted in place (S1)."""
        if presence is Presence.RUNNING and not resource.shared:
            if any(
                self.knowledge.presence(group, other) is Presence.RUNNING
                for other in group.hosts
                if other != host
            ):
                for other in group.hosts:
                    self.knowledge.forget_root(group, other)
            elif resource.id == group.root:
                at = self.groups[group.id]
                at.moving, at.gave_way_to, at.made_room_at = False, None, float("-inf")
                self.knowledge.note_root_running(group, host, epoch)
            else:
                self.knowledge.note_seen_elsewhere(group, host)

    def host_connected(self, host: HostId, identity: AgentIdentity, now: float) -> int:
        """A new connection stands. It is a sign of life. Nothing is known over it yet, and no group
        is known to need a shared resource there: those that are found running say so again.

        Returns its epoch."""
        at = self.hosts[host]
        at.epoch += 1
        at.connected, at.since, at.loss, at.identity = True, now, None, identity
        at.power_proof = None
        at.fence_held = ""
        at.answered_at = now
        at.closed_since = None
        at.accepted = identity.legacy  # a legacy agent knows no heartbeats
        at.watched = False
        at.operations = {}
        at.counts_certain = True
        if at.fence_phase is FencePhase.FAILED:
            at.fence_phase, at.fence_error, at.fence_attempts = FencePhase.IDLE, "", 0
        self.host_alive(host)
        self.knowledge.drop_host(host, "not probed yet")
        self.needs.drop_host(host)
        return at.epoch

    def host_disconnected(self, host: HostId, loss: Loss, now: float) -> None:
        """The connection ended: what was learnt over it is unknown now."""
        at = self.hosts[host]
        at.connected, at.since, at.loss = False, now, loss
        at.accepted = at.watched = False
        self.knowledge.drop_host(host, f"{host} is disconnected")

    def host_alive(self, host: HostId) -> None:
        """The host gave a sign of life: it is neither suspect nor lost."""
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

        The devices of `level` were asked at `asked_at` and said off at `verified_at`. Without a
        level, a person confirmed it at `verified_at`."""
        at = self.hosts[host]
        at.power_proof = PowerProof(verified_at, level, asked_at)
        at.verify_error = ""
        at.fence_phase, at.fence_error, at.fence_attempts = FencePhase.IDLE, "", 0
        at.fence_held = ""
        self._note_all_stopped(host)
        self.needs.drop_host(host)

    def _note_all_stopped(self, host: HostId) -> None:
        """The host is off: every resource that may run there is stopped until a sign of life."""
        groups = self.cluster.groups_of_host[host]
        resources = {r.id: r for group in groups for r in group.resources}
        self.knowledge.host_fenced(host, list(resources.values()))

    def note_closed_port(self, host: HostId, now: float) -> None:
        """Something answers at the host's address, but not an agent. The fence device has to
        confirm once more that the host is off. After that, nothing is done while the port stays
        closed."""
        at = self.hosts[host]
        at.closed_since = now if at.closed_since is None else at.closed_since
        self.doubt_power_proof(host, at.closed_since)

    def note_silence(self, host: HostId) -> None:
        """Nothing answers at the host's address: if something answers later, it counts again."""
        self.hosts[host].closed_since = None

    def doubt_power_proof(self, host: HostId, since: float) -> None:
        """From now on, devices' answers to questions sent before `since` are no proof."""
        proof = self.hosts[host].power_proof
        if proof is not None and since > proof.asked_at:
            proof.verified_at = float("-inf")
            proof.doubted_at = max(proof.doubted_at, since)

    def renew_power_proof(self, host: HostId, *, asked_at: float, answered_at: float) -> bool:
        """The devices of a level say off. False: a doubt arose after the question was sent.

        The age of the proof counts from the answer, not from the question. Otherwise the answer of
        a slow device would be too old as soon as it came."""
        proof = self.hosts[host].power_proof
        if proof is None or asked_at < proof.doubted_at:
            return False
        proof.verified_at, proof.asked_at = answered_at, asked_at
        self._note_all_stopped(host)  # a cleanup or a restart of the manager may have dropped it
        return True

    def void_power_proof(self, host: HostId, reason: str) -> None:
        """The proof of the fence is not valid any more."""
        self.hosts[host].power_proof = None
        self.knowledge.drop_host(host, reason)

    def note_automatic_fence(self, now: float) -> None:
        """Count one fence for the rate limit, and drop those that are too old to count."""
        fences, window_s = self.automatic_fences, self.settings.fence_limit_window_s
        while fences and now - fences[0] >= window_s:
            fences.popleft()
        fences.append(now)

    # --- the config and the memory of a host ------------------------------------------------

    def host_config(self, host: HostId) -> Host:
        """The config of a host."""
        return self.cluster.hosts[host]

    def groups_of(self, host: HostId) -> Iterable[ResourceGroup]:
        """Every group that may run on a host."""
        return self.cluster.groups_of_host[host]

    def reboot_is_due(self, host: HostId) -> bool:
        """May HALO answer a loss of this host by power off and on (`on_loss: reboot`)?"""
        return (
            self.host_config(host).on_loss is LossPolicy.REBOOT
            and not self.memory_of_host(host).rebooted
        )
