"""A fence agent without a BMC in between: it switches an outlet of a test world at once.

fence_agent: a script that runs `python -S fence_mains.py`; parameters `mains`, `port`
"""

from __future__ import annotations

import sys

from tests.hosts.switch import ask


def main() -> int:
    """As the fence-agent API says: key=value lines in, exit status 0 (on, done) or 2 (off)."""
    given = dict(line.rstrip("\n").partition("=")[::2] for line in sys.stdin)
    action = given["action"]
    on = ask(given["mains"], given["port"], "get" if action == "status" else action)
    print(f"{given['port']} is {'ON' if on else 'OFF'}")
    return 0 if on or action != "status" else 2


if __name__ == "__main__":
    sys.exit(main())
