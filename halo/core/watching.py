"""The checksum by which a watching agent and its manager tell that their pictures are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from halo.core.model import ResourceId
from halo.core.outcomes import OperationResult

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

    def set(self, resource: ResourceId, result: OperationResult) -> None:
        """Put a resource's result in the place of its earlier one."""
        part = _part(resource, result)
        self.value = (self.value - self._parts.get(resource, 0) + part) % _MODULUS
        self._parts[resource] = part


def digest_of(results: Mapping[ResourceId, OperationResult]) -> int:
    """The checksum of these results: 64 bits over each id, outcome and code; not the messages.

    Stable between programs and versions: both ends of a connection compute it.
    """
    return sum(_part(resource, result) for resource, result in results.items()) % _MODULUS


def _part(resource: ResourceId, result: OperationResult) -> int:
    text = f"{result.outcome.value}\0{result.code}\0{resource}"
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")
