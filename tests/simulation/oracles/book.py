"""The journal folded a second time: what a manager that reads it has to remember.

It is written from the documents, and shares no code with `halo.core.journal`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

NOT_SHOWN = frozenset(
    {
        "connect", "disconnect", "reconnect", "suspect", "answers", "not-off", "fence-intent",
        "at-rest", "config", "seen-stopped", "may-run", "snapshot",
    }
)  # fmt: skip
"""The manager's own notes, which no operator is shown."""

LIFECYCLE = {
    "connect": "ready",
    "answers": "ready",
    "suspect": "suspect",
    "disconnect": "disconnected",
    "reconnect": "reconnecting",
    "fence": "fenced",
    "fence-failed": "fence-failed",
}


@dataclass
class HostPage:
    """What the journal says of one host."""

    active: bool = True
    fenced: bool = False
    off: bool = False  # a confirmed fence, and no sign of life since
    level: int | None = None
    intent: bool = False
    cancelled: bool = False
    connected: bool = False
    seen: bool = False
    rebooted: bool = False
    owes_power: bool = False
    distrusted: str | None = None
    boot: str = ""
    lifecycle: str = "unseen"
    since: float = 0.0
    reason: str = ""
    away: bool = False


@dataclass
class GroupPage:
    """What the journal says of one group."""

    managed: bool = True
    wanted: bool = True
    target: str | None = None
    error: str | None = None
    kind: str | None = None
    start_failures: dict[str, str] = field(default_factory=dict)
    # (host, resource) -> the event that said so, its text, and the number of the record
    left_alone: dict[tuple[str, str], tuple[str, str, int]] = field(default_factory=dict)
    at_rest: bool = False
    comment: str = ""
    former: dict[str, str] = field(default_factory=dict)  # hosts where it may run besides


