"""The bundled OCF agent halo/Lustre, with programs mount and umount that play Lustre on files."""

from __future__ import annotations

import os
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests import debian

AGENT = Path(__file__).resolve().parents[2] / "ocf_agents" / "resource.d" / "halo" / "Lustre"
TARGET = "tank/ost1"
SERVICE = "fs-OST0001"

# Played by files in $HALO_TEST_ROOT/fake: `mount-error` and `mount-nothing`; `busy` counts the
# unmounts that are refused, `hang` holds up one without -f, `needs-force` refuses it; `lingers`
# keeps the server in the kernel after the unmount.
MOUNT = """#!/bin/sh
fake=$HALO_TEST_ROOT/fake
printf 'mount %s\\n' "$*" >>"$fake/log"
if [ -e "$fake/mount-error" ]; then cat "$fake/mount-error" >&2; exit 17; fi
[ ! -e "$fake/mount-nothing" ] || exit 0
for mountpoint; do :; done
while [ $# -gt 2 ]; do shift; done
echo "$1 $mountpoint lustre ro,svname=fs-OST0001,mgsnode=10.0.0.1@tcp 0 0" \\
    >>"$HALO_TEST_ROOT/proc/mounts"
osd=$HALO_TEST_ROOT/proc/fs/lustre/osd-zfs/fs-OST0001
mkdir -p "$osd"; echo "$1" >"$osd/mntdev"
"""
UMOUNT = """#!/bin/sh
fake=$HALO_TEST_ROOT/fake
printf 'umount %s\\n' "$*" >>"$fake/log"
case $1 in -f) shift; force=yes ;; *) force= ;; esac
if [ -e "$fake/hang" ] && [ -z "$force" ]; then exec sleep 30; fi
if [ -e "$fake/needs-force" ] && [ -z "$force" ]; then
    echo "umount: $1: target is busy." >&2; exit 32
fi
if [ -e "$fake/busy" ]; then
    left=$(cat "$fake/busy")
    if [ "$left" -gt 0 ]; then
        echo $((left - 1)) >"$fake/busy"
        echo "umount: $1: target is busy." >&2; exit 32
    fi
fi
mounts=$HALO_TEST_ROOT/proc/mounts
grep -v " $1 lustre " "$mounts" >"$mounts.new"; mv "$mounts.new" "$mounts"
osd=$HALO_TEST_ROOT/proc/fs/lustre/osd-zfs/fs-OST0001
if [ -e "$fake/lingers" ]; then
    [ "$(cat "$fake/lingers")" = ever ] || { sleep 1.5; rm -r "$osd"; } >/dev/null 2>&1 &
else
    rm -r "$osd"
fi
"""
E2FSCK = """#!/bin/sh
printf 'e2fsck %s\\n' "$*" >>"$HALO_TEST_ROOT/fake/log"
echo 'UNEXPECTED INCONSISTENCY'
exit "$(cat "$HALO_TEST_ROOT/fake/fsck-status")"
"""
# The limits of the agent are long for a test.
SHORT_TIMEOUT = """#!/bin/sh
shift 3
exec /usr/bin/timeout -k 1 0.3 "$@"
"""


