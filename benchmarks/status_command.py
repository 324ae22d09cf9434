"""How long `halo status` takes as a whole process, on 100 resources. The bar is 80 ms.

Run it on a quiet machine: python -m benchmarks.status_command [RUNS]
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.fakes.http_operations import FakeOperations, serving

BAR_MS = 80.0


def status_of(resources: int) -> dict[str, Any]:
    """A status such as a manager of twenty hosts gives."""
    hosts = [f"oss{number:02}" for number in range(20)]
    return {
        "resources": [
            {
                "id": f"pool{number:03}",
                "kind": "heartbeat/ZFS",
                "parameters": {"pool": f"pool{number:03}"},
                "status": "Running",
                "comment": None,
                "managed": True,
                "group": f"pool{number:03}",
                "groups": [f"pool{number:03}"],
                "dependents": [],
                "host": hosts[number % 20],
                "hosts": [hosts[number % 20]],
                "home_host": hosts[number % 20],
                "failover_host": hosts[(number + 1) % 20],
                "candidates": {hosts[number % 20]: {"status": "Running", "comment": None}},
            }
            for number in range(resources)
        ],
        "hosts": [{"id": h, "active": True, "connected": True, "fenced": False} for h in hosts],
        "events": [],
    }


def status_times_ms(runs: int, *options: str) -> list[float]:
    """Milliseconds of each run, as a whole process; the socket is named by the environment."""
    times_ms = []
    with serving(FakeOperations(status_of(100))) as server:
        command = [str(Path(sys.executable).with_name("halo")), "status", *options]
        environment = {**os.environ, "HALO_SOCKET": str(server.path)}
        for _ in range(runs):
            began = time.perf_counter()
            subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
            times_ms.append((time.perf_counter() - began) * 1000)
    return times_ms


def main() -> int:
    times_ms = status_times_ms(int(sys.argv[1]) if len(sys.argv) > 1 else 30)
    median = statistics.median(times_ms)
    print(f"halo status, 100 resources: median {median:.0f} ms, best {min(times_ms):.0f} ms")
    return 0 if median <= BAR_MS else 1


if __name__ == "__main__":
    sys.exit(main())
