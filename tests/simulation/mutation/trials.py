"""What a child does: see what seeds or tests reach, or try one mutant with them.

Everything of `halo`, of the simulation and of the tests is imported here, in the child, after the
hook is in place.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

from tests.simulation.mutation import hook
from tests.simulation.mutation.crew import Tell
from tests.simulation.mutation.marks import pack

LONGER = 10.0
"""A run that takes so many times what the seed usually takes does not come to its end."""

LEAST_S = 5.0
"""But each gets so much processor time."""

CORE_TESTS = "tests/core"
PLUGIN = "tests.simulation.mutation.plugin"
TEST_DEADLINE_S = 60


@dataclass(frozen=True, slots=True)
class Usual:
    """A seed's run without a mistake."""

    digest: str
    cpu_s: float


def see_seeds(seeds: Sequence[int], tell: Tell) -> None:
    """Tell what each seed reaches."""
    hits = hook.install_marks()
    run_seed = _simulation()
    imported = pack(hits)
    for seed in seeds:
        hits[:] = bytes(len(hits))
        began = time.process_time()
        broken, digest = run_seed(seed)
        cpu_s = round(time.process_time() - began, 3)
        told = {"seed": seed, "digest": digest, "cpu_s": cpu_s, "broken": broken}
        tell({**told, "hits": pack(hits), "imported": imported})


def try_seeds(mutant_id: str, seeds: Sequence[int], usual: Mapping[int, Usual], tell: Tell) -> None:
    """Run a mutant with these seeds, until one finds it.

    Tells a dict before each run, and one with a `verdict` at the end."""
    tell({"begins": None})
    hook.install_mutant(mutant_id)
    try:
        run_seed = _simulation()
    except BaseException as error:
        tell({"verdict": "killed", "rule": "import", "text": repr(error), "runs": 0})
        return
    changed = 0
    for number, seed in enumerate(seeds, 1):
        tell({"begins": seed})
        deadline_s = max(LEAST_S, LONGER * usual[seed].cpu_s)
        found = {"verdict": "killed", "seed": seed, "runs": number, "changed": changed}

        def too_long(_: int, __: FrameType | None, found: dict[str, Any] = found) -> None:
            tell({**found, "rule": "deadline", "text": "the run does not come to its end"})
            os._exit(0)

        signal.signal(signal.SIGPROF, too_long)
        signal.setitimer(signal.ITIMER_PROF, deadline_s)
        broken, digest = run_seed(seed)
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        if broken:
            tell({**found, "rule": broken.split(":")[0], "text": broken[:300]})
            return
        changed += digest != usual[seed].digest
    tell({"verdict": "survived", "runs": len(seeds), "changed": changed})


def _simulation() -> Callable[[int], tuple[str, str]]:
    """A function from a seed to what it broke (nothing: ""), and the digest of its run."""
    from tests.simulation.plan import scenario
    from tests.simulation.runner import quiet, run

    silence = quiet()
    silence.__enter__()  # for the rest of the child's life

    def run_seed(seed: int) -> tuple[str, str]:
        try:
            result = run(scenario(seed))
        except BaseException as error:  # a mistake may raise anything
            return f"crash: {error!r}", ""
        return (result.violations[0] if result.violations else ""), result.digest

    return run_seed


def see_tests(tell: Tell) -> None:
    """Tell what each test of the core reaches."""
    hits = hook.install_marks()
    from tests.simulation.mutation import plugin

    plugin.watch(hits, tell)
    tell({"ended": _pytest([CORE_TESTS])})


def try_tests(mutant_id: str, tests: Sequence[str], tell: Tell) -> None:
    """Run these tests of the core with a mutant, until one fails."""
    tell({"begins": None})
    os.environ["HALO_MUTANT"] = mutant_id
    from tests.simulation.mutation import plugin

    plugin.choose(tests)
    files = sorted({test.split("::")[0] for test in tests})
    code = _pytest(["-x", *files])
    if code in (1, 2):  # a test failed; a file could not even be read
        test = plugin.failed[0] if plugin.failed else "collection"
        tell({"verdict": "killed", "test": test})
    elif code == 0:
        tell({"verdict": "survived", "runs": len(tests)})


def _pytest(arguments: Sequence[str]) -> int:
    import pytest

    options = ["-q", "-p", PLUGIN, "-p", "no:cacheprovider", "-p", "no:xdist"]
    options += ["--hypothesis-profile=mutation", f"--timeout={TEST_DEADLINE_S}"]
    return int(pytest.main([*options, *arguments]))
