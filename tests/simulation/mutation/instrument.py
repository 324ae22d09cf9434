"""Counts what a run reaches: the tree of a module with a mark before every statement.

Two more marks show when a mistake could have an effect at all: a `<` and a `<=` differ only where
both sides are equal, and an operand of `and` matters only where it is false.

Rejected: `sys.settrace`, which makes a run four times as long; a mark costs one store.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

from tests.simulation.mutation import syntax
from tests.simulation.mutation.syntax import Function

HITS = "__hits__"
FALSE = "__false__"
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
