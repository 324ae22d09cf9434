"""Nothing is tried, asked, fenced or noted more often than its documented pause allows."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from halo.core.errors import Loss
from halo.core.outcomes import FenceAction

if TYPE_CHECKING:
    from tests.simulation.hosts import SimCall
    from tests.simulation.world import World

RULE = "pace"
WINDOW_S = 10.0

SHORT_S = 600.0
"""A scenario that takes longer is counted and looked at less: most of its time is quiet."""

ATTEMPTS_PER_BUDGET = 4

BEATS_BESIDES = 12
"""Pings after verdicts and for device checks, in one window."""

LOOKS_PER_S = 2.0
"""A resource is asked about by its task, by the surveys, and once a second by a waiting group."""

LOOKS_BESIDES = 25
"""And after each command, connection and report, in one window."""

QUESTIONS = 14
"""A device is asked again after five seconds, at connects, after an off, and after a reset."""

VERIFY_PAUSE_S = 5.0

NOTES = 40
"""Records of one kind about one object in one window."""

SLACK_S = 0.02
AT_ONCE_S = 0.1


class Counter:
    """How often something happened within the last window."""

    def __init__(self) -> None:
        self._times: dict[Any, deque[float]] = {}

    def is_over(self, now: float, key: Any, limit: float) -> bool:
        """It happens now; did it happen more than `limit` times in the window that ends now?"""
        times = self._times.get(key)
        if times is None:
            times = self._times[key] = deque()
        times.append(now)
        while times[0] < now - WINDOW_S:
            times.popleft()
        return len(times) > limit

    def clear(self) -> None:
        """Begin again."""
        self._times.clear()


class PaceOracle:
    """Counts what leaves the manager."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.clock = world.clock
        settings = self.settings = world.cluster.settings
        self._is_long = world.scenario.duration_s > SHORT_S
        self.retry_s = min(
            settings.reconnect_interval_s, settings.loss_budget_s / ATTEMPTS_PER_BUDGET
        )
        self.beat_s = min(settings.heartbeat_interval_s, settings.loss_budget_s / 3)
        self.tried_at: dict[str, float] = {}  # when the last attempt of a link began
        self.beat_sent_at: dict[str, float] = {}
        self._failed: set[str] = set()  # hosts whose last attempt failed, and nothing came since
        self._beats, self._looks, self._questions = Counter(), Counter(), Counter()
        self._ended: deque[float] = deque()  # connections that ended: each may be a verdict
        self._notes = Counter()
        # Failed automatic attempts in a row: how many, and when the last one failed.
        self.fence_failures: dict[str, tuple[int, float]] = {}
        self._asking: set[str] = set()  # devices of hosts that are off
        self._asked_in_vain: dict[str, float] = {}  # and when
        self._say_off: set[str] = set()  # devices, by their last answer
        self.switched_on_at: dict[str, float] = {}
        self._is_automatic: dict[str, bool] = {}
        self.intents: list[float] = []  # of fences by the manager, also of those that it called off
        self._restarts: dict[tuple[str, str], tuple[float, deque[float]]] = {}

    def begin(self) -> None:
        """A new life of the manager."""
        for known in (self.tried_at, self.beat_sent_at, self.fence_failures, self._asked_in_vain):
            known.clear()
        self._failed.clear()
        self._asking.clear()
        self._say_off.clear()
        self.switched_on_at.clear()
        for counter in (self._beats, self._looks, self._questions, self._notes):
            counter.clear()
        self._restarts.clear()
        self._ended.clear()
        self.intents.clear()

    # --- links -------------------------------------------------------------------------------

    def probe_sent(self, host: str) -> None:
        """A heartbeat, or an attempt to connect."""
        now = self.clock.now
        if self.world.oracle.hosts[host].connection is not None:
            self.beat_sent_at[host] = now
            if self._is_long:
                return
            while self._ended and self._ended[0] < now - WINDOW_S:
                self._ended.popleft()
            limit = WINDOW_S / self.beat_s + BEATS_BESIDES + len(self._ended)
            if self._beats.is_over(now, host, limit):
                self._wrong(f"more than {limit:.0f} heartbeats to {host} within {WINDOW_S:g} s")
            return
        if self.world.oracles.is_being_fenced(host):
            self._failed.discard(host)
            return
        gap_s = now - self.tried_at.get(host, float("-inf"))
        if host in self._failed and gap_s < self.retry_s - SLACK_S:
            self._wrong(f"{host} is tried again after {gap_s:.3f} s")
        self.tried_at[host] = now

    def connect_failed(self, host: str, loss: Loss) -> None:
        """An attempt failed: the next one has to wait."""
        if not self.world.oracles.is_being_fenced(host):
            self._failed.add(host)

    def link_changed(self, host: str) -> None:
        """A connection stands, or ended."""
        if self.world.oracle.hosts[host].connection is None:
            self._ended.append(self.clock.now)
        self._failed.discard(host)
        self.fence_failures.pop(host, None)
        self.beat_sent_at[host] = self.clock.now
        self._not_in_vain(host)

    def _not_in_vain(self, host: str) -> None:
        for device in [d for d in self._asked_in_vain if d.startswith(f"{host}/")]:
            del self._asked_in_vain[device]

    # --- looks and questions -----------------------------------------------------------------

    def monitored(self, call: SimCall) -> None:
        """A monitor is sent."""
        period_s = call.resource.monitor_interval_s or self.settings.monitor_interval_s
        limit = WINDOW_S * (LOOKS_PER_S + 1 / period_s) + LOOKS_BESIDES
        key = call.connection.host.id, call.resource.id
        if self._looks.is_over(self.clock.now, key, limit * self._groups_of(call)):
            self._wrong(f"more than {limit:.0f} monitors of {key} within {WINDOW_S:g} s")

    def _groups_of(self, call: SimCall) -> int:
        return len(self.world.oracle.groups_with[call.resource.id])

    def fence_begins(self, host: str, device: str, action: FenceAction) -> None:
        """A fence program begins."""
        if action is FenceAction.STATUS:
            self._say_off.discard(device)
            self._check_question(host, device)
            if self._questions.is_over(self.clock.now, device, QUESTIONS):
                self._wrong(f"{device} is asked more than {QUESTIONS} times within {WINDOW_S:g} s")
        elif action is FenceAction.OFF:
            self._check_retry(host)
        elif action is FenceAction.ON:
            self._check_power_on(host)

    def fence_ends(
        self, host: str, device: str, action: FenceAction, said_off: bool | None
    ) -> None:
        """A fence program ended. `said_off` is None if it was killed: nobody needs it any more."""
        if action is FenceAction.STATUS:
            self._asking.discard(device)
            if said_off:
                self._say_off.add(device)
                if self._is_level_off(host, device):  # one level is enough
                    self._not_in_vain(host)
            elif said_off is False and not self.world.oracles.is_being_fenced(host):
                self._asked_in_vain[device] = self.clock.now
        else:
            self._asked_in_vain.pop(device, None)
            if action is FenceAction.ON:
                self.switched_on_at[host] = self.clock.now

    def _is_level_off(self, host: str, device: str) -> bool:
        """Do all devices of this one's level say that the host is off?"""
        levels = self.world.cluster.hosts[host].fence_levels
        names = [[d.parameters["device"] for d in level] for level in levels]
        return any(device in level and self._say_off.issuperset(level) for level in names)

    def _check_question(self, host: str, device: str) -> None:
        """The devices of a host that is off: one question at a time, and a pause after each that
        was asked in vain."""
        page, watch = self.world.oracles.memory.book.host(host), self.world.oracle.hosts[host]
        is_off = page.off and watch.connection is None  # else it may be a check of before
        if not is_off or self.world.oracles.is_being_fenced(host):
            self._asked_in_vain.pop(device, None)
            return
        if device in self._asking:
            self._wrong(f"{device} is asked twice at once")
        self._asking.add(device)
        gap_s = self.clock.now - self._asked_in_vain.get(device, float("-inf"))
        if gap_s < VERIFY_PAUSE_S - SLACK_S:
            self._wrong(f"{device} is asked again {gap_s:.2f} s after it was asked in vain")

    def _check_power_on(self, host: str) -> None:
        """`on_loss: reboot`: no start needs the host to be off any more."""
        memory = self.world.oracles.memory
        page = memory.book.host(host)
        if self.clock.now - self.switched_on_at.get(host, float("-inf")) < AT_ONCE_S:
            return  # the next level
        if not page.owes_power:
            if memory.is_settled:
                self._wrong(f"{host} is powered on, and nothing owes it")
            return
        off_s = self.world.wall.now() - page.since
        knows = self.world.oracles.records.knows_when
        if (
            knows
            and page.lifecycle == "fenced"
            and off_s < self.settings.power_proof_age_s - AT_ONCE_S
        ):
            self._wrong(f"{host} is powered on {off_s:.2f} s after its fence was confirmed")

    def _check_retry(self, host: str) -> None:
        """An automatic fence that failed is tried again after a pause that grows."""
        count, failed_at = self.fence_failures.get(host, (0, 0.0))
        attempt = self.world.oracle.manager.fence_runner.attempt_of(host)
        oracle = self.world.oracle
        by_itself = not oracle.orders.fencing[host] and not oracle.fences.is_second_copy(host)
        if not count or not by_itself or attempt is None or attempt.begun_at <= failed_at:
            return
        pause_s = self.pause_s(count)
        if attempt.begun_at < failed_at + pause_s - SLACK_S:
            text = f"{host} is fenced again {attempt.begun_at - failed_at:.2f} s after failure"
            self._wrong(f"{text} {count}, and the pause is {pause_s:g} s")

    def pause_s(self, failures: int) -> float:
        """The pause after so many failures in a row."""
        doubled = self.settings.fence_retry_min_s * 2.0 ** (failures - 1)
        return min(self.settings.fence_retry_max_s, doubled)

    # --- records -----------------------------------------------------------------------------

    def recorded(self, raw: dict[str, Any], made: float | None) -> None:
        """A record landed on the disk."""
        event, name = raw["event"], raw["object"]
        if made is None or made < self.world.oracle.started_at:
            return
        if self._notes.is_over(self.clock.now, (event, name), NOTES):
            self._wrong(f"more than {NOTES} records {event} of {name} within {WINDOW_S:g} s")
        if event == "fence-intent":
            self._is_automatic[name] = bool(raw["data"].get("automatic"))
            if self._is_automatic[name] or not self.world.oracle.orders.fencing[name]:
                self.intents.append(made)
        elif event == "fence-failed":
            self._fence_failed(name, raw["comment"], made)
        elif event in ("fence", "connect", "fence-cancel"):
            self.fence_failures.pop(name, None)
        elif event == "restarted":
            self._restarted(name, raw["data"]["host"], raw["data"]["resource"], made)

    def _fence_failed(self, host: str, comment: str, made: float) -> None:
        if comment.startswith(("abandoned", "the manager restarted during")):
            return
        if self._is_automatic.get(host):
            self.fence_failures[host] = self.fence_failures.get(host, (0, 0.0))[0] + 1, made
        else:
            self.fence_failures.pop(host, None)  # its pause follows other rules

    def _restarted(self, group: str, host: str, resource: str, made: float) -> None:
        since = self.world.oracle.manager.state.groups[group].managed_since
        known_since, times = self._restarts.get((host, resource), (since, deque()))
        if known_since != since:
            times = deque()
        self._restarts[host, resource] = since, times
        times.append(made)
        limit, window_s = self.settings.restart_limit, self.settings.restart_window_s
        recent = [at for at in times if made - at < window_s - 10.0]
        if len(recent) > limit:
            self._wrong(f"{resource} was restarted {len(recent)} times within {window_s:g} s")

    def _wrong(self, text: str) -> None:
        self.world.violated(RULE, text)
