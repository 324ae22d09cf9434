"""Movers that are killed at random moments, and successors that complete what they began.

    python -m tests.mover.kills [--count 200] [--seed 1]

Each tree is copied by movers that are killed, up to four of them, and then by one that is not. The
copy must be absent until it is complete, and then be the same as the source.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.mover.ground import Ground, Picture, picture, start, write

MIB = 1 << 20
RATE_BYTES_S = 16 * MIB
LONGEST_LIFE_S = 3.0


@dataclass
class Found:
    """What a run has seen."""

    kills: int = 0
    copies: int = 0
    files_kept: int = 0
    bytes_kept: int = 0
    killed_when_complete: int = 0


def make_tree(ground: Ground, chance: random.Random) -> None:
    """Some small files, some of a few blocks, a large one in segments, links."""
    for number in range(300):
        write(ground.source / f"s{number % 7}" / f"f{number}", chance.randbytes(3000))
    for number in range(8):
        write(ground.source / "medium" / f"f{number}", chance.randbytes(2 * MIB + number))
    with (ground.source / "large").open("wb") as file:
        file.truncate(1000 * MIB)
        for offset in (0, 255, 256, 700, 990):
            file.seek(offset * MIB)
            file.write(chance.randbytes(2 * MIB))
    os.link(ground.source / "large", ground.source / "medium" / "hard")
    (ground.source / "link").symlink_to("nowhere")
    (ground.source / "empty").mkdir()


def copy_with_kills(ground: Ground, before: Picture, chance: random.Random, found: Found) -> None:
    """One tree. Raises AssertionError."""
    for _ in range(chance.randint(1, 4)):
        mover = start(ground.order(bandwidth_bytes_s=RATE_BYTES_S))
        time.sleep(chance.uniform(0.0, LONGEST_LIFE_S))
        mover.kill()
        found.kills += 1
        if ground.destination.exists():
            found.killed_when_complete += 1
            assert picture(ground.destination) == before, "half a copy was seen"
    outcome = start(ground.order()).outcome()
    assert outcome["state"] == "ready", outcome
    assert picture(ground.destination) == before, "the copy is not the same"
    found.copies += 1
    found.files_kept += outcome["files_kept"]
    found.bytes_kept += outcome["bytes_kept"]
    assert start(ground.order(action="remove")).outcome()["removed"] == 1
    assert os.listdir(ground.buffer) == [ground.destination.name], "something is left"
    shutil.rmtree(ground.destination)


def run(count: int, seed: int, folder: Path) -> Found:
    """So many kills, or a few more."""
    chance = random.Random(seed)
    found, ground = Found(), Ground(folder)
    make_tree(ground, chance)
    before = picture(ground.source)
    while found.kills < count:
        copy_with_kills(ground, before, chance, found)
    return found


def main() -> int:
    """Run, and print what was seen."""
    parser = argparse.ArgumentParser(prog="tests.mover.kills")
    parser.add_argument("--count", type=int, default=200, help="kills (default: 200)")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="halo-mover-kills-") as folder:
        print(run(options.count, options.seed, Path(folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
