"""`halo validate`: the config file with all its mistakes, or what it describes."""

from __future__ import annotations

import click

from halo.cli.context import Context


@click.command()
@click.argument("file", required=False, type=click.Path(readable=False))
@click.option(
    "--agents",
    is_flag=True,
    help="Let the agents of the running cluster check every resource's parameters instead.",
)
@click.option("--json", "as_json", is_flag=True, help="With --agents: print the results as JSON.")
@click.pass_context
def validate(ctx: click.Context, file: str | None, agents: bool, as_json: bool) -> None:
    """Check the config FILE (default: the file of --config), and print a summary of it.

    Mistakes go to stderr as FILE:LINE:COLUMN: MESSAGE, and the exit status is then 64. Warnings
    also go to stderr, and do not change the exit status.

    With --agents, the running manager lets every host that may run a resource execute
    `validate-all` of the resource's script. Nothing is started. The exit status is 1 if a script
    reports a problem, or a host could not be asked.
    """
    context: Context = ctx.obj
    if agents:
        if file is not None:
            raise click.UsageError(
                "--agents uses the config of the running manager; leave out FILE"
            )
        from halo.cli.commands.validation import validate_agents

        ctx.exit(validate_agents(context, as_json=as_json))
    if as_json:
        raise click.UsageError("--json works only with --agents")
    from halo.config import check_warnings, load, summary

    path = file or context.config
    cluster = load(path)
    click.echo(summary(cluster))
    for warning in check_warnings(cluster, path):
        click.echo(f"warning: {warning}", err=True)
