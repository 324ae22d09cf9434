"""A manager of an older version, as a program: this one, without what came later.

    python -m tests.etcd.old_manager [--without EVENT]... -- [flags of halo_manager]

`--without`: the records of this event came with a later version.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import halo

VERSION = "0.0.9"


def become_old(without: Sequence[str]) -> None:
    """Call it before the manager is imported: modules take the version as it is then."""
    halo.__version__ = VERSION
    from halo.core.journal.records import Event

    for event in without:
        del Event._value2member_map_[event]


def main() -> None:
    """Run as an old manager."""
    place = sys.argv.index("--")
    become_old([word for word in sys.argv[1:place] if word != "--without"])
    from halo.manager.main import main as run

    run(sys.argv[place + 1 :], prog_name="halo_manager")


if __name__ == "__main__":
    main()
