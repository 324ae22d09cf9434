"""The bundled OCF agent halo/ZFS, with programs zpool and zdb that play ZFS on files."""

from __future__ import annotations

import os
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests import debian

AGENT = Path(__file__).resolve().parents[2] / "ocf_agents" / "resource.d" / "halo" / "ZFS"

# Played by files in $HALO_TEST_ROOT/fake: `holder` is what the disks say of the pool (exported,
# silent: another host did not export it, active: another host writes to it), `multihost` is on or
# off, `busy` counts the exports that are refused, `sticky` names who keeps the pool from export.
ZPOOL = """#!/bin/sh
fake=$HALO_TEST_ROOT/fake
kstat=$HALO_TEST_ROOT/proc/spl/kstat/zfs/tank
printf '%s\\n' "$*" >>"$fake/log"
taken() { mkdir -p "$kstat"; echo "$1" >"$kstat/state"; }
case $1 in
list)
    [ ! -e "$fake/hang" ] || exec sleep 30
    if [ -e "$fake/list-error" ]; then cat "$fake/list-error" >&2; exit 1; fi
    if [ -e "$fake/health" ]; then cat "$fake/health"; exit 0; fi
    echo "cannot open 'tank': no such pool" >&2; exit 1 ;;
import)
    case " $* " in *' -f '*) force=yes ;; *) force= ;; esac
    holder=$(cat "$fake/holder"); multihost=$(cat "$fake/multihost")
    if [ "$holder" = active ] && [ "$multihost" = on ]; then
        echo "cannot import 'tank': pool is imported on h2 (hostid: 0x2)" >&2; exit 1
    elif [ "$holder" != exported ] && [ -z "$force" ]; then
        cat "$fake/used" >&2; exit 1
    elif [ -e "$fake/import-error" ]; then cat "$fake/import-error" >&2; exit 1
    elif [ -e "$fake/import-nothing" ]; then exit 0
    fi
    taken ONLINE
    if [ -e "$fake/mount-error" ]; then cat "$fake/mount-error" >&2; exit 1; fi ;;
export)
    if [ -e "$fake/busy" ]; then
        left=$(cat "$fake/busy")
        if [ "$left" -gt 0 ]; then
            echo $((left - 1)) >"$fake/busy"
            echo "cannot export 'tank': pool is busy" >&2; exit 1
        fi
    fi
    if [ -e "$fake/needs-force" ] && [ "$2" != -f ]; then
        echo "cannot unmount '/tank': target is busy" >&2; exit 1
    fi
    rm -r "$kstat" ;;
esac
"""
ZDB = """#!/bin/sh
fake=$HALO_TEST_ROOT/fake
printf 'zdb %s\\n' "$*" >>"$fake/log"
cat "$fake/zdb"
[ ! -e "$fake/zdb-error" ]
"""
# The limits of the agent are long for a test.
SHORT_TIMEOUT = """#!/bin/sh
shift 3
exec /usr/bin/timeout -k 1 0.3 "$@"
"""
USED = """cannot import 'tank': pool was previously in use from another system.
Last accessed by h2 (hostid=2) at Mon Nov 23 10:00:00 2026
The pool can be imported, use 'zpool import -f' to import the pool.
"""
USED_OLD = """cannot import 'tank': pool may be in use from other system, it was last
accessed by h2 (hostid: 0x2) on Mon Nov 23 10:00:00 2026
use '-f' to import anyway
"""
UBERBLOCK = "\nUberblock:\n\tmagic = 0000000000bab10c\n\tmmp_magic = 00000000a11cea11\n"


