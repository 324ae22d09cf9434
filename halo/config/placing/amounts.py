"""`capacity` of a host and `needs` of a group: amounts of anything that a site counts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal

from halo.config.yaml.document import MistakeList, Section, found, shortened
from halo.config.yaml.nodes import Node, ScalarNode
from halo.core.model import Amounts, Host, ResourceGroup

MAX_NAMES = 16
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{1,6})?")


def read_amounts(section: Section, key: str, mistakes: MistakeList) -> Amounts:
    """A mapping of names to numbers, such as `{memory_gb: 512}`."""
    entries = section.entries(key)
    if len(entries) > MAX_NAMES:
        mistakes.add(section.get(key), f"{key}: more than {MAX_NAMES} names")
        return {}
    amounts = {}
    for name, entry in entries.items():
        if not _NAME.fullmatch(name):
            expected = 'expected a name of letters, digits, "_", "." and "-"'
            mistakes.add(entry.key, f'{key}: "{shortened(name)}": {expected}')
            continue
        number = _number(entry.value, f"{key}: {name}", mistakes)
        if number is not None:
            amounts[name] = number
    return amounts


def _number(node: Node, what: str, mistakes: MistakeList) -> Decimal | None:
    if isinstance(node, ScalarNode) and _NUMBER.fullmatch(node.value):
        return Decimal(node.value)
    mistakes.add(node, f"{what}: expected a number such as 100 or 0.5, found {found(node)}")
    return None


def check_needs(
    group: ResourceGroup, node: Node | None, hosts: Mapping[str, Host], mistakes: MistakeList
) -> None:
    """Note what no candidate can ever give, even if nothing else runs there."""
    of_candidates = [hosts[host].capacity for host in group.candidates if host in hosts]
    if node is None or not of_candidates:
        return
    for name, amount in group.needs.items():
        if not any(name in capacity for capacity in of_candidates):
            hint = mistakes.nearest(name, {n for capacity in of_candidates for n in capacity})
            text = f"needs: no candidate of {group.id} has a capacity of {name}{hint}"
            mistakes.add(node, text)
        elif all(amount > capacity.get(name, amount) for capacity in of_candidates):
            text = f"needs: {amount} {name} is more than any candidate of {group.id} has"
            mistakes.add(node, text)
