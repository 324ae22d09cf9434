"""Runs scenarios: one, many side by side, and a failing one again and again while it shrinks."""

from __future__ import annotations

import gc
import hashlib
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import structlog

from tests.simulation.model import Scenario
from tests.simulation.settle import Settling
from tests.simulation.simulation import Simulation

SLICE_S = 600.0
"""How often garbage is collected in long runs, in virtual seconds."""


@dataclass
class Result:
    """What came of one run."""

    seed: int
    violations: list[str]
    virtual_s: float
    wall_s: float
    cpu_s: float
    checks: int
    steps: int
    counts: Counter[str] = field(default_factory=Counter)
    timeline: list[str] = field(default_factory=list)
    digest: str = ""

    @property
    def rule(self) -> str:
        """The broken rule, without its particulars."""
        return self.violations[0].split(":")[0] if self.violations else ""


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the manager's log, and what the interpreter says of dropped coroutines; the garbage
    collector must not run in the middle of a step."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    before = structlog.get_config()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(50),
        logger_factory=structlog.ReturnLoggerFactory(),
    )
    gc.disable()
    gc.collect()
    is_frozen = gc.get_freeze_count() > 0  # by whoever runs us
    if not is_frozen:
        gc.freeze()  # what was imported is not looked through after every run: a fifth of the time
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # "was never awaited", of the same
            yield
            gc.collect()
    finally:
        if not is_frozen:
            gc.unfreeze()
        gc.enable()
        structlog.configure(**before)
        sys.unraisablehook = hook


def _simulation_of(scenario: Scenario, timeline: bool) -> Simulation:
    if not scenario.options.get("managers"):
        return Simulation(scenario, timeline)
    from tests.simulation.managers.simulation import ManagersSimulation

    return ManagersSimulation(scenario, timeline)


def run(scenario: Scenario, timeline: bool = False) -> Result:
    """Run one scenario to its end or to its first violation."""
    began, cpu_began = time.perf_counter(), time.process_time()
    simulation = _simulation_of(scenario, timeline)
    world = simulation.world
    try:
        simulation.faults.schedule()
        simulation.start_manager()
        simulation.clock.after(1.0, simulation.tick)
        operator_s = scenario.options.get("operator_s")
        if operator_s:
            _look_after(simulation, operator_s)
        while simulation.clock.now < scenario.duration_s and not world.violations:
            simulation.run_until(min(simulation.clock.now + SLICE_S, scenario.duration_s))
            if scenario.duration_s > SLICE_S:
                gc.collect()
        if not world.violations:
            Settling(simulation).run()
    except Exception as error:
        if not world.violations:  # a defect of the simulation itself, or of the manager
            raise
        world.say("CHECK", f"stopped by {error!r}")
    result = Result(
        scenario.seed,
        world.violations,
        simulation.clock.now,
        time.perf_counter() - began,
        time.process_time() - cpu_began,
        world.oracle.checks,
        simulation.steps,
        world.counts,
        world.timeline or [],
    )
    text = f"{simulation.steps} {simulation.clock.now!r} {sorted(world.counts.items())!r}"
    text += "\n".join(world.disk.texts)
    result.digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    simulation.dispose()
    return result


def _look_after(simulation: Simulation, every_s: float) -> None:
    def look() -> None:
        if not simulation.faults.over:
            simulation.operator.look_after()
            simulation.clock.after(every_s, look)

    simulation.clock.after(every_s, look)


def shrink(scenario: Scenario, rule: str, say: Callable[[str], None], limit: int = 400) -> Scenario:
    """Leave out of a failing scenario what its failure does not need (delta debugging)."""
    runs = 0

    def fails(candidate: Scenario) -> bool:
        nonlocal runs
        runs += 1
        try:
            return run(candidate).rule == rule
        except Exception:
            return rule == "crash"

    best = scenario
    last = run(scenario).virtual_s
    shorter = replace(best, duration_s=min(best.duration_s, last + 1.0))
    if fails(shorter):
        best = shorter
    size = max(len(best.actions) // 2, 1)
    while runs < limit:
        start, before = 0, len(best.actions)
        while start < len(best.actions) and runs < limit:
            rest = best.actions[:start] + best.actions[start + size :]
            candidate = replace(best, actions=rest)
            if fails(candidate):
                best = candidate
            else:
                start += size
        if size == 1 and len(best.actions) == before:
            break
        size = max(size // 2, 1)
    for number in reversed(range(len(best.groups))):
        if len(best.groups) > 1 and runs < limit:
            gone = best.groups[number].tree[0][0]
            kept = tuple(a for a in best.actions if a.args.get("object") != gone)
            candidate = replace(
                best, groups=best.groups[:number] + best.groups[number + 1 :], actions=kept
            )
            if fails(candidate):
                best = candidate
    say(f"shrunk from {len(scenario.actions)} to {len(best.actions)} actions in {runs} runs")
    return best
