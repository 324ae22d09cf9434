"""The `halo` command: its options and its table of commands, each loaded only when it is used."""

from __future__ import annotations

from typing import Any, NamedTuple

import click

import halo
from halo.cli.context import add_shared_options, context_of
from halo.cli.errors import AdministratorMustMend, CliError


class _Entry(NamedTuple):
    place: str
    help: str


COMMANDS: dict[str, _Entry] = {
    "status": _Entry("halo.cli.commands.status:status", "Show resources, hosts and recent events."),
    "why": _Entry("halo.cli.commands.events:why", "Say why a group or host is as it is."),
    "events": _Entry("halo.cli.commands.events:events", "Show the event history, or clear it."),
    "start": _Entry("halo.cli.commands.groups:start", "Start a group, and keep it running."),
    "stop": _Entry("halo.cli.commands.groups:stop", "Stop a group, and keep it stopped."),
    "move": _Entry("halo.cli.commands.groups:move", "Move a group to a host."),
    "cleanup": _Entry(
        "halo.cli.commands.groups:cleanup", "Forget a group's failures, and probe it again."
    ),
    "manage": _Entry("halo.cli.commands.groups:manage", "Let HALO act on a group again."),
    "unmanage": _Entry(
        "halo.cli.commands.groups:unmanage", "Monitor a group without acting on it."
    ),
    "failback": _Entry("halo.cli.commands.hosts:failback", "Move groups back to their home host."),
    "fence": _Entry("halo.cli.commands.hosts:fence", "Power a host off, and move its groups."),
    "reset": _Entry("halo.cli.commands.hosts:reset", "Mark a fenced host as repaired."),
    "activate": _Entry("halo.cli.commands.hosts:activate", "Let a host run groups again."),
    "deactivate": _Entry("halo.cli.commands.hosts:deactivate", "Keep groups off a host."),
    "freeze": _Entry("halo.cli.commands.cluster:freeze", "Stop all action on groups."),
    "thaw": _Entry("halo.cli.commands.cluster:thaw", "Allow action on groups again."),
    "managers": _Entry(
        "halo.cli.commands.cluster:managers", "Show the managers, or let another one lead."
    ),
    "power": _Entry(
        "halo.cli.commands.power:power", "Switch the power of hosts without the manager."
    ),
    "validate": _Entry("halo.cli.commands.validate:validate", "Check the config file."),
    "discover": _Entry(
        "halo.cli.commands.discover:discover", "Write a config by inspecting running hosts."
    ),
    "check": _Entry(
        "halo.cli.commands.check:check", "Report the cluster's health to a monitoring system."
    ),
    "tls": _Entry("halo.cli.tls.commands:tls", "Make, renew and show certificates."),
    "store": _Entry("halo.cli.commands.store:store", "Copy, check and move the journal."),
    "completion": _Entry(
        "halo.cli.commands.completion:completion", "Print a shell's completion script."
    ),
}


class LazyGroup(click.Group):
    """Knows its commands by name, and imports a command when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        from importlib import import_module

        module, _, name = entry.place.partition(":")
        command: click.Command = getattr(import_module(module), name)
        add_shared_options(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            from difflib import get_close_matches

            begins = [name for name in COMMANDS if name.startswith(args[0])]
            close = begins or get_close_matches(args[0], COMMANDS, n=1)
            hint = f' Did you mean "{close[0]}"?' if close else ""
            ctx.fail(f'There is no command "{args[0]}".{hint}')
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            told = _for_the_operator(error)
            if told is None:
                raise
            told.show()
            raise click.exceptions.Exit(told.exit_code) from error


def _for_the_operator(error: Exception) -> CliError | None:
    """One of HALO's own errors as a message and an exit status; None for any other error."""
    from halo.core.errors import AdministratorError, HaloError

    if isinstance(error, CliError):
        return error
    if isinstance(error, AdministratorError):
        return AdministratorMustMend(str(error))
    if isinstance(error, HaloError):
        return CliError(str(error))
    return None


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(halo.__version__, prog_name="halo", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Show and control a HALO cluster through its manager.

    HOST is the name of one host or a nodeset such as oss[00-15]. Exit status: 0 done, 1 refused or
    failed, 2 wrong usage, 64 wrong config, 69 manager not reachable, 75 state not reached in
    --wait.
    """
    ctx.obj = context_of(ctx)


add_shared_options(cli, read_environment=True)
