"""Since when the leader leads, and whether it still renews its lease: seen by a manager that stands
by.

It decides nothing. Who leads is decided by the key of the leadership, and its end by etcd. This is
for the operator, who waits for the end of a lease and wants to know how long that takes.
"""

from __future__ import annotations

import time
from dataclasses import replace

from halo.adapters.etcd.client import EtcdClient
from halo.adapters.etcd.errors import EtcdError
from halo.adapters.etcd.standby.holder import began_in, manager_that_leads
from halo.adapters.etcd.values import KeyValue
from halo.ports import Lead

ASK_DEADLINE_S = 1.0
MARGIN_S = 1.5
"""etcd tells whole seconds, rounded down, and looks twice a second for leases that have ended."""


class LeadWatch:
    """What is seen of the leadership. Tell it what each look found: :meth:`saw`."""

    def __init__(self, client: EtcdClient) -> None:
        self._client = client
        self._seen: Lead | None = None
        self._ends = 0.0  # when the lease of a silent leader ends, on the monotonic clock

    @property
    def lead(self) -> Lead | None:
        """The leadership that was seen last."""
        found = self._seen
        if found is None or found.silent_since is None:
            return found
        return replace(found, ends_in_s=max(0.0, self._ends - time.monotonic()))

    def begins(self, own_id: str) -> None:
        """This manager leads from now on."""
        self._seen = Lead(own_id, time.time())

    async def saw(self, key: KeyValue | None, *, is_own: bool) -> None:
        """Take the key of the leadership, as it is now; None: there is none. `is_own`: this process
        wrote it.

        If another process has it, etcd is asked for its lease. That takes at most a second."""
        leader = None if key is None else manager_that_leads(key.value)
        if key is None or leader is None:
            if self._seen is not None and self._seen.until is None:
                self._seen = replace(self._seen, silent_since=None, until=time.time())
            return
        lead = Lead(leader.id, began_in(key.value))
        if not self._is_still(lead):
            self._seen = lead
        if not is_own:
            await self._ask_for(key.lease, lead)

    def _is_still(self, lead: Lead) -> bool:
        """Is this the leadership that was seen last?"""
        seen = self._seen
        return seen is not None and (seen.id, seen.since) == (lead.id, lead.since)

    async def _ask_for(self, lease: int, lead: Lead) -> None:
        """Note whether the leader renews its lease. Without an answer, what was noted stays."""
        now, wall_now = time.monotonic(), time.time()
        try:
            left_s, granted_s = await self._client.time_to_live(lease, deadline_s=ASK_DEADLINE_S)
        except EtcdError:  # or the lease has ended: then the next look finds no key
            return
        if not self._is_still(lead):  # this manager leads since the question
            return
        is_silent = left_s * 2 < granted_s  # it is renewed each quarter of its time
        self._ends = now + left_s + MARGIN_S
        self._seen = replace(
            lead, silent_since=wall_now - (granted_s - left_s) if is_silent else None
        )
