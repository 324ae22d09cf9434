"""Groups that were removed from the config while they may have run: nobody looks after them.

The journal remembers which groups the config had. One that is gone, and was not known to be stopped
when it was last looked at, is named until it is back in the config, or until the operator says that
it is stopped: without its resources in the config the manager cannot see that by itself.
"""

from __future__ import annotations

from typing import Any

from halo.core.journal.remembered import Remembered
from halo.core.model import Cluster, GroupId, HostId

NAMED = 8


def config_change(remembered: Remembered, cluster: Cluster) -> dict[str, Any] | None:
    """The data of a record `config` that brings the memory up to this config; None: it is so."""
    now = {group.id: group.candidates for group in cluster.groups.values()}
    before = remembered.configured
    if now == before:
        return None
    return {
        "groups": {name: list(hosts) for name, hosts in now.items() if before.get(name) != hosts},
        "gone": sorted(before.keys() - now.keys()),
    }


def where_it_may_run(hosts: tuple[HostId, ...]) -> str:
    """The hosts on which a removed group may run, in words."""
    return " or ".join(hosts)


def notices(removed: dict[GroupId, tuple[HostId, ...]]) -> list[str]:
    """What an operator has to be told of groups that were removed."""
    told = [
        f"{name} was removed from the config and may still run on {where_it_may_run(hosts)}, where "
        "HALO does not monitor it; make sure that it is stopped and run "
        f"`halo cleanup {name}`, or put it back into the config"
        for name, hosts in list(removed.items())[:NAMED]
    ]
    if len(removed) > NAMED:
        more = len(removed) - NAMED
        told.append(
            f"{more} more were removed from the config and are not known to be stopped; "
            "`halo status --json` names them under removed_groups"
        )
    return told
