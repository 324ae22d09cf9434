"""The tool in use: marks, children, the results file, and a few known mistakes.

What replaces modules runs in processes of its own: `halo` is imported here already.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.simulation.mutation import hook, scope
from tests.simulation.mutation.crew import work_through
from tests.simulation.mutation.derive import Mutant, derive, flags_of
from tests.simulation.mutation.marks import Marker, Reach, names_for, pack, unpack
from tests.simulation.mutation.results import ResultsFile
from tests.simulation.plan import scenario
from tests.simulation.runner import quiet, run

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(300)]

SEEDS = 12


def the_mutant(module: str, function: str, kind: str, before: str) -> Mutant:
    """The only one of this kind whose statement begins like this."""
    modules = scope.modules()
    flags = flags_of(other.source for other in modules)
    source = next(other.source for other in modules if other.name == module)
    (found,) = [
        mutant
        for mutant in derive(module, source, flags)
        if (mutant.function, mutant.kind) == (function, kind) and mutant.before.startswith(before)
    ]
    return found


def hunted(results: Path, mutants: list[Mutant], *more: str) -> tuple[dict[str, Any], str]:
    ids = [part for mutant in mutants for part in ("--mutant", mutant.id)]
    arguments = [*ids, f"--seeds={SEEDS}", "--no-core-tests", f"--results={results}", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation.mutate", *arguments, *more],
        cwd=scope.ROOT,
        # The oracles of what is shown and recorded find nearly everything, even the harmless one.
        env={**os.environ, "HALO_SIMULATION_ORACLES": "none"},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout), done.stderr


def test_known_mistakes_are_found_a_harmless_one_survives_and_nothing_is_run_twice(
    tmp_path: Path,
) -> None:
    forgets = the_mutant("halo.core.journal.fold", "_active", "turned", "remembered.host(")
    trusts = the_mutant("halo.core.questions.proof", "lacks_proof", "guard", "if age >")
    harmless = the_mutant(
        "halo.core.journal.fold", "apply", "turned", "if record.event not in NOT_"
    )
    nobody = the_mutant("halo.core.peers.certificates", "refusal_of_agent", "guard", "if")
    results = tmp_path / "results.jsonl"
    mutants = [forgets, trusts, harmless, nobody]
    found, _ = hunted(results, mutants)
    outcomes = {finding["id"]: finding for finding in found["findings"]}
    assert outcomes[forgets.id]["outcome"] == "killed by simulation"
    assert outcomes[forgets.id]["rule"] == "S7"
    assert outcomes[trusts.id]["rule"] == "S1"
    assert outcomes[harmless.id]["outcome"] == "survived"
    assert outcomes[harmless.id]["changed"] == 0
    assert outcomes[nobody.id]["outcome"] == "unreached"
    lines = results.read_text().splitlines()
    again, said = hunted(results, mutants)
    assert again["findings"] == found["findings"]
    assert "simulation: 0 of 4 mutants to run" in said
    assert results.read_text().splitlines() == lines

    # The marks change nothing in a run.
    reached = [line for line in map(json.loads, lines) if line["what"] == "reach"]
    with quiet():
        plain = {seed: run(scenario(seed)).digest for seed in range(SEEDS)}
    assert {line["seed"]: line["digest"] for line in reached} == plain


def test_a_test_of_the_core_fails_with_a_mutant_and_passes_without() -> None:
    mutant = the_mutant("halo.core.tokens", "TokenLedger.audit", "turned", "if group not in seen")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    command += ["-p", "tests.simulation.mutation.plugin", "tests/core/test_tokens.py"]
    codes = [
        subprocess.run(
            command, cwd=scope.ROOT, env={**os.environ, **more}, stdout=subprocess.DEVNULL
        ).returncode
        for more in ({}, {"HALO_MUTANT": mutant.id})
    ]
    assert codes == [0, 1]


def test_what_is_imported_already_cannot_be_replaced() -> None:
    with pytest.raises(RuntimeError, match="imported already"):
        hook.install({scope.__name__: ("x", Marker().mark("x", ""))}, {})


def test_marks_show_statements_equal_sides_and_false_operands() -> None:
    source = (
        '"""Text."""\nfrom __future__ import annotations\n'
        "def f(a, b):\n"
        "    if a < b and a:\n"
        "        return 1\n"
        "    return 2\n"
    )
    marker = Marker()
    code = compile(marker.mark("m", source), "m", "exec")
    hits = bytearray(len(marker.points))
    space = names_for(hits)
    exec(code, space)
    reach = Reach(marker.points)
    function: Any = space["f"]
    for runner, arguments in {"less": (1, 2), "equal": (2, 2), "null": (0, 2)}.items():
        hits[:] = bytes(len(hits))
        assert function(*arguments) == (1 if runner == "less" else 2)
        reach.add(runner, pack(hits))
    assert reach.of("m", "at 4:4-5:16") == ["less", "equal", "null"]
    assert reach.of("m", "at 5:8-5:16") == ["less"]
    assert reach.of("m", "at 6:4-6:12") == ["equal", "null"]
    assert reach.of("m", "equal 4:7-4:12") == ["equal"]
    assert reach.of("m", "false 4:7-4:12") == ["equal"]
    assert reach.of("m", "false 4:17-4:18") == ["null"]
    assert reach.of("m", None) == ["less", "equal", "null"]


@given(st.lists(st.booleans(), max_size=70))
def test_marks_survive_their_text(marks: list[bool]) -> None:
    hits = bytearray(marks)
    numbers = {number for number, is_set in enumerate(marks) if is_set}
    assert unpack(pack(hits), len(hits)) == numbers


def test_children_tell_and_those_that_do_not_come_back_are_ended() -> None:
    def tells(tell: Any) -> None:
        tell(1)
        tell(2)

    def hangs(tell: Any) -> None:
        tell("begun")
        time.sleep(600)

    def dies(tell: Any) -> None:
        os.kill(os.getpid(), 9)

    def wants_too_much(tell: Any) -> None:
        tell(len(bytearray(1 << 40)))

    works = {"tells": tells, "hangs": hangs, "dies": dies, "wants too much": wants_too_much}
    found = {ended.key: ended for ended in work_through(works.items(), 2, silence_s=1.0)}
    assert (found["tells"].told, found["tells"].exit_code) == ([1, 2], 0)
    assert (found["hangs"].told, found["hangs"].was_ended) == (["begun"], True)
    assert found["dies"].exit_code == -9
    assert (found["wants too much"].told, found["wants too much"].exit_code) == ([], 1)


def test_results_count_for_their_source_alone_and_survive_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    ResultsFile(path, {"simulation": "old"}).append("simulation", "trial", {"mutant": "a"})
    ResultsFile(path, {"simulation": "new"}).append("simulation", "trial", {"mutant": "b"})
    with path.open("a") as file:
        file.write('{"stage": "simul')
    file_now = ResultsFile(path, {"simulation": "new"})
    assert [line["mutant"] for line in file_now.of("simulation", "trial")] == ["b"]
    file_now.append("simulation", "trial", {"mutant": "c"})
    lines = ResultsFile(path, {"simulation": "new"}).of("simulation", "trial")
    assert [line["mutant"] for line in lines] == ["b", "c"]
