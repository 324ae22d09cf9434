"""The checksum by which a watching agent and its manager tell that their pictures are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from halo.core.model import ResourceId
from halo.core.outcomes import ReportedResult

_MODULUS = 2**64


class DigestKeeper:
    """Keeps the checksum of a set of results; a change costs the same however large the set.

    The checksum is the sum of one hash for each resource, so the order of the changes that led to
    a set does not show in it. Starts empty, with the value 0.
    """

    __slots__ = ("_parts", "value")

    def __init__(self) -> None:
        self.value = 0
        self._parts: dict[ResourceId, int] = {}

    def set(self, reported: ReportedResult) -> None:
        """Put a resource's result in the place of its earlier one."""
        part = _part(reported)
        earlier = self._parts.get(reported.resource, 0)
        self.value = (self.value - earlier + part) % _MODULUS
        self._parts[reported.resource] = part


def digest_of(picture: Iterable[ReportedResult]) -> int:
    """The checksum of these results: 64 bits over each id, outcome, code and number of operations;
    not the messages.

    Stable between programs and versions: both ends of a connection compute it.
    """
    return sum(map(_part, picture)) % _MODULUS


def _part(reported: ReportedResult) -> int:
    result = reported.result
    text = f"{result.outcome.value}\0{result.code}\0{reported.operations}\0{reported.resource}"
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")
