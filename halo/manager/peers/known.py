"""What a manager that stands by tells when no leader can be asked: the journal, and how old it is.

It says what was ordered, never what runs: the journal does not know that, and an operator in a
hurry may take old news for new.
"""

from __future__ import annotations

import time
from itertools import islice
from typing import Any

from halo.core.status.ours import event
from halo.ports import Known

EVENTS_TOLD = 10


def as_json(known: Known) -> dict[str, Any] | None:
    """The orders and the last events. None if the journal was never read."""
    if not known.as_of:
        return None
    remembered = known.remembered
    events = list(islice(reversed(remembered.events), EVENTS_TOLD))
    return {
        "as_of": known.as_of,
        "entries": known.entries,
        "groups": {
            name: {"wanted": group.wanted, "managed": group.managed}
            for name, group in remembered.groups.items()
        },
        "hosts": {
            name: {"active": host.active, "fenced": host.fenced}
            for name, host in remembered.hosts.items()
        },
        "events": [event(record) for record in reversed(events)],
    }


def age_in_words(known: Known, wall_now: float) -> str:
    """A sentence on how old this knowledge is."""
    if not known.as_of:
        return "This manager has not read the journal yet."
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(known.as_of))
    age_s = max(0.0, wall_now - known.as_of)
    return f"This manager read the journal last at {at}, {age_s:.0f} s ago."