class Book:
    """The fold of all records on the disk."""

    def __init__(self) -> None:
        self.hosts: dict[str, HostPage] = {}
        self.groups: dict[str, GroupPage] = {}
        self.configured: dict[str, list[str]] = {}  # the candidates of each group
        self.frozen: str | None = None
        self.events: list[tuple[str, str, str]] = []  # event, object, comment: as shown
        self.records = 0

    def host(self, name: str) -> HostPage:
        """The page of one host."""
        return self.hosts.setdefault(name, HostPage())

    def group(self, name: str) -> GroupPage:
        """The page of one group."""
        return self.groups.setdefault(name, GroupPage())

    def elsewhere(self) -> list[str]:
        """The groups that may run on other hosts than their candidates, or under another name."""
        return [name for name, page in self.groups.items() if page.former]

    def take(self, raw: dict[str, Any]) -> None:
        """Fold one record in."""
        self.records += 1
        event, name = raw["event"], raw["object"]
        if event == "snapshot":
            self._snapshot(raw["data"])
            return
        handler = getattr(self, f"_{event.replace('-', '_')}", None)
        if handler is not None:
            handler(name, raw["comment"], raw["data"] or {})
        if event in LIFECYCLE:
            self._lifecycle(event, name, raw)
        if event not in NOT_SHOWN:
            shown = "clear" if event == "clear-events" else event
            self.events.append((shown, name, raw["comment"]))

    def _lifecycle(self, event: str, name: str, raw: dict[str, Any]) -> None:
        page = self.host(name)
        page.lifecycle, page.since, page.reason = LIFECYCLE[event], raw["at"], raw["comment"]
        if page.lifecycle == "ready":
            page.away = False
        elif event in ("disconnect", "fence"):
            page.away = page.seen

    # --- hosts -------------------------------------------------------------------------------

    def _activate(self, name: str, comment: str, data: dict[str, Any]) -> None:
        self.host(name).active = True

    def _deactivate(self, name: str, comment: str, data: dict[str, Any]) -> None:
        self.host(name).active = False

    def _connect(self, name: str, comment: str, data: dict[str, Any]) -> None:
        page = self.host(name)
        page.connected = page.seen = True
        page.boot = data.get("boot_id") or page.boot
        page.off = page.intent = page.cancelled = page.owes_power = False

    def _disconnect(self, name: str, comment: str, data: dict[str, Any]) -> None:
        self.host(name).connected = False

    def _reconnect(self, name: str, comment: str, data: dict[str, Any]) -> None:
        self.host(name).off = False

    _not_off = _reconnect

    def _fence_intent(self, name: str, comment: str, data: dict[str, Any]) -> None:
        page = self.host(name)
        page.intent, page.cancelled = True, False

    def _fence(self, name: str, comment: str, data: dict[str, Any]) -> None:
        page = self.host(name)
        page.fenced = page.off = True
        page.intent = page.connected = page.cancelled = False
        page.level = data.get("level")
        page.owes_power = bool(data.get("reboot"))
        for group in self.groups.values():
            for key in [key for key in group.left_alone if key[0] == name]:
                del group.left_alone[key]

    def _fence_failed(self, name: str, comment: str, data: dict[str, Any]) -> None:
        self.host(name).intent = False

    def _fence_cancel(self, name: str, comment: str, data: dict[str, Any]) -> None:
        page = self.host(name)
        page.intent, page.cancelled = False, not (page.connected or page.off)

    def _reset(self, name: str, comment: str, data: dict[str, Any]) -> None:
        page = self.host(name)
        page.fenced = page.rebooted = page.cancelled = False
        page.distrusted, page.seen = None, page.connected

    def _power_on(self, name: str, comment: str, data: dict[str, Any]) -> None:
        page = self.host(name)
        page.off = page.owes_power = False
        page.rebooted = page.rebooted or bool(data.get("policy"))

    def _distrust(self, name: str, comment: str, data: dict[str, Any]) -> None:
        page = self.host(name)
        page.distrusted, page.off = comment, False

    # --- groups ------------------------------------------------------------------------------

    def _manage(self, name: str, comment: str, data: dict[str, Any]) -> None:
        page = self.group(name)
        page.managed, page.comment, page.at_rest = True, comment, False

    def _unmanage(self, name: str, comment: str, data: dict[str, Any]) -> None:
        page = self.group(name)
        page.managed, page.comment, page.at_rest = False, comment, False

    def _start(self, name: str, comment: str, data: dict[str, Any]) -> None:
        page = self.group(name)
        page.wanted, page.target, page.at_rest = True, None, False

    def _stop(self, name: str, comment: str, data: dict[str, Any]) -> None:
        page = self.group(name)
        page.wanted, page.target, page.at_rest = False, None, False

    def _move(self, name: str, comment: str, data: dict[str, Any]) -> None:
        self.group(name).target = data["to"]

    def _moved(self, name: str, comment: str, data: dict[str, Any]) -> None:
        page = self.group(name)
        if data.get("host", page.target) == page.target:  # else a command named another one
            page.target = None

    _move_failed = _moved

    def _at_rest(self, name: str, comment: str, data: dict[str, Any]) -> None:
        page = self.group(name)
        page.at_rest = bool(data.get("known")) and page.managed and not page.wanted

    def _error(self, name: str, comment: str, data: dict[str, Any]) -> None:
        page = self.group(name)
        page.error, page.kind = comment, data["kind"]
        self._leave_alone(page, "error", comment, data)

    def _start_failed(self, name: str, comment: str, data: dict[str, Any]) -> None:
        page = self.group(name)
        page.start_failures[data["host"]] = comment
        self._leave_alone(page, "start-failed", comment, data)

    def _leave_alone(self, page: GroupPage, event: str, text: str, data: dict[str, Any]) -> None:
        if data.get("resource"):
            page.left_alone[data["host"], data["resource"]] = (event, text, self.records)

    def _cleanup(self, name: str, comment: str, data: dict[str, Any]) -> None:
        page = self.group(name)
        page.error = page.kind = None
        page.start_failures, page.left_alone, page.at_rest = {}, {}, False

    def _seen_stopped(self, name: str, comment: str, data: dict[str, Any]) -> None:
        for group, hosts in data["on"].items():
            for host in hosts:
                self.group(group).former.pop(host, None)

    def _may_run(self, name: str, comment: str, data: dict[str, Any]) -> None:
        for group, hosts in data["on"].items():
            page, candidates = self.group(group), self.configured.get(group)
            page.at_rest = False
            for host in hosts:
                if candidates is not None and host not in candidates:
                    page.former.setdefault(host, group)

    def _confirm_stopped(self, name: str, comment: str, data: dict[str, Any]) -> None:
        self.group(name).former.pop(data["host"], None)

    def _config(self, name: str, comment: str, data: dict[str, Any]) -> None:
        for group in data.get("gone", ()):
            self.group(group).former = {}
            self.configured.pop(group, None)
        self.configured.update(data.get("groups", {}))
        for group, hosts in data.get("former", {}).items():
            self.group(group).former = dict(hosts)
        for group in data.get("unsettled", ()):
            self.group(group).at_rest = False
        for group, orders in data.get("orders", {}).items():
            page = self.group(group)
            if "managed" in orders:
                page.managed, page.comment = orders["managed"], orders["comment"]
            page.wanted = orders.get("wanted", page.wanted)
            if "error" in orders:
                page.error, page.kind = orders["error"], "second-copy"

    # --- the cluster -------------------------------------------------------------------------

    def _freeze(self, name: str, comment: str, data: dict[str, Any]) -> None:
        self.frozen = comment or "no reason given"

    def _thaw(self, name: str, comment: str, data: dict[str, Any]) -> None:
        self.frozen = None

    def _snapshot(self, data: dict[str, Any]) -> None:
        """Take over what a snapshot says, where it says what this fold did not see."""
        for name, raw in data["hosts"].items():
            page = self.host(name)
            page.active, page.fenced, page.seen = raw["active"], raw["fenced"], raw["seen"]
            page.off, page.level = raw["powered_off"], raw["off_level"]
            page.intent, page.cancelled = raw["fence_intent"] is not None, raw["fence_cancelled"]
            page.connected, page.rebooted = raw["connected"], raw["rebooted"]
            page.owes_power, page.distrusted = raw["reboot_owed"], raw["distrusted"]
            page.boot = raw["boot_id"]
        for name, raw in data["groups"].items():
            self._restore_group(self.group(name), raw)
        for name, raw in data["lifecycles"].items():
            page = self.host(name)
            page.lifecycle, page.since = raw["state"], raw["at"]
            page.reason, page.away = raw["reason"], raw["away"]
        self.frozen, self.configured = data["frozen"], dict(data["configured"])
        self.events = [
            ("clear" if e["event"] == "clear-events" else e["event"], e["object"], e["comment"])
            for e in data["events"]
        ]

    def _restore_group(self, page: GroupPage, raw: dict[str, Any]) -> None:
        page.managed, page.wanted, page.target = raw["managed"], raw["wanted"], raw["move_target"]
        page.error, page.kind = raw["error"], raw["error_kind"]
        page.start_failures, page.at_rest = dict(raw["start_failures"]), raw["at_rest"]
        page.comment, page.former = raw["comment"], dict(raw["former"])
        before = page.left_alone
        page.left_alone = {
            (host, resource): before.get((host, resource), ("error", text, self.records))
            for host, resources in raw["left_alone"].items()
            for resource, text in resources.items()
        }
