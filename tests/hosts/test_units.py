"""The systemd units under a real systemd: the hardened manager still fences, and an agent's scripts
still see the host as it is.

systemd runs as PID 1 of namespaces of its own, with the units as they are shipped; drop-ins say
where this checkout and the folder of the test are.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.debian import require
from tests.integration.layout import SHORT_SETTINGS, config_text, group
from tests.integration.site import OUTPUT, ROOT

UNITS = ROOT / "packaging" / "systemd"
PORTS = {"h1": 8005, "h2": 8006}
PATIENCE_S = 60.0

DROP_IN = """\
[Service]
BindReadOnlyPaths={root} {python}
ReadWritePaths={folder}
BindPaths={folder}
WorkingDirectory={root}
Environment=HALO_TEST_DIRECTORY={folder} HALO_TEST_LOG={folder}/test_log
Environment=OCF_ROOT={root}/tests/ocf_resources
StandardOutput=append:{folder}/{name}_log
StandardError=inherit
{more}
"""

BOOT = """\
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /run
umount -l /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 none /sys/fs/cgroup
mkdir -p /run/systemd
cp -R {folder}/units /run/systemd/system
ip link set lo up
export container=halo-test
exec /lib/systemd/systemd --system --unit=halo-test.target --log-target=console --show-status=0
"""


class Machine:
    """A systemd that runs a manager and the agents of two hosts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "socket"
        self.cgroup = Path(f"/sys/fs/cgroup/halo-test-{os.getpid()}")
        self.init: subprocess.Popen[bytes] | None = None

    def write(self) -> None:
        units = self.folder / "units"
        units.mkdir(parents=True)
        options = (
            f"--config {self.folder}/config --socket {self.socket} --statefile {self.folder}/state"
        )
        self._unit(
            "halo",
            "halo",
            f"Environment='HALO_MANAGER_OPTIONS={options} --manage-resources --sleep-time 500'",
        )
        for host, port in PORTS.items():
            options = f"--network 127.0.0.1/32 --port {port} --test-id {host}"
            more = f"Environment='HALO_REMOTE_OPTIONS={options}'"
            self._unit("halo-remote", f"halo-remote-{host}", more)
        wanted = " ".join(["halo.service", *(f"halo-remote-{host}.service" for host in PORTS)])
        (units / "halo-test.target").write_text(
            f"[Unit]\nDefaultDependencies=no\nRequires={wanted}\n"
        )
        (self.folder / "config").write_text(
            config_text(PORTS, [group("g1")], self.folder, SHORT_SETTINGS, {})
        )
        (self.folder / "boot").write_text(BOOT.format(folder=self.folder))

    def _unit(self, shipped: str, name: str, more: str) -> None:
        text = (UNITS / f"{shipped}.service").read_text()
        programs = Path(sys.executable).parent
        folder = self.folder / "units" / f"{name}.service.d"
        folder.mkdir()
        (folder.parent / f"{name}.service").write_text(
            text.replace("/usr/sbin/halo", f"{programs}/halo").replace(
                "[Unit]", "[Unit]\nDefaultDependencies=no"
            )
        )
        is_manager = shipped == "halo"
        paths = (
            DROP_IN
            if is_manager
            else "\n".join(line for line in DROP_IN.splitlines() if "Paths=" not in line)
        )
        (folder / "test.conf").write_text(
            paths.format(
                root=ROOT, python=sys.base_prefix, folder=self.folder, name=name, more=more
            )
        )

    def boot(self) -> None:
        with (self.folder / "systemd_log").open("ab") as log:
            self.init = subprocess.Popen(
                [
                    *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
                    *("--cgroup", "--net", "sh", str(self.folder / "boot")),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=self._enter_cgroup,
            )

    def _enter_cgroup(self) -> None:
        (self.cgroup / "cgroup.procs").write_text(str(os.getpid()))

    def halo(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [Path(sys.executable).parent / "halo", "--socket", self.socket, *arguments],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def pid_of(self, program: str, word: str = "") -> int | None:
        """The process that runs this program with that word among its arguments."""
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                arguments = path.read_bytes().decode().split("\0")
                environment = path.with_name("environ").read_bytes().decode(errors="replace")
                if (
                    any(a.endswith(f"/{program}") for a in arguments)
                    and (not word or word in arguments)
                    and f"HALO_TEST_DIRECTORY={self.folder}\0" in environment
                ):
                    return int(path.parent.name)
        return None

    def until(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end, f"waited in vain for {what}\n{self.logs()}"
            time.sleep(0.1)

    def logs(self) -> str:
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}"
            for path in sorted(self.folder.glob("*_log"))
        )


@pytest.fixture
def machine(name: str) -> Iterator[Machine]:
    require("systemd")
    folder = OUTPUT / f"hosts_{name}"
    subprocess.run(["rm", "-rf", folder], check=True)
    made = Machine(folder)
    with _cgroup2(made):
        made.write()
        made.boot()
        try:
            yield made
        finally:
            assert made.init is not None
            made.init.send_signal(signal.SIGKILL)  # and with it all that it runs
            made.init.wait()


@contextlib.contextmanager
def _cgroup2(machine: Machine) -> Iterator[None]:
    """A group of its own for the machine, in the unified hierarchy wherever that is mounted."""
    base = machine.folder / "cgroup"
    base.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "cgroup2", "none", base], check=False).returncode == 0
    if not mounted:
        pytest.skip("no unified cgroup hierarchy can be mounted here")
    machine.cgroup = base / machine.cgroup.name
    machine.cgroup.mkdir()
    try:
        yield
    finally:
        end = time.monotonic() + PATIENCE_S
        while not _removed(machine.cgroup) and time.monotonic() < end:
            time.sleep(0.1)
        subprocess.run(["umount", base], check=False)
        base.rmdir()


