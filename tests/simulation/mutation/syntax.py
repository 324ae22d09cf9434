"""Small questions to a syntax tree, of those who derive mutants and those who mark lines."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Function = (ast.FunctionDef, ast.AsyncFunctionDef)
LOG_NAMES = frozenset({"log", "peer_log", "tell", "Tell", "_tell"})
"""What writes to the log: loggers, and the action and the helper that lead to one."""

NO_EXPRESSION = frozenset({"annotation", "returns", "ctx", "type_comment", "op", "ops"})
BLOCKS = ("body", "orelse", "finalbody")


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in a tree that holds one node."""

    owner: Any
    field: str
    index: int | None = None

    def get(self) -> Any:
        """What stands there."""
        value = getattr(self.owner, self.field)
        return value if self.index is None else value[self.index]

    def put(self, value: Any) -> None:
        """Replace it."""
        if self.index is None:
            setattr(self.owner, self.field, value)
        else:
            getattr(self.owner, self.field)[self.index] = value


def place_of(node: Any) -> str:
    """Where a node stands in its file."""
    return f"{node.lineno}:{node.col_offset}-{node.end_lineno}:{node.end_col_offset}"


def statement_point(node: ast.stmt) -> str:
    """The point of a run that reaches this statement."""
    return f"at {place_of(node)}"


def equal_point(node: ast.Compare) -> str:
    """The point of a run in which both sides of this comparison are equal."""
    return f"equal {place_of(node)}"


def false_point(node: ast.expr) -> str:
    """The point of a run in which this operand is false."""
    return f"false {place_of(node)}"


def is_ordering(node: ast.Compare) -> bool:
    """One `<`, `<=`, `>` or `>=`?"""
    return len(node.ops) == 1 and isinstance(node.ops[0], ast.Lt | ast.LtE | ast.Gt | ast.GtE)


def has_no_effect(node: ast.expr) -> bool:
    """Is nothing changed by leaving it out, but its value?"""
    effects = (ast.Call, ast.Await, ast.NamedExpr, ast.Yield, ast.YieldFrom)
    return not any(isinstance(inner, effects) for inner in ast.walk(node))


def is_docstring(node: ast.stmt) -> bool:
    """A string that stands alone."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def is_for_types_only(node: ast.stmt) -> bool:
    """An `if TYPE_CHECKING`?"""
    return isinstance(node, ast.If) and last_name(node.test) == "TYPE_CHECKING"


def is_logging(node: ast.stmt) -> bool:
    """Does this statement, with all in it, do nothing but write to the log?"""
    if isinstance(node, ast.If | ast.For):
        return all(is_logging(inner) for inner in [*node.body, *node.orelse])
    if isinstance(node, ast.Expr | ast.Assign):
        return any(last_name(inner) in LOG_NAMES for inner in ast.walk(node.value))
    return False


def last_name(node: ast.AST) -> str:
    """`c` of `a.b.c`, and of `c`."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def called(node: ast.expr) -> str:
    """The last name of what is called, without a wait for it; nothing if it is no call."""
    if isinstance(node, ast.Await):
        node = node.value
    return last_name(node.func) if isinstance(node, ast.Call) else ""


def expression_slots(node: ast.AST) -> Iterator[Slot]:
    """The expressions, and what holds some (keywords, comprehensions), right below a node.

    Types, and strings that are made for people, hold no decision, and are left out."""
    for field, value in ast.iter_fields(node):
        if field in NO_EXPRESSION:
            continue
        if isinstance(node, ast.stmt) and field in (*BLOCKS, "handlers", "cases", "target"):
            continue
        for number, inner in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(inner, ast.JoinedStr) or not isinstance(inner, ast.AST):
                continue
            if isinstance(inner, ast.stmt | ast.pattern | ast.expr_context):
                continue
            yield Slot(node, field, number if isinstance(value, list) else None)


def fingerprint(node: ast.AST) -> str:
    """A short hash of a piece of code, whatever its comments, its docstrings and its place."""
    bare: list[str] = []
    texts = {
        id(inner.body[0])
        for inner in ast.walk(node)
        if isinstance(inner, (*Function, ast.ClassDef)) and is_docstring(inner.body[0])
    }

    def spell(part: object) -> None:
        if isinstance(part, ast.AST):
            if id(part) not in texts:
                bare.append(type(part).__name__)
                for field, value in ast.iter_fields(part):
                    bare.append(field)
                    spell(value)
        elif isinstance(part, list):
            bare.append("[")
            for inner in part:
                spell(inner)
            bare.append("]")
        else:
            bare.append(repr(part))

    spell(node)
    return hashlib.sha256(" ".join(bare).encode()).hexdigest()[:8]


def shown(node: ast.stmt) -> str:
    """A statement in one line; of a compound one, its head, and the body if that is one line."""
    lines = [line.strip() for line in ast.unparse(node).splitlines()]
    if isinstance(node, ast.If | ast.For | ast.While | ast.AsyncFor | ast.With | ast.AsyncWith):
        head = next(n for n, line in enumerate(lines) if line.endswith(":")) + 1
        body = "; ".join(shown(inner) for inner in node.body[:3])
        more = " ..." if len(node.body) > 3 else ""
        return f"{' '.join(lines[:head])} {body}{more}"
    if isinstance(
        node, ast.Match | ast.Try | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    ):
        return lines[0]
    return " ".join(lines)
