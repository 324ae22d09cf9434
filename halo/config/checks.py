"""Warnings about a valid config that may still surprise, for the log and `halo validate`."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from halo.config.nodesets.folding import fold
from halo.config.placing.preempt import preempt_in_vain
from halo.core.model import Cluster, FenceDevice, Host, HostId
from halo.core.survival.configured import best_case
from halo.core.survival.forecast import groups_in_words, in_words

_SECRET = re.compile(r"pass(?:word|wd|phrase)|secret|token|kg|community", re.IGNORECASE)
_NAMES_A_FILE = re.compile(r"_(?:script|file|path)$")
# With one of these, the controller is verified, or the operator has decided against it.
_TLS_KEYS = frozenset(
    ("tls_ca", "ca", "ca_cert", "ssl_ca", "tls_fingerprint", "ssl_secure", "ssl_insecure")
)


def check_warnings(cluster: Cluster, path: str | Path) -> list[str]:
    """What an operator should know about a valid config, one sentence each.

    `path` is the file from which the cluster was loaded. This checks file modes, so do not call it
    in the event loop.
    """
    return [
        *_readable_secrets(cluster, Path(path)),
        *_secret_files(cluster),
        *_unverified(cluster),
        *_without_fencing(cluster),
        *_without_failover(cluster),
        *_shared_by_place(cluster),
        *_no_room_for_a_loss(cluster),
        *preempt_in_vain(cluster),
    ]


def is_secret(name: str) -> bool:
    """True if a fence parameter of this name holds a secret, and not the name of a file."""
    normal = name.replace("-", "_")
    return bool(_SECRET.search(normal)) and not _NAMES_A_FILE.search(normal)


def _devices(host: Host) -> Iterator[FenceDevice]:
    for level in host.fence_levels:
        yield from level


def _readable_secrets(cluster: Cluster, path: Path) -> Iterator[str]:
    holders = [
        host.id
        for host in cluster.hosts.values()
        if any(
            is_secret(name) and value and not value.startswith(("file:/", "env:"))
            for device in _devices(host)
            for name, value in device.parameters.items()
        )
    ]
    if holders and _readable_by_others(path):
        yield (
            f"{path} holds fence passwords ({_shown(holders)}) and every user of this machine can"
            f" read it; run chmod o-r {path}, or write password: file:/PATH"
        )


def _secret_files(cluster: Cluster) -> Iterator[str]:
    values = {
        value.removeprefix("file:"): None
        for host in cluster.hosts.values()
        for device in _devices(host)
        for name, value in device.parameters.items()
        if value.startswith("file:/") and is_secret(name)
    }
    for path in map(Path, values):
        if not _is_file(path):
            yield f"the file {path} of a fence password is missing or cannot be read"
        elif _readable_by_others(path):
            yield f"{path} holds a fence password and every user can read it; run chmod o-r {path}"


def _unverified(cluster: Cluster) -> Iterator[str]:
    hosts = [
        host.id
        for host in cluster.hosts.values()
        if any(
            device.agent == "redfish"
            and not any(name.replace("-", "_") in _TLS_KEYS for name in device.parameters)
            for device in _devices(host)
        )
    ]
    if hosts:
        yield (
            f"the certificates of the redfish controllers of {_shown(hosts)} are not verified,"
            " because their fence_parameters have no tls_ca, tls_fingerprint or ssl_secure"
        )


def _without_fencing(cluster: Cluster) -> Iterator[str]:
    wanted = {
        host: None
        for group in cluster.groups.values()
        if group.failover_hosts
        for host in group.candidates
    }
    hosts = [host for host in cluster.hosts if host in wanted and _lacks_fencing(cluster, host)]
    if hosts:
        yield (
            f"{_shown(hosts)} cannot be fenced (no fence_agent): when such a host dies, its groups"
            " wait for the operator and do not fail over"
        )


def _lacks_fencing(cluster: Cluster, host: HostId) -> bool:
    return not cluster.hosts[host].fence_levels


def _without_failover(cluster: Cluster) -> Iterator[str]:
    groups = [group.id for group in cluster.groups.values() if not group.failover_hosts]
    if groups:
        shown = ", ".join(groups[:10]) + (f" and {len(groups) - 10} more" if groups[10:] else "")
        yield f"without failover_hosts, and so without failover: {shown}"


def _shared_by_place(cluster: Cluster) -> Iterator[str]:
    """One warning for each resource: an exclusive service that runs twice destroys its data."""
    for resource, groups in cluster.groups_of_shared.items():
        if not groups[0].by_id[resource].shared_by_place:
            continue
        shown = ", ".join(group.id for group in groups[:5]) + (", ..." if groups[5:] else "")
        yield (
            f"{resource} is in the groups {shown} without the key shared: HALO treats it as shared,"
            ' so it may run on several hosts at once; write "shared: true", or keep it in one group'
        )


def _no_room_for_a_loss(cluster: Cluster) -> Iterator[str]:
    if not cluster.places_are_short:
        return
    best = best_case(cluster)
    if best.no_place:
        yield f"even with all hosts up, HALO would leave {groups_in_words(best.no_place)}"
    loss = in_words(best.forecast)
    if loss is not None:
        yield f"even with all hosts up, {loss}"


def _readable_by_others(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & stat.S_IROTH)
    except (OSError, ValueError):
        return False


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _shown(hosts: Iterable[HostId]) -> str:
    return fold(hosts)
