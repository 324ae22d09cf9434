"""A cluster in plain text, for `halo validate`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from halo.config.placing.company import COMPANY_KEYS
from halo.config.resources import DURATION_FIELDS
from halo.core.model import (
    Cluster,
    FenceDevice,
    Host,
    LossPolicy,
    Resource,
    ResourceGroup,
    SecondCopyPolicy,
    Settings,
    StartFailurePolicy,
    in_words,
)

_MAX_INDENT = 40  # a chain of thousands of resources must not print megabytes of blanks
# Parameters that identify the device and the plug. No other value is shown: it may be a secret.
_SHOWN = ("ip", "ipaddr", "ipport", "port", "plug", "systems_uri", "systems-uri")
_SHOWN_OF_TEST_AGENT = ("target", "test_id")


def summary(cluster: Cluster) -> str:
    """All hosts with their fence devices, all groups as trees, and the settings that differ from
    their defaults. Shows no secret."""
    lines = [
        f"Cluster {cluster.name}: {_count(len(cluster.hosts), 'host')},"
        f" {_count(len(cluster.groups), 'resource group')}",
        "",
        "Hosts:",
    ]
    for host in cluster.hosts.values():
        lines += _host(host)
    lines += ["", "Resource groups:" if cluster.groups else "Resource groups: none"]
    for group in cluster.groups.values():
        lines += _group(group)
    changed = list(_settings(cluster.settings))
    lines += ["", "Settings:" if changed else "Settings: all defaults", *changed]
    return "\n".join(lines)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _host(host: Host) -> Iterator[str]:
    address = f"[{host.address}]" if ":" in host.address else host.address
    policy = "" if host.on_loss is LossPolicy.FENCE else f", on_loss {host.on_loss}"
    yield f"  {host.id} ({address}:{host.port}{policy})"
    if host.capacity:
        yield f"    capacity: {in_words(host.capacity)}"
    if host.max_starts is not None:
        yield f"    starts {_count(host.max_starts, 'group')} at a time"
    if not host.fence_levels:
        yield "    fencing: none"
    for number, level in enumerate(host.fence_levels, 1):
        label = "fencing" if len(host.fence_levels) == 1 else f"fencing level {number}"
        yield f"    {label}: {' and '.join(_device(device) for device in level)}"


def _device(device: FenceDevice) -> str:
    names = (*_SHOWN, *(_SHOWN_OF_TEST_AGENT if device.agent == "fence_test" else ()))
    shown = ", ".join(
        f"{name} {device.parameters[name]}" for name in names if name in device.parameters
    )
    return f"{device.agent} ({shown})" if shown else device.agent


def _group(group: ResourceGroup) -> Iterator[str]:
    failover = ", ".join(group.failover_hosts) or "none"
    yield f"  {group.id}: home {group.home_host}, failover {failover}{_policies(group)}"
    seen: set[str] = set()
    pending: list[tuple[Resource, int]] = [(group.by_id[group.root], 2)]
    while pending:
        resource, depth = pending.pop()
        again = " (see above)" if resource.id in seen else ""
        yield f"{'  ' * min(depth, _MAX_INDENT)}{_resource(resource)}{again}"
        if not again:
            seen.add(resource.id)
            dependents = list(group.dependents_of(resource))
            pending += [(dependent, depth + 1) for dependent in reversed(dependents)]


def _policies(group: ResourceGroup) -> str:
    words = ""
    if group.on_start_failure is not StartFailurePolicy.MOVE:
        words += f", on_start_failure {group.on_start_failure}"
    if group.second_copy is not SecondCopyPolicy.REPORT:
        words += f", second_copy {group.second_copy}"
    if group.after:
        words += f", after {', '.join(group.after)}"
    for key in COMPANY_KEYS:
        names = getattr(group.company, key)
        words += f", {key} {', '.join(names)}" if names else ""
    words += f", needs {in_words(group.needs)}" if group.needs else ""
    words += f", priority {group.priority}" if group.priority else ""
    words += ", preempt" if group.preempt else ""
    return words


def _resource(resource: Resource) -> str:
    times = {key: getattr(resource, name) for key, name in DURATION_FIELDS.items()}
    words = [resource.kind]
    words += ["shared"] if resource.shared else []
    words += [f"{name} {value:g}s" for name, value in times.items() if value is not None]
    return f"{resource.id} ({', '.join(words)})"


def _settings(settings: Settings) -> Iterator[str]:
    default = Settings()
    for field in fields(Settings):
        value = getattr(settings, field.name)
        if value == getattr(default, field.name):
            continue
        if field.name.endswith("_s"):
            yield f"  {field.name.removesuffix('_s')}: {value:g}s"
        else:
            yield (
                f"  {field.name}: {value:g}"
                if not isinstance(value, bool)
                else (f"  {field.name}: {str(value).lower()}")
            )
