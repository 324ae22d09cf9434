"""The key `preempt` of a resource group: groups of a lower priority give way to it."""

from __future__ import annotations

from collections.abc import Iterator

from halo.core.model import Cluster, ResourceGroup

MOST_NAMED = 10


def preempt_in_vain(cluster: Cluster) -> Iterator[str]:
    """A warning about groups with `preempt: true` to which no group can ever give way."""
    names = [
        group.id
        for group in cluster.groups.values()
        if group.preempt
        and not any(_may_make_room(cluster, other, group) for other in cluster.groups.values())
    ]
    if names:
        shown = ", ".join(names[:MOST_NAMED])
        more = f" and {len(names) - MOST_NAMED} more" if names[MOST_NAMED:] else ""
        yield (
            f"with preempt: true, but no group can give way to it: {shown}{more}; give it needs,"
            " and a higher priority than a group that needs the same on one of its hosts"
        )


def _may_make_room(cluster: Cluster, other: ResourceGroup, group: ResourceGroup) -> bool:
    """Would there ever be more room for `group` if `other` were stopped?"""
    return other.priority < group.priority and any(
        name in cluster.hosts[host].capacity
        for host in set(group.candidates) & set(other.candidates)
        for name in group.needs.keys() & other.needs.keys()
    )
