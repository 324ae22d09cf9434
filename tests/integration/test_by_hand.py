"""The README's chapter "Failover by hand", word for word, on other ports."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import processes
from tests.integration.site import DEADLINE_S, ROOT


def commands_of_the_chapter() -> list[str]:
    """Its commands, each in one line."""
    text = (ROOT / "README.md").read_text()
    chapter = text.split("## Failover by hand\n")[1].split("\n## ")[0]
    lines = re.findall(r"^    (.*)$", chapter.replace("\\\n", " "), re.MULTILINE)
    return [re.sub(r"\s+", " ", line.split("  # ")[0].rstrip()) for line in lines]


class Checkout:
    """A folder that looks like the top of a checkout, with free ports in the place of the fixed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {"8005": str(processes.free_port()), "8006": str(processes.free_port())}
        (folder / "tests").mkdir()
        (folder / "tests" / "ocf_resources").symlink_to(ROOT / "tests" / "ocf_resources")
        config = (ROOT / "tests" / "failover.yaml").read_text()
        (folder / "tests" / "failover.yaml").write_text(self.on_our_ports(config))
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HALO_", "OCF_"))}
        path = f"{Path(sys.executable).parent}:{kept['PATH']}"
        self.environment = {**kept, "PATH": path, processes.MARK: str(folder)}

    def on_our_ports(self, text: str) -> str:
        for fixed, ours in self.ports.items():
            text = text.replace(fixed, ours)
        return text

    def run(self, *commands: str) -> subprocess.CompletedProcess[str]:
        """Run commands as in one shell; one that ends with & stays behind."""
        with (self.folder / "out").open("a+") as out:
            begin = out.seek(0, os.SEEK_END)
            done = subprocess.run(
                ["bash", "-c", "\n".join(self.on_our_ports(c) for c in commands)],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                timeout=DEADLINE_S,
                text=True,
            )
            out.seek(begin)
            done.stdout = out.read()
        return done


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    yield Checkout(tmp_path)
    processes.kill_all(lambda: processes.marked(tmp_path))


def test_the_chapter_does_what_it_says(checkout: Checkout) -> None:
    commands = commands_of_the_chapter()
    behind = [c for c in commands if c.endswith("&")]
    exports = [c for c in commands if c.startswith("export HALO_TEST_DIRECTORY")]
    assert [c.split()[0] for c in behind] == ["halo_remote", "halo_remote", "halo_manager"]
    assert len(exports) == 1
    first_look, power_status, power_off, status = [c for c in commands if c.startswith("halo ")]
    assert first_look == status

    def says(command: str, *lines: str) -> bool:
        shown = checkout.run(command).stdout.splitlines()
        return set(lines) <= {line.strip() for line in shown}  # a tree is indented

    def must_say(command: str, *lines: str) -> None:
        shown = checkout.run(command).stdout
        assert set(lines) <= set(shown.splitlines()), f"{command}: {shown}"

    def until_says(command: str, *lines: str) -> None:
        end = time.monotonic() + DEADLINE_S
        while not says(command, *lines):
            assert time.monotonic() < end, f"{command}: {lines}\n{checkout.run(command).stdout}"

    checkout.run(*exports, *behind)
    until_says(
        status,
        "test_zpool_00 (heartbeat/ZFS): Running on fence_mds00",
        "test_mgt (lustre/Lustre): Running on fence_mds00",
        "test_zpool_01 (heartbeat/ZFS): Running on fence_mds01",
        "test_mdt (lustre/Lustre): Running on fence_mds01",
        "Connected hosts: fence_mds[00-01]",
    )
    must_say(power_status, "fence_mds00 is on", "fence_mds01 is on")
    must_say(power_off, "fence_mds01 Fence: Success")
    until_says(
        status,
        "test_zpool_00 (heartbeat/ZFS): Running on fence_mds00",
        "test_mgt (lustre/Lustre): Running on fence_mds00",
        "test_zpool_01 (heartbeat/ZFS): Running (Failed Over) on fence_mds00",
        "test_mdt (lustre/Lustre): Running (Failed Over) on fence_mds00",
        "Connected hosts: fence_mds00",
        "Disconnected hosts: fence_mds01 (fenced)",
    )
    events = [line for line in checkout.run(status).stdout.splitlines() if "event=" in line]
    assert any(
        re.fullmatch(
            r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6} event=fence object=fence_mds01"
            r' comment="Manager service initiated fence action\. fence_mds01 was .*;'
            r' for test_zpool_01"',
            event,
        )
        for event in events
    )
    must_say(power_status, "fence_mds01 is off")
    files = {p.name for p in (checkout.folder / "tests/test_output/failover").iterdir()}
    assert {"fence_mds00.zfs.test_zpool_01", "fence_mds00.lustre._mnt_test_mdt"} <= files
    assert not [
        name for name in files if name.startswith(("fence_mds01.zfs", "fence_mds01.lustre"))
    ]

    # The way back, as the text below the commands has it.
    checkout.run(*exports, behind[1])
    until_says(status, "Connected hosts: fence_mds00, fence_mds01 (fenced)")
    checkout.run("halo reset fence_mds01 --socket halo.socket")
    checkout.run("halo failback --onto fence_mds01 --socket halo.socket")
    until_says(
        status,
        "test_zpool_01 (heartbeat/ZFS): Running on fence_mds01",
        "Connected hosts: fence_mds[00-01]",
    )
