"""One host as a candidate for one group: what is known of both there, looked up once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from halo.core.cluster.host_state import HostState
from halo.core.cluster.knowledge import NO_SIGHTING, Presence, Sighting, presence_of
from halo.core.model import HostId, ResourceGroup, ResourceId


@dataclass(slots=True, eq=False)
class Candidate:
    """What is known of `host` for one decision on `group`. Do not keep it after that decision."""

    group: ResourceGroup
    host: HostId
    at: HostState
    sightings: Mapping[ResourceId, Sighting]  # of everything on the host

    @property
    def presence(self) -> Presence:
        """What is known of the group here."""
        return presence_of(self.group, self.sightings)

    @property
    def last_seen(self) -> Presence:
        """Like :attr:`presence`, but from what was last seen, however long ago."""
        found = [sighting.last_seen for sighting in self._exclusive()]
        if Presence.RUNNING in found:
            return Presence.RUNNING
        if all(presence is Presence.STOPPED for presence in found):
            return Presence.STOPPED
        return Presence.UNKNOWN

    @property
    def stopped_since(self) -> float | None:
        """When the oldest of the monitors was sent that found every resource stopped, all of them
        over the standing connection. None if there is no such set of answers."""
        oldest, epoch = float("inf"), self.at.epoch
        for sighting in self._exclusive():
            if sighting.presence is not Presence.STOPPED or sighting.epoch != epoch:
                return None
            oldest = min(oldest, sighting.begun_at)
        return oldest

    @property
    def has_reported(self) -> bool:
        """Was every resource probed over the standing connection?"""
        epoch = self.at.epoch
        return all(sighting.epoch == epoch for sighting in self._exclusive())

    @property
    def owes_a_look(self) -> bool:
        """Has it still to give a first answer on the group, since what was known was dropped?"""
        return self.presence is Presence.UNKNOWN and self.error is None

    @property
    def was_looked_at(self) -> bool:
        """Did every resource get some answer over the standing connection since the last drop?"""
        epoch = self.at.epoch
        return all(
            s.epoch == epoch and (s.begun_at > float("-inf") or s.presence is not Presence.UNKNOWN)
            for s in self._exclusive()
        )

    @property
    def answered_since(self) -> float:
        """When the oldest of the monitors was sent that were answered last, however badly."""
        oldest = float("inf")
        for sighting in self._exclusive():
            oldest = min(oldest, sighting.begun_at)
        return oldest

    @property
    def error(self) -> str | None:
        """The first resource whose monitor proves nothing, and why; None if there is none."""
        return self._first(Presence.ERROR)

    @property
    def error_is_of_setup(self) -> bool:
        """Must the cause of :attr:`error` be corrected on the host, or in the config?"""
        found = self._sighting(Presence.ERROR)
        return found is not None and found[1].of_setup

    @property
    def unknown(self) -> str | None:
        """The first resource of which nothing is known, and why; None if there is none."""
        return self._first(Presence.UNKNOWN)

    def _first(self, presence: Presence) -> str | None:
        found = self._sighting(presence)
        return None if found is None else f"{found[0]} on {self.host}: {found[1].reason}"

    def _sighting(self, presence: Presence) -> tuple[ResourceId, Sighting] | None:
        for resource in self.group.exclusive:
            sighting = self.sightings.get(resource.id, NO_SIGHTING)
            if sighting.presence is presence:
                return resource.id, sighting
        return None

    def _exclusive(self) -> list[Sighting]:
        sightings = self.sightings
        return [sightings.get(resource.id, NO_SIGHTING) for resource in self.group.exclusive]
