"""The store in which several managers keep their journal: its members, and what is wrong, in words.

A store works as long as most of its members do. So the loss of the first member stops nothing, and
nobody would notice it until the next one is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

NO_SPACE = "NOSPACE"
CORRUPT = "CORRUPT"


@dataclass(frozen=True, slots=True)
class StoreMember:
    """One member, as one manager sees it. `endpoint`: where the manager asks it, as `host:port`.

    `answers` is None as long as that is not known. `reason` says why it does not count among the
    members that work; it is None if it works, or if nothing is known. `since` is the time at which
    this began, in seconds since the epoch."""

    endpoint: str
    answers: bool | None = None
    reason: str | None = None
    since: float = 0.0
    version: str | None = None
    leads: bool = False

    @property
    def works(self) -> bool:
        """Does it answer, and take part in the cluster?"""
        return self.answers is True and self.reason is None

    @property
    def words(self) -> str:
        """What is wrong with it, as the end of a sentence that it begins."""
        return f"does not answer ({self.reason})" if self.answers is False else self.reason or ""


@dataclass(frozen=True, slots=True)
class StoreAlarm:
    """What etcd itself says is wrong. `kind` is the name of an alarm, or a member's own words."""

    member: str
    kind: str

    @property
    def words(self) -> str:
        """The sentence for an operator."""
        if self.kind == NO_SPACE:
            return (
                f"etcd has the alarm {NO_SPACE}, raised by its member {self.member}: its database "
                "is full, and no manager can write the journal; compact and defragment etcd, then "
                "`etcdctl alarm disarm`"
            )
        if self.kind == CORRUPT:
            return (
                f"etcd has the alarm {CORRUPT}, raised by its member {self.member}: what its "
                "members hold differs, and they refuse requests; replace the member that is "
                "wrong, then `etcdctl alarm disarm`"
            )
        return f"etcd member {self.member} says: {self.kind}"


@dataclass(frozen=True, slots=True)
class StoreSeen:
    """All members that a manager was told of, in that order, and the alarms."""

    members: tuple[StoreMember, ...] = ()
    alarms: tuple[StoreAlarm, ...] = ()

    def notices(self) -> Iterator[str]:
        """What an operator should read, because the store is not what it was built to be."""
        for member in self.members:
            if member.reason is not None:
                yield (
                    f"etcd member {member.endpoint} {member.words}: {self._what_is_left()}; see "
                    f"`systemctl status etcd` on {_host_of(member.endpoint)}"
                )
        for alarm in self.alarms:
            yield alarm.words

    def _what_is_left(self) -> str:
        total, working = len(self.members), sum(member.works for member in self.members)
        text = f"{working} of {total} members work. "
        if not working:
            return text + "No manager can lead until most of them work"
        spare = working - (total // 2 + 1)
        more = "One more" if spare <= 0 else str(spare + 1) + " more"
        return text + f"{more} lost, and no manager can lead"

    def as_json(self) -> dict[str, Any]:
        """As `GET /v1/managers` tells it."""
        return {
            "members": [
                {
                    "endpoint": member.endpoint,
                    "answers": member.answers,
                    "reason": member.reason,
                    "since": member.since,
                    "version": member.version,
                    "leads": member.leads,
                }
                for member in self.members
            ],
            "alarms": [{"member": alarm.member, "kind": alarm.kind} for alarm in self.alarms],
        }


def _host_of(endpoint: str) -> str:
    return endpoint.rpartition(":")[0].strip("[]")
