"""The cluster under chaos: three pairs, of each another kind of services and of BMCs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.debian import require
from tests.hosts.bmc import Bmcs, make_bmcs
from tests.hosts.chaos.schedule import Pair
from tests.hosts.cluster import Group, HostCluster, Part, dummy
from tests.hosts.services import (
    FLOATING,
    database_group,
    file_system,
    floating_ip,
    make_database,
    make_disk,
    make_table,
    talk,
    web_server,
)
from tests.hosts.world import json_lines

WEB_ADDRESS = "10.77.1.101"
ROW_PAUSE_S = "0.02"

PAIRS = (
    Pair(("h1", "h2"), {"disk": ("database", "database", "ip", "disk")}),
    Pair(("h3", "h4"), {"front": ("front-web", "front-web", "front-ip", "front")}),
    Pair(("h5", "h6"), {"files": ("files-system", "files"), "plain": ("plain",)}),
)
BMC_KINDS = ("powerman", "ipmi", "redfish")

CRASHES: Mapping[str, str] = {
    "database": "pkill -9 postgres",
    "ip": f"ip addr del {FLOATING}/24 dev eth0",
    "disk": "rm /run/disk",
    "front-web": "pkill -9 nginx",
    "front-ip": f"ip addr del {WEB_ADDRESS}/24 dev eth0",
    "front": "rm /run/front",
    "files-system": "umount /mnt/files",
    "files": "rm /run/files",
    "plain": "rm /run/dummy-plain",
}
"""What kills the service of a resource on its host, behind the manager's back."""

SETTINGS: Mapping[str, Any] = {
    "loss_budget": 3,  # the defaults of what decides about fences
    "heartbeat_interval": 1,
    "connect_timeout": 2,
    "restart_grace": 10,
    "power_proof_age": 10,
    "monitor_interval": 3,
    "watch_interval": 3,  # two slow cores run the scripts of six hosts
    "survey_interval": 10,
    "fence_timeout": 10,
    "fence_retry_min": 1,
    "fence_retry_max": 5,
    "fence_limit": 10000,  # chaos is not the rare thing that these bounds expect
    "restart_limit": 10000,
    "storm_window": 15,
}


class Site:
    """All of it: the cluster, its BMCs, its clients."""

    def __init__(self, name: str) -> None:
        hosts = [host for pair in PAIRS for host in pair.hosts]
        self.cluster = HostCluster(name, [], {host: {} for host in hosts}, settings=SETTINGS)
        self.world = self.cluster.world
        self.bmcs: Bmcs = {}
        self.images = [self.world.disks / "database", self.world.disks / "files"]

    @property
    def rows_log(self) -> Path:
        """What the client of the database was told."""
        return self.world.logs / "rows_log"

    @property
    def web_log(self) -> Path:
        """What the client of the web server was told."""
        return self.world.logs / "web_log"

    @property
    def homes(self) -> dict[str, str]:
        """The home of each group."""
        return {group.id: group.home for group in self.cluster.groups.values()}

    def partner(self, host: str) -> str:
        """The other one of its pair."""
        (pair,) = [pair.hosts for pair in PAIRS if host in pair.hosts]
        return pair[1 - pair.index(host)]

    def start(self) -> None:
        """Boot it all, and return when everything is at home and the clients are served."""
        require("postgresql", "postgresql-client", "nginx-light", "kmod", "psmisc", "procps")
        self._make_groups()
        bmcs: dict[str, Any] = {}
        for kind, pair in zip(BMC_KINDS, PAIRS, strict=True):
            bmcs |= make_bmcs(kind, self.world, pair.hosts)
        self.bmcs = bmcs
        for bmc in bmcs.values():
            bmc.boot()
        for host, bmc in bmcs.items():
            self.world.wait(bmc.answers, f"{bmc.name} answers")
            self.cluster.fencing[host] = bmc.device()
        for group in self.cluster.groups.values():
            self.world.mark(group.id, path=group.parts[0].parameters["state"])
        for address in (FLOATING, WEB_ADDRESS):
            self.world.mark(address, address=address)
        self.cluster.start(settled=False)
        self.cluster.until({g: f"Running on {home}" for g, home in self.homes.items()}, 90)
        make_table(self.world, self.homes["disk"])
        talk(self.world, "rows", FLOATING, ROW_PAUSE_S, name="rows")
        talk(self.world, "web", f"http://{WEB_ADDRESS}/", name="web")
        for log in (self.rows_log, self.web_log):
            self.world.wait(lambda log=log: json_lines(log), f"the first line of {log.name}")  # type: ignore[misc] # mypy does not infer lambdas with defaults

    def _make_groups(self) -> None:
        database, files = self.images
        make_database(self.world, database)
        make_disk(self.world, files, "32M")
        front = [
            Part("front", "heartbeat/Dummy", {"state": "/run/front"}),
            floating_ip(WEB_ADDRESS, "front-ip"),
            web_server(self.world, WEB_ADDRESS, "front-web"),
        ]
        store = [
            Part("files", "heartbeat/Dummy", {"state": "/run/files"}),
            file_system(files, "/mnt/files", "files-system"),
        ]
        groups = [
            database_group(database),
            Group(front, "h3", ["h4"]),
            Group(store, "h5", ["h6"]),
            dummy("plain", "h6", ["h5"]),
        ]
        self.cluster.groups = {group.id: group for group in groups}
