"""What a status shows of hosts and resources is what crossed the ports last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from halo.core.model import Operation
from tests.simulation.oracles.facts import Facts

if TYPE_CHECKING:
    from tests.simulation.hosts import SimCall
    from tests.simulation.oracle import HostWatch
    from tests.simulation.world import World

RULE = "shown"
NEWS_S = 0.1
"""What was learnt within this may not have been taken in yet."""

LATE_S = 1.5
"""A loop that was busy with steps of the world makes a heartbeat or an attempt so late."""

PRESENT = (0, 8, 190, 191)
NOT_PROBED = ("not probed yet", "being probed again")


class ShownOracle:
    """Compares a status with the second book of what crossed the ports."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.clock = world.clock
        self.settings = world.cluster.settings
        self.changed_at: dict[str, float] = {}  # when a host was last connected or disconnected
        # When an attempt failed, but not by silence, or a fence ended: it is asked again after it.
        self.excused_at: dict[str, float] = {}
        self.dropped_at: dict[str, float] = {}  # groups that are to be probed again, and when
        # By host and resource: how many are under way (a shared one has several), and the last.
        self.under_way: dict[str, dict[str, tuple[int, Operation]]] = {
            host: {} for host in world.cluster.hosts
        }
        self.beat_s = min(self.settings.heartbeat_interval_s, self.settings.loss_budget_s / 3)
        self.attempt_s = min(self.settings.connect_timeout_s, self.settings.loss_budget_s / 2)

    # --- what happens ------------------------------------------------------------------------

    def begin(self) -> None:
        """A new life of the manager: it knows nothing of resources."""
        self.dropped_at.clear()
        self.changed_at.clear()
        self.excused_at.clear()
        for calls in self.under_way.values():
            calls.clear()

    def dropped(self, groups: list[str]) -> None:
        """What was known of these groups does not count any more."""
        for group in groups:
            self.dropped_at[group] = self.clock.now

    def sent(self, call: SimCall) -> None:
        """A start or stop leaves the manager."""
        calls, name = self.under_way[call.connection.host.id], call.resource.id
        calls[name] = (calls.get(name, (0, call.operation))[0] + 1, call.operation)

    def answered(self, call: SimCall) -> None:
        """Its answer arrives, or its deadline is over."""
        calls, name = self.under_way[call.connection.host.id], call.resource.id
        count, last = calls.pop(name, (0, call.operation))
        if count > 1:
            calls[name] = (count - 1, last)

    def connected(self, host: str) -> None:
        """Over a new connection nothing is under way."""
        self.under_way[host].clear()
        self.disconnected(host)

    def disconnected(self, host: str) -> None:
        """A connection ended."""
        self.changed_at[host] = self.clock.now

    # --- a status ----------------------------------------------------------------------------

    def check(self, facts: Facts) -> None:
        """Compare one status, taken now, while the manager rests."""
        watches = self.world.oracle.hosts
        mode = "observe" if self.world.oracle.observe_only else "manage"
        if facts.manager["mode"] != mode:
            self._wrong("the manager", "mode", facts.manager["mode"], mode)
        for host in facts.status["hosts"]:
            self._host(host, watches[host["id"]])
        for row in facts.status["resources"]:
            if not row["shared"]:
                for host, at in row["candidates"].items():
                    self._resource(row, host, at, facts)
        for group in facts.status["groups"]:
            self._under_way(group, facts)

    def _is_being_fenced(self, host: str) -> bool:
        return self.world.oracles.is_being_fenced(host)

    # --- hosts -------------------------------------------------------------------------------

    def _host(self, shown: dict[str, Any], watch: HostWatch) -> None:
        name, fencing = shown["id"], self._is_being_fenced(shown["id"])
        if (shown["state"] == "fencing") != fencing:
            self._wrong(name, "state", shown["state"], f"a fence under way: {fencing}")
        config = self.world.cluster.hosts[name]
        agents = [device.agent for level in config.fence_levels for device in level]
        if shown["fence_agents"] != agents:
            self._wrong(name, "fence_agents", shown["fence_agents"], agents)
        if fencing:
            return  # it is probed over connections of its own
        stands = watch.connection is not None
        if shown["connected"] != stands:
            self._wrong(name, "connected", shown["connected"], stands)
            return
        changed_at = self.changed_at.get(name, float("-inf"))
        age = self.world.wall.now() - shown["since"]
        is_known = changed_at > self.world.oracle.fresh_at and not self.world.was_away(changed_at)
        if is_known and abs(self.clock.now - changed_at - age) > 0.3:
            self._wrong(name, "since", f"{age:.3f} s", f"{self.clock.now - changed_at:.3f} s")
        if stands:
            self._connected_host(shown, watch)
        else:
            self._lost_host(shown, watch)
        self._host_comment(shown)

    def _connected_host(self, shown: dict[str, Any], watch: HostWatch) -> None:
        name, legacy = shown["id"], self.world.oracle.is_legacy(shown["id"])
        if shown["legacy"] != legacy:
            self._wrong(name, "legacy", shown["legacy"], legacy)
        if shown["state"] not in ("connected", "suspect"):
            self._wrong(name, "state", shown["state"], "connected")
        silent_s = self.clock.now - max(watch.beat_at, watch.connection.opened_at)  # type: ignore[union-attr]  # it stands
        page = self.world.oracles.memory.book.host(name)
        if shown["state"] == "suspect":
            if silent_s < 1.4 * self.beat_s:
                self._wrong(name, "state", "suspect", f"it answered {silent_s:.2f} s ago")
        elif (
            not legacy
            and page.seen
            and page.active
            and self.clock.now - self._awake_at() > silent_s
            and silent_s > 2.5 * self.beat_s + LATE_S
        ):
            self._wrong(name, "state", shown["state"], f"it did not answer for {silent_s:.2f} s")

    def _awake_at(self) -> float:
        """When the present manager began, or last woke."""
        absences = self.world.absences
        return max(self.world.oracle.fresh_at, absences[-1][1] if absences else 0.0)

    def _lost_host(self, shown: dict[str, Any], watch: HostWatch) -> None:
        name, state = shown["id"], shown["state"]
        oracle, budget_s = self.world.oracle, self.settings.loss_budget_s
        since = oracle.silent_since(name)
        if oracle.is_legacy(name):  # it gives no signs: silent from when it was lost
            since = max(since, watch.ended_at)
        silent_s = self.clock.now - since
        memory = self.world.oracles.memory
        closed = self.settings.fence_on_connection_close and watch.closed_at > float("-inf")
        lost_s = max(silent_s, self.clock.now - oracle.fences.fell_silent_at(name))
        was_fenced = memory.book.host(name).lifecycle == "fenced"  # the verdict is of before
        if state == "lost" and not was_fenced and lost_s < budget_s - 0.001 and not closed:
            self._wrong(name, "state", state, f"it was silent for {lost_s:.2f} s")
        if state == "fenced" and memory.is_settled and not memory.book.host(name).off:
            self._wrong(name, "state", state, "no fence of it was confirmed")
        if state == "connected":
            self._wrong(name, "state", state, "it is not connected")
        patience_s = budget_s + self.attempt_s + LATE_S + self.settings.reconnect_interval_s
        if watch.heard_at == float("-inf"):
            patience_s += self.settings.restart_grace_s
        excused_at = max(self._awake_at(), self.excused_at.get(name, float("-inf")))
        unheard_s = min(silent_s, self.clock.now - excused_at)
        if state == "disconnected" and unheard_s > patience_s and not (closed or was_fenced):
            self._wrong(name, "state", state, f"it was silent for {unheard_s:.2f} s")

    def _host_comment(self, shown: dict[str, Any]) -> None:
        comment, name = shown["comment"] or "", shown["id"]
        distrusted = self.world.oracles.memory.book.host(name).distrusted
        says_so = "fence device not trusted" in comment
        is_wrong = says_so == shown["fence_trusted"] or (distrusted or "") not in comment
        if is_wrong and self.world.oracles.memory.is_settled:
            self._wrong(name, "comment", comment, f"distrusted: {distrusted}")
        failed = "fencing failed" in comment or "fencing" in (shown["fence_held"] or "")
        if shown["state"] == "fence failed" and not failed:
            self._wrong(name, "comment", comment, "fencing failed")
        if "fencing failed:" in comment and shown["state"] != "fence failed":
            self._wrong(name, "comment", comment, "no failed fence")
        held = shown["fence_held"] if not shown["connected"] else None
        if bool(held) != ("not fenced: " in comment) or (held or "") not in comment:
            self._wrong(name, "comment", comment, f"held: {held}")

    # --- resources ---------------------------------------------------------------------------

    def _resource(self, row: dict[str, Any], host: str, at: dict[str, Any], facts: Facts) -> None:
        name, status, watch = row["id"], at["status"], self.world.oracle.hosts[host]
        if self._is_being_fenced(host):
            return
        if watch.connection is None:
            may_be_off = facts.is_proven_off(host) is not False
            if status == "Running" or (status == "Stopped" and not may_be_off):
                self._wrong(f"{name} on {host}", "status", at, "nothing is known there")
            return
        if not facts.is_ready(host):
            if status in ("Running", "Stopped"):
                self._wrong(f"{name} on {host}", "status", at, "its host has not answered yet")
            return
        code = self._code(row["group"], name, host, watch)
        if code is None:
            return
        expected = ("Running",) if code in PRESENT else ("Stopped", "Error") if code == 7 else (
            "Error", "Unknown")  # fmt: skip
        if status not in expected:
            self._wrong(f"{name} on {host}", "status", at, f"it answered {code}")

    def _code(self, group: str, name: str, host: str, watch: HostWatch) -> int | None:
        """The last word about a resource; None where nobody can tell which word is the last."""
        word, reported = watch.words.get(name), watch.reported.get(name)
        shown = watch.shown.get(name)
        if name in self.under_way[host] or shown is None or word is None:
            return None
        if word.sent_at <= self.dropped_at.get(group, float("-inf")):
            return None
        if self.clock.now - watch.changed_at.get(name, self.clock.now) < NEWS_S:
            return None
        if word.code != shown or (reported is not None and reported != shown):
            return None
        if watch.sent.get(name, 0) != watch.answered.get(name, 0):
            return None
        return shown

    def _under_way(self, group: dict[str, Any], facts: Facts) -> None:
        told = sorted(group["under_way"])
        known = sorted(
            f"{found[1].value} of {resource.id} on {host}"
            for host in facts.candidates(group["id"])
            if facts.hosts[host]["connected"]
            for resource in self.world.cluster.groups[group["id"]].resources
            if (found := self.under_way[host].get(resource.id)) is not None
        )
        if told != known and not any(
            self._is_being_fenced(h) for h in facts.candidates(group["id"])
        ):
            self._wrong(group["id"], "under_way", told, known)

    def _wrong(self, who: str, what: str, told: object, known: object) -> None:
        self.world.violated(RULE, f"{who} is shown with {what}={told!r}, and: {known}")
