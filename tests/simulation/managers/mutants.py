"""Deliberate breakages of what several managers rely on. Plain seeds have to find each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from halo.adapters.etcd.leadership import Leadership
from halo.adapters.etcd.medium import EtcdMedium
from halo.adapters.etcd.values import is_absent
from halo.core.fencing.steps import Begin, Kind
from halo.core.journal.records import Event
from halo.manager import manager as manager_module
from halo.manager.common.journal import Journal
from halo.manager.fencing.fence_runner import FenceRunner
from halo.manager.hosts.host_task import HostTask
from halo.remote.arbiter import Arbiter
from tests.simulation.managers.agents import TermedHost
from tests.simulation.managers.plan import scenario as planned
from tests.simulation.model import Action, GroupPlan, Scenario
from tests.simulation.mutants import Patch, counts, first_violation, patched
from tests.simulation.runner import quiet

Make = Callable[[], list[Patch]]
MUTANTS: dict[str, Make] = {}
FOCUS: dict[str, tuple[str, ...]] = {}
"""The kinds of faults and commands among which a mutant is hunted."""


def mutant_of(*focus: str) -> Callable[[Make], Make]:
    """Register one, with the faults among which it matters."""

    def register(make: Make) -> Make:
        MUTANTS[make.__name__] = make
        FOCUS[make.__name__] = focus
        return make

    return register


@mutant_of("node_freeze", "node_kill", "agent_crash", "reset")
def an_agent_looks_at_no_term() -> list[Patch]:
    return [(Arbiter, "_refusal_of", lambda self, cluster, term: None)]


@mutant_of("node_freeze", "node_wake", "agents_restart", "etcd_cut")
def an_agent_forgets_terms_when_it_ends() -> list[Patch]:
    return [(TermedHost, "arbiter_of_start", lambda self: Arbiter())]


@mutant_of("node_freeze", "node_stop_at", "etcd_cut", "die", "power_off", "move")
def a_manager_acts_after_its_lease() -> list[Patch]:
    def count_from(self: Any, sent_at: float, ttl_s: int) -> None:
        self._proven_until = sent_at + 10 * ttl_s

    return [(Leadership, "_count_from", count_from)]


@mutant_of("node_stop_at", "node_wake", "unmanage", "manage", "freeze")
def a_record_has_no_guard() -> list[Patch]:
    return [(Leadership, "condition", property(lambda self: is_absent("/halo/nothing")))]


@mutant_of("node_kill", "power_off", "hole", "device")
def an_open_intent_is_believed() -> list[Patch]:
    def resolve(self: Any) -> None:
        for host in self._state.hosts:
            intent = self._state.memory_of_host(host).fence_intent
            if intent is not None:
                self._feed(host, Begin(Kind.CONFIRM_OFF, intent, None))

    return [(FenceRunner, "resolve_open_intents", resolve)]


@mutant_of("node_kill", "power_off")
def an_intent_is_not_recorded() -> list[Patch]:
    original = Journal.rescue

    async def rescue(self: Any, *records: Any) -> None:
        kept = [record for record in records if record.event is not Event.FENCE_INTENT]
        if kept:
            await original(self, *kept)

    return [(Journal, "rescue", rescue)]


@mutant_of("node_kill", "power_off", "hole")
def silence_is_counted_from_the_last_leader() -> list[Patch]:
    original = HostTask.__init__

    def begin(self: Any, context: Any, host: str, grace_s: float) -> None:
        original(self, context, host, 0.0)

    return [(HostTask, "__init__", begin)]


@mutant_of("node_kill", "die")
def a_manager_that_stands_by_acts() -> list[Patch]:
    original = Leadership.take

    async def take(self: Any) -> Any:
        if await original(self) is not None:
            self._lost, self._proven_until = None, float("inf")

    return [(Leadership, "take", take)]


@mutant_of("etcd_rebuild", "power_off", "die")
def a_manager_makes_up_its_term() -> list[Patch]:
    """After a rebuild of the store it takes one above those in the journal."""
    known = [0]

    def require_higher(term: int, highest: int) -> None:
        known[0] = highest + 1

    return [
        (manager_module, "_require_higher", require_higher),
        (EtcdMedium, "term", property(lambda self: max(self._leadership.term, known[0]))),
    ]


def _restart(at: float, *delays: float) -> Iterator[Action]:
    for delay in delays:
        yield Action(at, "agents_restart", {"for_s": 0.2}, "leads", delay)


def _of_three(*actions: Action) -> Scenario:
    return Scenario(
        seed=3,
        hosts={"a": {}, "b": {}, "c": {}},
        groups=(GroupPlan(("a", "b", "c"), (("g", ""), ("g.0", "g"))),),
        settings={},
        actions=actions,
        duration_s=50.0,
        options={"managers": 3},
    )


_AN_EARLIER_LEADER_MEETS_NEW_AGENTS = _of_three(
    Action(20.0, "etcd_cut", {"node": "leader", "members": [0, 1, 2], "for_s": 60.0}),
    Action(20.0, "node_freeze", {"node": "leader", "for_s": 50.0, "how": "clock"}),
    Action(21.0, "node_wake", {}, "leads", 0.02),
    *_restart(21.0, 0.3, 1.1, 1.9, 2.7, 3.5),
)
"""A leader without etcd stands still, and its clock with it. It wakes when another one leads, and
believes for some seconds more that it leads. Agents that restart meanwhile meet both."""

DIRECTED: dict[str, Scenario] = {
    "an_agent_looks_at_no_term": _AN_EARLIER_LEADER_MEETS_NEW_AGENTS,
    "an_agent_forgets_terms_when_it_ends": _AN_EARLIER_LEADER_MEETS_NEW_AGENTS,
    # A leader without etcd has something to do after its lease.
    "a_manager_acts_after_its_lease": _of_three(
        Action(20.0, "etcd_quorum", {"for_s": 60.0}),
        *(Action(29.0 + number, "die", {"resource": "g.0"}) for number in range(3)),
    ),
}
"""Scenarios that are tried before any seed."""


def hunt(name: str, limit: int, first: int = 0) -> tuple[int, str] | None:
    """How many seeds it takes to find a mutant, and by which rule; None when `limit` do not."""
    with quiet():
        seeds = (plan_of(name, first + number) for number in range(limit))
        directed = [DIRECTED[name]] if name in DIRECTED else []
        for number, scenario in enumerate(chain(directed, seeds)):
            with patched(MUTANTS[name]()):
                found = first_violation(scenario)
            if counts(found) and not first_violation(scenario):
                return number + 1, found
    return None


def plan_of(name: str, seed: int) -> Scenario:
    """The scenario of a seed, with the faults among which this mutant matters."""
    return planned(seed, focus=FOCUS[name])
