"""`halo validate`: the config file with all its mistakes, or what it describes."""

from __future__ import annotations

import click

from halo.cli.context import Context


@click.command()
@click.argument("file", required=False, type=click.Path(readable=False))
@click.pass_obj
def validate(context: Context, file: str | None) -> None:
    """Check the config FILE (default: that of --config) and summarise it.

    Mistakes go to stderr as FILE:LINE:COLUMN: MESSAGE, with exit status 64; warnings go there too
    and change nothing.
    """
    from halo.config import check_warnings, load, summary

    path = file or context.config
    cluster = load(path)
    click.echo(summary(cluster))
    for warning in check_warnings(cluster, path):
        click.echo(f"warning: {warning}", err=True)
