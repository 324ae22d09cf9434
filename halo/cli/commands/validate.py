"""`halo validate`: the config file with all its mistakes, or what it describes."""

from __future__ import annotations

import click

from halo.cli.context import Context


@click.command()
@click.argument("file", required=False, type=click.Path(readable=False))
@click.option(
    "--agents",
    is_flag=True,
    help="Instead, have the agents of the running cluster check every resource's parameters.",
)
@click.option("--json", "as_json", is_flag=True, help="With --agents: print the results as JSON.")
@click.pass_context
def validate(ctx: click.Context, file: str | None, agents: bool, as_json: bool) -> None:
    """Check the config FILE (default: that of --config) and summarise it.

    Mistakes go to stderr as FILE:LINE:COLUMN: MESSAGE, with exit status 64; warnings go there too
    and change nothing.

    With --agents, every resource's script runs its `validate-all` on every host that may get it,
    through the running manager. Nothing is started. Exit status 1 where a script says no, or
    could not be asked.
    """
    context: Context = ctx.obj
    if agents:
        if file is not None:
            raise click.UsageError("--agents asks the running manager, whose config it is: no FILE")
        from halo.cli.commands.validation import validate_agents

        ctx.exit(validate_agents(context, as_json=as_json))
    if as_json:
        raise click.UsageError("--json goes with --agents")
    from halo.config import check_warnings, load, summary

    path = file or context.config
    cluster = load(path)
    click.echo(summary(cluster))
    for warning in check_warnings(cluster, path):
        click.echo(f"warning: {warning}", err=True)
