"""PID 1 of a test host: makes the host's own view of the machine, runs its agent, reaps.

Started by :mod:`tests.hosts.mains` in new mount, UTS, IPC, network and PID namespaces, with the
description of the host as JSON in its one argument. It waits for the end of its standard input,
which says that the network card is in its slot.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from typing import Any

from tests.hosts import kernel

AGENT_RESTART_S = 1.0
"""The pause before a crashed agent is started again, as in its systemd unit."""

# Empty after every boot, and seen by this host alone.
VOLATILE = ("/run", "/dev/shm", "/mnt")
STATE = "/mnt/state"
"""The host's own disk: it keeps what is in it when the power goes."""


def main() -> None:
    host: dict[str, Any] = json.loads(sys.argv[1])
    sys.stdin.read()
    socket.sethostname(host["name"])
    _mounts(host["state"], host["first_pid"])
    _network(host["interface"], host["address"])
    _run_for_ever(host)


def _mounts(state: str, first_pid: int) -> None:
    kernel.private_mounts()
    kernel.mount("proc", "/proc", "proc")
    # As on machines that are up for long: the PID of a database that died elsewhere, read in its
    # PID file on the shared disk, is not by chance that of another process here.
    with open("/proc/sys/kernel/ns_last_pid", "w") as file:
        file.write(str(first_pid))
    kernel.mount("sysfs", "/sys", "sysfs")
    for folder in VOLATILE:
        kernel.mount("tmpfs", folder, "tmpfs", data="mode=0755")
    os.chmod("/dev/shm", 0o1777)
    for folder in ("/run/lock", "/run/mount", "/run/resource-agents", STATE):
        os.makedirs(folder)
    os.makedirs("/run/postgresql")
    with contextlib.suppress(LookupError):  # no such user where PostgreSQL is not installed
        shutil.chown("/run/postgresql", "postgres", "postgres")
    kernel.mount(state, STATE, flags=kernel.MS_BIND)


def _network(interface: str, address: str) -> None:
    with open("/proc/sys/net/ipv6/conf/all/disable_ipv6", "w") as file:
        file.write("1")
    lines = ["link set lo up", f"addr add {address} dev {interface}", f"link set {interface} up"]
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines).encode(), check=True)


def _run_for_ever(host: dict[str, Any]) -> None:
    while True:
        agent = _start(host)
        status = _reap_until(agent)
        if os.waitstatus_to_exitcode(status) in (0, 64):  # ended in order, or not to be helped
            _reap_until(0)
        time.sleep(AGENT_RESTART_S)


def _start(host: dict[str, Any]) -> int:
    with open(host["log"], "ab") as log:
        process = subprocess.Popen(
            host["argv"],
            env=host["environment"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
        )
    process.returncode = 0  # reaped below, not by the subprocess module
    return process.pid


def _reap_until(pid: int) -> int:
    """Reap orphans until this child is among the dead; its status. 0: for ever."""
    while True:
        try:
            ended, status = os.wait()
        except ChildProcessError:
            time.sleep(0.1)
            continue
        if ended == pid:
            return status


if __name__ == "__main__":
    main()
