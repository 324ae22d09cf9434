"""`halo discover`, with a program `ssh` that replays what hosts answered."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from halo.cli.commands.discover import parse_importable, parse_mounts
from halo.config import load_text
from tests.fence_helpers import HALO, make_program

SSH = """
# ssh -o BatchMode=yes -o ConnectTimeout=N -- HOST COMMAND
[ "$1 $2 $3" = "-o BatchMode=yes -o" ] || exit 99
host=$6
echo "$host" >> {folder}/asked
[ -e {folder}/$host.unreachable ] && {{
  echo "ssh: connect to host $host port 22: No route to host" >&2; exit 255; }}
case $7 in
*"zpool list"*) name=list;;
*"zpool import"*) name=import;;
*"mount -t lustre"*) name=mount;;
*) exit 98;;
esac
[ -e {folder}/$host.$name.failing ] && exec {folder}/$host.$name.failing
[ -e {folder}/$host.$name ] || {{ echo "sh: 1: $name: not found" >&2; exit 127; }}
cat {folder}/$host.$name
"""

IMPORT = """\
   pool: {name}
     id: {guid}
  state: ONLINE
status: The pool was last accessed by another system.
 action: The pool can be imported using its name or numeric identifier and
\tthe '-f' flag.
   see: https://openzfs.github.io/openzfs-docs/msg/ZFS-8000-EY
 config:

\t{name}                   ONLINE
\t  draid2:8d:90c:2s-0      ONLINE
\t    dm-uuid-mpath-3500a   ONLINE
"""

OPTIONS = "mgsnode=10.0.0.1@tcp:10.0.0.2@tcp,osd=osd-zfs"


def pool_line(name: str, guid: str) -> str:
    return f"{name}\t{guid}\n"


def mount_line(device: str, mountpoint: str, service: str) -> str:
    return f"{device} on {mountpoint} type lustre (ro,svname={service},{OPTIONS})\n"


class Network:
    """Hosts that answer over a false ssh."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        make_program(folder / "bin" / "ssh", SSH.format(folder=folder))

    def host(self, name: str, **answers: str) -> None:
        """A host with its answers to `list`, `import` and `mount`; others are not found."""
        for command, text in answers.items():
            (self.folder / f"{name}.{command}").write_text(text)

    def discover(self, *hosts: str, **variables: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            [*HALO, "discover", *hosts],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "PATH": path, **variables},
        )


@pytest.fixture
def network(tmp_path: Path) -> Network:
    return Network(tmp_path)


def pair(network: Network) -> None:
    network.host(
        "mds00",
        list=pool_line("mds00e0", "111") + pool_line("rpool", "901"),
        **{"import": IMPORT.format(name="mds01e0", guid="222")},
        mount=mount_line("mds00e0/mdt0", "/mnt/mdt0", "fs-MDT0000")
        + mount_line("mds00e0/mgt", "/mnt/mgt", "MGS")
        + "10.0.0.9@tcp:/home on /home type lustre (rw,checksum,flock)\n",
    )
    network.host(
        "mds01",
        list=pool_line("mds01e0", "222") + pool_line("rpool", "902"),
        **{"import": IMPORT.format(name="mds00e0", guid="111")},
        mount=mount_line("mds01e0/mdt1", "/mnt/mdt1", "fs-MDT0001"),
    )


def test_ssh_gets_the_environment_without_the_password_for_etcd(network: Network) -> None:
    """An administrator's shell may have it, and ssh may be told to send variables on."""
    pair(network)
    ssh = network.folder / "bin" / "ssh"
    ssh.write_text(ssh.read_text().replace("host=$6", f"host=$6\nenv > {network.folder}/env"))
    network.discover("mds00", HALO_STORE_PASSWORD="hunter2", A_PLAIN_VARIABLE="kept")
    inherited = (network.folder / "env").read_text()
    assert "A_PLAIN_VARIABLE=kept\n" in inherited
    assert "hunter2" not in inherited


def test_a_failover_pair_becomes_two_groups_with_each_other_as_failover_host(
    network: Network,
) -> None:
    pair(network)
    done = network.discover("mds[00-01]")
    assert done.returncode == 0, done.stderr
    config = yaml.safe_load(done.stdout)
    assert config["resource_groups"] == [
        {"root": "mds00e0", "home_host": "mds00", "failover_hosts": ["mds01"]},
        {"root": "mds01e0", "home_host": "mds01", "failover_hosts": ["mds00"]},
    ]
    assert config["resources"][0] == {
        "name": "mds00e0",
        "kind": "heartbeat/ZFS",
        "parameters": {"pool": "mds00e0"},
        "dependents": ["mds00e0/mgt", "mds00e0/mdt0"],  # the MGT starts first
    }
    assert config["resources"][1] == {
        "name": "mds00e0/mgt",
        "kind": "lustre/Lustre",
        "parameters": {"mountpoint": "/mnt/mgt", "target": "mds00e0/mgt", "type": "mgt"},
    }


