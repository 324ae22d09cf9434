"""The forecast for a config alone: all hosts are up, and each group where it would start first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from halo.core.model import Cluster, GroupId
from halo.core.survival.forecast import Forecast, look_ahead
from halo.core.survival.takeover import Standing, Takeover


@dataclass(frozen=True, slots=True)
class BestCase:
    """What is wrong even then."""

    no_place: Mapping[GroupId, str]  # groups that could not even be started, with the reason
    forecast: Forecast


def best_case(cluster: Cluster) -> BestCase:
    """Start all groups of an empty cluster, and look ahead."""
    standing = Standing(cluster, lambda group, host: None)
    start = Takeover(standing, list(cluster.groups.values()), lost=None)
    for _ in start.steps():
        pass
    for name, host in start.started.items():
        standing.add(cluster.groups[name], [host], host, movable=True)
    forecast = Forecast()
    for _ in look_ahead(standing, forecast):
        pass
    return BestCase(start.down, forecast)