def _removed(folder: Path) -> bool:
    """Groups can go when their last process has."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            with contextlib.suppress(OSError):
                path.rmdir()
    with contextlib.suppress(OSError):
        folder.rmdir()
    return not folder.exists()


def status_of(pid: int, key: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith(f"{key}:"))


def test_the_units_do_their_work_under_systemd(machine: Machine) -> None:
    machine.until(lambda: "Running on" in machine.halo("status").stdout, "g1 to run")
    manager, agent = machine.pid_of("halo_manager"), machine.pid_of("halo_remote", "h1")
    assert manager is not None
    assert agent is not None

    # The manager is in its sandbox, and whoever runs in there is, too: fence programs.
    assert status_of(manager, "NoNewPrivs") == "1"
    assert status_of(manager, "Seccomp") == "2"
    kept = int(status_of(manager, "CapBnd"), 16)
    sys_admin, sys_ptrace = 21, 19
    assert not kept & 1 << sys_admin
    assert kept & 1 << sys_ptrace

    # The agent is in none: what its scripts mount is mounted on the host.
    assert status_of(agent, "NoNewPrivs") == "0"
    assert status_of(agent, "Seccomp") == "0"
    assert machine.init is not None
    init = int(
        Path(f"/proc/{machine.init.pid}/task/{machine.init.pid}/children").read_text().split()[0]
    )
    views = {who: os.readlink(f"/proc/{who}/ns/mnt") for who in (init, agent, manager)}
    assert views[agent] == views[init]
    assert views[manager] != views[init]

    # A fence is done by a program in the sandbox: it kills the agent of the host.
    done = machine.halo("fence", "h1", "--reason", "a test")
    assert done.returncode == 0, done.stdout + done.stderr + machine.logs()
    machine.until(
        lambda: "Running (Failed Over) on" in machine.halo("status").stdout, "g1 on its partner"
    )
    modes = {
        path.name: path.stat().st_mode & 0o777
        for path in (machine.socket, machine.folder / "state")
    }
    assert modes == {"socket": 0o600, "state": 0o600}
