"""Three machines on loopback, on which the commands of the page are run as they stand.

Each machine is a folder. In the commands, paths get the machine's folder in front, and the names
with a port become addresses of loopback. `systemctl` starts and ends real processes of etcd and
of the manager, with the variables that the units read. `scp`, `apt-get` and `chown` do what the
folders need.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.debian import require, require_program
from tests.integration.processes import free_port
from tests.packaging.manifests import ROOT
from tests.packaging.page import Block

NAMES = ("mgmt1", "mgmt2", "mgmt3")
COMMANDS_DEADLINE_S = 240.0
END_DEADLINE_S = 60.0
READY_DEADLINE_S = 120.0
SAMPLES = "/opt/halo/share/doc/halo/packaging"
_FOLDERS = ("/etc/default", "/etc/systemd/system", "/var/lib/etcd", "/var/backups", "/root")
_PATH = re.compile(r"(?<![\w./:$}-])(/(?:etc|var/lib|var/backups|root)/)")
_OUTSIDE = re.compile(r"(?<![\w./:$}-])/(?:etc|var|root|opt|usr)/")
_REMOTE = re.compile(r"(mgmt[123]|\$host):/")
_ADDRESS = re.compile(r"(mgmt[123]|\$\(hostname -s\)|0\.0\.0\.0):(2379|2380|8443)\b")
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)

STUBS = {
    "hostname": 'echo "$MACHINE"',
    "scp": 'exec cp "$@"',
    "chown": "exit 0",
    "make": "exit 0",
    # Debian's package starts a member at once, which knows nothing of the others.
    "apt-get": """\
wal="$TOP/$MACHINE/var/lib/etcd/default/member/wal"
mkdir -p "$wal" && touch "$wal/0000000000000000-0000000000000000.wal\"""",
    # The test carries it out, because it has to be the parent of what is started.
    "systemctl": """\
request="$TOP/$MACHINE/requests/$$"
echo "$*" >"$request.new" && mv "$request.new" "$request.asked"
for second in $(seq 12000); do [ -e "$request.done" ] && exit 0; sleep 0.02; done
exit 1""",
}


