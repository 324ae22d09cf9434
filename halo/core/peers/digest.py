"""The checksum that shows whether a watching agent and its manager hold the same results."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from halo.core.model import ResourceId
from halo.core.outcomes import ReportedResult

_MODULUS = 2**64


class DigestKeeper:
    """Keeps the checksum of a set of results. A change costs the same for small and large sets.

    The checksum is the sum of one hash for each resource. So it does not depend on the order of
    changes. It starts empty, with the value 0.
    """

    __slots__ = ("_parts", "value")

    def __init__(self) -> None:
        self.value = 0
        self._parts: dict[ResourceId, int] = {}

    def set(self, reported: ReportedResult) -> None:
        """Replace a resource's earlier result by this one."""
        part = _part(reported)
        earlier = self._parts.get(reported.resource, 0)
        self.value = (self.value - earlier + part) % _MODULUS
        self._parts[reported.resource] = part


def digest_of(picture: Iterable[ReportedResult]) -> int:
    """The checksum of these results: 64 bits over each id, outcome, code and number of operations.
    Messages are not part of it.

    It is stable between programs and versions, because both ends of a connection compute it.
    """
    return sum(map(_part, picture)) % _MODULUS


def _part(reported: ReportedResult) -> int:
    result = reported.result
    text = f"{result.outcome.value}\0{result.code}\0{reported.operations}\0{reported.resource}"
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")
