"""``python -m tests.hosts.chaos --minutes N --seed S``: as root, from the top of the repository."""

from __future__ import annotations

import argparse
import random
import sys

import pytest

from tests.hosts.chaos.run import Chaos
from tests.hosts.world import require_namespaces


def main() -> int:
    """Exit status 1 where anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.hosts.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long faults come")
    parser.add_argument("--seed", type=int, help="of the schedule; default: a new one")
    given = parser.parse_args()
    seed = random.randrange(1_000_000) if given.seed is None else given.seed
    try:
        require_namespaces()
        return 1 if Chaos(seed, given.minutes * 60, f"chaos_{seed}").run() else 0
    except (AssertionError, pytest.skip.Exception, pytest.fail.Exception) as why:
        print(f"chaos of seed {seed} ended early: {why}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