class Host:
    """A host on which the agent runs."""

    def __init__(self, folder: Path) -> None:
        # The mount point is a real folder, which the agent may make and enter.
        self.mountpoint = folder.resolve() / "mnt" / "ost1"
        self.root = folder / "root"
        self.fake = self.root / "fake"
        self.programs = folder / "bin"
        self.mounts = self.root / "proc" / "mounts"
        for path in (self.fake, self.programs, self.mounts.parent):
            path.mkdir(parents=True)
        self.mounts.write_text("/dev/sda1 / ext4 rw 0 0\nproc /proc proc rw 0 0\n")
        self.program("mount", MOUNT)
        self.program("umount", UMOUNT)
        self.program("mount.lustre", "#!/bin/sh\nexit 1\n")
        self.program("e2fsck", E2FSCK)
        self.write("sys/fs/lustre/health_check", "healthy\n")

    def program(self, name: str, text: str) -> None:
        (self.programs / name).write_text(text)
        (self.programs / name).chmod(0o755)

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def set(self, **files: str) -> None:
        for name, text in files.items():
            self.write(f"fake/{name.replace('_', '-')}", text)

    def also_mounted(self, source: str, where: str, kind: str) -> None:
        with self.mounts.open("a") as file:
            file.write(f"{source} {where} {kind} rw 0 0\n")

    @property
    def mounted(self) -> bool:
        return f" {self.mountpoint} lustre " in self.mounts.read_text()

    @property
    def calls(self) -> list[str]:
        log = self.fake / "log"
        return log.read_text().splitlines() if log.exists() else []

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": f"{self.programs}:/usr/bin:/bin",
            "HALO_TEST_ROOT": str(self.root),
            "OCF_RESKEY_CRM_meta_timeout": "5000",
        }

    def run(self, *arguments: str, **parameters: str) -> tuple[int, str]:
        parameters = {"target": TARGET, "mountpoint": str(self.mountpoint), **parameters}
        done = subprocess.run(
            [str(AGENT), *arguments],
            env=self.environment | {f"OCF_RESKEY_{k}": v for k, v in parameters.items()},
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_target_comes_and_goes(host: Host) -> None:
    assert host.run("monitor") == (7, "")
    assert host.run("start") == (0, "")
    assert host.run("start") == (0, "")
    assert host.run("monitor") == (0, "")
    assert host.run("status") == (0, "")
    assert host.run("stop") == (0, "")
    assert host.run("stop") == (0, "")
    assert host.run("monitor") == (7, "")
    assert host.calls == [
        f"mount -t lustre {TARGET} {host.mountpoint}",
        f"umount {host.mountpoint}",
    ]


def test_mount_takes_its_options(host: Host) -> None:
    more = {"mountoptions": "abort_recov,max_sectors_kb=0", "mountpoint": f"{host.mountpoint}/"}
    assert host.run("start", **more) == (0, "")
    assert host.calls == [
        f"mount -t lustre -o abort_recov,max_sectors_kb=0 {TARGET} {host.mountpoint}"
    ]
    assert host.run("monitor", **more) == (0, "")


def test_a_device_is_known_by_any_of_its_names(host: Host, tmp_path: Path) -> None:
    device = tmp_path / "dm-3"
    device.touch()
    name = tmp_path / "by-id"
    name.symlink_to(device)
    host.also_mounted(str(device), str(host.mountpoint), "lustre")
    assert host.run("monitor", target=str(name)) == (0, "")
    assert host.run("stop", target=str(name)) == (0, "")
    assert not host.mounted


def test_a_mount_that_fails_says_why(host: Host) -> None:
    host.set(mount_error="mount.lustre: mount tank/ost1 failed: File exists\n")
    code, said = host.run("start")
    assert code == 1
    assert "mount failed with status 17: mount.lustre: mount tank/ost1 failed" in said
    assert host.run("monitor") == (7, "")


def test_a_mount_that_does_not_appear_is_an_error(host: Host) -> None:
    host.set(mount_nothing="")
    code, said = host.run("start")
    assert code == 1
    assert "and yet the target is not mounted" in said


@pytest.mark.parametrize("kind", ["lustre", "zfs"])
def test_a_target_mounted_elsewhere_is_not_called_stopped(host: Host, kind: str) -> None:
    host.also_mounted(TARGET, "/mnt/byhand", kind)
    for action in ("monitor", "start", "stop"):
        code, said = host.run(action)
        assert code == 1
        assert f"is mounted on /mnt/byhand as {kind}" in said
    assert host.calls == []


def test_a_target_that_still_runs_in_the_kernel_is_not_called_stopped(host: Host) -> None:
    host.write(f"sys/kernel/debug/lustre/osd-ldiskfs/{SERVICE}/mntdev", f"{TARGET}\n")
    for action in ("monitor", "start"):
        code, said = host.run(action)
        assert code == 1
        assert f"{SERVICE} still runs in the kernel" in said
    code, said = host.run("stop")
    assert code == 1
    assert f"{SERVICE} still runs after" in said
    assert host.calls == []


def test_a_mount_table_that_cannot_be_read_is_an_error(host: Host) -> None:
    host.mounts.unlink()
    for action in ("monitor", "start", "stop"):
        code, said = host.run(action)
        assert code == 1
        assert "not known" in said


def test_something_else_on_the_mount_point_is_left_alone(host: Host) -> None:
    host.also_mounted("tank/other", str(host.mountpoint), "lustre")
    assert host.run("monitor") == (7, "")
    code, said = host.run("start")
    assert code == 1
    assert "something else is mounted on" in said
    assert host.run("stop") == (0, "")
    assert host.calls == []


def test_a_mount_over_the_target_is_not_taken_for_it(host: Host) -> None:
    host.run("start")
    host.also_mounted("tmpfs", str(host.mountpoint), "tmpfs")
    assert host.run("monitor") == (0, "")
    code, said = host.run("stop")
    assert code == 1
    assert "something else is mounted over it" in said
    assert host.mounted


def test_a_mount_point_behind_a_link_is_refused(host: Host, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    code, said = host.run("start", mountpoint=str(tmp_path / "link" / "mnt"))
    assert code == 6
    assert f"write {tmp_path.resolve()}/mnt" in said
    assert host.calls == []


def test_an_unmount_is_tried_again_while_the_target_is_busy(host: Host) -> None:
    host.run("start")
    host.set(busy="1")
    assert host.run("stop", CRM_meta_timeout="30000") == (0, "")
    assert host.calls[1:] == [f"umount {host.mountpoint}"] * 2


@pytest.mark.parametrize("trouble", ["hang", "needs_force"])
def test_an_unmount_is_forced_after_a_while(host: Host, trouble: str) -> None:
    host.run("start")
    host.set(**{trouble: ""})
    assert host.run("stop", CRM_meta_timeout="7000") == (0, "")
    assert host.calls[1] == f"umount {host.mountpoint}"
    assert host.calls[-1] == f"umount -f {host.mountpoint}"
    assert not host.mounted


def test_an_unmount_that_does_not_succeed_ends_before_the_deadline(host: Host) -> None:
    host.run("start")
    host.set(busy="1000")
    code, said = host.run("stop")
    assert code == 1
    assert "not unmounted after" in said
    assert "target is busy" in said
    assert host.run("monitor") == (0, "")


def test_a_stop_waits_until_the_kernel_has_let_go(host: Host) -> None:
    host.run("start")
    host.set(lingers="a while")
    assert host.run("stop", CRM_meta_timeout="60000") == (0, "")
    assert not (host.root / "proc/fs/lustre/osd-zfs" / SERVICE).exists()
    assert host.run("monitor") == (7, "")


@pytest.mark.parametrize(
    ("health", "words", "code"),
    [
        ("target", "healthy\n", 0),
        ("target", "NOT HEALTHY\n", 1),
        ("target", f"device {SERVICE} reported unhealthy\nNOT HEALTHY\n", 1),
        ("target", f"device {SERVICE}-osd reported unhealthy\nNOT HEALTHY\n", 1),
        ("target", "device fs-OST0002 reported unhealthy\nNOT HEALTHY\n", 0),
        ("target", "LBUG\nNOT HEALTHY\n", 1),
        ("host", "device fs-OST0002 reported unhealthy\nNOT HEALTHY\n", 1),
        ("host", "healthy\n", 0),
        ("none", "NOT HEALTHY\n", 0),
    ],
)
def test_the_health_of_a_target(host: Host, health: str, words: str, code: int) -> None:
    host.run("start")
    host.write("sys/fs/lustre/health_check", words)
    assert host.run("monitor", health=health)[0] == code


def test_the_devices_may_be_named_in_another_file(host: Host) -> None:
    host.run("start")
    host.write("sys/fs/lustre/health_check", "NOT HEALTHY\n")
    other = "sys/kernel/debug/lustre/health_check"
    host.write(other, "device fs-OST0002 reported unhealthy\nNOT HEALTHY\n")
    assert host.run("monitor") == (0, "")
    host.write(other, f"device {SERVICE} reported unhealthy\nNOT HEALTHY\n")
    code, said = host.run("monitor")
    assert code == 1
    assert f"reports {SERVICE} as unhealthy" in said


def test_older_releases_tell_their_health_in_proc(host: Host) -> None:
    host.run("start")
    (host.root / "sys/fs/lustre/health_check").unlink()
    assert host.run("monitor") == (0, "")  # a Lustre that says nothing of its health
    host.write("proc/fs/lustre/health_check", "NOT HEALTHY\n")
    assert host.run("monitor")[0] == 1


@pytest.mark.parametrize("place", ["proc/fs/lustre/obdfilter", "sys/kernel/debug/lustre/mdt"])
def test_a_target_in_recovery_runs(host: Host, place: str) -> None:
    status = f"{place}/{SERVICE}/recovery_status"
    host.write(status, "status: RECOVERING\ntime_remaining: 120\n")
    code, said = host.run("start")
    assert code == 0
    assert "in recovery" in said
    host.write("sys/fs/lustre/health_check", "NOT HEALTHY\n")
    code, said = host.run("monitor")
    assert code == 0
    assert "in recovery" in said
    host.write(status, "status: COMPLETE\n")
    assert host.run("monitor")[0] == 1


@pytest.mark.parametrize("place", ["sys/kernel/debug/lnet", "proc/sys/lnet"])
def test_a_host_after_a_bug_of_lustre_is_an_error_also_in_recovery(host: Host, place: str) -> None:
    host.run("start")
    host.write(f"proc/fs/lustre/mdt/{SERVICE}/recovery_status", "status: RECOVERING\n")
    host.write(f"{place}/catastrophe", "0\n")
    assert host.run("monitor") == (0, "")
    host.write(f"{place}/catastrophe", "1\n")
    code, said = host.run("monitor")
    assert code == 1
    assert "LBUG" in said


def test_a_health_that_does_not_answer_is_an_error(host: Host) -> None:
    host.run("start")
    host.program("timeout", SHORT_TIMEOUT)
    file = host.root / "sys/fs/lustre/health_check"
    file.unlink()
    os.mkfifo(file)  # nobody ever writes to it
    code, said = host.run("monitor")
    assert code == 1
    assert "does not answer within 10 s" in said


@pytest.mark.parametrize(("status", "code"), [("0", 0), ("1", 0), ("4", 1), ("8", 1)])
def test_a_device_is_checked_before_it_is_mounted(
    host: Host, tmp_path: Path, status: str, code: int
) -> None:
    device = tmp_path / "disk"
    device.touch()
    host.set(fsck_status=status)
    got, said = host.run("start", target=str(device), fsck="preen")
    assert got == code
    assert host.calls[0] == f"e2fsck -p {device}"
    assert host.mounted == (code == 0)
    assert ("INCONSISTENCY" in said) == (code == 1)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"target": ""}, "target is missing"),
        ({"target": "tank"}, "neither pool/dataset"),
        ({"target": "-o/x"}, "no dataset"),
        ({"target": "/dev/a b"}, "no dataset"),
        ({"mountpoint": ""}, "mountpoint is missing"),
        ({"mountpoint": "/"}, "mountpoint is missing"),
        ({"mountpoint": "mnt"}, "no absolute path"),
        ({"mountpoint": "/mnt/../etc"}, "plain path"),
        ({"mountpoint": "/mnt/a b"}, "not allowed"),
        ({"mountoptions": "a b"}, "blank"),
        ({"fsck": "yes"}, "fsck is none or preen"),
        ({"fsck": "preen"}, "block devices"),
        ({"health": "good"}, "health is"),
    ],
)
def test_parameters_that_are_wrong(host: Host, parameters: dict[str, str], words: str) -> None:
    for action in ("validate-all", "start", "monitor", "stop"):
        code, said = host.run(action, **parameters)
        assert code == 6
        assert words in said
    assert host.calls == []


