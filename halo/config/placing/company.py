"""The keys `together_with` and `apart_from` of a resource group, and their weaker forms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from halo.config.placing.names import KnownNames, Named, read_names
from halo.config.yaml.document import MistakeList, Section, shortened
from halo.core.model import Company, GroupId, HostId

COMPANY_KEYS = ("together_with", "apart_from", "prefer_together_with", "prefer_apart_from")
_ITSELF = {
    "together_with": "a group is always together with itself",
    "apart_from": "a group cannot be apart from itself",
}


@dataclass(frozen=True, slots=True)
class NamedCompany:
    """The names in one entry, as they are written, by key."""

    by_key: Mapping[str, Named]


def read_company(section: Section, mistakes: MistakeList) -> NamedCompany:
    """Read the keys of one entry."""
    return NamedCompany({key: read_names(section, key, mistakes) for key in COMPANY_KEYS})


def company_of(
    named: Mapping[GroupId, NamedCompany],
    candidates: Mapping[GroupId, Sequence[HostId]],
    known: KnownNames,
    mistakes: MistakeList,
) -> dict[GroupId, Company]:
    """The company of each group. `apart_from` counts in both directions, wherever it is written.

    Every mistake is noted at its place."""
    found = {
        group: {
            key: known.of(group, key, names, _ITSELF[key.removeprefix("prefer_")])
            for key, names in written.by_key.items()
        }
        for group, written in named.items()
    }
    for group, written in named.items():
        _check(group, written, found[group], candidates, mistakes)
    apart = _both_ways("apart_from", found)
    for group, written in named.items():
        for name, node in written.by_key["together_with"]:
            if group in apart.get(name, ()):
                text = f'together_with: "{shortened(name)}" and "{group}" have to be apart, too'
                mistakes.add(node, text)
    prefer_apart = _both_ways("prefer_apart_from", found)
    return {
        group: Company(
            together_with=keys["together_with"],
            apart_from=apart[group],
            prefer_together_with=keys["prefer_together_with"],
            prefer_apart_from=prefer_apart[group],
        )
        for group, keys in found.items()
    }


def _both_ways(
    key: str, found: Mapping[GroupId, Mapping[str, tuple[GroupId, ...]]]
) -> dict[GroupId, tuple[GroupId, ...]]:
    both: dict[GroupId, dict[GroupId, None]] = {group: {} for group in found}
    for group, keys in found.items():
        for other in keys[key]:
            both[group][other] = both[other][group] = None
    return {group: tuple(others) for group, others in both.items()}


def _check(
    group: GroupId,
    written: NamedCompany,
    found: Mapping[str, tuple[GroupId, ...]],
    candidates: Mapping[GroupId, Sequence[HostId]],
    mistakes: MistakeList,
) -> None:
    """Company that no host could ever give."""
    for name, node in written.by_key["together_with"]:
        if name not in found["together_with"]:
            continue
        if not set(candidates[group]) & set(candidates[name]):
            text = f'together_with: "{shortened(name)}" and "{group}" have no host in common'
            mistakes.add(node, text)
    for name, node in written.by_key["apart_from"]:
        if name in found["apart_from"] and len({*candidates[group], *candidates[name]}) == 1:
            text = f'apart_from: "{shortened(name)}" and "{group}" have only one host, the same'
            mistakes.add(node, text)