class Host:
    """A host on which the agent runs, and the disks it sees."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.fake = self.root / "fake"
        self.programs = folder / "bin"
        self.kstat = self.root / "proc/spl/kstat/zfs/tank/state"
        for path in (self.fake, self.programs, self.root / "sys/module/zfs", self.root / "etc"):
            path.mkdir(parents=True)
        (self.root / "etc/hostid").write_bytes(b"\x01\x00\x00\x00")
        self.program("zpool", ZPOOL)
        self.program("zdb", ZDB)
        self.set(holder="exported", multihost="on", used=USED, zdb=f"{UBERBLOCK}\tmmp_delay = 11\n")

    def program(self, name: str, text: str) -> None:
        (self.programs / name).write_text(text)
        (self.programs / name).chmod(0o755)

    def set(self, **files: str) -> None:
        for name, text in files.items():
            (self.fake / name.replace("_", "-")).write_text(text)

    def health(self, word: str) -> None:
        self.kstat.parent.mkdir(parents=True, exist_ok=True)
        self.kstat.write_text(f"{word}\n")

    @property
    def imported(self) -> bool:
        return self.kstat.exists()

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
        parameters = {"pool": "tank", **parameters}
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


def test_a_pool_comes_and_goes(host: Host) -> None:
    assert host.run("monitor") == (7, "")
    assert host.run("start") == (0, "")
    assert host.calls[-1] == "import -o cachefile=none -o multihost=on tank"
    assert host.run("start") == (0, "")
    assert host.run("monitor") == (0, "")
    assert host.run("status") == (0, "")
    assert host.run("stop") == (0, "")
    assert host.run("stop") == (0, "")
    assert host.run("monitor") == (7, "")
    assert [call.split()[0] for call in host.calls].count("import") == 1
    assert [call.split()[0] for call in host.calls].count("export") == 1


def test_import_takes_its_parameters(host: Host) -> None:
    more = {"importargs": "-d /dev/by-vdev -l", "mount": "false", "importforce": "no"}
    assert host.run("start", **more) == (0, "")
    assert host.calls[-1] == "import -N -o cachefile=none -d /dev/by-vdev -l tank"


@pytest.mark.parametrize("words", [USED, USED_OLD])
def test_a_pool_of_a_host_without_power_is_forced_where_multihost_protects_it(
    host: Host, words: str
) -> None:
    host.set(holder="silent", used=words)
    code, said = host.run("start", importargs="-d /dev/x -d /dev/y")
    assert code == 0
    assert "the import is forced" in said
    assert "zdb -e -p /dev/x -p /dev/y -u tank" in host.calls
    assert host.calls[-1].startswith("import -f -o cachefile=none -o multihost=on")
    assert host.imported


@pytest.mark.parametrize("force", ["multihost", "true", "false"])
def test_a_pool_that_is_active_elsewhere_is_refused(host: Host, force: str) -> None:
    host.set(holder="active")
    code, said = host.run("start", importforce=force)
    assert code == 1
    assert "refused: another host has the pool imported" in said
    assert "h2" in said
    assert not host.imported


def test_a_pool_that_becomes_active_elsewhere_before_the_force_is_refused(host: Host) -> None:
    host.set(holder="silent", zdb=f"{UBERBLOCK}\tmmp_delay = 11\n")
    host.program("zdb", ZDB + '\necho active >"$fake/holder"\n')
    code, said = host.run("start")
    assert code == 1
    assert "refused: another host has the pool imported" in said
    assert not host.imported


@pytest.mark.parametrize(
    ("zdb", "error", "words"),
    [
        (f"{UBERBLOCK}\tmmp_delay = 0\n", False, "multihost was off"),
        ("\nUberblock:\n\tmagic = 0000000000bab10c\n", False, "multihost was off"),
        ("zdb: can't open 'tank'\n", True, "zdb cannot tell"),
    ],
)
def test_a_pool_without_multihost_is_not_forced(
    host: Host, zdb: str, error: bool, words: str
) -> None:
    host.set(holder="silent", multihost="off", zdb=zdb)
    if error:
        host.set(zdb_error="")
    code, said = host.run("start")
    assert code == 1
    assert words in said
    assert "by hand with -f" in said
    assert not host.imported
    assert not any(" -f " in call for call in host.calls)


def test_importforce_true_forces_and_false_does_not(host: Host) -> None:
    host.set(holder="silent", multihost="off")
    code, said = host.run("start", importforce="false")
    assert code == 1
    assert "refused, as importforce is false" in said
    assert not host.imported
    assert host.run("start", importforce="true") == (0, "")
    imports = [call for call in host.calls if call.startswith("import")]
    assert imports == ["import -o cachefile=none tank", "import -f -o cachefile=none tank"]
    assert host.imported


@pytest.mark.parametrize("content", [None, b"", b"\0\0\0\0", b"\1\2"])
def test_without_a_host_id_nothing_is_imported(host: Host, content: bytes | None) -> None:
    file = host.root / "etc/hostid"
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    for action in ("start", "validate-all"):
        code, said = host.run(action)
        assert code == 5
        assert "zgenhostid" in said
    assert not host.imported
    assert host.run("monitor") == (7, "")


def test_the_host_id_may_be_a_parameter_of_the_module(host: Host) -> None:
    (host.root / "etc/hostid").unlink()
    parameter = host.root / "sys/module/spl/parameters/spl_hostid"
    parameter.parent.mkdir(parents=True)
    parameter.write_text("0\n")
    assert host.run("start")[0] == 5
    parameter.write_text("4711\n")
    assert host.run("start") == (0, "")


def test_an_import_that_fails_says_why(host: Host) -> None:
    host.set(import_error="cannot import 'tank': no such pool available\n")
    code, said = host.run("start")
    assert code == 1
    assert "zpool import failed: cannot import 'tank': no such pool available" in said


def test_a_file_system_that_cannot_be_mounted_is_an_error_and_can_be_stopped(host: Host) -> None:
    host.set(mount_error="cannot mount '/tank': directory is not empty\n")
    code, said = host.run("start")
    assert code == 1
    assert "failed, but the pool is here (ONLINE): cannot mount '/tank'" in said
    assert host.run("stop") == (0, "")
    assert host.run("monitor") == (7, "")


def test_an_import_that_did_nothing_is_an_error(host: Host) -> None:
    host.set(import_nothing="")
    code, said = host.run("start")
    assert code == 1
    assert "the pool is not imported" in said


@pytest.mark.parametrize(
    ("word", "code"),
    [("ONLINE", 0), ("DEGRADED", 0), ("SUSPENDED", 1), ("FAULTED", 1), ("UNAVAIL", 1)],
)
@pytest.mark.parametrize("kstat", [True, False])
def test_the_health_of_the_pool(host: Host, word: str, code: int, kstat: bool) -> None:
    if kstat:
        host.health(word)
        host.set(hang="")
    else:
        host.set(health=f"{word}\n")
    for action in ("monitor", "start"):
        got, said = host.run(action)
        assert got == code
        assert (f"is imported, but {word}" in said) == (code == 1)
    assert not any(call.startswith("import") for call in host.calls)


def test_what_is_not_known_is_not_called_stopped(host: Host) -> None:
    host.set(list_error="internal error: out of memory\n")
    for action in ("monitor", "start"):
        code, said = host.run(action)
        assert code == 1
        assert "out of memory" in said
    assert not host.imported
    (host.programs / "zpool").unlink()
    code, said = host.run("monitor")
    assert code == 1
    assert "zpool is not installed" in said
    assert host.run("start")[0] == 5
    assert host.run("stop")[0] == 5


def test_zpool_that_does_not_answer_is_an_error(host: Host) -> None:
    host.program("timeout", SHORT_TIMEOUT)
    host.set(hang="")
    code, said = host.run("monitor")
    assert code == 1
    assert "does not answer within 20 s" in said


def test_without_the_module_nothing_is_imported_here(host: Host) -> None:
    (host.root / "sys/module/zfs").rmdir()
    (host.programs / "zpool").unlink()
    assert host.run("monitor") == (7, "")
    assert host.run("stop") == (0, "")
    assert host.run("start")[0] == 5


def test_a_busy_pool_is_exported_when_it_is_free(host: Host) -> None:
    host.health("ONLINE")
    host.set(busy="1")
    assert host.run("stop", CRM_meta_timeout="30000") == (0, "")
    assert [call for call in host.calls if call.startswith("export")] == ["export tank"] * 2


def test_an_export_is_forced_after_a_while(host: Host) -> None:
    host.health("ONLINE")
    host.set(needs_force="")
    assert host.run("stop", CRM_meta_timeout="6000") == (0, "")
    exports = [call for call in host.calls if call.startswith("export")]
    assert exports[0] == "export tank"
    assert exports[-1] == "export -f tank"


def test_an_export_that_does_not_succeed_ends_before_the_deadline(host: Host) -> None:
    host.health("ONLINE")
    host.set(busy="1000")
    code, said = host.run("stop")
    assert code == 1
    assert "not exported after" in said
    assert "pool is busy" in said
    assert host.imported
    assert host.run("monitor") == (0, "")


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"pool": ""}, "pool is missing"),
        ({"pool": "-f"}, "not the name of a pool"),
        ({"pool": "tank; reboot"}, "not the name of a pool"),
        ({"importforce": "maybe"}, "importforce"),
        ({"mount": "perhaps"}, "mount"),
        ({"importargs": "-f"}, "may not hold -f"),
        ({"importargs": "-F"}, "may not hold -F"),
        ({"importargs": "-c /etc/zfs/zpool.cache"}, "may not hold -c"),
        ({"importargs": "-o cachefile=/x"}, "cachefile=/x"),
        ({"importargs": "-o multihost=off"}, "multihost=off"),
        ({"importargs": "-d /dev/x -d"}, "lacks its value"),
        ({"importargs": "other"}, "may not hold other"),
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
    assert host.run("validate-all", importargs="-o multihost=off", importforce="1") == (0, "")
    (host.programs / "zdb").unlink()
    assert host.run("validate-all")[0] == 5
    assert host.run("validate-all", importforce="true") == (0, "")
    (host.programs / "zpool").unlink()
    assert host.run("validate-all", importforce="true")[0] == 5


def test_actions_that_it_does_not_know(host: Host) -> None:
    assert host.run("promote")[0] == 3
    assert host.run()[0] == 2
    assert host.run("start", "now")[0] == 2


def test_meta_data_is_complete(host: Host) -> None:
    (host.programs / "zpool").unlink()
    code, text = host.run("meta-data", pool="")
    assert code == 0
    agent = ET.fromstring(text)
    assert agent.attrib["name"] == "ZFS"
    assert {p.attrib["name"]: p.attrib["required"] for p in agent.iter("parameter")} == {
        "pool": "1",
        "importargs": "0",
        "importforce": "0",
        "mount": "0",
    }
    assert all(p.find("longdesc") is not None for p in agent.iter("parameter"))
    assert {a.attrib["name"]: a.attrib["timeout"] for a in agent.iter("action")} == {
        "start": "300s",
        "stop": "120s",
        "monitor": "30s",
        "meta-data": "5s",
        "validate-all": "30s",
    }


def test_ocf_tester_passes(host: Host) -> None:
    debian.require("resource-agents", "libxml2-utils")
    tester = debian.require_program("ocf-tester")
    debian.require_program("xmllint")
    done = subprocess.run(
        [tester, "-n", "tank", "-o", "pool=tank", str(AGENT)],
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
