"""The systemd units say what systemd understands, and what the programs rely on."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from halo.core.errors import EXIT_ADMINISTRATOR

UNITS = Path(__file__).resolve().parents[2] / "packaging" / "systemd"
NAMES = ("halo.service", "halo-remote.service")


@pytest.mark.parametrize("name", NAMES)
def test_systemd_finds_no_fault(name: str, tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    # Programs and manual pages need not be installed for this.
    text = re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", (UNITS / name).read_text())
    (tmp_path / name).write_text(re.sub(r"Documentation=.*\n", "", text))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / name)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", NAMES)
def test_what_an_administrator_must_mend_does_not_loop(name: str) -> None:
    settings = (UNITS / name).read_text().splitlines()
    assert "Restart=on-failure" in settings
    assert f"RestartPreventExitStatus={EXIT_ADMINISTRATOR}" in settings


def test_a_restart_of_the_agent_stops_no_service() -> None:
    assert "KillMode=process" in (UNITS / "halo-remote.service").read_text().splitlines()
    # Fence programs die with the manager, which must not leave one behind.
    assert "KillMode" not in (UNITS / "halo.service").read_text()


@pytest.mark.parametrize(("name", "at_most"), [("halo.service", 4.3), ("halo-remote.service", 9.7)])
def test_the_exposure_is_what_the_handbook_says(name: str, at_most: float) -> None:
    """A setting that is lost, or misspelt, shows here. The agent's is what its work costs."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNITS / name)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    if found is None:
        pytest.skip("systemd-analyze is too old to look at a unit that is not loaded")
    assert float(found[1]) <= at_most


def test_nothing_hides_the_mounts_of_scripts_from_the_host() -> None:
    """Each of these makes a mount namespace, or is inherited by the services that scripts start."""
    unit = (UNITS / "halo-remote.service").read_text()
    settings = [line for line in unit.splitlines() if not line.startswith("#")]
    for word in (
        "Protect",
        "Private",
        "Restrict",
        "SystemCall",
        "Capability",
        "NoNewPriv",
        "Paths",
    ):
        assert not [line for line in settings if line.startswith(word) and "Restart" not in line]


def test_fence_programs_can_change_their_user_and_share_connections() -> None:
    """PAM asks for the audit capability, and a ControlMaster of ssh for a socket below ~/.ssh."""
    settings = (UNITS / "halo.service").read_text().splitlines()
    dropped = {
        name
        for line in settings
        if line.startswith("CapabilityBoundingSet=~")
        for name in line.partition("~")[2].split()
    }
    assert "CAP_SYS_ADMIN" in dropped
    kept = {"CAP_AUDIT_WRITE", "CAP_SETUID", "CAP_SETGID", "CAP_SYS_PTRACE", "CAP_KILL"}
    assert not dropped & kept
    assert "ReadWritePaths=-/root/.ssh" in settings
