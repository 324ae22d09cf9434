"""Checks the larger configurations of the model: `make model`.

python -m tests.model                  # all of them
python -m tests.model large            # one
"""

from __future__ import annotations

import sys

from tests.model import tlc

NAMES = ("triple", "pair", "live", "hanging disk", "wrong wire", "deep", "wide", "large")
DEADLINE_S = 4 * 3600.0

LARGER = {
    "hanging disk": ("pair", {"SlowDisk": "TRUE"}),
    "wrong wire": ("pair", {"Miswired": "{h1}", "Hosts": "{h1, h2}"}),
    "deep": ("pair", {"Faults": "4"}),
    "wide": ("triple", {"Groups": "{g1}", "Faults": "3"}),
    "large": ("triple", {"Faults": "3"}),
}
"""A configuration of the tests, and what is larger or different."""


def main(names: list[str]) -> int:
    """Check each, and print a row of the table in docs/model.md."""
    jar, failed = tlc.require_tlc(), False
    print("| configuration | distinct states | states | depth | seconds |\n|---|---|---|---|---|")
    for name in names or NAMES:
        base, constants = LARGER.get(name, (name, {}))
        found = tlc.check(jar, tlc.config(base, constants), deadline_s=DEADLINE_S)
        if found.violated:
            failed = True
            print(f"{name}: {found.violated} is violated: {', '.join(found.steps)}", flush=True)
            continue
        row = (name, f"{found.distinct:,}", f"{found.generated:,}", found.depth)
        print("| " + " | ".join(map(str, row)) + f" | {found.seconds:.0f} |", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
