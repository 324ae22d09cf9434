"""Which groups need a shared resource on which host.

A group registers its need before its first start on a host. A shared resource is stopped on a host
only if no group there needs it. The last release and the decision to stop are one step, so no start
can come between them. A later start waits until that stop has ended.
"""

from __future__ import annotations

from halo.core.model import GroupId, HostId, ResourceId


class SharedNeeds:
    """The register of needs, and of the stops under way."""

    def __init__(self) -> None:
        self._needs: dict[tuple[ResourceId, HostId], set[GroupId]] = {}
        self._stopping: set[tuple[ResourceId, HostId]] = set()

    def need(self, resource: ResourceId, host: HostId, group: GroupId) -> None:
        """`group` needs `resource` on `host` from now on."""
        self._needs.setdefault((resource, host), set()).add(group)

    def needed_by(self, resource: ResourceId, host: HostId) -> frozenset[GroupId]:
        """The groups that need the resource on this host."""
        return frozenset(self._needs.get((resource, host), ()))

    def release(self, resource: ResourceId, host: HostId, group: GroupId) -> bool:
        """`group` does not need the resource there any more. True: no other group needs it. Then
        the caller must stop the resource and call :meth:`stop_ended`. Starts wait until then."""
        users = self._needs.get((resource, host), set())
        users.discard(group)
        if users or (resource, host) in self._stopping:
            return False
        self._stopping.add((resource, host))
        return True

    def stop_ended(self, resource: ResourceId, host: HostId) -> None:
        """The stop after the last release has ended, whether it succeeded or failed."""
        self._stopping.discard((resource, host))

    def is_stopping(self, resource: ResourceId, host: HostId) -> bool:
        """Is a stop under way there?"""
        return (resource, host) in self._stopping

    def drop_host(self, host: HostId) -> None:
        """The host was fenced, or has connected again: nothing is known to be needed there."""
        self._needs = {key: users for key, users in self._needs.items() if key[1] != host}
        self._stopping = {key for key in self._stopping if key[1] != host}

    def drop_group(self, group: GroupId, host: HostId) -> None:
        """`group` was proven stopped on `host`."""
        for key, users in self._needs.items():
            if key[1] == host:
                users.discard(group)
