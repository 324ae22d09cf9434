"""The key `after` of a resource group: which groups have to run before it is started."""

from __future__ import annotations

from collections.abc import Mapping

from halo.config.placing.names import KnownNames, Named, report_circles
from halo.config.yaml.document import MistakeList
from halo.core.model import Company, GroupId


def order_of(
    named: Mapping[GroupId, Named], known: KnownNames
) -> dict[GroupId, tuple[GroupId, ...]]:
    """For each group those that it is started after. Every mistake is noted at its place."""
    itself = "a group cannot be started after itself"
    return {group: known.of(group, "after", names, itself) for group, names in named.items()}


def check_circles(
    after: Mapping[GroupId, tuple[GroupId, ...]],
    company: Mapping[GroupId, Company],
    named: Mapping[GroupId, Named],
    mistakes: MistakeList,
) -> None:
    """Note groups that would wait for each other for ever. A group waits for those that it is
    started after, and for those that it is started together with."""
    awaited = {
        group: tuple(dict.fromkeys(names + company[group].together_with))
        for group, names in after.items()
    }
    report_circles(
        "after" if after == awaited else "after or together_with", awaited, named, mistakes
    )
