"""The kept sums are always those that one would add up now, whatever happens in between.

If an old sum were used, two groups could take the same room, or a group would wait beside a free
host for ever.
"""

from __future__ import annotations

from decimal import Decimal

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from halo.core.cluster.host_state import FencePhase
from halo.core.cluster.knowledge import Presence
from halo.core.cluster.state import ClusterState
from halo.core.journal import fold
from halo.core.journal.records import Event, Record
from halo.core.journal.remembered import ErrorKind, Remembered
from halo.core.model import HostId, ResourceGroup
from halo.core.questions import room
from tests.core.builders import PAIR, RUNNING, STOPPED, World, amounts, make_group

HOSTS, NAMES, GROUPS = ("h1", "h2", "h3"), ("gb", "cores"), ("g", "a", "b", "c", "free")
a_host, a_group = st.sampled_from(HOSTS), st.sampled_from(GROUPS)


def a_world() -> World:
    return World(
        make_group("g", ["h1", "h2"], PAIR, needs=amounts({"gb": 60})),
        make_group("a", ["h2", "h1", "h3"], needs=amounts({"gb": 30, "cores": 4}), priority=2),
        make_group("b", ["h3", "h1"], needs=amounts({"cores": 2}), priority=1),
        make_group("c", ["h1", "h2"], {"c": ["net"], "net": []}, ["net"], needs=amounts({"gb": 7})),
        make_group("free", ["h1", "h2", "h3"]),
        capacity={"h1": {"gb": 100, "cores": 8}, "h2": {"gb": 100}, "h3": {"cores": 5}},
    )


def plain_sum(
    state: ClusterState, host: HostId, name: str, besides: ResourceGroup | None
) -> Decimal:
    """What takes room, added up now."""
    heads_too = besides is not None and room.heads_for(state, besides) == host
    found = Decimal(0)
    for group in state.groups_of(host):
        if name not in group.needs or group is besides:
            continue
        counts = room.is_there(state, group, host)
        if not counts and room.heads_for(state, group) == host:
            # Of groups that only head for a host, one does not wait for those that come later.
            counts = not (
                besides is not None
                and heads_too
                and (-group.priority, group.id) > (-besides.priority, besides.id)
            )
        if counts:
            found += group.needs[name]
    return found


class Steps(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.world = a_world()
        self.world.up(*HOSTS)

    @property
    def state(self) -> ClusterState:
        self.world.now += 1.0  # later answers count
        return self.world.state

    @rule(name=a_group, host=a_host, presence=st.sampled_from(Presence), part=st.booleans())
    def a_monitor(self, name: str, host: str, presence: Presence, *, part: bool) -> None:
        if host in self.state.cluster.groups[name].candidates:
            self.world.see(name, host, presence, only=[name] if part else None)

    @rule(name=a_group, host=a_host, presence=st.sampled_from([RUNNING, STOPPED]))
    def a_report(self, name: str, host: str, presence: Presence) -> None:
        group, epoch = self.state.cluster.groups[name], self.state.hosts[host].epoch
        if host in group.candidates:
            root = group.resources[0]
            self.state.observe_report(group, root, host, presence, epoch=epoch)

    @rule(name=a_group, host=a_host)
    def a_start(self, name: str, host: str) -> None:
        root, epoch = self.state.cluster.groups[name].resources[0], self.state.hosts[host].epoch
        now = self.world.now
        self.world.state.knowledge.note_starting(root, host, epoch=epoch, begun_at=now)

    @rule(name=a_group)
    def a_cleanup(self, name: str) -> None:
        group = self.state.cluster.groups[name]
        self.world.state.knowledge.drop_group(group, "cleaned up", now=self.world.now)

    @rule(name=a_group, host=st.sampled_from([None, *HOSTS]))
    def a_token(self, name: str, host: str | None) -> None:
        self.state.groups[name].placed_on = host

    @rule(host=a_host)
    def a_connection(self, host: str) -> None:
        if not self.state.hosts[host].connected:
            self.world.connect(host)

    @rule(host=a_host, accepted=st.booleans())
    def a_heartbeat(self, host: str, *, accepted: bool) -> None:
        self.state.hosts[host].accepted = accepted

    @rule(host=a_host)
    def a_loss(self, host: str) -> None:
        if self.state.hosts[host].connected:
            self.world.disconnect(host)

    @rule(host=a_host, phase=st.sampled_from(FencePhase))
    def a_fence(self, host: str, phase: FencePhase) -> None:
        self.state.hosts[host].fence_phase = phase

    @rule(host=a_host)
    def a_fence_succeeds(self, host: str) -> None:
        assert self.state
        self.world.fenced(host)

    @rule(host=a_host)
    def a_proof_ends(self, host: str) -> None:
        self.state.void_power_proof(host, "a sign of life")

    @rule(
        name=a_group,
        event=st.sampled_from([Event.START, Event.STOP, Event.MANAGE, Event.UNMANAGE,
                               Event.CLEANUP]),
    )  # fmt: skip
    def an_order(self, name: str, event: Event) -> None:
        self.world.journal(event, name)

    @rule(name=a_group, host=a_host)
    def a_move(self, name: str, host: str) -> None:
        self.world.journal(Event.MOVE, name, to=host)

    @rule(name=a_group, kind=st.sampled_from(ErrorKind))
    def an_error(self, name: str, kind: ErrorKind) -> None:
        self.world.error(name, kind)

    @rule(name=a_group, host=a_host)
    def another_memory(self, name: str, host: str) -> None:
        """As when the journal had another order of the records."""
        other = Remembered()
        fold.apply(other, Record(1.0, Event.MOVE, name, "", {"to": host}))
        self.world.state.remembered.adopt(other)

    @invariant()
    def the_sums_are_those_of_now(self) -> None:
        state = self.world.state
        needy = [group for group in state.cluster.groups.values() if group.needs]
        for host in HOSTS:
            for name in NAMES:
                for besides in (None, *needy):
                    told = room.used(state, host, name, besides)
                    assert told == plain_sum(state, host, name, besides), (host, name, besides)


TestTheSums = Steps.TestCase
TestTheSums.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


def test_a_sum_is_made_once_while_nothing_changes() -> None:
    world = a_world()
    world.up(*HOSTS)
    for at in (110.0, 120.0):
        room.used(world.state, "h1", "gb")
        kept = world.state.room_taken["h1"]
        world.see("g", "h1", STOPPED, at=at)  # as it was
        world.state.hosts["h2"].fence_phase = FencePhase.RUNNING  # another host
        room.lacking(world.state, world.group(), "h1")
        assert world.state.room_taken["h1"] is kept
        world.see("g", "h1", RUNNING, at=at + 1)
        room.lacking(world.state, world.group(), "h1")
        assert world.state.room_taken["h1"] is not kept
        world.see("g", "h1", STOPPED, at=at + 2)
