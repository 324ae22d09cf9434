"""The table of behaviours that a module of rogues makes, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Generic, TypeVar

B = TypeVar("B", bound=Callable[..., object])


def _given(behaviour: B) -> B:
    return behaviour


class Registry(Generic[B]):
    """Behaviours by name. As a decorator it enters a function under the function's own name."""

    def __init__(self) -> None:
        self._made: dict[str, B] = {}

    def __call__(self, function: B) -> B:
        self._made[function.__name__] = function
        return function

    def update(self, made: Mapping[str, B] | None = None, **named: B) -> None:
        """Enter several."""
        self._made.update({**(made or {}), **named})

    def makers(self) -> dict[str, Callable[[], B]]:
        """What makes each behaviour, by name."""
        return {name: partial(_given, made) for name, made in self._made.items()}
