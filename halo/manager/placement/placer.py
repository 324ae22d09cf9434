"""The placer: every token that no host task holds waits here, and is handed out from here.

Whenever something changed for a waiting group, the placer asks
:func:`halo.core.groups.placement.decide` again. If that decision lacks proof, the placer asks
:func:`halo.core.groups.proof_search.search` what could bring it. It carries both answers out: it
hands the token to a host, or has hosts probed, pinged, verified or fenced.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from heapq import heappop, heappush
from typing import Protocol

import structlog

from halo.core import reasons
from halo.core.cluster.candidate import Candidate
from halo.core.cluster.knowledge import Presence
from halo.core.groups.actions import Left
from halo.core.groups.placement import Decision, decide
from halo.core.groups.proof_search import ProofSearch, search
from halo.core.hosts.machine import ManageOrder
from halo.core.journal.records import Event
from halo.core.model import GroupId, HostId, ResourceGroup
from halo.core.questions import departures
from halo.core.questions.starts import order, urgency
from halo.core.reasons import Reason
from halo.core.tokens import ResourceToken
from halo.manager.common.context import Context
from halo.manager.common.wakeup import Wakeup
from halo.manager.hosts.host_task import HostTask
from halo.manager.placement.decision_queue import DecisionQueue
from halo.manager.placement.giving_way import GivingWay
from halo.manager.placement.second_copy import SecondCopies
from halo.manager.placement.whereabouts import Verifying, Whereabouts
from halo.telling import PeerLog

RECHECK_SPACING_S = 0.0005
DECISION_HOLDS_S = 20.0
"""How long a sample is proof while the decision waits for something else. Later, people may have
started by hand what an agent had found stopped."""

log = structlog.get_logger("halo.placer")
peer_log = PeerLog("halo.placer")


class Fencing(Protocol):
    """What the placer needs of the fence runner."""

    def fence_automatically(self, host: HostId) -> None: ...


class Placer:
    """Holds waiting tokens and places them."""

    def __init__(
        self,
        context: Context,
        hosts: dict[HostId, HostTask],
        fencing: Fencing,
        devices: Verifying,
        copies: SecondCopies,
        whereabouts: Whereabouts,
    ) -> None:
        self._context = context
        self._state = context.state
        self._hosts = hosts
        self._fencing = fencing
        self._devices = devices
        self._copies = copies
        self._whereabouts = whereabouts
        self._loop = asyncio.get_running_loop()
        self._tokens: dict[GroupId, ResourceToken] = {}
        self._since: dict[GroupId, float] = {}
        self._holds_s: dict[GroupId, float] = {}  # only groups whose decision was begun again
        self._queue = DecisionQueue(self._is_urgent)
        self._recheck: dict[GroupId, float] = {}
        self._rechecks: list[tuple[float, GroupId]] = []  # a heap; some of them hold no more
        self._pinged: dict[HostId, float] = {}
        self._crowded: dict[GroupId, None] = {}  # they wait for what other groups do on a host
        self._refused: dict[GroupId, list[HostId]] = {}  # hosts not fenced, by its last decision
        self._refusals: Counter[HostId] = Counter()  # how many of these decisions name a host
        self._giving_way = GivingWay(context, hosts, self._mark)
        self._wake = Wakeup()
        self._state.tell_followers = self.followed

    # --- messages ----------------------------------------------------------------------------

    def mint(self) -> None:
        """Mint the one token of every group, at start-up."""
        for group in self._state.cluster.groups:
            self._tokens[group] = self._state.ledger.mint(group, "desk")
        self.changed(self._state.cluster.groups)

    def accept(
        self, token: ResourceToken, detail: str, since: float, why: Left = Left.REVOKED
    ) -> None:
        """Take a token home."""
        group = token.group
        if why is Left.MOVING:
            self._state.groups[group].moving = True
        at = self._state.groups[group]
        at.placed_on, at.departing, at.stop_begun, at.starting = None, False, False, False
        if why is Left.STOPPED:
            self._giving_way.came_home(group)
        self._tokens[group] = token.hand_to("desk")
        self._since[group] = since
        self.room_changed(group)
        self._say(group, detail)
        self._mark([group])

    def changed(self, groups: Iterable[GroupId]) -> None:
        """Something changed: begin a new decision. Older monitors are not proof any more."""
        groups, now = list(groups), self._loop.time()
        self._since.update((group, now) for group in groups if group in self._tokens)
        self.learnt(groups)

    def learnt(self, groups: Iterable[GroupId]) -> None:
        """An answer came in: decide again."""
        waiting = []
        for group in groups:
            if group in self._tokens:
                waiting.append(group)
            else:
                self._wake_holder(group)
            self.followed(group)
        self._mark(waiting)

    def followed(self, group: GroupId) -> None:
        """A group changed: decide again on those whose start or place depends on it."""
        followers = self._state.cluster.followers.get(group)
        if followers is not None:
            self._mark([name for name in followers if name in self._tokens])
            for name in followers:
                if name not in self._tokens and self._belongs_to(name, group):
                    self._wake_holder(name)

    def _belongs_to(self, follower: GroupId, group: GroupId) -> bool:
        return group in self._state.cluster.groups[follower].company.together_with

    def room_changed(self, group: GroupId) -> None:
        """A group came to a host, left one, or was started there: decide on those that wait for
        that."""
        groups = self._state.cluster.groups
        if not self._state.cluster.places_matter:
            return  # ten thousand groups that are handed out need not ask each time
        if self._crowded:
            hosts = set(groups[group].hosts)
            self._mark(g for g in self._crowded if not hosts.isdisjoint(groups[g].candidates))
        for host in groups[group].hosts:
            if not self._state.memory_of_host(host).active:
                for other in self._state.groups_of(host):
                    self._wake_holder(other.id)
            for other in self._state.groups_of(host):
                if self._state.memory_of(other).move_target is not None:
                    self._wake_holder(other.id)

    def heard(self, groups: Iterable[GroupId]) -> None:
        """A ping was answered, and a fence may wait for that (S5). After a verdict, every host's
        next heartbeat is such an answer. Tasks that manage a group need not be told."""
        self._mark(group for group in groups if group in self._tokens)

    def _wake_holder(self, group: GroupId) -> None:
        """Tell the group's task that something changed elsewhere, because nothing else tells it.
        The change may let the group leave its host, or end a hold. A group that runs and stays has
        nothing to do."""
        host, found = self._state.groups[group].managed_on, self._state.cluster.groups[group]
        if host is None:
            return
        runs = order.runs_whole(self._state, found, host)
        if not runs or departures.departure_reason(self._state, found, host) is not None:
            self._hosts[host].poke(group)

    def second_copy(self, group: GroupId) -> None:
        """A group is seen on two hosts: act according to its policy."""
        found = self._state.cluster.groups[group]
        self._whereabouts.note_seen(found)
        self._copies.seen(found)

    def tokens_held(self) -> list[ResourceToken]:
        """Every token that waits here, for the audit."""
        return list(self._tokens.values())

    def holds(self, group: GroupId) -> bool:
        """Does the group's token wait here?"""
        return group in self._tokens

    def _mark(self, groups: Iterable[GroupId]) -> None:
        self._queue.mark(groups)
        if self._queue:
            self._wake.ring()

    def _is_urgent(self, group: GroupId) -> bool:
        return group in self._tokens and urgency.is_down(
            self._state, self._state.cluster.groups[group]
        )

    # --- the loop ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Decide until cancelled."""
        while True:
            await self._sleep()
            for group in self._queue.take():
                if group in self._tokens:
                    self._place(self._state.cluster.groups[group])
            if self._queue:
                await asyncio.sleep(0)  # let heartbeats in between ten thousand decisions

    async def _sleep(self) -> None:
        """Wait for a change, or for the next decision that waits for time to pass."""
        rechecks = self._rechecks
        if not self._queue:
            self._wake.reset()
            await self._wake.sleep_until(rechecks[0][0] if rechecks else None)
        now = self._loop.time()
        while rechecks and rechecks[0][0] <= now:
            due, group = heappop(rechecks)
            if self._recheck.get(group) == due:  # else it was decided meanwhile
                del self._recheck[group]
                self._mark([group])

    def _place(self, group: ResourceGroup) -> None:
        """Decide on a group, and carry the decision out."""
        now, seen = self._loop.time(), self._state.candidates_of(group)
        if not self._state.memory_of(group).wanted:
            at = self._state.groups[group.id]
            at.moving, at.gave_way_to = False, None  # a later start is no move any more
        decision = self._decide(group, seen, now)
        found = search(self._state, group, seen, decision.unproven, now)
        self._carry_out(group.id, decision, found)

    def _decide(self, group: ResourceGroup, seen: Sequence[Candidate], now: float) -> Decision:
        since = self._since.setdefault(group.id, now)
        decision = decide(self._state, group, seen, since, now)
        holds_s = self._holds_s.get(group.id, DECISION_HOLDS_S)
        begins = decision.start_on is not None or self._giving_way.is_news(group.id, decision)
        if not begins or now - since <= holds_s:
            return decision
        # Probe once more. If the probe itself took so long, more time is allowed.
        self._since[group.id], self._holds_s[group.id] = now, 2 * holds_s
        return decide(self._state, group, seen, now, now)

    def _carry_out(self, group: GroupId, decision: Decision, found: ProofSearch) -> None:
        target = decision.manage_on or decision.start_on
        if target is not None and not self._whereabouts.are_known(group, [target]):
            decision, target = self._record_first(group, target), None
        had_room_made = self._state.groups[group].makes_room is not None
        if self._giving_way.follow(group, decision):
            self._holds_s.pop(group, None)  # its proof is young now
        if had_room_made and decision.makes_room is None:
            self.room_changed(group)  # the room is not kept for it any more
        waits = decision.waits.with_words(found.words) if decision.waits is not None else None
        failed = decision.failed or found.failed
        self._say(group, decision.text + found.words, waits, failed=failed)
        self._say_who_is_not_fenced(group, found)
        self._note_rest(group, decision)
        self._recheck.pop(group, None)
        self._crowded.pop(group, None)
        if decision.crowded:
            self._crowded[group] = None
        if target is not None:
            if decision.start_on is not None:
                self._whereabouts.note_proven(self._state.cluster.groups[group], target)
            self._release_needs_elsewhere(group, target)
            self._state.groups[group].starting = decision.start_on is not None
            self._hand_out(group, target)
            return
        if decision.second_copy:
            self.second_copy(group)
        now = self._loop.time()
        if decision.recheck_s is not None:
            # If thousands of groups wait, each waits a little longer, to spare the processor.
            due = now + max(decision.recheck_s, len(self._recheck) * RECHECK_SPACING_S)
            self._recheck[group] = due
            heappush(self._rechecks, (due, group))
        for host in decision.probe:
            self._hosts[host].probe(group)
        if found.ping or found.fence or decision.makes_room:  # it will start: record that meanwhile
            self._whereabouts.are_known(group, self._state.cluster.groups[group].candidates)
        for host in found.ping:
            self._ping(host, now)
        for host in found.verify:
            self._devices.verify(host)
        for host in found.fence:
            self._say_not_fenced(host, "")
            self._fencing.fence_automatically(host)

    def _record_first(self, group: GroupId, target: HostId) -> Decision:
        """The journal has to learn first that the group may run there. Then it is decided again."""
        reason = reasons.not_recorded(group, target)
        wanted = self._state.memory_of(self._state.cluster.groups[group]).wanted
        making = self._state.groups[group].makes_room  # the others go on to give way
        return Decision(reason.text, reason if wanted else None, makes_room=making)

    def _note_rest(self, group: GroupId, decision: Decision) -> None:
        """Record whether a group that should stay stopped is known to be stopped. If a group is
        removed from the config later, this tells whether it may still run."""
        was_at_rest = self._state.remembered.group(group).at_rest
        if was_at_rest is decision.at_rest or not (decision.at_rest or decision.manage_on):
            return
        journal = self._context.journal
        journal.note(journal.make(Event.AT_REST, group, known=decision.at_rest))

    def _hand_out(self, group: GroupId, host: HostId) -> None:
        order = ManageOrder(self._state.hosts[host].epoch, self._since.pop(group))
        self._holds_s.pop(group, None)
        self._state.groups[group].placed_on = host
        self.room_changed(group)
        self._hosts[host].manage(self._tokens.pop(group), order)

    def _release_needs_elsewhere(self, group: GroupId, target: HostId) -> None:
        """On hosts where the group is known to be stopped, it needs no shared resources."""
        found = self._state.cluster.groups[group]
        for host in found.candidates:
            if host != target and self._state.knowledge.presence(found, host) is Presence.STOPPED:
                self._state.needs.drop_group(group, host)

    def _ping(self, host: HostId, now: float) -> None:
        """At most one ping for each verdict. Its answer wakes every group that waits for it."""
        if self._pinged.get(host, float("-inf")) <= self._state.last_verdict_at:
            self._pinged[host] = now
            self._hosts[host].link.ping()

    def _say(
        self, group: GroupId, text: str, waits: Reason | None = None, *, failed: bool = False
    ) -> None:
        at = self._state.groups[group]
        if at.comment != text:
            log.debug("waits", group=group, reason=text)
        at.decided(text, waits, self._loop.time(), failed=failed)

    def _say_who_is_not_fenced(self, group: GroupId, found: ProofSearch) -> None:
        """Each host says why it is not fenced, as long as a group waits for that."""
        before = self._refused.pop(group, [])
        self._refusals.subtract(before)
        if found.not_fenced:
            self._refused[group] = [host for host, _ in found.not_fenced]
            self._refusals.update(self._refused[group])
        for host in before:
            if self._refusals[host] == 0:
                self._say_not_fenced(host, "")
        for host, refusal in found.not_fenced:
            self._say_not_fenced(host, refusal)

    def _say_not_fenced(self, host: HostId, refusal: str) -> None:
        at = self._state.hosts[host]
        if refusal and at.fence_held.split("(")[0] != refusal.split("(")[0]:
            peer_log.warning("not fenced", host=host, reason=refusal)
        at.fence_held = refusal