def test_the_config_written_is_one_that_halo_reads(network: Network) -> None:
    pair(network)
    cluster = load_text(network.discover("mds00,mds01").stdout, "discovered")
    assert list(cluster.hosts) == ["mds00", "mds01"]
    group = cluster.groups["mds00e0"]
    assert group.candidates == ("mds00", "mds01")
    assert [resource.id for resource in group.resources] == [
        "mds00e0",
        "mds00e0/mgt",
        "mds00e0/mdt0",
    ]


def test_pools_of_one_name_on_each_host_are_left_out(network: Network) -> None:
    pair(network)
    done = network.discover("mds[00-01]")
    assert "rpool" not in done.stdout
    assert "rpool is the name of 2 different pools" in done.stderr


def test_a_pool_imported_on_two_hosts_is_an_alarm_and_no_group(network: Network) -> None:
    for host in ("oss00", "oss01"):
        network.host(host, list=pool_line("shared0", "77"), **{"import": ""}, mount="")
    done = network.discover("oss[00-01]")
    assert "DANGER: shared0 is imported on oss00 and oss01 at once" in done.stderr
    assert "shared0" not in done.stdout


def test_a_pool_imported_nowhere_is_told(network: Network) -> None:
    offered = IMPORT.format(name="spare0", guid="5")
    for host in ("oss00", "oss01"):
        network.host(host, list="", **{"import": offered}, mount="")
    done = network.discover("oss[00-01]")
    assert "spare0 is imported on no host; its home_host is set to oss00" in done.stderr
    groups = yaml.safe_load(done.stdout)["resource_groups"]
    assert groups == [{"root": "spare0", "home_host": "oss00", "failover_hosts": ["oss01"]}]


def test_a_target_on_a_block_device_is_a_group_of_its_own(network: Network) -> None:
    device = "/dev/mapper/ost0"
    network.host("oss00", mount=mount_line(device, "/mnt/ost0", "fs-OST0000"))
    done = network.discover("oss00")
    config = yaml.safe_load(done.stdout)
    assert [resource["name"] for resource in config["resources"]] == [device]
    assert config["resource_groups"][0]["home_host"] == "oss00"
    assert "is not on a zpool" in done.stderr


def test_a_host_out_of_reach_is_told_and_the_others_are_written(network: Network) -> None:
    pair(network)
    (network.folder / "mds01.unreachable").touch()
    done = network.discover("mds[00-01]")
    assert done.returncode == 1
    assert "mds01: ssh failed: ssh: connect to host mds01 port 22: No route to host" in done.stderr
    assert "1 of 2 hosts could not be inspected" in done.stderr
    config = yaml.safe_load(done.stdout)
    assert [host["hostname"] for host in config["hosts"]] == ["mds00"]


def test_a_host_with_neither_zfs_nor_lustre_is_a_host_without_groups(network: Network) -> None:
    done = network.discover("login00")
    assert done.returncode == 0, done.stderr
    config = yaml.safe_load(done.stdout)
    assert config["hosts"] == [{"hostname": "login00", "fence_agent": None}]
    assert config["resource_groups"] == []


def test_a_host_that_has_nothing_to_import_is_told_from_one_that_may_not_look(
    network: Network,
) -> None:
    nothing = "no pools available to import"
    for host, words in (("oss00", nothing), ("oss01", "cannot discover pools: permission denied")):
        network.host(host, list="", mount="")
        make_program(network.folder / f"{host}.import.failing", f"echo '{words}' >&2; exit 1")
    done = network.discover("oss[00-01]")
    assert done.returncode == 1
    assert "oss01: zpool import: exit status 1: cannot discover pools" in done.stderr
    assert "oss00" in done.stdout
    assert "oss01" not in done.stdout


def test_several_importable_pools_are_told_apart() -> None:
    text = IMPORT.format(name="a", guid="1") + "\n" + IMPORT.format(name="b", guid="2")
    assert [(pool.name, pool.guid) for pool in parse_importable(text)] == [("a", "1"), ("b", "2")]


def test_a_mountpoint_may_hold_blanks() -> None:
    mounts = parse_mounts(mount_line("p/ost", "/mnt/a b", "fs-OST0001"))
    assert [(mount.mountpoint, mount.type) for mount in mounts] == [("/mnt/a b", "ost")]
