"""Which hosts fell silent together: a storm suggests a fault in the manager's own network (S5)."""

from __future__ import annotations

from halo.core.cluster.state import ClusterState
from halo.core.model import HostId


def suspects_with(state: ClusterState, host: HostId) -> list[HostId]:
    """Every host, `host` among them, that fell silent within one sliding window with it.

    A host that was fenced meanwhile still counts. A host that answered again does not count."""
    own = state.hosts[host]
    onset = own.suspect_at if own.suspect_at is not None else own.lost_at
    if onset is None:
        return []
    window = state.settings.storm_window_s
    # The silence of `host` itself always counts here, even if it does not count for others.
    near = sorted(
        [(onset, host)]
        + [
            (at.suspect_at, at.id)
            for at in state.hosts.values()
            if at is not own and at.suspect_at is not None and abs(at.suspect_at - onset) <= window
        ]
    )
    best: list[HostId] = []
    for index, (start, _) in enumerate(near):
        if start > onset:
            break
        together = [name for begun, name in near[index:] if begun - start <= window]
        if len(together) > len(best):
            best = together
    return best


def just_back(state: ClusterState, host: HostId, now: float) -> list[HostId]:
    """Hosts that were silent together with this one and have just come back.

    When the manager's own network is repaired, hosts come back one after the other. The last hosts
    to come back must not look like the only lost ones."""
    own = state.hosts[host]
    onset = own.suspect_at if own.suspect_at is not None else own.lost_at
    if onset is None:
        return []
    grace_s = state.settings.loss_budget_s + state.settings.connect_timeout_s
    return [
        at.id
        for at in state.hosts.values()
        if at.connected
        and at.was_suspect_at is not None
        and max(at.was_suspect_at, onset) < at.since  # it came back while this one was silent
        and now - at.since <= grace_s
        and abs(at.was_suspect_at - onset) <= state.settings.storm_window_s
    ]
