"""`halo discover`: from running hosts to a config, over ssh.

The state of a host is read from `zpool list`, `zpool import` (the pools that it could take over)
and `mount -t lustre`. A pool belongs to the host that has imported it. Hosts that could import it
are its failover hosts.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import click

from halo.cli.context import Context
from halo.cli.errors import CliError
from halo.cli.options import hosts_argument
from halo.core.secrets import for_a_program

Parsed = TypeVar("Parsed")

CONNECT_TIMEOUT_S = 10
COMMAND_TIMEOUT_S = 120.0  # `zpool import` reads every disk
_AT_ONCE = 32
_SSH_FAILED = 255
_NOT_FOUND = 127
# Without a login, PATH often lacks the folders of zpool.
_PREFIX = 'env LC_ALL=C PATH="${PATH}:/usr/sbin:/sbin" '

LIST_POOLS = _PREFIX + "zpool list -H -o name,guid"
LIST_IMPORTABLE = _PREFIX + "zpool import"
LIST_MOUNTS = _PREFIX + "mount -t lustre"

_TYPES = (("MGS", "mgt"), ("MDT", "mdt"), ("OST", "ost"))
_START_ORDER = {"mgt": 0, "mdt": 1, "ost": 2}


@dataclass(frozen=True, order=True)
class Pool:
    """A zpool. Only the guid distinguishes two pools with the same name."""

    name: str
    guid: str


@dataclass(frozen=True)
class Mount:
    """A mounted Lustre target."""

    device: str
    mountpoint: str
    type: str

    @property
    def pool(self) -> str | None:
        """The zpool of the target; None for a target on a block device."""
        return None if self.device.startswith("/") else self.device.partition("/")[0]


@dataclass
class HostView:
    """The state of one host."""

    name: str
    imported: list[Pool] = field(default_factory=list)
    importable: list[Pool] = field(default_factory=list)
    mounts: list[Mount] = field(default_factory=list)


class DiscoveryError(Exception):
    """One host could not be inspected. The text says why."""


@click.command()
@hosts_argument
@click.pass_obj
def discover(context: Context, hosts: list[str]) -> None:
    """Inspect HOST..., and write a config for what runs there to standard output.

    Needs ssh without a password to each host, as a user who may run zpool. Fill in the fence agents
    yourself. Notes and errors go to stderr.
    """
    with ThreadPoolExecutor(_AT_ONCE) as executor:
        found = list(executor.map(lambda host: _try_look(host, context.verbose), hosts))
    views = [view for view in found if isinstance(view, HostView)]
    problems = [problem for problem in found if isinstance(problem, str)]
    if views:
        config, notes = make_config(views)
        click.echo(to_yaml(config), nl=False)
        for note in notes:
            click.echo(f"note: {note}", err=True)
    for problem in problems:
        click.echo(problem, err=True)
    if problems:
        raise CliError(f"{len(problems)} of {len(hosts)} hosts could not be inspected")


def _try_look(host: str, verbose: bool) -> HostView | str:
    try:
        return look_at(host, verbose=verbose)
    except DiscoveryError as error:
        return f"{host}: {error}"


def look_at(host: str, *, verbose: bool = False) -> HostView:
    """Ask one host for its pools and mounts. Raises DiscoveryError."""
    imported = _ask(host, LIST_POOLS, parse_pools, verbose)
    importable = _ask(host, LIST_IMPORTABLE, parse_importable, verbose)
    mounts = _ask(host, LIST_MOUNTS, parse_mounts, verbose)
    return HostView(host, imported, importable, mounts)


def _ask(
    host: str, command: str, parse: Callable[[str], list[Parsed]], verbose: bool
) -> list[Parsed]:
    words = command.removeprefix(_PREFIX)
    if verbose:
        click.echo(f"{host}: running {words}", err=True)
    ssh = ["ssh", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_TIMEOUT_S}"]
    try:
        done = subprocess.run(
            [*ssh, "--", host, command],
            stdin=subprocess.DEVNULL,
            env=for_a_program(os.environ),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError:
        raise DiscoveryError("the program ssh is not installed here; install it") from None
    except subprocess.TimeoutExpired:
        raise DiscoveryError(f"{words}: did not end within {COMMAND_TIMEOUT_S:g} s") from None
    if done.returncode == _SSH_FAILED:
        last = done.stderr.strip().splitlines()[-1:]
        raise DiscoveryError(f"ssh failed: {last[0] if last else 'it gave no reason'}")
    if done.returncode == _NOT_FOUND:
        return []  # a host without ZFS, or without Lustre
    # `zpool import` fails if it finds nothing to import.
    if done.returncode != 0 and "no pools available" not in done.stdout + done.stderr:
        last = done.stderr.strip().splitlines()[-1:]
        raise DiscoveryError(f"{words}: exit status {done.returncode}: {''.join(last)}")
    return parse(done.stdout)


def parse_pools(output: str) -> list[Pool]:
    """The lines of `zpool list -H -o name,guid`."""
    rows = (line.split("\t") for line in output.splitlines())
    return [Pool(row[0], row[1]) for row in rows if len(row) == 2]


def parse_importable(output: str) -> list[Pool]:
    """The pools that `zpool import` offers, including pools that another host holds."""
    pools = []
    name = ""
    for line in output.splitlines():
        key, separator, value = line.strip().partition(": ")
        if separator and key == "pool":
            name = value.strip()
        elif separator and key == "id" and name:
            pools.append(Pool(name, value.strip().split()[0]))
            name = ""
    return pools


def parse_mounts(output: str) -> list[Mount]:
    """The targets among the lines of `mount -t lustre`. Mounts of clients are left out."""
    mounts = []
    for line in output.splitlines():
        device, separator, rest = line.partition(" on ")
        mountpoint, kind, options = rest.rpartition(" type lustre ")
        service = next(
            (o[7:] for o in options.strip(" ()").split(",") if o.startswith("svname=")), None
        )
        if separator and kind and service:
            known = (name for sign, name in _TYPES if sign in service)
            mounts.append(Mount(device, mountpoint, next(known, "ost")))
    return mounts


def make_config(views: list[HostView]) -> tuple[dict[str, Any], list[str]]:
    """A config of these hosts, and notes on what a person should check."""
    notes: list[str] = []
    resources: list[dict[str, Any]] = []
    groups: list[dict[str, Any]] = []
    targets = {mount.device: (view, mount) for view in views for mount in view.mounts}
    for pool, owners in sorted(_owners(views).items()):
        if _is_no_group(pool, owners, views, notes):
            continue
        able = [view.name for view in views if pool in view.importable and view.name not in owners]
        home = owners[0] if owners else able.pop(0)
        if not owners:
            notes.append(f"{pool.name} is imported on no host; its home_host is set to {home}")
        if not able:
            notes.append(f"{pool.name} is visible only on {home}: it has no failover host")
        mounts = sorted(
            (mount for _, mount in targets.values() if mount.pool == pool.name), key=_start_order
        )
        dependents = [mount.device for mount in mounts]
        resources.append(_resource(pool.name, "heartbeat/ZFS", {"pool": pool.name}, dependents))
        resources += [_lustre(mount) for mount in mounts]
        groups.append({"root": pool.name, "home_host": home, "failover_hosts": able})
    for view, mount in targets.values():
        if mount.pool is None:
            notes.append(
                f"{mount.device} on {view.name} is not on a zpool, so it is not known which other "
                "hosts can mount it; fill in its failover_hosts"
            )
            resources.append(_lustre(mount))
            groups.append({"root": mount.device, "home_host": view.name, "failover_hosts": []})
    hosts = [{"hostname": view.name, "fence_agent": None} for view in views]
    return {"hosts": hosts, "resources": resources, "resource_groups": groups}, notes


def _owners(views: Iterable[HostView]) -> dict[Pool, list[str]]:
    """Every pool, with the hosts that have imported it."""
    owners: dict[Pool, list[str]] = {}
    for view in views:
        for pool in (*view.imported, *view.importable):
            owners.setdefault(pool, [])
        for pool in view.imported:
            owners[pool].append(view.name)
    return owners


def _is_no_group(
    pool: Pool, owners: list[str], views: Iterable[HostView], notes: list[str]
) -> bool:
    if len(owners) > 1:
        notes.append(
            f"DANGER: {pool.name} is imported on {' and '.join(owners)} at once; it is left out. "
            "Check it before anything writes to it"
        )
        return True
    namesakes = {
        other.guid
        for view in views
        for other in (*view.imported, *view.importable)
        if other.name == pool.name
    }
    if len(namesakes) > 1:
        note = (
            f"{pool.name} is the name of {len(namesakes)} different pools (perhaps a local pool of "
            "each host); they are left out"
        )
        if note not in notes:
            notes.append(note)
        return True
    return False


def _start_order(mount: Mount) -> tuple[int, str]:
    return _START_ORDER[mount.type], mount.device


def _lustre(mount: Mount) -> dict[str, Any]:
    parameters = {"mountpoint": mount.mountpoint, "target": mount.device, "type": mount.type}
    return _resource(mount.device, "lustre/Lustre", parameters, [])


def _resource(
    name: str, kind: str, parameters: Mapping[str, str], dependents: list[str]
) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "kind": kind, "parameters": dict(parameters)}
    if dependents:
        found["dependents"] = dependents
    return found


def to_yaml(config: dict[str, Any]) -> str:
    """The config as text, for a person to complete."""
    import yaml

    body = yaml.safe_dump(config, sort_keys=False, default_flow_style=False, allow_unicode=True)
    return (
        "# Written by halo discover. Before use: set fence_agent and fence_parameters of every\n"
        "# host (without them no group fails over), check the groups, and run halo validate.\n"
        + body
    )
