"""Which mistakes are made of a piece of code, and what their ids depend on."""

from __future__ import annotations

import ast
import random
from textwrap import dedent

import pytest

from tests.simulation.mutation import scope
from tests.simulation.mutation.derive import Mutant, derive, flags_of, mutated
from tests.simulation.mutation.kinds import KINDS

NAME = "halo.core.sample"
FLAGS = frozenset({"fenced", "connected"})


def made(source: str, kind: str | None = None) -> list[Mutant]:
    found = derive(NAME, dedent(source), FLAGS)
    return [mutant for mutant in found if kind in (None, mutant.kind)]


def inside(body: str) -> str:
    return "def f(a, b, c):\n" + "".join(f"    {line}\n" for line in dedent(body).splitlines())


@pytest.mark.parametrize(
    ("kind", "body", "after"),
    [
        ("guard", "if a:\n    b()\n    return 1\nc()", ["if a: pass"]),
        ("guard", "for x in a:\n    if x:\n        continue\n    c()", ["if x: pass"]),
        ("guard", "if a:\n    raise b\nreturn c", ["if a: pass"]),
        ("guard", "if a:\n    b()\nreturn c", []),
        ("operand", "return a and b and c", ["return b and c", "return a and c", "return a and b"]),
        ("operand", "return a or b", []),
        ("turned", "return a < b", ["return a >= b"]),
        ("turned", "return a == b", ["return a != b"]),
        ("turned", "return a is not b", ["return a is b"]),
        ("turned", "return a in b", ["return a not in b"]),
        ("turned", "return a <= b < c", ["return a > b < c", "return a <= b >= c"]),
        ("shifted", "return a < b", ["return a <= b"]),
        ("shifted", "return a >= b", ["return a > b"]),
        ("shifted", "return a == b", []),
        ("swapped", "return a and b", ["return a or b"]),
        ("swapped", "if a or b:\n    c = 1", ["if a and b: c = 1"]),
        ("unnot", "return not a", ["return a"]),
        ("flag", "a.x = True", ["pass"]),
        ("flag", "a.fenced = b", ["pass"]),
        ("flag", "a.comment = b", []),
        ("flag", "a['reboot'] = True", ["pass"]),
        ("flag", "a.fenced = a.connected = False", ["a.connected = False", "a.fenced = False"]),
        ("return", "if a:\n    b()\n    return 1\nreturn c", ["pass"]),
        ("return", "if a:\n    return 1\nreturn c", []),  # the guard does the same
        ("return", "for x in a:\n    return x\nc()", ["pass"]),
        ("return", "return c", []),
        ("journal", "a.journal.note(a.journal.make(b))", ["pass"]),
        ("journal", "a.do(Write((Entry(b),), c))", ["a.do(Write((), c))"]),
        ("journal", "x = Entry(b)\nreturn x, Entry(c)", ["return (Entry(c),)", "return (x,)"]),
        ("journal", "a.append(a.make(b))", ["pass"]),
        ("call", "a.desk.learnt([b])", ["pass"]),
        ("call", "a.wake.set()", ["pass"]),
        ("call", "(a.x if b else a.y)(c)", ["pass"]),
        ("call", "return a.poke()", []),
    ],
)
def test_each_kind(kind: str, body: str, after: list[str]) -> None:
    assert [mutant.after for mutant in made(inside(body), kind)] == after


def test_a_record_for_which_something_is_waited() -> None:
    found = made("async def f(journal, records):\n    await journal.rescue(*records)\n")
    assert [(mutant.kind, mutant.after) for mutant in found] == [("journal", "pass")]


@pytest.mark.parametrize(
    "source",
    [
        '"""a < b and not c"""\n',
        'def f(a):\n    """Is a < b?"""\n    return a\n',
        "def f(a: 'int < 3' = 1) -> 'a and b':\n    x: 'a < b' = a\n    return x\n",
        "def f(a):\n    log.info('x', y=a < 3)\n",
        "def f(a):\n    if a < 3:\n        log.info('x')\n    else:\n        log.error('y')\n",
        "def f(self, a):\n    tell = log.info if a < 3 else log.error\n    tell('x')\n",
        "class A:\n    def __repr__(self):\n        return 'x' if self.a < 3 else 'y'\n",
        "def f(a):\n    return f'{a} {3 if a < 3 else 4}'\n",
        "if TYPE_CHECKING:\n    f(a < 3)\n",
        "def __init__(self):\n    super().__init__()\n    self.fenced = False\n",
    ],
)
def test_what_decides_nothing_makes_no_mutant(source: str) -> None:
    assert made(source) == []


BEFORE = """
def g(a):
    return a < 1

class A:
    def f(self, a, b):
        if a < b:  # why
            return 1
        return a and b
"""


def test_an_id_stays_when_something_else_changes() -> None:
    ids = {mutant.id for mutant in made(BEFORE) if mutant.function == "A.f"}
    assert ids
    after = BEFORE.replace("return a < 1", "if not a:\n        return 2\n    return a > 1 and a")
    after = after.replace("# why", "# another why").replace("class A:", 'class A:\n    """Text."""')
    after = after.replace("class A:", "def h():\n    poke()\n\nclass A:")
    changed = made(after)
    assert {mutant.id for mutant in changed if mutant.function == "A.f"} == ids
    assert {m.id for m in made(BEFORE)}.isdisjoint(m.id for m in changed if m.function == "g")


def test_an_id_changes_with_its_function() -> None:
    ids = {mutant.id for mutant in made(BEFORE) if mutant.function == "A.f"}
    after = made(BEFORE.replace("return a and b", "return b and a"))
    assert ids.isdisjoint(mutant.id for mutant in after)


def test_a_mutant_is_made_again_from_its_id() -> None:
    for mutant in made(BEFORE):
        text = ast.unparse(mutated(NAME, BEFORE, FLAGS, mutant.id))
        assert text != ast.unparse(ast.parse(BEFORE)), mutant.id
    with pytest.raises(KeyError):
        mutated(NAME, BEFORE, FLAGS, "core.sample:g:guard:9:00000000")


def test_the_line_that_a_run_has_to_reach() -> None:
    guard, turned, shifted = made(inside("if a < b:\n    return 1\nc = 2"))
    assert (guard.line, guard.point) == (2, "at 3:8-3:16")
    assert (turned.line, turned.point) == (2, "at 2:4-3:16")
    assert (shifted.line, shifted.point) == (2, "equal 2:7-2:12")
    assert [mutant.point for mutant in made("X = a < b")] == [None, None]


def test_the_deciding_code_has_mutants_of_every_kind_and_all_of_them_compile() -> None:
    modules = scope.modules()
    flags = flags_of(module.source for module in modules)
    assert {"fenced", "managed", "connected"} <= flags
    found = [mutant for m in modules for mutant in derive(m.name, m.source, flags)]
    assert len({mutant.id for mutant in found}) == len(found) > 2000
    assert {mutant.kind for mutant in found} == set(KINDS)
    sources = {module.name: module.source for module in modules}
    for mutant in random.Random(1).sample(found, 15):
        tree = mutated(mutant.module, sources[mutant.module], flags, mutant.id)
        compile(tree, mutant.module, "exec")
        assert "\n" not in mutant.diff
