"""Which loss of one host would be the worst, and what an operator is told of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from halo.core.model import GroupId, HostId
from halo.core.survival.takeover import Standing, Takeover

GROUPS_IN_WORDS = 3
GROUPS_SHOWN = 20
GROUPS_AT_ONCE = 16
"""So many groups of one host are decided in one step."""


@dataclass(frozen=True, slots=True)
class Loss:
    """The loss of one host that would leave groups down."""

    host: HostId
    down: Mapping[GroupId, str]  # the most important first; each with the reason
    priority: int  # the highest one of these groups


@dataclass(slots=True)
class Forecast:
    """What the loss of one host would do."""

    worst: Loss | None = None
    further_hosts: int = 0  # whose loss would leave groups down, too

    def note(self, loss: Loss) -> None:
        """The worst loss leaves the most groups down; of two such, one of a higher priority."""
        if self.worst is None:
            self.worst = loss
            return
        self.further_hosts += 1
        if _weight(loss) > _weight(self.worst):
            self.worst = loss


def _weight(loss: Loss) -> tuple[int, int]:
    return len(loss.down), loss.priority


def look_ahead(standing: Standing, forecast: Forecast) -> Iterator[None]:
    """Fill in the forecast. A step takes a fraction of a millisecond.

    A group with one candidate is down with its host in any case, so it is no news."""
    groups = standing.cluster.groups
    for host in standing.cluster.hosts:
        leaving = standing.movable.get(host)
        if leaving is None:
            continue
        takeover = Takeover(standing, leaving, host)
        for done, _ in enumerate(takeover.steps(), 1):
            if done % GROUPS_AT_ONCE == 0:
                yield
        down = {
            name: why for name, why in takeover.down.items() if len(groups[name].candidates) > 1
        }
        if down:
            forecast.note(Loss(host, down, max(groups[name].priority for name in down)))
        yield


def in_words(forecast: Forecast) -> str | None:
    """The worst loss in one sentence; None if each host may be lost."""
    worst = forecast.worst
    if worst is None:
        return None
    text = f"the loss of {worst.host} would leave {groups_in_words(worst.down)}"
    if forecast.further_hosts == 1:
        text += "; the loss of 1 other host would leave groups down, too"
    elif forecast.further_hosts:
        text += f"; the loss of each of {forecast.further_hosts} other hosts would, too"
    return text


def groups_in_words(down: Mapping[GroupId, str]) -> str:
    """For example `2 groups down: g1 (h2 is deactivated), g2 (h2 is deactivated)`."""
    named = [f"{name} ({why})" for name, why in list(down.items())[:GROUPS_IN_WORDS]]
    if len(down) > len(named):
        named.append(f"and {len(down) - len(named)} more")
    return f"{len(down)} group{'s' if len(down) != 1 else ''} down: {', '.join(named)}"


def shown(forecast: Forecast) -> dict[str, Any]:
    """The forecast in the status."""
    worst = forecast.worst
    down = {} if worst is None else worst.down
    return {
        "host": None if worst is None else worst.host,
        "groups": len(down),
        "reasons": dict(list(down.items())[:GROUPS_SHOWN]),
        "further_hosts": forecast.further_hosts,
    }
