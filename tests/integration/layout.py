"""What a test cluster consists of, and the config file that says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

_NAMED_BY = {
    "heartbeat/ZFS": ("zfs", "pool"),
    "lustre/Lustre": ("lustre", "mountpoint"),
    "test/Service": ("service", "name"),
}

SHORT_SETTINGS: Mapping[str, Any] = {
    "loss_budget": 2,
    "heartbeat_interval": 0.5,
    "connect_timeout": 2,
    "reconnect_interval": 0.2,
    "fence_timeout": 20,
    "fence_retry_min": 0.5,
    "fence_retry_max": 2,
    "restart_grace": 2,
}
"""Timings for tests: short, yet nothing that two slow cores cannot keep."""


@dataclass(frozen=True)
class ResourceSpec:
    """One emulated resource. `options` are further keys of its config entry, as `start_timeout`;
    without `says_shared` the config leaves it open that it is shared."""

    name: str
    kind: str
    parameters: Mapping[str, str]
    dependents: Sequence[str] = ()
    shared: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    says_shared: bool = True

    @property
    def state_suffix(self) -> str:
        """What its state file is called after the host: `zfs.pool0`."""
        kind, parameter = _NAMED_BY[self.kind]
        return f"{kind}.{self.parameters[parameter].replace('/', '_')}"

    def entry(self) -> dict[str, Any]:
        """Its entry in the config."""
        entry: dict[str, Any] = {
            "name": self.name,
            "kind": self.kind,
            "parameters": dict(self.parameters),
            **self.options,
        }
        if self.dependents:
            entry["dependents"] = list(self.dependents)
        if self.shared and self.says_shared:
            entry["shared"] = True
        return entry


@dataclass(frozen=True)
class GroupSpec:
    """One group: its resources, root first. A resource of the same name in two groups is one."""

    resources: Sequence[ResourceSpec]
    home: str
    failover: Sequence[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return self.resources[0].name

    def entry(self) -> dict[str, Any]:
        """Its entry in the config."""
        return {
            "root": self.id,
            "home_host": self.home,
            "failover_hosts": list(self.failover),
            **self.options,
        }


def service(
    name: str, dependents: Sequence[str] = (), *, shared: bool = False, **options: Any
) -> ResourceSpec:
    """A `test/Service`; options are keys of its config entry."""
    return ResourceSpec(name, "test/Service", {"name": name}, dependents, shared, options)


def group(
    name: str,
    home: str = "h1",
    failover: Sequence[str] = ("h2",),
    *,
    mounts: int = 1,
    resources: Sequence[ResourceSpec] | None = None,
    **options: Any,
) -> GroupSpec:
    """A zpool `name` with `mounts` Lustre mounts `name_mnt0`... on it, or the given `resources`."""
    if resources is None:
        names = [f"{name}_mnt{n}" for n in range(mounts)]
        pool = ResourceSpec(name, "heartbeat/ZFS", {"pool": name}, names)
        resources = [
            pool,
            *(
                ResourceSpec(
                    mount, "lustre/Lustre", {"mountpoint": f"/mnt/{mount}", "target": mount}
                )
                for mount in names
            ),
        ]
    return GroupSpec(resources, home, failover, options)


def resources_of(groups: Sequence[GroupSpec]) -> dict[str, ResourceSpec]:
    """All resources by name; the first mention of a shared one counts."""
    found: dict[str, ResourceSpec] = {}
    for spec in groups:
        for resource in spec.resources:
            found.setdefault(resource.name, resource)
    return found


def config_text(
    hosts: Mapping[str, int],
    groups: Sequence[GroupSpec],
    folder: Path,
    settings: Mapping[str, Any],
    host_options: Mapping[str, Mapping[str, Any]],
) -> str:
    """The config of a test cluster, as YAML; `hosts` maps each host to its port on loopback."""
    config: dict[str, Any] = {
        "settings": dict(settings),
        "hosts": [
            {
                "hostname": f"127.0.0.1:{port}",
                "fence_agent": "fence_test",
                "fence_parameters": {"target": host, "test_id": str(folder)},
                **host_options.get(host, {}),
            }
            for host, port in hosts.items()
        ],
        "resources": [resource.entry() for resource in resources_of(groups).values()],
        "resource_groups": [spec.entry() for spec in groups],
    }
    return yaml.safe_dump(config, sort_keys=False)
