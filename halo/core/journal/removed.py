"""Groups that were removed from the config while they may have run: HALO does not monitor them.

The journal remembers which groups the config had. If a removed group was not known to be stopped,
the status names it until it is back in the config, or until the operator confirms that it is
stopped. The manager cannot see that by itself, because the config lacks the group's resources.
"""

from __future__ import annotations

from halo.core.model import GroupId, HostId

NAMED = 8


def where_it_may_run(hosts: tuple[HostId, ...]) -> str:
    """The hosts on which a removed group may run, in words."""
    return " or ".join(hosts)


def notices(removed: dict[GroupId, tuple[HostId, ...]]) -> list[str]:
    """What an operator has to know about groups that were removed from the config."""
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
