"""Who holds the key of the leadership, in words. Anybody may have written the key."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

from halo.adapters.etcd.location import Store
from halo.adapters.etcd.standby.seen import manager_in
from halo.adapters.etcd.values import Found
from halo.core.errors import StateError
from halo.ports import ManagerSeen

WORDS_LIMIT = 200


@dataclass(frozen=True, slots=True)
class Holder:
    """The manager that leads, in words; the revision at which this was read, and the term of etcd's
    leader. `remedy`: what an administrator must do, if no manager can have written this key.
    `acts`: nobody leads yet, and a manager that only observes leaves it to this one, which acts."""

    words: str
    revision: int
    term: int
    remedy: str | None
    acts: bool = False

    def __str__(self) -> str:
        return self.words

    @property
    def waiting(self) -> str:
        """What a manager waits for that stands by."""
        if self.acts:
            return f"standing by; it only observes, so it leaves the leadership to {self.words}"
        return f"standing by; {self.remedy or f'{self.words} leads'}"


def manager_that_leads(value: bytes) -> ManagerSeen | None:
    """The manager that wrote the key of the leadership, unless an unknown program did."""
    try:
        said = json.loads(value)["manager"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return manager_in(json.dumps(said).encode())


def began_in(value: bytes) -> float | None:
    """When the leadership began, in seconds since the epoch, as its leader wrote it into its key.
    None if no manager did."""
    try:
        began = datetime.fromisoformat(json.loads(value)["since"])
        return None if began.tzinfo is None else began.timestamp()
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


def holder_of(value: bytes, found: Found) -> Holder:
    """The words are those of whoever wrote the key, so they are cut and not believed."""
    known = True
    try:
        said = json.loads(value)
        words = f"pid {said['pid']} on {said['host']} (since {said['since']})"
        if (manager := manager_that_leads(value)) is not None:
            words = f"{manager.id} on {manager.host}"
    except (ValueError, TypeError, KeyError, RecursionError):
        words, known = "an unknown program", False
    words = "".join(c if c.isprintable() else "?" for c in words[:WORDS_LIMIT])
    return Holder(words, found.revision, found.term, _remedy(found, words, known))


def in_use(store: Store, holder: Holder) -> StateError:
    """The refusal of a program that does not wait."""
    what = "probably another manager; stop that manager first"
    return StateError(
        f"{store}: in use by {holder}, {holder.remedy or what}, or give this one its own prefix "
        "with --store"
    )


def _remedy(found: Found, words: str, known: bool) -> str | None:
    if not found.keys:
        return None
    key = found.keys[0]
    if not key.lease:
        return (
            f"nobody can lead, because the key {key.key} ({words}) has no lease and never ends by "
            f"itself; no manager writes it so; remove it: etcdctl del {key.key}"
        )
    if not known:
        return (
            f"nobody can lead, because a program that is no manager keeps the key {key.key}; end "
            "that program"
        )
    return None
