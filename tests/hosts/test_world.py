"""The ground itself: power, silence, partitions, disks, and that nothing of it is left."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.hosts.world import BMCS, CLIENT, MANAGER, PREFIX, ROOT, World, json_lines

TALKER = """
import socket, time
s = socket.create_connection(("10.77.1.1", 5000))
while True:
    s.send(b"alive")
    time.sleep(0.001)
"""
LISTENER = """
import socket
s = socket.create_server(("10.77.1.1", 5000))
print("listening", flush=True)
c, _ = s.accept()
while c.recv(65536):
    pass
"""


def connects(world: World, node: str, address: str, port: int = 8000) -> bool:
    """Whether a TCP connection can be made from a node."""
    script = f"import socket; socket.create_connection(('{address}', {port}), 0.5)"
    return world.run(node, sys.executable, "-S", "-c", script).code == 0


def boot(world: World, *hosts: str) -> None:
    """Power hosts on, and wait for their agents."""
    for host in hosts:
        world.power_on(host)
    for host in hosts:
        world.wait(lambda h=host: connects(world, MANAGER, h), f"the agent of {host}")  # type: ignore[misc] # mypy does not infer lambdas with defaults


def test_a_host_has_a_view_of_its_own_and_forgets_what_was_not_on_its_disk(name: str) -> None:
    with World(name, ["h1", "h2"]) as world:
        boot(world, "h1", "h2")
        assert world.do("h1", "hostname").strip() == "h1"
        assert "halo_remote" in world.do("h1", "ps", "-e", "-o", "args")
        assert world.do("h1", "ps", "-e", "-o", "args").count("halo_remote --network") == 1
        world.do("h1", "sh", "-c", "echo kept > /mnt/state/disk; echo lost > /run/memory")
        assert world.run("h2", "cat", "/run/memory").code != 0
        # An orphan is reaped at once: monitors that look for a PID must not see zombies.
        world.do("h1", "sh", "-c", "sh -c 'sleep 0.05 & echo $! > /run/orphan'")
        orphan = world.do("h1", "cat", "/run/orphan").strip()
        world.wait(lambda: world.run("h1", "test", "-e", f"/proc/{orphan}").code, "the orphan goes")
        world.cut_power("h1")
        assert not world.is_alive("h1")
        boot(world, "h1")
        assert world.do("h1", "cat", "/mnt/state/disk") == "kept\n"
        assert world.run("h1", "cat", "/run/memory").code != 0
        assert world.boots("h1") == 2


def test_a_power_cut_is_silent_and_takes_less_than_a_millisecond(name: str) -> None:
    with World(name, ["h1"]) as world:
        boot(world, "h1")
        world.spawn("sniff", MANAGER, sys.executable, "-S", "-m", "tests.hosts.sniff", "eth0")
        world.spawn("listener", MANAGER, sys.executable, "-S", "-c", LISTENER)
        heard = world.logs / "sniff_log"
        world.wait(lambda: json_lines(heard), "the sniffer")
        world.wait((world.logs / "listener_log").read_text, "the listener")
        world.spawn("talker", "h1", sys.executable, "-S", "-c", TALKER)

        def segments() -> list[str]:
            lines = [line for line in json_lines(heard) if line.get("source") == "10.77.1.11"]
            return [line["tcp"] for line in lines]

        world.wait(lambda: len(segments()) > 50, "a talking host")
        world.cut_power("h1")
        died = world.happened("died", "h1")[0]
        assert died["took_ms"] < 1  # of processor time; nothing is sent after the first step
        after = [line["at"] for line in json_lines(heard) if line.get("source") == "10.77.1.11"]
        assert max(after) < died["silent_at"] + 0.001
        assert not [flags for flags in segments() if "F" in flags or "R" in flags]
        assert not connects(world, MANAGER, "h1")


def test_a_partition_cuts_both_ways_or_one(name: str) -> None:
    with World(name, ["h1", "h2"]) as world:
        boot(world, "h1", "h2")
        world.partition("h1", MANAGER)
        assert not connects(world, MANAGER, "h1")
        assert connects(world, MANAGER, "h2")
        assert connects(world, CLIENT, "h1")
        assert connects(world, "h1", "h2")
        world.heal()
        assert connects(world, MANAGER, "h1")
        world.spawn("sniff", "h1", sys.executable, "-S", "-m", "tests.hosts.sniff", "eth0")
        heard = world.logs / "sniff_log"
        world.wait(lambda: json_lines(heard), "the sniffer")
        world.partition("h1", MANAGER, one_way=True)
        assert not connects(world, MANAGER, "h1")
        arrived = [line for line in json_lines(heard) if line.get("source") == "10.77.1.1"]
        assert [line for line in arrived if line["tcp"] == "S"]


def test_a_bmc_is_reached_where_its_host_is_not(name: str) -> None:
    with World(name, ["h1"]) as world:
        # Nothing listens there, so the kernel of the BMCs' node refuses: a sign of life.
        script = "import socket; print(socket.socket().connect_ex(('10.77.2.11', 9)))"
        ask = (MANAGER, sys.executable, "-S", "-c", f"{script}")
        assert world.do(*ask).strip() == "111"
        assert world.run(CLIENT, *ask[1:]).stdout.strip() == "101"  # no route to that network
        assert world.run(BMCS, *ask[1:]).stdout.strip() == "111"


def test_what_was_not_flushed_is_lost_with_the_power(name: str) -> None:
    with World(name, ["h1", "h2"]) as world:
        image = str(world.disks / "shared")
        world.do(MANAGER, "truncate", "--size=32M", image)
        world.do(MANAGER, "mkfs.ext4", "-q", image)
        boot(world, "h1", "h2")
        mount = f"mkdir -p /mnt/shared && mount -o loop {image} /mnt/shared"
        world.do("h1", "sh", "-c", mount)
        world.do("h1", "sh", "-c", "cd /mnt/shared; echo a > flushed; sync flushed; echo b > lost")
        world.cut_power("h1")
        assert str(world.ground) not in subprocess.check_output(["losetup", "--list"], text=True)
        world.do("h2", "sh", "-c", mount)
        assert world.do("h2", "cat", "/mnt/shared/flushed") == "a\n"
        assert "b" not in world.run("h2", "cat", "/mnt/shared/lost").stdout
        assert not world.happened("double mount")
        # And the watch over double mounts can see one.
        boot(world, "h1")
        world.do("h1", "sh", "-c", mount)
        world.wait(lambda: world.happened("double mount"), "the double mount to be seen")


def test_a_mark_that_two_hosts_bear_is_seen(name: str) -> None:
    with World(name, ["h1", "h2"]) as world:
        boot(world, "h1", "h2")
        world.mark("group", path="/run/group")
        world.mark("address", address="10.77.1.100")
        bear = "touch /run/group; ip addr add 10.77.1.100/24 dev eth0"
        free = "rm /run/group; ip addr del 10.77.1.100/24 dev eth0"
        for host, other in (("h1", "h2"), ("h2", "h1")):
            world.do(host, "sh", "-c", bear)
            borne = {"group": [host], "address": [host]}
            world.wait(lambda b=borne: world.holders() == b, f"{host} bears both")  # type: ignore[misc] # mypy does not infer lambdas with defaults
            world.do(host, "sh", "-c", free)
            world.wait(lambda: not any(world.holders().values()), f"{other} may have it")
        assert [(e["name"], e["host"]) for e in world.happened("came", "group")] == [
            ("group", "h1"),
            ("group", "h2"),
        ]
        assert not world.happened("double copy")
        for host in world.hosts:
            world.do(host, "sh", "-c", bear)
        for mark in ("group", "address"):
            world.wait(lambda m=mark: world.happened("double copy", m), f"two bear the {mark}")  # type: ignore[misc] # mypy does not infer lambdas with defaults
        world.cut_power("h1")
        world.wait(lambda: world.holders()["group"] == ["h2"], "the dead bear nothing")


VICTIM = """
from tests.hosts.test_world import boot
from tests.hosts.world import MANAGER, World
import sys, time
world = World(sys.argv[1], ["h1"]).__enter__()
image = str(world.disks / "shared")
world.do(MANAGER, "truncate", "--size=16M", image)
world.do(MANAGER, "mkfs.ext4", "-q", image)
boot(world, "h1")
world.do("h1", "sh", "-c", f"mkdir -p /mnt/shared && mount -o loop {image} /mnt/shared")
print(world.ground, flush=True)
time.sleep(60)
"""


def test_nothing_is_left_when_a_test_is_killed(name: str) -> None:
    links, mounts = machine()
    words = [sys.executable, "-c", VICTIM, f"{name}_victim"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT) as victim:
        assert victim.stdout is not None
        ground = victim.stdout.readline().strip()
        assert ground.startswith(f"{tempfile.gettempdir()}/{PREFIX}")
        assert machine() == (links, mounts)
        assert of_world(ground)
        victim.kill()
    end = time.monotonic() + 20
    while left := of_world(ground):
        assert time.monotonic() < end, left
        time.sleep(0.02)
    assert Path(ground).exists()
    with World(name):
        assert not Path(ground).exists()
    assert machine() == (links, mounts)


def machine() -> tuple[str, list[str]]:
    """What the machine's own namespaces hold."""
    links = subprocess.check_output(["ip", "-o", "link"], text=True)
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    return links, [line for line in mounts if "halo-hosts" in line]


def of_world(ground: str) -> list[str]:
    """The processes and loop devices of a world."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            text = (process / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if ground in text:
            found.append(text.replace("\0", " "))
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            found += [str(backing)] if ground in backing.read_text() else []
        except OSError:
            continue
    return found
