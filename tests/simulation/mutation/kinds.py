"""The kinds of mistakes, each as a change of one node."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.simulation.mutation import syntax
from tests.simulation.mutation.syntax import Slot

KINDS = {
    "guard": "an `if` that returns, continues, breaks or raises does nothing",
    "operand": "an operand of `and` is left out",
    "turned": "a comparison says the opposite",
    "shifted": "a comparison treats equality the other way",
    "swapped": "`and` for `or`, and the other way round",
    "unnot": "a `not` is left out",
    "flag": "a boolean field is not written",
    "return": "an early return does not return",
    "journal": "a record is not written",
    "call": "a call whose result is not used is left out: a wake-up, a message, a change of state",
}

TURNED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE,
    ast.LtE: ast.Gt,
    ast.Gt: ast.LtE,
    ast.GtE: ast.Lt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
SHIFTED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
}
WRITES_RECORDS = frozenset({"note", "rescue", "command", "_note"})
MAKES_RECORDS = frozenset({"Entry", "make"})


@dataclass(frozen=True, slots=True)
class Change:
    """Put `new` into `slot`. `point`: see :class:`~tests.simulation.mutation.derive.Mutant`; None
    where the statement around it has to be reached, and no more is known."""

    kind: str
    slot: Slot
    new: Any
    point: str | None = None


def of_statement(
    slot: Slot, flags: frozenset[str], entries: frozenset[str], is_tail: bool, is_init: bool
) -> Iterator[Change]:
    """The mistakes that concern a whole statement."""
    statement = slot.get()
    nothing = ast.copy_location(ast.Pass(), statement)
    match statement:
        case ast.If():
            last = statement.body[-1]
            if isinstance(last, ast.Return | ast.Continue | ast.Break | ast.Raise):
                point = syntax.statement_point(statement.body[0])
                yield Change("guard", Slot(statement, "body"), [nothing], point)
        case ast.Return():
            if not is_tail and not _is_all_of_a_guard(slot):
                yield Change("return", slot, nothing)
        case ast.Expr(value=value) if not syntax.is_docstring(statement) and not _is_super(value):
            if syntax.called(value):
                yield Change("journal" if _records(value, entries) else "call", slot, nothing)
            elif isinstance(value, ast.Call | ast.Await):
                yield Change("call", slot, nothing)
        case ast.Assign():
            yield from _flags(slot, statement, flags, is_init)
        case ast.AugAssign(target=ast.Attribute(attr=name)) if name in flags:
            yield Change("flag", slot, nothing)


def of_expression(slot: Slot, entries: frozenset[str], is_condition: bool) -> Iterator[Change]:
    """The mistakes that concern one expression."""
    node = slot.get()
    match node:
        case ast.Compare():
            yield from _compared(node)
        case ast.BoolOp():
            other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield Change("swapped", Slot(node, "op"), other)
            if isinstance(node.op, ast.And):
                yield from _operands(slot, node, is_condition)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield Change("unnot", slot, operand)
        case ast.Tuple(ctx=ast.Load()) | ast.List(ctx=ast.Load()):
            yield from _left_out_records(slot, "elts", node.elts, entries)
        case ast.Call() if last_of(node) in WRITES_RECORDS and len(node.args) > 1:
            yield from _left_out_records(slot, "args", node.args, entries)


def last_of(node: ast.Call) -> str:
    """The last name of what is called."""
    return syntax.last_name(node.func)


def names_of_records(function: ast.AST) -> frozenset[str]:
    """The local names that stand for one record."""
    return frozenset(
        target.id
        for node in ast.walk(function)
        if isinstance(node, ast.Assign) and syntax.called(node.value) in MAKES_RECORDS
        for target in node.targets
        if isinstance(target, ast.Name)
    )


def _compared(node: ast.Compare) -> Iterator[Change]:
    for number, operator in enumerate(node.ops):
        slot = Slot(node, "ops", number)
        yield Change("turned", slot, TURNED[type(operator)]())
        if type(operator) in SHIFTED:
            point = syntax.equal_point(node) if syntax.is_ordering(node) else None
            yield Change("shifted", slot, SHIFTED[type(operator)](), point)


def _operands(slot: Slot, node: ast.BoolOp, is_condition: bool) -> Iterator[Change]:
    """Without an operand, a run goes on otherwise only if that operand is false."""
    for number, operand in enumerate(node.values):
        rest = node.values[:number] + node.values[number + 1 :]
        new = rest[0] if len(rest) == 1 else ast.copy_location(ast.BoolOp(node.op, rest), node)
        is_last = number == len(node.values) - 1
        is_sure = syntax.has_no_effect(operand) and (is_condition or not is_last)
        yield Change("operand", slot, new, syntax.false_point(operand) if is_sure else None)


def _flags(
    slot: Slot, statement: ast.Assign, flags: frozenset[str], is_init: bool
) -> Iterator[Change]:
    """Each target alone: one line may write several fields."""
    says_so = isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, bool)
    for number, target in enumerate(statement.targets):
        if not isinstance(target, ast.Attribute | ast.Subscript):
            continue
        if is_init and isinstance(target, ast.Attribute):
            continue  # a field that was never made
        if says_so or syntax.last_name(target) in flags:
            rest = statement.targets[:number] + statement.targets[number + 1 :]
            if not rest:
                yield Change("flag", slot, ast.copy_location(ast.Pass(), statement))
            else:
                new = copy.copy(statement)
                new.targets = rest
                yield Change("flag", slot, new)


def _is_all_of_a_guard(slot: Slot) -> bool:
    """The same mistake as the guard without effect."""
    return isinstance(slot.owner, ast.If) and slot.field == "body" and len(slot.owner.body) == 1


def _is_super(value: ast.expr) -> bool:
    return any(
        syntax.called(node) == "super" for node in ast.walk(value) if isinstance(node, ast.Call)
    )


def _records(value: ast.expr, entries: frozenset[str]) -> bool:
    call = value.value if isinstance(value, ast.Await) else value
    if not isinstance(call, ast.Call):
        return False
    if last_of(call) in WRITES_RECORDS:
        return True
    return any(_is_record(argument, entries) for argument in call.args)


def _is_record(node: ast.expr, entries: frozenset[str]) -> bool:
    if isinstance(node, ast.Name):
        return node.id in entries
    return syntax.called(node) in MAKES_RECORDS


def _left_out_records(
    slot: Slot, field: str, elements: list[ast.expr], entries: frozenset[str]
) -> Iterator[Change]:
    for number, element in enumerate(elements):
        if _is_record(element, entries):
            new = copy.copy(slot.get())
            setattr(new, field, elements[:number] + elements[number + 1 :])
            yield Change("journal", slot, new)
