"""`halo completion`: the script that makes a shell complete commands, options, hosts and groups."""

from __future__ import annotations

import click

_VARIABLE = "_HALO_COMPLETE"
"""The variable that click's scripts set. Its name comes from the program's name."""


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for a shell.

    bash: halo completion bash > /etc/bash_completion.d/halo

    zsh: halo completion zsh > "${fpath[1]}/_halo"

    fish: halo completion fish > ~/.config/fish/completions/halo.fish
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is None:
        raise click.ClickException(f"There is no completion for {shell}.")
    click.echo(found(ctx.find_root().command, {}, "halo", _VARIABLE).source())