def test_validate_looks_at_the_host(host: Host) -> None:
    assert host.run("validate-all") == (0, "")
    (host.programs / "mount.lustre").unlink()
    code, said = host.run("validate-all")
    assert code == 5
    assert "mount.lustre is not installed" in said
    assert host.run("start")[0] == 5
    assert host.run("monitor") == (7, "")


def test_actions_that_it_does_not_know(host: Host) -> None:
    assert host.run("promote")[0] == 3
    assert host.run()[0] == 2
    assert host.run("start", "now")[0] == 2


def test_meta_data_is_complete(host: Host) -> None:
    code, text = host.run("meta-data", target="", mountpoint="")
    assert code == 0
    agent = ET.fromstring(text)
    assert agent.attrib["name"] == "Lustre"
    assert {p.attrib["name"]: p.attrib["required"] for p in agent.iter("parameter")} == {
        "target": "1",
        "mountpoint": "1",
        "mountoptions": "0",
        "fsck": "0",
        "health": "0",
    }
    assert all(p.find("longdesc") is not None for p in agent.iter("parameter"))
    assert {a.attrib["name"]: a.attrib["timeout"] for a in agent.iter("action")} == {
        "start": "300s",
        "stop": "300s",
        "monitor": "30s",
        "meta-data": "5s",
        "validate-all": "30s",
    }


def test_ocf_tester_passes(host: Host) -> None:
    debian.require("resource-agents", "libxml2-utils")
    tester = debian.require_program("ocf-tester")
    parameters = ["-o", f"target={TARGET}", "-o", f"mountpoint={host.mountpoint}"]
    done = subprocess.run(
        [tester, "-n", "ost1", *parameters, str(AGENT)],
        env=os.environ | host.environment | {"PATH": f"{host.programs}:{os.environ['PATH']}:/sbin"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed all tests" in done.stdout


def test_it_is_posix_shell() -> None:
    shell = debian.require_program("dash")
    done = subprocess.run([shell, "-n", str(AGENT)], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
