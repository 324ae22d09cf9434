"""Counts what a run reaches: the tree of a module with a mark before every statement.

Two more marks show when a mistake could have an effect at all: a `<` and a `<=` differ only where
both sides are equal, and an operand of `and` matters only where it is false.

A run's marks are packed into text, so that they fit in a results file. Then the question is turned
round: who reaches this point?

Rejected: `sys.settrace`, which makes a run four times as long; a mark costs one store.
"""

from __future__ import annotations

import ast
import base64
import operator
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from tests.simulation.mutation import syntax
from tests.simulation.mutation.syntax import Function

HITS = "__hits__"
FALSE = "__false__"
_DIGITS = b"01" + bytes(254)

ORDERINGS: dict[type[ast.cmpop], tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Lt: ("__lt_marked__", operator.lt),
    ast.LtE: ("__le_marked__", operator.le),
    ast.Gt: ("__gt_marked__", operator.gt),
    ast.GtE: ("__ge_marked__", operator.ge),
}


class Marker(ast.NodeTransformer):
    """Marks one module after the other, with numbers that go on. `points`: what each stands for."""

    def __init__(self) -> None:
        self.points: list[tuple[str, str]] = []  # module and point
        self._module = ""

    def mark(self, module: str, source: str) -> ast.Module:
        """The module with all its marks."""
        self._module = module
        tree = ast.parse(source)
        self.visit(tree)
        return ast.fix_missing_locations(tree)

    def _new(self, point: str) -> ast.Constant:
        self.points.append((self._module, point))
        return ast.Constant(len(self.points) - 1)

    def generic_visit(self, node: ast.AST) -> ast.AST:
        points = {}
        for field in syntax.BLOCKS:
            block = getattr(node, field, None)
            if isinstance(block, list):  # before their positions are lost in the visit
                points[field] = [syntax.statement_point(inner) for inner in block]
        super().generic_visit(node)
        for field, names in points.items():
            setattr(node, field, self._marked(node, getattr(node, field), names))
        return node

    def _marked(self, node: ast.AST, block: list[ast.stmt], names: list[str]) -> list[ast.stmt]:
        marked: list[ast.stmt] = []
        for number, (statement, point) in enumerate(zip(block, names, strict=True)):
            has_docstring = isinstance(node, (ast.Module, ast.ClassDef, *Function))
            is_first = number == 0 and has_docstring and syntax.is_docstring(statement)
            is_future = isinstance(statement, ast.ImportFrom) and statement.module == "__future__"
            if not (is_first or is_future):
                marked.append(ast.copy_location(self._store(point), statement))
            marked.append(statement)
        return marked

    def _store(self, point: str) -> ast.Assign:
        place = ast.Subscript(ast.Name(HITS, ast.Load()), self._new(point), ast.Store())
        return ast.Assign([place], ast.Constant(1))

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        """Text for people; and where its parts stand is not known."""
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        point = syntax.equal_point(node)
        super().generic_visit(node)
        if not syntax.is_ordering(node):
            return node
        name, _ = ORDERINGS[type(node.ops[0])]
        arguments = [self._new(point), node.left, node.comparators[0]]
        return ast.copy_location(ast.Call(ast.Name(name, ast.Load()), arguments, []), node)

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        points = [syntax.false_point(value) for value in node.values]
        super().generic_visit(node)
        if isinstance(node.op, ast.And):
            node.values = [
                ast.copy_location(
                    ast.Call(ast.Name(FALSE, ast.Load()), [self._new(point), value], []), value
                )
                for value, point in zip(node.values, points, strict=True)
            ]
        return node


def names_for(hits: bytearray) -> dict[str, object]:
    """What a marked module has to find among its globals."""

    def false(number: int, value: object) -> object:
        if not value:
            hits[number] = 1
        return value

    def ordering(compare: Callable[[Any, Any], Any]) -> Callable[[int, Any, Any], Any]:
        def marked(number: int, left: Any, right: Any) -> Any:
            if left == right:
                hits[number] = 1
            return compare(left, right)

        return marked

    found: dict[str, object] = {HITS: hits, FALSE: false}
    found.update((name, ordering(compare)) for name, compare in ORDERINGS.values())
    return found


def pack(hits: bytes | bytearray) -> str:
    """Marks as text. Each of `hits` is 0 or 1."""
    bits = int(b"0" + bytes(hits).translate(_DIGITS), 2)
    return base64.b85encode(zlib.compress(bits.to_bytes((len(hits) + 7) // 8, "big"))).decode()


def unpack(text: str, size: int) -> frozenset[int]:
    """The numbers of the marks that are set, of `size` ones."""
    packed = zlib.decompress(base64.b85decode(text))
    digits = bin(int.from_bytes(packed, "big"))[2:].zfill(size)
    return frozenset(number for number, digit in enumerate(digits) if digit == "1")


class Reach:
    """Which of many runners (seeds, or tests) reach a point of a module."""

    def __init__(self, points: Sequence[tuple[str, str]]) -> None:
        self._numbers = {point: number for number, point in enumerate(points)}
        self._by_point: list[list[object]] = [[] for _ in points]
        self._all: list[object] = []
        self._imported: frozenset[int] = frozenset()

    def add(self, runner: object, hits: str) -> None:
        """A runner, and what it reaches."""
        self._all.append(runner)
        for number in unpack(hits, len(self._numbers)):
            self._by_point[number].append(runner)

    def imported(self, hits: str) -> None:
        """What is reached before any runner begins."""
        self._imported |= unpack(hits, len(self._numbers))

    def of(self, module: str, point: str | None) -> list[object]:
        """The runners that reach a point, in the order in which they were added. What is reached by
        an import may have an effect on everybody."""
        if point is None:
            return list(self._all)
        number = self._numbers[module, point]
        return list(self._all if number in self._imported else self._by_point[number])


def seeds_of(reach: Reach, module: str, point: str | None, first: int, end: int) -> list[int]:
    """The seeds from `first` to `end`-1 that reach a point."""
    return [s for s in reach.of(module, point) if isinstance(s, int) and first <= s < end]
