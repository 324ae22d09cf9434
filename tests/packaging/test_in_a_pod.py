"""The commands of the manifests as real processes: the probes, and the image's entry point."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.processes import free_port
from tests.integration.site import DEADLINE_S
from tests.packaging.manifests import KUBERNETES, ROOT, container, one

RUN_MANAGER = KUBERNETES / "run-manager"
CONFIG = "hosts:\n- hostname: 127.0.0.1:{port}\n"


class Pod:
    """A folder, a socket in it, and the variables of a container."""

    def __init__(self, folder: Path, socket: Path) -> None:
        self.folder = folder
        self.socket = socket
        self.environment = {
            "PATH": f"{folder}/bin:{Path(sys.executable).parent}:{os.defpath}",
            "PYTHONPATH": str(ROOT),
            "HALO_CONFIG": str(folder / "halo.conf"),
            "HALO_SOCKET": str(socket),
            "HALO_STATEFILE": str(folder / "halo.state"),
        }
        (folder / "halo.conf").write_text(CONFIG.format(port=free_port()))
        (folder / "bin").mkdir()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *command: str | Path, **variables: str) -> subprocess.Popen[bytes]:
        """Start the container's program."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command or ["halo_manager", "--manage-resources"],
                env={**self.environment, **variables},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self.process

    def probe(self, name: str, patience_s: float = DEADLINE_S) -> int:
        """Run a probe of the managers as the kubelet does: its exit status."""
        command = container(one("StatefulSet", "halo"))[name]["exec"]["command"]
        return subprocess.run(
            command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            timeout=patience_s,
            check=False,
        ).returncode

    def wait_for_socket(self) -> None:
        """Wait until the manager listens."""
        ends = time.monotonic() + DEADLINE_S
        while not self.socket.exists():
            assert time.monotonic() < ends, (self.folder / "log").read_text()
            assert self.process is not None
            assert self.process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.02)

    def stands_in(self, text: str) -> None:
        """Have this script in the place of halo_manager. It finds its folder in $HERE."""
        path = self.folder / "bin" / "halo_manager"
        path.write_text(f"#!/bin/sh\nHERE={self.folder}\n{text}\n")
        path.chmod(0o755)

    def notes(self) -> list[str]:
        """What the script wrote down."""
        path = self.folder / "notes"
        return path.read_text().split("\n")[:-1] if path.exists() else []

    def wait_for_notes(self, count: int) -> None:
        ends = time.monotonic() + DEADLINE_S
        while len(self.notes()) < count:
            assert time.monotonic() < ends, self.notes()
            time.sleep(0.02)

    def close(self) -> None:
        """End what is left."""
        if self.process is not None:
            for number in (signal.SIGCONT, signal.SIGKILL):
                try:
                    os.killpg(self.process.pid, number)
                except ProcessLookupError:
                    break
            self.process.wait(10)


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    with tempfile.TemporaryDirectory(prefix="halo-test-") as short:  # a socket's path is short
        found = Pod(tmp_path, Path(short) / "socket")
        yield found
        found.close()


# Probes ---------------------------------------------------------------------------------------


def test_a_manager_that_manages_is_alive_and_ready(pod: Pod) -> None:
    pod.start()
    pod.wait_for_socket()
    assert pod.probe("livenessProbe") == 0
    assert pod.probe("readinessProbe") == 0


def test_a_manager_that_waits_for_etcd_is_alive_and_not_ready(pod: Pod) -> None:
    """To restart it would not bring etcd back."""
    pod.start(HALO_STORE=f"etcd://127.0.0.1:{free_port()}/halo/test", HALO_NODE_ID="1")
    pod.wait_for_socket()
    assert pod.probe("livenessProbe") == 0
    assert pod.probe("readinessProbe") != 0


def test_a_manager_that_is_not_there_or_stands_still_is_not_alive(pod: Pod) -> None:
    assert pod.probe("livenessProbe") != 0
    assert pod.probe("readinessProbe") != 0
    process = pod.start()
    pod.wait_for_socket()
    process.send_signal(signal.SIGSTOP)
    # The kubelet ends the probe at its deadline. That counts as a failure.
    assert container(one("StatefulSet", "halo"))["livenessProbe"]["timeoutSeconds"] > 2
    with pytest.raises(subprocess.TimeoutExpired):
        pod.probe("livenessProbe", 2)


# The entry point ------------------------------------------------------------------------------


def test_a_manager_whose_leadership_ended_is_started_again_at_once(pod: Pod) -> None:
    pod.stands_in(
        'echo "$*" >>"$HERE/notes"; [ "$(wc -l <"$HERE/notes")" -lt 3 ] && exit 75; exit 64'
    )
    begun = time.monotonic()
    process = pod.start(RUN_MANAGER, "--manage-resources", "--log-format", "json")
    assert process.wait(DEADLINE_S) == 64
    assert pod.notes() == ["--manage-resources --log-format json"] * 3
    assert time.monotonic() - begun > 1.9  # a second before each new start


@pytest.mark.parametrize("status", [0, 1, 2, 64, 70])
def test_every_other_status_ends_the_container(pod: Pod, status: int) -> None:
    pod.stands_in(f'echo started >>"$HERE/notes"; exit {status}')
    assert pod.start(RUN_MANAGER).wait(DEADLINE_S) == status
    assert pod.notes() == ["started"]


@pytest.mark.parametrize("status", [0, 75])
def test_the_manager_is_told_to_end_and_waited_for(pod: Pod, status: int) -> None:
    """Its leadership is given back after that, and it is not started again."""
    pod.stands_in(
        f"trap 'sleep 0.5; echo ended >>\"$HERE/notes\"; exit {status}' TERM\n"
        'echo started >>"$HERE/notes"; while :; do sleep 0.05; done'
    )
    process = pod.start(RUN_MANAGER)
    pod.wait_for_notes(1)
    process.terminate()
    assert process.wait(DEADLINE_S) == status
    assert pod.notes() == ["started", "ended"]


def test_the_end_may_come_between_two_starts(pod: Pod) -> None:
    pod.stands_in('echo started >>"$HERE/notes"; exit 75')
    process = pod.start(RUN_MANAGER)
    pod.wait_for_notes(1)
    process.terminate()
    assert process.wait(DEADLINE_S) in (75, 128 + signal.SIGTERM)  # it may still have been there
    assert pod.notes() == ["started"]


def test_the_real_manager_ends_in_order(pod: Pod) -> None:
    process = pod.start(RUN_MANAGER, "--manage-resources")
    pod.wait_for_socket()
    process.terminate()
    assert process.wait(DEADLINE_S) == 0
    assert not pod.socket.exists()
