"""`halo power`: switch hosts through their fence devices, without the manager."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from halo.cli.context import Context
from halo.cli.errors import AdministratorMustMend, CliError
from halo.cli.options import complete_hosts, expand_hosts
from halo.core.model import FenceDevice, Host
from halo.core.outcomes import PowerState

if TYPE_CHECKING:
    from halo.adapters.fence.host_power import HostPower

ACTIONS = ("on", "off", "status", "cycle")
DEFAULT_DEADLINE_S = 60.0

_AT_ONCE = 32  # hosts; below the limit on fence programs, so that none waits past its deadline
_OLD_NAMES = {"username": ("login",), "password": ("passwd", "password_script", "passwd_script")}


@dataclass(frozen=True)
class Override:
    """The values of the command line that replace those of the config."""

    agent: str | None = None
    username: str | None = None
    password: str | None = None

    def parameters(self, given: dict[str, str]) -> dict[str, str]:
        """The parameters of a device, with the values of the command line."""
        found = dict(given)
        for name, value in (("username", self.username), ("password", self.password)):
            if value is not None:
                for old in _OLD_NAMES[name]:
                    found.pop(old, None)
                found[name] = value
        return found


@click.command()
@click.argument("action", type=click.Choice(ACTIONS))
@click.argument("hosts", nargs=-1, metavar="[HOST...]", shell_complete=complete_hosts)
@click.option("-a", "--all", "every", is_flag=True, help="All hosts of the config.")
@click.option(
    "-f", "--fence-agent", metavar="AGENT", help="Use this fence agent instead of the config's."
)
@click.option(
    "-l", "--username", metavar="NAME", help="Use this user name instead of the config's."
)
@click.option(
    "-p",
    "--password",
    metavar="TEXT",
    help="Use this password instead of the config's. Give file:/PATH or env:NAME. Everyone on this "
    "machine can read a password that you write on the command line.",
)
@click.option(
    "--timeout",
    "timeout_s",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    help="Deadline of each run of a fence program (default: fence_timeout of the config, else 60).",
)
@click.pass_obj
def power(
    context: Context,
    action: str,
    hosts: tuple[str, ...],
    every: bool,
    fence_agent: str | None,
    username: str | None,
    password: str | None,
    timeout_s: float | None,
) -> None:
    """Switch hosts on or off, or show their power status, without the manager.

    A running manager is not informed: it sees that the host is gone, and reacts as to any lost
    host. To power a host off and move its groups, use `halo fence`. `status` without HOST shows all
    hosts. As in HALO (Rust), each host that was switched is reported as `HOST Fence: Success`, also
    after `on`.
    """
    names = expand_hosts(hosts)
    if names and every:
        raise click.UsageError("give either hosts or --all, not both")
    if not names and not every and action != "status":
        # As in HALO (Rust): a forgotten word must not power a cluster off.
        raise CliError(f'Must specify host names to perform action "{action}", or --all.')
    if password and not password.startswith(("file:", "env:")):
        click.echo(
            "warning: everyone on this machine can read a password on the command line; use "
            "-p file:/PATH or -p env:NAME",
            err=True,
        )
    override = Override(fence_agent, username, password)
    chosen, configured_s = _choose(context.config, names, override)
    deadline_s = timeout_s or configured_s
    results = asyncio.run(_act(action, chosen, deadline_s, verbose=context.verbose))
    # A host without a fence agent is named, but is not a failure if nobody named it.
    blameless = set() if names else {host.id for host in chosen if not host.fence_levels}
    if _report(action, results, blameless):
        raise click.exceptions.Exit(1)


def _choose(config: str, names: list[str], override: Override) -> tuple[list[Host], float]:
    """The chosen hosts, with the overrides, and the deadline of the config."""
    if override.agent is not None and names:
        # Hosts that are not in the config can be switched, too.
        return [_made_up_host(name, override) for name in names], DEFAULT_DEADLINE_S
    from halo.config import load

    cluster = load(config)
    unknown = [name for name in names if name not in cluster.hosts]
    if unknown:
        raise CliError(f"unknown in {config}: {', '.join(unknown)}; nothing was switched")
    hosts = [cluster.hosts[name] for name in names or cluster.hosts]
    if override.agent is not None:
        hosts = [replace(_made_up_host(host.address, override), id=host.id) for host in hosts]
    else:
        hosts = [_overridden(host, override) for host in hosts]
    return hosts, cluster.settings.fence_timeout_s


def _overridden(host: Host, override: Override) -> Host:
    levels = tuple(
        tuple(
            replace(device, parameters=override.parameters(dict(device.parameters)))
            for device in level
        )
        for level in host.fence_levels
    )
    return replace(host, fence_levels=levels)


def _made_up_host(name: str, override: Override) -> Host:
    from halo.config import find_fence_program
    from halo.config.fencing import with_default_address

    agent = override.agent or ""
    program = find_fence_program(agent)
    if program is None:
        raise AdministratorMustMend(
            f'there is no fence agent "{agent}": expected powerman, redfish, ipmi, fence_test, '
            "a fence_* program that is installed, or an absolute path"
        )
    if agent in ("redfish", "ipmi") and not (override.username and override.password):
        raise click.UsageError(f"-f {agent} needs -l NAME and -p file:/PATH (or env:NAME)")
    parameters = with_default_address(agent, override.parameters({}), name)
    if agent not in ("redfish", "ipmi", "powerman"):
        parameters.setdefault("ip", name)
    device = FenceDevice(agent, str(program), parameters)
    return Host(name, name, fence_levels=((device,),))


async def _act(
    action: str, hosts: Sequence[Host], deadline_s: float, *, verbose: bool
) -> list[HostPower]:
    """One action on all hosts side by side. Prints each result when it is known."""
    from halo.adapters.fence.host_power import HostPowers
    from halo.adapters.fence.programs import FencePrograms

    programs = FencePrograms()
    powers = HostPowers(programs, deadline_s)
    act = {"on": powers.on, "off": powers.off, "status": powers.status, "cycle": powers.cycle}
    places = asyncio.Semaphore(_AT_ONCE)
    progress = _Progress(action, len(hosts))

    async def one(host: Host) -> HostPower:
        async with places:
            if verbose and action != "status":
                click.echo(f"Fencing Host: {host.id}", err=True)
            result = await act[action](host)
        progress.done(result)
        return result

    try:
        return list(await asyncio.gather(*(one(host) for host in hosts)))
    finally:
        await programs.close()


class _Progress:
    """Prints a line for each switched host. For status, prints a count on a terminal."""

    def __init__(self, action: str, total: int) -> None:
        self._action = action
        self._total = total
        self._count = 0

    def done(self, result: HostPower) -> None:
        self._count += 1
        if self._action != "status":
            if result.succeeded:
                click.echo(f"{result.host} Fence: Success", err=True)
            else:
                click.echo(f"{result.host} Fence result: Failure: {result.message}", err=True)
        elif sys.stderr.isatty() and self._total > 1:
            end = "\r" if self._count < self._total else "\r\033[K"
            click.echo(f"\r{self._count} of {self._total}{end}", err=True, nl=False)


def _report(action: str, results: Sequence[HostPower], blameless: set[str]) -> bool:
    """Print the table at the end. Returns True if something failed."""
    failed = [r.host for r in results if not r.succeeded and r.host not in blameless]
    if action == "status":
        for result in results:
            if result.power is PowerState.UNKNOWN:
                click.echo(f"Could not determine power status for {result.host}, {result.message}")
            else:
                click.echo(f"{result.host} is {result.power.value}")
                if result.message:
                    click.echo(f"{result.host}: {result.message}", err=True)
        return bool(failed)
    if len(results) > 1:
        done = sum(result.succeeded for result in results)
        line = f"power {action}: {done} done, {len(failed)} failed"
        click.echo(f"{line}: {_nodeset(failed)}" if failed else line)
    return bool(failed)


def _nodeset(names: list[str]) -> str:
    """The names in a form that the next command accepts."""
    from halo.config import fold

    try:
        return fold(names)
    except ValueError:  # a name with brackets
        return " ".join(names)
