"""Services of test hosts, made of the distribution's own resource agents, and who uses them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tests.hosts.cluster import Group, Part
from tests.hosts.world import CLIENT, MANAGER, World

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


def floating_ip(address: str = FLOATING, name: str = "ip") -> Part:
    """A floating address."""
    return Part(name, "heartbeat/IPaddr2", {"ip": address, "cidr_netmask": "24", "nic": "eth0"})


def web_server(world: World, address: str = FLOATING, name: str = "web") -> Part:
    """An nginx that answers with the name of its host."""
    file = world.ground / "nginx.conf"
    file.write_text(NGINX_CONF)
    parameters = {"configfile": str(file), "port": "80", "status10url": f"http://{address}/"}
    return Part(name, "heartbeat/nginx", parameters)


def file_system(image: Path, directory: str, name: str = "filesystem") -> Part:
    """An ext4 file system on a disk that two hosts share."""
    mount = {"device": str(image), "directory": directory, "fstype": "ext4", "options": "loop"}
    return Part(name, "heartbeat/Filesystem", mount)


def talk(world: World, *words: str, name: str = "talk") -> Path:
    """Start a client of :mod:`tests.hosts.clients`; its log."""
    module = (sys.executable, "-S", "-m", "tests.hosts.clients")
    world.spawn(name, CLIENT, *module, *words)
    return world.logs / f"{name}_log"


def make_disk(world: World, image: Path, size: str) -> None:
    """A shared disk with an empty ext4 file system."""
    world.do(MANAGER, "truncate", f"--size={size}", str(image))
    world.do(MANAGER, "mkfs.ext4", "-q", str(image))


def make_database(world: World, image: Path) -> None:
    """A shared disk with an ext4 file system with a PostgreSQL database in it."""
    image_mount = world.ground / "making"
    image_mount.mkdir()
    pgdata = image_mount / "pgdata"
    make_disk(world, image, "256M")
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
    return Group(
        [
            Part("disk", "heartbeat/Dummy", {"state": "/run/disk"}),
            file_system(image, "/mnt/db"),
            Part("database", "heartbeat/pgsql", database),
            floating_ip(),
        ]
    )


def psql(world: World, host: str, query: str) -> str:
    """What the database of a host answers."""
    return world.do(host, "su", "postgres", "-c", f"psql -At -p 5432 -c '{query}'")


def make_table(world: World, host: str) -> None:
    """The table that the client `rows` writes to."""
    psql(world, host, "create table numbered (n int primary key)")


def rows_found(world: World, host: str) -> set[int]:
    """The rows that are in it."""
    return {int(line) for line in psql(world, host, "table numbered").split()}


def rows_acknowledged(lines: Sequence[dict[str, float]], since: float = 0.0) -> list[int]:
    """The rows that the client was told are committed, of the lines of its log."""
    return [int(line["acknowledged"]) for line in lines if line["at"] > since]
