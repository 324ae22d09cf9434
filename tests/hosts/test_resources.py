"""The distribution's own resource agents, unmodified, through power cuts, with clients at work."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.debian import require
from tests.hosts.bmc import make_bmcs
from tests.hosts.cluster import Group, HostCluster, Part
from tests.hosts.world import CLIENT, MANAGER, World, json_lines

HOSTS = ("h1", "h2")
FLOATING = "10.77.1.100"
NGINX_CONF = """
user root;
worker_processes 1;
pid /run/nginx.pid;
error_log /run/nginx-error.log;
events { worker_connections 64; }
http {
  access_log off;
  client_body_temp_path /run/nginx-body;
  proxy_temp_path /run/nginx-proxy;
  fastcgi_temp_path /run/nginx-fastcgi;
  uwsgi_temp_path /run/nginx-uwsgi;
  scgi_temp_path /run/nginx-scgi;
  server { listen 80; location / { return 200 "$hostname\\n"; } }
}
"""


def fenced_by(kind: str, cluster: HostCluster) -> None:
    """Give the hosts BMCs, and start the cluster."""
    bmcs = make_bmcs(kind, cluster.world, HOSTS)
    for host, bmc in bmcs.items():
        bmc.start()
        cluster.fencing[host] = bmc.device()
    cluster.start()


def floating_ip(address: str = FLOATING) -> Part:
    """The floating address."""
    return Part("ip", "heartbeat/IPaddr2", {"ip": address, "cidr_netmask": "24", "nic": "eth0"})


def talk(world: World, *words: str) -> Path:
    """Start a client of :mod:`tests.hosts.clients`; its log."""
    module = (sys.executable, "-S", "-m", "tests.hosts.clients")
    world.spawn("talk", CLIENT, *module, *words)
    return world.logs / "talk_log"


def neighbour(world: World) -> str:
    """What the client believes is the MAC address of the floating address."""
    return world.do(CLIENT, "ip", "neighbour", "show", FLOATING)


def test_a_floating_address_and_its_web_server_move_under_a_client(name: str) -> None:
    require("nginx-light")
    with HostCluster(name, [], {h: {} for h in HOSTS}) as cluster:
        world = cluster.world
        file = world.ground / "nginx.conf"
        file.write_text(NGINX_CONF)
        parameters = {"configfile": str(file), "port": "80", "status10url": f"http://{FLOATING}/"}
        group = Group([floating_ip(), Part("web", "heartbeat/nginx", parameters)])
        cluster.groups = {group.id: group}
        fenced_by("ipmi", cluster)
        sniffed = world.logs / "sniff_log"
        world.spawn("sniff", CLIENT, sys.executable, "-S", "-m", "tests.hosts.sniff", "eth0")
        world.wait(lambda: json_lines(sniffed), "the sniffer")
        log = talk(world, "web", f"http://{FLOATING}/")
        world.wait(lambda: json_lines(log), "the first answer")
        assert "02:00:00:00:01:0b" in neighbour(world)

        died = world.crash("h1")
        world.wait(lambda: json_lines(log)[-1]["answer"] == "h2", "an answer of h2")
        lines = json_lines(log)
        assert [line["answer"] for line in lines if line["at"] < died][-1] == "h1"
        assert {line["answer"] for line in lines if line["at"] > died + 0.6} == {"h2"}
        # It was told by a gratuitous ARP, and did not have to ask.
        told = [line for line in json_lines(sniffed) if line.get("sender") == FLOATING]
        gratuitous = [line for line in told if line["target"] == FLOATING and line["at"] > died]
        assert gratuitous
        assert gratuitous[0]["mac"] == "02:00:00:00:01:0c"
        assert "02:00:00:00:01:0c" in neighbour(world)

        # And home again, in order: no moment with two of them.
        cluster.bring_back("h1")
        assert cluster.halo("failback", "--onto", "h1", "--wait", "20").code == 0
        world.wait(lambda: json_lines(log)[-1]["answer"] == "h1", "an answer of h1")
        addresses = [world.do(host, "ip", "-o", "addr", "show", "eth0") for host in HOSTS]
        assert [f" {FLOATING}/" in text for text in addresses] == [True, False]


def make_database(world: World, image: Path) -> None:
    """A shared disk with an ext4 file system with a PostgreSQL database in it."""
    image_mount = world.ground / "making"
    image_mount.mkdir()
    pgdata = image_mount / "pgdata"
    world.do(MANAGER, "truncate", "--size=256M", str(image))
    world.do(MANAGER, "mkfs.ext4", "-q", str(image))
    world.do(MANAGER, "mount", "-o", "loop", str(image), str(image_mount))
    world.do(MANAGER, "install", "-d", "-o", "postgres", "-m", "0700", str(pgdata))
    initdb = f"{postgres_programs()}/initdb -D {pgdata} -A trust -E UTF8 --no-sync"
    world.do(MANAGER, "su", "postgres", "-c", initdb, deadline=60)
    files = {
        "postgresql.conf": (
            "listen_addresses = '*'\n"
            "shared_buffers = 16MB\n"
            "unix_socket_directories = '/run/postgresql'\n"
        ),
        "pg_hba.conf": "host all all 10.77.1.0/24 trust\n",
    }
    for file, text in files.items():
        world.do(MANAGER, "sh", "-c", 'printf %s "$1" >> "$2"', "sh", text, str(pgdata / file))
    world.do(MANAGER, "umount", str(image_mount))


def postgres_programs() -> Path:
    """Where Debian has the programs of the newest PostgreSQL."""
    return max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: float(p.parent.name))


def database_group(image: Path) -> Group:
    """Disk, file system, database, floating address."""
    programs = postgres_programs()
    database = {
        "pgctl": f"{programs}/pg_ctl",
        "psql": f"{programs}/psql",
        "pgdata": "/mnt/db/pgdata",
        "pgport": "5432",
        "socketdir": "/run/postgresql",
        "logfile": "/run/postgresql/db.log",
        "start_opt": "-p 5432",
        "pghost": "",
    }
    mount = {"device": str(image), "directory": "/mnt/db", "fstype": "ext4", "options": "loop"}
    return Group(
        [
            Part("disk", "heartbeat/Dummy", {"state": "/run/disk"}),
            Part("filesystem", "heartbeat/Filesystem", mount),
            Part("database", "heartbeat/pgsql", database),
            floating_ip(),
        ]
    )


def test_no_acknowledged_row_is_lost_by_power_cuts(name: str) -> None:
    require("postgresql", "postgresql-client", "kmod", "psmisc")
    with HostCluster(name, [], {h: {} for h in HOSTS}) as cluster:
        world = cluster.world
        image = world.disks / "shared"
        make_database(world, image)
        group = database_group(image)
        cluster.groups = {group.id: group}
        fenced_by("powerman", cluster)
        table = "create table numbered (n int primary key)"
        world.do("h1", "su", "postgres", "-c", f"psql -p 5432 -c '{table}'")
        log = talk(world, "rows", FLOATING)

        def acknowledged(since: float = 0.0) -> list[int]:
            lines = json_lines(log)
            return [line["acknowledged"] for line in lines if line["at"] > since]

        world.wait(lambda: len(acknowledged()) > 20, "rows")
        for active, other in (("h1", "h2"), ("h2", "h1"), ("h1", "h2")):
            died = world.crash(active)
            started = world.wait(
                lambda o=other, at=died: cluster.logged("start", at, resource="disk", host=o),  # type: ignore[misc] # mypy does not infer lambdas with defaults
                f"a start on {other}",
            )
            assert len(started) == 1
            world.wait(lambda at=died: len(acknowledged(at + 1)) > 20, f"rows on {other}")  # type: ignore[misc] # the same
            cluster.bring_back(active)
        world.kill("talk")
        select = world.do("h2", "su", "postgres", "-c", "psql -At -p 5432 -c 'table numbered'")
        found = {int(line) for line in select.split()}
        promised = acknowledged()
        assert len(promised) > 80
        assert not set(promised) - found
        # Stopped in order it is whole, and nothing was ever mounted twice (checked at the end).
        assert cluster.halo("stop", "disk", "--wait", "20").code == 0
        world.do(MANAGER, "e2fsck", "-f", "-n", str(image))
