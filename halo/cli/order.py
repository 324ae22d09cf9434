"""The order of groups, as the status tells it (`after`): who is started, or stopped, first."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from halo.cli.show import view
from halo.cli.show.view import Item


def _after(status: Item) -> dict[str, list[str]]:
    """The groups that each group is started after. A manager that knows no order names none."""
    found = {}
    for group in view.groups(status):
        names = group.get("after")
        found[view.text(group, "id")] = [str(n) for n in names] if isinstance(names, list) else []
    return found


def start_steps(status: Item, chosen: Collection[str] | None = None) -> list[list[str]]:
    """The chosen groups (all, if None) in steps: each is started after those of earlier steps."""
    after = _after(status)
    step_of: dict[str, int] = {}
    pending = list(after)
    while pending:  # the config has no circles, so each round places some
        ready = [name for name in pending if all(n not in pending for n in after[name])]
        if not ready:
            ready = list(pending)
        for name in ready:
            step_of[name] = 1 + max((step_of.get(n, -1) for n in after[name]), default=-1)
        pending = [name for name in pending if name not in ready]
    return _by_step(step_of, after if chosen is None else chosen)


def _by_step(step_of: Mapping[str, int], chosen: Collection[str]) -> list[list[str]]:
    steps: dict[int, list[str]] = {}
    for name in dict.fromkeys(chosen):
        steps.setdefault(step_of.get(name, 0), []).append(name)
    return [steps[number] for number in sorted(steps)]


def with_dependents(status: Item, chosen: Collection[str]) -> list[str]:
    """The chosen groups, and all that are started after one of them, directly or not."""
    after = _after(status)
    found = dict.fromkeys(chosen)
    while True:
        more = [n for n, names in after.items() if n not in found and set(names) & set(found)]
        if not more:
            return list(found)
        found.update(dict.fromkeys(more))
