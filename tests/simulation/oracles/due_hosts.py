"""What is due of hosts: attempts, heartbeats, fences, and power after a reboot by policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from halo.core.model import LossPolicy

if TYPE_CHECKING:
    from tests.simulation.world import World

QUIET_S = 2.0
"""What was learnt has to stand for so long before anything follows from it."""

FRESH_S = 6.0
"""A device's word that is no older leaves time for a start."""

SLACK_S = 1.5


class HostsDue:
    """Derives, at one moment, what has to be done about hosts."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.oracle = world.oracle
        self.clock = world.clock
        self.settings = world.cluster.settings

    # --- links and power -------------------------------------------------------------------

    def links_due(self) -> list[tuple[str, str]]:
        pace, shown, due = self.world.oracles.pace, self.world.oracles.shown, []
        now = self.clock.now
        for host in self.world.cluster.hosts:
            watch = self.oracle.hosts[host]
            if self._owes_power(host):
                due.append((host, "to be powered on again"))
            if self.world.oracles.is_being_fenced(host) or now - self.oracle.started_at < 5.0:
                continue
            if watch.connection is None:
                patience_s = pace.retry_s + shown.attempt_s + SLACK_S
                if now - max(pace.tried_at.get(host, 0.0), watch.ended_at) > patience_s:
                    due.append((host, "an attempt to connect"))
            elif not self.oracle.is_legacy(host):
                beats_in_flight = now - max(watch.beat_at, watch.connection.opened_at)
                sent_at = pace.beat_sent_at.get(host, now)
                if beats_in_flight < 3 and now - sent_at > pace.beat_s + SLACK_S:
                    due.append((host, "a heartbeat"))
        return due

    def _owes_power(self, host: str) -> bool:
        """`on_loss: reboot`: is it off for so long that nothing can rest on that any more?"""
        page = self.world.oracles.memory.book.host(host)
        if not self.world.oracles.records.knows_when:
            return False
        if not page.owes_power or not page.off or self.world.oracles.is_being_fenced(host):
            return False
        if self.oracle.orders.frozen.may_be(True) or page.connected:
            return False
        limits, last = self.settings, self.world.oracles.pace.switched_on_at.get(host, 0.0)
        fenced_at = page.since - self.world.wall.offset_s
        began = max(fenced_at, self.oracle.started_at, last)
        wait_s = limits.power_proof_age_s + 3 * limits.fence_timeout_s + limits.fence_retry_max_s
        return page.lifecycle == "fenced" and self.clock.now - began > wait_s + 10.0

    # --- fences ------------------------------------------------------------------------------

    def is_proven_off(self, host: str) -> bool:
        """Does a device say so, plainly and a moment ago?"""
        fences, watch = self.oracle.fences, self.oracle.hosts[host]
        levels = self.world.cluster.hosts[host].fence_levels
        page = self.world.oracles.memory.book.host(host)
        if len(levels) != 1 or watch.connection is not None or page.distrusted or not page.off:
            return False
        if watch.closed_since is not None or watch.closed_at > fences.proven_at.get(host, 0.0):
            return False
        asked_at, answered_at = fences.off_word(host)
        return watch.heard_at < asked_at and self.clock.now - answered_at < FRESH_S

    def due_fence(self, host: str) -> str | None:
        """Has this one silent host to be fenced? Only where nothing at all may forbid it."""
        config, page = self.world.cluster.hosts[host], self.world.oracles.memory.book.host(host)
        oracle, now = self.oracle, self.clock.now
        watch, book = oracle.hosts[host], self.world.oracles.memory.book
        if watch.connection is not None or not config.fence_levels or page.off:
            return None
        if config.on_loss is not LossPolicy.FENCE or page.cancelled or not page.seen:
            return None
        if page.fenced or page.distrusted or host in oracle.orders.fences_asked:
            return None
        patience_s = self.settings.loss_budget_s + self.world.oracles.shown.attempt_s + QUIET_S
        if watch.heard_at == float("-inf"):
            patience_s += self.settings.restart_grace_s
        if now - max(oracle.silent_since(host), watch.ended_at) < patience_s:
            return None
        window_s = self.settings.storm_window_s + 5.0
        others = [oracle.hosts[name] for name in self.world.cluster.hosts]
        unsteady = [
            other
            for other in others
            if other.connection is None or now - other.connection.opened_at < window_s
        ]
        limits, intents = self.settings, self.world.oracles.pace.intents
        most = max(
            sum(now - at < limits.fence_limit_window_s for at in known)
            for known in (oracle.fences.automatic, intents)
        )
        if len(unsteady) > 2 or most >= limits.fence_limit:
            return None
        if any(
            now - other.connection.opened_at < self.settings.loss_budget_s + 5.0
            for other in others
            if other.connection is not None
        ):
            return None  # it may have just come back together with this one
        if any(
            not oracle.orders.managed[g.id].surely(True) or not book.group(g.id).managed
            for g in self.world.cluster.groups_of_host[host]
        ):
            return None
        failures, failed_at = self.world.oracles.pace.fence_failures.get(host, (0, 0.0))
        if page.lifecycle == "fence-failed" and not failures:
            return None
        if failures and now < failed_at + self.world.oracles.pace.pause_s(failures) + QUIET_S:
            return None
        return f"{host} to be fenced" if self.world.hosts[host].local_trouble == "" else None