def _die_with_the_test() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Machines:
    """The three machines. The sources stand for what `make install` has put there."""

    def __init__(self, top: Path) -> None:
        require("etcd-server", "etcd-client")
        require_program("openssl")
        self.top = top
        self._running: dict[tuple[str, str], subprocess.Popen[bytes]] = {}
        self._ports = {f"{m}:{p}": free_port() for m in NAMES for p in (2379, 2380, 8443)}
        self._sockets = tempfile.TemporaryDirectory(prefix="halo-test-")
        stubs = top / "stubs"
        stubs.mkdir()
        for name, text in STUBS.items():
            (stubs / name).write_text(f"#!/bin/sh\n{text}\n")
            (stubs / name).chmod(0o755)
        for machine in NAMES:
            for folder in (*_FOLDERS, "/requests"):
                self.path(machine, folder).mkdir(parents=True)
            samples = self.path(machine, SAMPLES)
            shutil.copytree(ROOT / "packaging", samples)
            for sample in (samples / "systemd" / "replicated").iterdir():
                is_settings = sample.name == "etcd.default"  # in which the page changes names
                sample.write_text(self._here(sample.read_text(), machine, names=not is_settings))

    def path(self, machine: str, path: str) -> Path:
        """Where a path of that machine is."""
        return self.top / machine / path.lstrip("/")

    def run(self, block: Block) -> str:
        """Run commands where they are meant to be run. Returns what they print."""
        where = NAMES if block.where == "each machine" else (block.where,)
        if block.where == "the machine with the CA":
            where = ("mgmt1",)
        return "".join(self.shell(machine, block.commands) for machine in where)

    def shell(self, machine: str, commands: str) -> str:
        """Run commands on one machine. The first one that fails ends the test."""
        here = self._here(commands, machine)
        assert not _OUTSIDE.search(here), f"this would change this machine itself: {here}"
        output = self.top / f"{machine}_output"
        with output.open("wb") as file:
            process = subprocess.Popen(
                ["bash", "-c", f"set -eu\n{here}"],
                cwd=self.top,
                env=self._environment(machine),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                preexec_fn=_die_with_the_test,
            )
            ends = time.monotonic() + COMMANDS_DEADLINE_S
            while process.poll() is None:
                assert time.monotonic() < ends, f"no end: {here}\n{output.read_text()}"
                for asked in self.path(machine, "/requests").glob("*.asked"):
                    self._systemctl(machine, asked.read_text().split())
                    asked.rename(asked.with_suffix(".done"))
                time.sleep(0.01)
        assert process.returncode == 0, f"{here}\n{output.read_text()}"
        return output.read_text()

    def lose(self, *machines: str) -> None:
        """Machines that are gone, with everything on their disks but the installation."""
        for machine in machines:
            for key in [key for key in self._running if key[0] == machine]:
                self._end(key, signal.SIGKILL)
            Path(self._environment(machine)["HALO_SOCKET"]).unlink(missing_ok=True)
            for folder in ("/etc", "/var", "/root"):
                shutil.rmtree(self.path(machine, folder))
            for folder in _FOLDERS:
                self.path(machine, folder).mkdir(parents=True)

    def exit_status(self, machine: str, unit: str) -> int:
        """Wait until a unit ends by itself."""
        return self._running.pop((machine, unit)).wait(END_DEADLINE_S)

    def log(self, machine: str, unit: str) -> str:
        """What a unit has logged."""
        path = self.top / f"{machine}_{unit}_log"
        return path.read_text() if path.exists() else ""

    def close(self) -> None:
        """End everything."""
        for key in list(self._running):
            self._end(key, signal.SIGKILL)
        self._sockets.cleanup()

    def _here(self, text: str, machine: str, *, names: bool = True) -> str:
        """The same text for folders, and with `names` for ports of loopback."""
        text = text.replace(SAMPLES, str(self.path(machine, SAMPLES)))
        text = text.replace("halo tls peer mgmt1", "halo tls peer --also 127.0.0.1 mgmt1")
        text = _REMOTE.sub(rf"{self.top}/\1/", text)
        text = _PATH.sub(rf"{self.top}/{machine}\1", text)
        if not names:
            return text

        def address(found: re.Match[str]) -> str:
            named = found[1] if found[1] in NAMES else machine
            return f"127.0.0.1:{self._ports[f'{named}:{found[2]}']}"

        return _ADDRESS.sub(address, text)

    def _environment(self, machine: str) -> dict[str, str]:
        return {
            "PATH": f"{self.top}/stubs:{Path(sys.executable).parent}:/usr/sbin:{os.defpath}",
            "HOME": str(self.path(machine, "/root")),
            "PYTHONPATH": str(ROOT),
            "TOP": str(self.top),
            "MACHINE": machine,
            "HALO_CONFIG": str(self.path(machine, "/etc/halo/halo.conf")),
            "HALO_SOCKET": f"{self._sockets.name}/{machine}",
            "HALO_STATEFILE": str(self.path(machine, "/etc/halo/halo.state")),
            "HALO_TLS_DIR": str(self.path(machine, "/etc/halo/tls")),
            "HALO_PEER_CERT": str(self.path(machine, "/etc/halo/peer.crt")),
            "HALO_PEER_KEY": str(self.path(machine, "/etc/halo/peer.key")),
            "HALO_CA_CERT": str(self.path(machine, "/etc/halo/ca.crt")),
        }

    def _systemctl(self, machine: str, words: list[str]) -> None:
        verb, *rest = words
        for unit in (word for word in rest if not word.startswith("-")):
            self._carry_out(machine, verb, unit, "--now" in rest)
        known = ("start", "stop", "restart", "enable", "disable", "daemon-reload", "kill")
        assert verb in known, f"systemctl {verb}: the test does not know this"

    def _carry_out(self, machine: str, verb: str, unit: str, now: bool) -> None:
        if verb == "kill":
            self._end((machine, unit), signal.SIGKILL)
        if verb in ("stop", "restart") or (verb == "disable" and now):
            self._end((machine, unit), signal.SIGTERM)
        if verb in ("start", "restart") or (verb == "enable" and now):
            self._start(machine, unit)

    def _start(self, machine: str, unit: str) -> None:
        if (machine, unit) in self._running:
            return
        environment = self._environment(machine) | self._variables(machine, unit)
        if "HALO_STORE" in environment:  # the host's name would say both
            environment["HALO_NODE_ID"] = machine[-1]
            environment["HALO_PEER_URL"] = f"https://{environment['HALO_PEER_LISTEN']}"
        if unit == "etcd":
            command = [require_program("etcd"), "--unsafe-no-fsync"]
        else:
            options = environment.pop("HALO_MANAGER_OPTIONS", "")
            command = [str(Path(sys.executable).parent / "halo_manager"), *options.split()]
        with (self.top / f"{machine}_{unit}_log").open("ab") as log:
            self._running[machine, unit] = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_the_test,
            )
        if unit == "halo":
            self._wait_until_ready(machine)

    def _wait_until_ready(self, machine: str) -> None:
        """As systemd does, which waits for READY=1. It comes when the socket is there."""
        ends = time.monotonic() + READY_DEADLINE_S
        while not Path(self._environment(machine)["HALO_SOCKET"]).exists():
            ended = self._running[machine, "halo"].poll()
            assert ended is None, f"exit status {ended}: {self.log(machine, 'halo')[-2000:]}"
            assert time.monotonic() < ends, self.log(machine, "halo")[-2000:]
            time.sleep(0.02)

    def _variables(self, machine: str, unit: str) -> dict[str, str]:
        """What the unit reads, with its drop-in."""
        lines = self._lines(machine, f"/etc/default/{unit}")
        drop_ins = self.path(machine, f"/etc/systemd/system/{unit}.service.d")
        for drop_in in sorted(drop_ins.glob("*.conf")):
            for line in drop_in.read_text().splitlines():
                name, _, value = line.partition("=")
                if name == "EnvironmentFile":
                    lines += Path(value).read_text().splitlines()
                elif name == "Environment":
                    lines.append(value)
        pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
        return {name: value.strip('"') for name, _, value in pairs}

    def _lines(self, machine: str, path: str) -> list[str]:
        file = self.path(machine, path)
        return self._here(file.read_text(), machine).splitlines() if file.exists() else []

    def _end(self, key: tuple[str, str], how: signal.Signals) -> None:
        process = self._running.pop(key, None)
        if process is not None:
            process.send_signal(how)
            process.wait(END_DEADLINE_S)
