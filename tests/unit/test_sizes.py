"""A module is read in one sitting, a function on one screen: what grows past that is split by seam.

A limit is no aim. Whoever meets one looks for the responsibility that can leave, and gives it a
module or a function with a name of its own.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.test_layers import modules

MODULE_LIMIT = 400
"""Lines, docstrings and comments among them."""

FUNCTION_LIMIT = 60
"""Lines from `def` to the end: a screen of 50, and a little for a long signature."""


def lines_in(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_module_is_read_in_one_sitting(name: str) -> None:
    assert lines_in(modules()[name]) <= MODULE_LIMIT


def functions(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Each function with its lines, those inside others among them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_function_fits_a_screen(name: str) -> None:
    found = functions(ast.parse(modules()[name].read_text(encoding="utf-8")))
    assert {function: lines for function, lines in found if lines > FUNCTION_LIMIT} == {}


def test_a_long_function_would_be_found() -> None:
    inner = "        pass\n" * FUNCTION_LIMIT
    source = f"def outer():\n    async def long():\n{inner}    return long\n"
    assert list(functions(ast.parse(source))) == [
        ("outer", FUNCTION_LIMIT + 3),
        ("long", FUNCTION_LIMIT + 1),
    ]
