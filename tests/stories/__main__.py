"""Shows where stories differ from what is written, or writes their logs anew."""

from __future__ import annotations

import difflib
import sys

import click

from tests.stories.mistakes import Mistake
from tests.stories.stage import play
from tests.stories.story import load, names


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--update", is_flag=True, help="Write the logs anew.")
@click.argument("chosen", metavar="[NAME]...", nargs=-1)
def main(update: bool, chosen: tuple[str, ...]) -> None:
    """Play stories, all of them or those named, and show in what they differ from their files."""
    sys.unraisablehook = lambda _: None  # what was left suspended at the end of a story
    differing = 0
    for name in chosen or names():
        try:
            story = load(name)
            told = story.with_logs(play(story))
        except Mistake as mistake:
            click.echo(mistake, err=True)
            differing += 1
            continue
        written = story.path.read_text()
        if told != written and update:
            story.path.write_text(told)
            click.echo(f"{story.path.name} is written anew")
        elif told != written:
            differing += 1
            click.echo(difference(name, written, told))
    sys.exit(1 if differing else 0)


def difference(name: str, written: str, told: str) -> str:
    """What is written and what is told now, line by line."""
    lines = difflib.unified_diff(
        written.splitlines(), told.splitlines(), f"{name}.txt", "as it is told now", lineterm=""
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main(prog_name="python -m tests.stories")
