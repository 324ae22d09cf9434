"""Deliberate breakages of what several managers rely on. Plain seeds have to find each of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from halo.adapters.etcd.leadership import Leadership
from halo.adapters.etcd.medium import EtcdMedium
from halo.adapters.etcd.values import is_absent
from halo.core.fencing.steps import Begin, Kind
from halo.manager import manager as manager_module
from halo.manager.fencing.fence_runner import FenceRunner
from halo.manager.hosts.host_task import HostTask
from halo.remote.arbiter import Arbiter
from tests.simulation.managers.agents import TermedHost
from tests.simulation.managers.plan import scenario as planned
from tests.simulation.model import Scenario
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


@mutant_of("node_freeze", "node_wake", "agents_restart")
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


def hunt(name: str, limit: int, first: int = 0) -> tuple[int, str] | None:
    """How many seeds it takes to find a mutant, and by which rule; None when `limit` do not."""
    with quiet():
        for number in range(limit):
            scenario = plan_of(name, first + number)
            with patched(MUTANTS[name]()):
                found = first_violation(scenario)
            if counts(found) and not first_violation(scenario):
                return number + 1, found
    return None


def plan_of(name: str, seed: int) -> Scenario:
    """The scenario of a seed, with the faults among which this mutant matters."""
    return planned(seed, focus=FOCUS[name])
