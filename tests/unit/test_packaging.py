"""The systemd units say what systemd understands, and what the programs rely on."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from halo.adapters.etcd.location import store_at
from halo.core.errors import EXIT_ADMINISTRATOR
from halo.manager.main import main as halo_manager

UNITS = Path(__file__).resolve().parents[2] / "packaging" / "systemd"
NAMES = ("halo.service", "halo-remote.service")
SAMPLES = UNITS / "replicated"
A_UNIT = "[Service]\nExecStart=/bin/true\n"


def verified(unit: Path) -> tuple[int, str]:
    """What systemd says of a unit and of the drop-ins beside it."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stderr


def as_a_unit(text: str) -> str:
    """Programs and manual pages need not be installed for this."""
    text = re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", text)
    return re.sub(r"Documentation=.*\n", "", text)


@pytest.mark.parametrize("name", NAMES)
def test_systemd_finds_no_fault(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(as_a_unit((UNITS / name).read_text()))
    assert verified(tmp_path / name) == (0, "")


@pytest.mark.parametrize(("name", "unit"), [("halo.conf", "halo"), ("etcd.conf", "etcd")])
def test_systemd_finds_no_fault_in_the_drop_ins(name: str, unit: str, tmp_path: Path) -> None:
    text = as_a_unit((UNITS / "halo.service").read_text()) if unit == "halo" else A_UNIT
    (tmp_path / f"{unit}.service").write_text(text)
    drop_in = tmp_path / f"{unit}.service.d" / "replicated.conf"
    drop_in.parent.mkdir()
    # Each setting counts, also those that are offered in a comment.
    offered = re.sub(r"^#(?=\w+=)", "", (SAMPLES / name).read_text(), flags=re.M)
    drop_in.write_text(offered)
    assert verified(tmp_path / f"{unit}.service") == (0, "")
    drop_in.write_text(offered + "Restrat=always\n")
    assert "Unknown key 'Restrat'" in verified(tmp_path / f"{unit}.service")[1]


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


def variables_of(name: str) -> dict[str, str]:
    """The variables that a sample file sets, whoever reads it: systemd or a shell."""
    lines = (SAMPLES / name).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_the_samples_for_three_managers_name_the_same_members() -> None:
    member, store = variables_of("etcd.default"), variables_of("store.env")
    found = store_at(store["HALO_STORE"], environment={})
    names = [text.partition("=")[0] for text in member["ETCD_INITIAL_CLUSTER"].split(",")]
    assert list(found.members) == [f"{name}:2379" for name in names]
    assert member["ETCD_ADVERTISE_CLIENT_URLS"] == f"https://{found.members[0]}"
    assert member["ETCD_NAME"] == names[0]
    assert all(name.endswith(str(number)) for number, name in enumerate(names, 1))


def test_the_manager_knows_the_variables_of_the_samples() -> None:
    known = {p.envvar for p in halo_manager.params if p.envvar}
    assert set(variables_of("store.env")) <= known
    drop_in = (SAMPLES / "halo.conf").read_text()
    assert "\nEnvironmentFile=/etc/halo/store.env\n" in drop_in


def test_a_shell_and_systemd_read_the_same_in_the_samples() -> None:
    for name in ("store.env", "etcd.default"):
        for value in variables_of(name).values():
            assert not re.search(r"[\s\"'$\\#`;&|<>()]", value), value
