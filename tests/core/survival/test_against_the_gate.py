"""The forecast against the gate: the host is lost, and every decision is made, one by one.

Each seed makes a small cluster with needs and company, which the gate itself fills.
"""

from __future__ import annotations

from random import Random

import pytest

from halo.core.groups.placement import decide
from halo.core.journal.records import Event
from halo.core.model import Company, GroupId, HostId, ResourceGroup
from halo.core.survival.outlook import Outlook
from halo.core.survival.takeover import Takeover
from tests.core.builders import RUNNING, World, amounts, make_group

HOSTS = ["h1", "h2", "h3", "h4"]
WISHES = ("together_with", "apart_from", "prefer_together_with", "prefer_apart_from", "after")


def groups_of(random: Random) -> list[ResourceGroup]:
    """Some groups. Each may have wishes about those before it."""
    names = [f"g{n}" for n in range(random.randint(3, 9))]
    wishes: dict[str, dict[str, list[str]]] = {n: {key: [] for key in WISHES} for n in names}
    for at, name in enumerate(names):
        for other in names[:at]:
            wish = random.choice([*WISHES, *[None] * 15])
            if wish is not None:
                wishes[name][wish].append(other)
            if wish in ("apart_from", "prefer_apart_from"):
                wishes[other][wish].append(name)  # as the config does
    return [
        make_group(
            name,
            random.sample(HOSTS, random.choice([1, 2, 2, 3, 4])),
            needs=amounts(random.choice([{}, {"gb": 20}, {"gb": 35}, {"gb": 50, "cores": 3}])),
            priority=random.randint(0, 2),
            after=tuple(wishes[name].pop("after")),
            company=Company(**{key: tuple(named) for key, named in wishes[name].items()}),
        )
        for name in names
    ]


def decide_all(world: World) -> None:
    """Start every group that the gate lets start, the most important first, until none is left."""
    state = world.state
    begun = True
    while begun:
        begun = False
        started = []
        for group in sorted(world.cluster.groups.values(), key=lambda group: -group.priority):
            at = state.groups[group.id]
            if at.placed_on is not None:
                continue
            seen = state.candidates_of(group)
            decision = decide(state, group, seen, world.now, world.now)
            at.decided(decision.text, decision.waits, world.now, failed=decision.failed)
            if decision.start_on is not None:
                at.placed_on = at.managed_on = decision.start_on
                started.append((group.id, decision.start_on))
        for name, host in started:
            world.see(name, host, RUNNING)
            begun = True


def a_world(seed: int) -> World:
    """The gate fills an empty cluster. What finds no place is told to stop. Then things happen."""
    random = Random(seed)
    groups = groups_of(random)
    capacity = {
        host: random.choice([{}, {"gb": 60}, {"gb": 100}, {"gb": 100, "cores": 4}])
        for host in HOSTS
    }
    world = World(*groups, hosts=HOSTS, capacity=capacity)
    world.up(*HOSTS)
    decide_all(world)
    for name, at in world.state.groups.items():
        if at.placed_on is None:
            world.journal(Event.STOP, name)
    if random.random() < 0.4:
        world.journal(Event.DEACTIVATE, random.choice(HOSTS))
    if random.random() < 0.3:
        world.start_failed(random.choice(groups).id, random.choice(HOSTS))
    if random.random() < 0.3:
        world.unmanage(random.choice(groups).id)
    if random.random() < 0.3:
        world.journal(Event.STOP, random.choice(groups).id)
    return world


def foretold(world: World, lost: HostId) -> tuple[dict[GroupId, HostId], set[GroupId]]:
    """Where the groups of the host are started, and which stay down, by the forecast."""
    outlook = Outlook(world.state)
    for group in world.cluster.groups.values():
        outlook.note(group, world.state.knowledge.running_on(group))
    takeover = Takeover(outlook.standing, outlook.standing.movable.get(lost, []), lost)
    for _ in takeover.steps():
        pass
    return takeover.started, set(takeover.down)


def come_true(world: World, lost: HostId) -> tuple[dict[GroupId, HostId], set[GroupId]]:
    """The same, after the host was lost and fenced."""
    state = world.state
    held = [name for name, at in state.groups.items() if at.placed_on == lost]
    leaving = [
        name
        for name in held
        if state.remembered.group(name).managed and state.remembered.group(name).wanted
    ]
    world.fenced(lost)
    for name in held:
        state.groups[name].placed_on = state.groups[name].managed_on = None
    decide_all(world)
    placed = {name: state.groups[name].placed_on for name in leaving}
    started = {name: host for name, host in placed.items() if host is not None}
    return started, set(leaving) - set(started)


@pytest.mark.parametrize("seed", range(60))
def test_what_is_foretold_comes_true(seed: int) -> None:
    for lost in HOSTS:
        assert foretold(a_world(seed), lost) == come_true(a_world(seed), lost), lost


def test_these_clusters_have_groups_that_stay_down_and_groups_that_do_not() -> None:
    told = [foretold(a_world(seed), lost) for seed in range(60) for lost in HOSTS]
    assert sum(bool(started) for started, _ in told) > 40
    assert sum(bool(down) for _, down in told) > 40
