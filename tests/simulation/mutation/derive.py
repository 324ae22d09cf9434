"""Derives the mutants of a module from its syntax tree.

Every mutant replaces one node. Its id names the module, the function, the kind, its number among
those of the same kind and function, and a hash of the function's code. So it stays the same as long
as that function does, whatever changes around it.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tests.simulation.mutation import kinds, syntax
from tests.simulation.mutation.kinds import Change
from tests.simulation.mutation.syntax import Function, Slot

SHOWN = 140
"""How much of a long statement a diff shows, in characters."""

SILENT = frozenset({"__repr__", "__str__"})
"""Functions that make text for people."""

CACHED = frozenset({"cached_property"})
MODULE_LEVEL = "<module>"


@dataclass(frozen=True, slots=True)
class Mutant:
    """One small mistake. `point` is what a run has to reach before the mistake can have an effect;
    None: its line runs once, at an import say, and what comes of it is there for every run."""

    id: str
    module: str
    function: str
    kind: str
    line: int
    point: str | None
    before: str
    after: str

    @property
    def diff(self) -> str:
        """What is changed, in one line."""
        before, after = self.before, self.after
        same = next(
            (n for n, two in enumerate(zip(before, after, strict=False)) if two[0] != two[1]), 0
        )
        first = max(0, same - SHOWN // 2) if max(len(before), len(after)) > SHOWN else 0
        return "  ".join(
            f"{sign} {_cut(text, first)}" for sign, text in (("-", before), ("+", after))
        )


@dataclass(frozen=True, slots=True)
class _Place:
    """The function (or, at the top of a module or class, the statement) that a node belongs to."""

    function: str
    code: str = ""  # its hash; none at the top: there it is the statement's
    is_for_all: bool = True  # runs once, for whoever comes later
    entries: frozenset[str] = frozenset()  # local names that stand for a record
    is_init: bool = False


def derive(name: str, source: str, flags: frozenset[str] = frozenset()) -> list[Mutant]:
    """All mutants of one module, by their place. `flags`: see :func:`flags_of`."""
    return [mutant for mutant, _ in _found(name, ast.parse(source), flags)]


def mutated(name: str, source: str, flags: frozenset[str], mutant_id: str) -> ast.Module:
    """The module with the mistake in it. Raises KeyError for an id that it does not have."""
    tree = ast.parse(source)
    for mutant, change in _found(name, tree, flags):
        if mutant.id == mutant_id:
            change.slot.put(change.new)
            return ast.fix_missing_locations(tree)
    raise KeyError(mutant_id)


def flags_of(sources: Iterable[str]) -> frozenset[str]:
    """The names of all fields that classes declare as `bool`."""
    found = set()
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.AnnAssign) and syntax.last_name(node.annotation) == "bool":
                found.add(syntax.last_name(node.target))
    return frozenset(found)


def _found(module: str, tree: ast.Module, flags: frozenset[str]) -> list[tuple[Mutant, Change]]:
    numbers: Counter[tuple[str, str, str]] = Counter()
    seen: set[tuple[str, str]] = set()
    found = []
    short = module.removeprefix("halo.")
    for place, statement, change in _Walk(flags).block(
        Slot(tree, "body"), _Place(MODULE_LEVEL), True
    ):
        before, after, code = _tried(statement, change)
        if (spot := (syntax.place_of(statement), code)) in seen:
            continue  # two ways to the same mistake
        seen.add(spot)
        key = (place.function, place.code, change.kind)
        line = getattr(change.slot.get(), "lineno", None) or change.slot.owner.lineno
        mutant = Mutant(
            f"{short}:{place.function}:{change.kind}:{numbers[key]}:{place.code}",
            module,
            place.function,
            change.kind,
            int(line),
            None if place.is_for_all else change.point or syntax.statement_point(statement),
            before,
            after,
        )
        numbers[key] += 1
        found.append((mutant, change))
    return found


def _tried(statement: ast.stmt, change: Change) -> tuple[str, str, str]:
    """How the statement reads before and after, and the hash of the second."""
    before, old = syntax.shown(statement), change.slot.get()
    if old is statement:  # the statement itself is replaced
        return before, syntax.shown(change.new), syntax.fingerprint(change.new)
    change.slot.put(change.new)
    try:
        return before, syntax.shown(statement), syntax.fingerprint(statement)
    finally:
        change.slot.put(old)


_Found = Iterator[tuple[_Place, ast.stmt, Change]]


class _Walk:
    """Goes through a module and offers every node to :mod:`~tests.simulation.mutation.kinds`."""

    def __init__(self, flags: frozenset[str]) -> None:
        self._flags = flags

    def block(self, holder: Slot, place: _Place, is_tail: bool) -> _Found:
        """All of a list of statements. `is_tail`: after its last one the function ends anyway."""
        statements = holder.get()
        for number, statement in enumerate(statements):
            slot = Slot(holder.owner, holder.field, number)
            yield from self._statement(
                slot, statement, place, is_tail and number == len(statements) - 1
            )

    def _statement(self, slot: Slot, statement: ast.stmt, place: _Place, is_tail: bool) -> _Found:
        if isinstance(statement, Function):
            yield from self._function(statement, place)
            return
        if isinstance(statement, ast.ClassDef):
            inner = _Place(_within(place, statement.name))
            yield from self.block(Slot(statement, "body"), inner, is_tail=True)
            return
        if syntax.is_logging(statement) or syntax.is_for_types_only(statement):
            return
        if not place.code:
            place = _Place(place.function, syntax.fingerprint(statement))
        for change in kinds.of_statement(slot, self._flags, place.entries, is_tail, place.is_init):
            yield place, statement, change
        for inner_slot in syntax.expression_slots(statement):
            is_test = isinstance(statement, ast.If | ast.While | ast.Assert)
            yield from self._expression(
                inner_slot, statement, place, is_test and inner_slot.field == "test"
            )
        yield from self._blocks(statement, place, is_tail)

    def _blocks(self, statement: ast.stmt, place: _Place, is_tail: bool) -> _Found:
        is_loop = isinstance(statement, ast.For | ast.While | ast.AsyncFor)
        for field in syntax.BLOCKS:
            if getattr(statement, field, None):
                yield from self.block(Slot(statement, field), place, is_tail and not is_loop)
        for handler in getattr(statement, "handlers", ()):
            yield from self.block(Slot(handler, "body"), place, is_tail)
        for case in getattr(statement, "cases", ()):
            if case.guard is not None:
                yield from self._expression(Slot(case, "guard"), statement, place, True)
            yield from self.block(Slot(case, "body"), place, is_tail)

    def _function(self, function: ast.FunctionDef | ast.AsyncFunctionDef, place: _Place) -> _Found:
        if function.name in SILENT:
            return
        for slot in syntax.expression_slots(function.args):
            if slot.field in ("defaults", "kw_defaults"):
                yield from self._expression(slot, function, place, False)
        inner = _Place(
            _within(place, function.name),
            syntax.fingerprint(function),
            any(syntax.last_name(decorator) in CACHED for decorator in function.decorator_list),
            entries=kinds.names_of_records(function),
            is_init=function.name == "__init__",
        )
        yield from self.block(Slot(function, "body"), inner, is_tail=True)

    def _expression(
        self, slot: Slot, statement: ast.stmt, place: _Place, is_condition: bool
    ) -> _Found:
        """`is_condition`: nothing but the truth of the value counts."""
        node = slot.get()
        for change in kinds.of_expression(slot, place.entries, is_condition):
            yield place, statement, change
        for inner in syntax.expression_slots(node):
            stays = is_condition and isinstance(node, ast.BoolOp)
            negated = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
            asked = isinstance(node, ast.IfExp) and inner.field == "test"
            chosen = isinstance(node, ast.comprehension) and inner.field == "ifs"
            yield from self._expression(
                inner, statement, place, stays or negated or asked or chosen
            )


def _cut(text: str, first: int) -> str:
    cut = text[first : first + SHOWN]
    return ("... " if first else "") + cut + (" ..." if first + SHOWN < len(text) else "")


def _within(place: _Place, name: str) -> str:
    return name if place.function == MODULE_LEVEL else f"{place.function}.{name}"
