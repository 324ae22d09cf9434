"""A whole cluster on hosts that can lose power: the manager, its config, and what it says.

    with HostCluster("name", fences(device), groups) as cluster:
        cluster.start()
        cluster.world.crash("h1")
        cluster.until(g1="Running (Failed Over) on h2")

The checks that hold in every test are made by :meth:`HostCluster.check`, which leaving the block
without an error calls: no disk was ever mounted twice, every group's token has a holder, and no
log tells of a defect.
"""

from __future__ import annotations

import http.client
import json
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import yaml

from tests.hosts.world import DEADLINE_S, MANAGER, Ran, World, json_lines
from tests.unix_http import get

Status = dict[str, Any]

SHORT_SETTINGS: Mapping[str, Any] = {
    "loss_budget": 1,
    "heartbeat_interval": 0.25,
    "connect_timeout": 2,
    "reconnect_interval": 0.2,
    "monitor_interval": 1,
    "survey_interval": 2,
    "fence_timeout": 20,
    "fence_retry_min": 0.5,
    "fence_retry_max": 1,
    "fence_limit": 100,
    "restart_grace": 1,
    "restart_limit": 50,
}
"""Timings for tests: short, yet nothing that two slow cores cannot keep."""

_STATUS_POLL_S = 0.05  # a status costs the manager and the test some milliseconds each
_DEFECTS = (
    "invariant",
    "traceback (most recent call last)",
    "was never awaited",
    "was never retrieved",
    "double mount",
    "double copy",
)


@dataclass(frozen=True)
class Part:
    """One resource of a group: the config's keys for it."""

    name: str
    kind: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """A chain of resources, each dependent on the one before it."""

    parts: Sequence[Part]
    home: str = "h1"
    failover: Sequence[str] = ("h2",)

    @property
    def id(self) -> str:
        return self.parts[0].name

    def resources(self) -> list[dict[str, Any]]:
        """Their entries in the config."""
        entries = []
        for number, part in enumerate(self.parts):
            entry = {"name": part.name, "kind": part.kind, "parameters": dict(part.parameters)}
            if number + 1 < len(self.parts):
                entry["dependents"] = [self.parts[number + 1].name]
            entries.append({**entry, **part.options})
        return entries

    def entry(self) -> dict[str, Any]:
        """Its entry in the config."""
        return {
            "root": self.id,
            "home_host": self.home,
            "failover_hosts": list(self.failover),
        }


def dummy(name: str, home: str = "h1", failover: Sequence[str] = ("h2",)) -> Group:
    """A group of one `heartbeat/Dummy`: a file that lies in its host's /run."""
    part = Part(name, "heartbeat/Dummy", {"state": f"/run/dummy-{name}"})
    return Group([part], home, failover)


