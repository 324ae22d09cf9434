"""The order of groups, as the status tells it (`after`): who is started, or stopped, first."""

from __future__ import annotations

from collections.abc import Collection
from graphlib import TopologicalSorter

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
    order, steps = TopologicalSorter(after), []
    order.prepare()  # the config has no circles
    wanted = set(after if chosen is None else chosen)
    while order.is_active():
        ready = order.get_ready()
        order.done(*ready)
        steps.append([name for name in ready if name in wanted])
    unknown = [name for name in dict.fromkeys(chosen or ()) if name not in after]
    return [step for step in [unknown, *steps] if step]


def with_dependents(status: Item, chosen: Collection[str]) -> list[str]:
    """The chosen groups, and all that are started after one of them, directly or not."""
    after = _after(status)
    found = dict.fromkeys(chosen)
    while True:
        more = [n for n, names in after.items() if n not in found and found.keys() & names]
        if not more:
            return list(found)
        found.update(dict.fromkeys(more))