class HostCluster:
    """A world with a manager. Verbs that wait raise AssertionError at their deadline, with logs."""

    def __init__(
        self,
        name: str,
        groups: Sequence[Group],
        fencing: Mapping[str, Mapping[str, Any]],
        *,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """`fencing` gives the config's keys for each host: `fence_agent`, `fence_levels`, ..."""
        self.world = World(name, list(fencing))
        self.groups = {group.id: group for group in groups}
        self.fencing = dict(fencing)
        self.settings = {**SHORT_SETTINGS, **(settings or {})}
        self.config = self.world.logs / "config.yaml"
        self.socket = self.world.ground / "halo.socket"
        self.manager_log = self.world.logs / "manager_log"
        self.allowed_defects: list[str] = []
        """Words that may stand in a log line that would otherwise fail the test."""

    def __enter__(self) -> Self:
        self.world.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self.check()
        finally:
            self.world.close()

    # --- start ---------------------------------------------------------------------------------

    def start(self, *, settled: bool = True) -> None:
        """Boot all hosts, start the manager; with `settled`, wait until all groups are at home."""
        for host in self.world.hosts:
            self.world.power_on(host)
        self.start_manager()
        if settled:
            self.until({g.id: f"Running on {g.home}" for g in self.groups.values()})

    def write_config(self) -> None:
        """Write the config anew, after a change of `settings`, `groups` or `fencing`."""
        config = {
            "settings": dict(self.settings),
            "hosts": [{"hostname": host, **keys} for host, keys in self.fencing.items()],
            "resources": [entry for g in self.groups.values() for entry in g.resources()],
            "resource_groups": [group.entry() for group in self.groups.values()],
        }
        self.config.write_text(yaml.safe_dump(config, sort_keys=False))
        self.config.chmod(0o600)

    def start_manager(self) -> None:
        """Start the manager in its own node; :meth:`until` waits for it."""
        self.write_config()
        self.world.spawn(
            "manager",
            MANAGER,
            *("halo_manager", "--config", str(self.config), "--socket", str(self.socket)),
            *("--statefile", str(self.world.logs / "halo.state"), "--manage-resources"),
            *("--log-format", "json"),
        )

    def kill_manager(self) -> float:
        """Kill the manager without a warning; the time of day of it."""
        return self.world.kill("manager")

    # --- what the manager says -----------------------------------------------------------------

    def status(self) -> Status:
        """The manager's status; empty while there is no manager."""
        try:
            status: Status = json.loads(get(str(self.socket), "/v1/status"))
        except (OSError, ValueError, RuntimeError, http.client.HTTPException):
            return {}
        return status

    def host(self, host: str) -> Status:
        """The status of one host."""
        return _by_id(self.status(), "hosts", host)

    def group(self, group: str) -> Status:
        """The status of one group."""
        return _by_id(self.status(), "groups", group)

    def halo(self, *arguments: str, deadline: float = DEADLINE_S) -> Ran:
        """Run the `halo` command beside the manager."""
        where = ("--config", str(self.config), "--socket", str(self.socket))
        return self.world.run(MANAGER, "halo", *where, *arguments, deadline=deadline)

    def until(
        self, wanted: Mapping[str, str] | None = None, deadline: float = DEADLINE_S, **more: str
    ) -> Status:
        """Wait until groups are as told: `g1="Running (Failed Over) on h2"`, or `g1="Stopped"`."""
        told = {**(wanted or {}), **more}

        def shows(status: Status) -> bool:
            found = {g: _by_id(status, "groups", g) for g in told}
            return all(
                told[g] in (item.get("status"), f"{item.get('status')} on {item.get('host')}")
                for g, item in found.items()
            )

        return self.until_status(shows, f"groups are {told}", deadline)

    def until_host(self, host: str, deadline: float = DEADLINE_S, **wanted: Any) -> Status:
        """Wait until a host's fields are as told: `connected=True, fenced=False`."""

        def shows(status: Status) -> bool:
            found = _by_id(status, "hosts", host)
            return all(found.get(key) == value for key, value in wanted.items())

        return self.until_status(shows, f"{host} is {wanted}", deadline)

    def until_status(
        self, shows: Callable[[Status], bool], what: str, deadline: float = DEADLINE_S
    ) -> Status:
        """Wait until the manager answers with a status for which `shows` holds."""
        last: Status = {}

        def look() -> Status | None:
            nonlocal last
            last = self.status()
            return last if last and shows(last) else None

        try:
            return self.world.wait(look, what, deadline, _STATUS_POLL_S)
        except AssertionError as error:
            raise AssertionError(f"{error}\n\n{json.dumps(last, indent=1)[:6000]}") from None

    def logged(self, event: str, since: float = 0.0, **fields: Any) -> list[dict[str, Any]]:
        """Lines of the manager's log of that event with these fields, in order."""
        return [
            line
            for line in json_lines(self.manager_log)
            if line.get("event") == event
            and line["timestamp"] >= _stamp(since)
            and all(line.get(key) == value for key, value in fields.items())
        ]

    # --- getting a host back -------------------------------------------------------------------

    def bring_back(self, host: str) -> None:
        """Power on, wait for the agent, and reset: all that an operator does after a fence."""
        self.world.power_on(host)
        self.until_host(host, connected=True)
        assert self.halo("reset", host, "--reason", "mended").code == 0
        self.until_host(host, fenced=False)

    # --- the end -------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise AssertionError for every rule that was broken."""
        problems = self.doubles()
        if self.world.runs("manager"):
            holders = {g["id"]: g.get("token") for g in self.status().get("groups", ())}
            problems += [
                f"nobody holds the token of {g}" for g in self.groups if not holders.get(g)
            ]
            self.world.signal("manager", signal.SIGTERM)
            if self.world.runs("manager"):
                problems.append("the manager does not end on SIGTERM")
        problems += self.defects()
        if problems:
            raise AssertionError(self.world.report("\n".join(problems)))

    def doubles(self) -> list[str]:
        """Everything that was on two hosts at once."""
        watched = {"double mount": "mounted twice", "double copy": "on two hosts"}
        return [
            f"{words}: {line}"
            for what, words in watched.items()
            for line in self.world.happened(what)
        ]

    def defects(self) -> list[str]:
        """Lines of logs that tell of a defect of ours."""
        found = []
        for log in sorted(self.world.logs.glob("*_log")):
            if not log.name.startswith(("agent", "manager", "console", "mains", "world")):
                continue  # simulators may be as untidy as they like
            for line in log.read_text(errors="replace").splitlines():
                lower = line.lower()
                if any(word in lower for word in _DEFECTS) and not any(
                    allowed in line for allowed in self.allowed_defects
                ):
                    found.append(f"{log.name}: {line}")
        return found


def _by_id(status: Status, key: str, wanted: str) -> Status:
    for item in status.get(key, ()):
        if item["id"] == wanted:
            return dict(item)
    return {}


def _stamp(seconds: float) -> str:
    """A time of day as the manager's log has it."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


__all__ = ["MANAGER", "Group", "HostCluster", "Part", "Status", "dummy"]
