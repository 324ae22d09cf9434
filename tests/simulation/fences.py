"""The rules of fencing, written a second time: proof of a fence (S3), and leave to fence (S5)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from halo.core.model import LossPolicy, ResourceGroup, SecondCopyPolicy
from halo.core.outcomes import FenceAction
from tests.simulation.model import disk_of
from tests.simulation.orders import DiskFold

if TYPE_CHECKING:
    from tests.simulation.oracle import Oracle

PROOF_AGE_S = 10.05
"""A device's word that a host is off holds so long (S1b), and a step of the loop longer."""

PLAINLY_SILENT_S = 4.0
"""A host silent for so long is suspect by any reckoning."""

SECOND_COPY_S = 60.0

RECORDED_S = 2.0
"""From a device's word to the record: the agent is given time to answer."""

TOGETHER_S = 3.0
"""The devices of one step are asked side by side, and each takes its time."""

DECIDED_S = 2.5
"""From a decision to its first off: the journal may take a second, tokens come home."""


class FenceOracle:
    """Watches fence programs, and the records of fences on the disk."""

    def __init__(self, oracle: Oracle) -> None:
        self.oracle = oracle
        self.world = oracle.world
        self.clock = oracle.clock
        self.disk = DiskFold()
        self._disk_read = 0
        self._off_ended: dict[str, float] = {}  # device -> when its last off succeeded
        self._status_ended: dict[str, float] = {}  # host -> when the last such status ended
        self._off_began: dict[str, float] = {}  # device -> when its last off was sent
        self._asked_at: dict[str, float] = {}  # device -> the last answered question
        # device -> when a status that said off was asked, and when it was answered
        self._status_off: dict[str, tuple[float, float]] = {}
        self.confirmed_at: dict[str, float] = {}  # host -> when the confirming status was asked
        self.vouched_at: dict[str, float] = {}  # host -> when an operator said that it is off
        self._heard_at: dict[str, float] = {}  # host -> when the manager took that up
        self.proven_at: dict[str, float] = {}  # all off, whatever was heard of it since
        self._attempts: dict[str, Any] = {}
        self._awake_at: dict[str, float] = {}
        self._silent_at_fence: dict[str, float] = {}  # host -> since when it was, as it was fenced
        self.automatic: deque[float] = deque()

    def begin(self) -> None:
        """A new incarnation: only the disk and the devices still count."""
        self.read_disk()
        self._status_off.clear()
        self.confirmed_at.clear()
        self._attempts.clear()
        self.automatic.clear()

    def read_disk(self) -> None:
        """Fold in what was written since."""
        texts = self.world.disk.texts
        if len(texts) < self._disk_read:  # compacted
            self._disk_read = 0
        while self._disk_read < len(texts):
            host = self.disk.take(texts[self._disk_read])
            self._disk_read += 1
            if host:
                self._check_record(host)
                self.oracle.fenced(host)

    def restored(self) -> None:
        """An older copy is on the disk. What was recorded since is forgotten, and is no proof."""
        self.disk = DiskFold()
        for text in self.world.disk.texts:
            self.disk.take(text)
        self._disk_read = len(self.world.disk.texts)
        self.vouched_at.clear()
        self._heard_at.clear()

    # --- S3 ----------------------------------------------------------------------------------

    def run_ends(
        self, host: str, device: str, action: FenceAction, ok: bool, says_off: bool, began: float
    ) -> None:
        """A fence program ended."""
        now = self.clock.now
        if action is FenceAction.OFF and ok:
            self._off_ended[device] = now
        elif action is FenceAction.ON:
            self._off_ended.pop(device, None)
        elif action is FenceAction.STATUS:
            if began < self._asked_at.get(device, began):
                self.world.counts["older device answers after newer ones"] += 1
            self._asked_at[device] = max(began, self._asked_at.get(device, began))
            if says_off:
                if began >= self._status_off.get(device, (began, now))[0]:  # not an older one
                    self._status_off[device] = (began, now)
                self._status_ended[host] = now
                self._maybe_confirmed(host)
            elif ok:
                # The manager awaits the other devices of the step before it acts on this one.
                slow = self.world.scenario.hosts[host].get("slow_s")
                wait_s = self.world.cluster.settings.fence_timeout_s if slow else TOGETHER_S
                alone = [device] in self._levels(host)
                self.clock.after(0.0 if alone else wait_s, self._says_on, device, began, now)

    def _says_on(self, device: str, began: float, ended: float) -> None:
        if self._status_off.get(device, (ended, ended))[0] <= began:
            self._status_off.pop(device, None)
        if (
            self._off_ended.get(device, float("inf")) <= began
        ):  # a later off may be true all the same
            self._off_ended.pop(device, None)

    def _maybe_confirmed(self, host: str) -> None:
        for devices in self._levels(host):
            offs = [self._off_ended.get(d) for d in devices]
            states = [self._status_off.get(d) for d in devices]
            if None not in states:  # it may be the end of an intent that was open at a restart
                self.proven_at[host] = self.clock.now
            last_off = max((off for off in offs if off is not None), default=0.0)
            if None not in offs and all(s is not None and s[0] >= last_off for s in states):
                self.confirmed_at[host] = min(s[0] for s in states if s is not None)
                self._silent_at_fence[host] = self.oracle.silent_since(host)
                self.oracle.fenced(host)

    def _levels(self, host: str) -> list[list[str]]:
        config = self.world.known_hosts[host]
        return [[d.parameters["device"] for d in level] for level in config.fence_levels]

    def _check_record(self, host: str) -> None:
        """A record says that a fence was confirmed: was it? A slow disk may have it long after."""
        if host in self.confirmed_at or host in self.vouched_at:
            return
        if any(all(d in self._status_off for d in devices) for devices in self._levels(host)):
            return  # an open intent, settled at a restart
        if self.oracle.orders.confirming.get(host):
            return
        if self.proven_at.get(host, float("-inf")) < self.world.disk.busy_since - RECORDED_S:
            self.world.violated("S3", f"a fence of {host} is recorded without proof")

    def vouched(self, host: str, asked_at: float, heard_at: float) -> None:
        """The manager took note that an operator saw the host dark."""
        self.vouched_at[host] = self.world.noticed_at(asked_at)
        self._heard_at[host] = heard_at

    def lacks_power_proof(self, host: str, age_s: float = PROOF_AGE_S) -> str:
        """Why nothing proves that the host is off now; empty when something does (S1b).

        `age_s`: how old the answer of the device may be."""
        self.read_disk()
        now, watch = self.clock.now, self.oracle.hosts[host]
        vouching = self.oracle.orders.confirming.get(host, [])
        never = float("-inf")
        vouched = max(
            [self.vouched_at.get(host, never)]
            + [self.world.noticed_at(v.asked_at) for v in vouching]
        )
        heard = max([self._heard_at.get(host, never)] + [v.heard_at for v in vouching])
        was_vouched = vouched > float("-inf")
        recorded = host in self.confirmed_at or was_vouched or self.disk.off.get(host)
        if not recorded:
            return f"{host} is silent, and no fence of it was confirmed"
        shown = max([vouched, *map(self._shown_off_at, self._levels(host))])
        if now - shown > age_s:
            return f"{host} was shown to be off {now - shown:.1f} s ago"
        # The device may have looked at any moment of its run: a sign within it is not held against
        # it (something else answering at that address would keep the group down for ever). Nor is
        # one that a manager that stood still took up before it heard the operator, nor a port that
        # was closed already.
        closed_since = never if watch.closed_since is None else watch.closed_since
        sign_at = max(watch.heard_at, closed_since)
        if sign_at > max(shown, self._status_ended.get(host, shown), heard):
            return f"{host} gave a sign of life after it was shown to be off"
        return ""

    def off_word(self, host: str) -> tuple[float, float]:
        """When all devices of the only level were asked, and answered, that they are off since the
        last off: the oldest of both."""
        never = float("-inf")
        words = [self._status_off.get(d, (never, never)) for d in self._levels(host)[0]]
        last_off = max(self._off_began.get(d, never) for d in self._levels(host)[0])
        asked_at = min(asked for asked, _ in words)
        return (asked_at, min(at for _, at in words)) if asked_at > last_off else (never, never)

    def _shown_off_at(self, devices: list[str]) -> float:
        """Since when all devices of a level say "off", each to a question after its last off."""
        never, answers = float("-inf"), []
        for device in devices:
            asked_at, answered_at = self._status_off.get(device, (never, never))
            answers.append(never if asked_at < self._off_began.get(device, never) else answered_at)
        return min(answers)

    # --- S5 ----------------------------------------------------------------------------------

    def run_begins(self, host: str, device: str, action: FenceAction) -> None:
        """A fence program begins: may it?"""
        if action is FenceAction.STATUS:
            return
        if action is FenceAction.OFF:
            self._off_began[device] = self.clock.now
        orders = self.oracle.orders
        if action is FenceAction.ON:
            if orders.frozen.surely(True) or self.oracle.observe_only:
                self.world.violated("S4", f"{host} is powered on while frozen or observing")
            return
        attempt = self.oracle.manager.fence_runner.attempt_of(host)
        if self._attempts.get(host) is attempt:
            return  # a further device or level of the same attempt
        self._attempts[host] = attempt
        self.confirmed_at.pop(host, None)
        watch = self.oracle.hosts[host]
        watch.attempts += 1
        self.read_disk()
        second = self.is_second_copy(host)  # then it is the manager that fell silent, at once
        if second or (
            self.clock.now - self.oracle.silent_since(host)
            < self.world.cluster.settings.loss_budget_s
        ):
            self._awake_at[host] = self.clock.now
        if self.oracle.observe_only:
            self.world.violated("S4", f"{host} is fenced in observe mode")
        if orders.fencing[host]:
            self.world.counts["fences by command"] += 1
            self._awake_at[host] = self.clock.now
            return
        self.world.counts["fences by the manager"] += 1
        self.automatic.append(attempt.begun_at)  # decided then; the off may come after a standstill
        refusal = self._common_refusal(host) or ("" if second else self._refusal(host))
        if refusal:
            self.world.violated("S5", f"{host} is fenced by the manager: {refusal}")

    def is_second_copy(self, host: str) -> bool:
        for name, (_, seen_at, hosts) in self.oracle.copies_seen.items():
            group = self.world.cluster.groups[name]
            if (
                group.second_copy is SecondCopyPolicy.FENCE
                and host in hosts
                and self.oracle.awake_since(seen_at) < SECOND_COPY_S
                and not self.oracle.orders.managed[name].surely(False)
            ):
                return True
        return False

    def _common_refusal(self, host: str) -> str:
        """What forbids any fence that nobody asked for."""
        if self.oracle.orders.frozen.surely(True):
            return "frozen"
        if self.disk.fenced.get(host):
            return "it was fenced, and not reset since"
        if self.disk.distrusted.get(host):
            return "its device is not trusted"
        unmanaged = self._unmanaged(host)
        if unmanaged:
            return f"it may hold the unmanaged {unmanaged}"
        return ""

    def _refusal(self, host: str) -> str:
        """What forbids a fence for a lost host."""
        watch, settings = self.oracle.hosts[host], self.world.cluster.settings
        config, now = self.world.known_hosts[host], self.clock.now
        if config.on_loss is LossPolicy.WAIT:
            return "on_loss: wait"
        if watch.connection is not None:
            return "it is connected"
        if not (self.disk.seen.get(host) or watch.connected_now):
            return "it was never seen since its reset"
        closed = settings.fence_on_connection_close and watch.closed_at > float("-inf")
        quiet_s = now - self.oracle.silent_since(host)
        if quiet_s < settings.loss_budget_s - 0.001 and not closed:
            return f"it gave a sign, or nothing could be sent, {quiet_s:.3f} s ago"
        if watch.sign_at == float("-inf") and watch.attempts == 1:
            patience_s = settings.loss_budget_s + settings.restart_grace_s
            if now - self.oracle.started_at < patience_s - 0.001 and not self.disk.off.get(host):
                return f"the manager started {now - self.oracle.started_at:.1f} s ago"
        if not self._has_taker(host, closed):
            return "no other host could take a group of it"
        return self._storm(host) or self._rate()

    def _unmanaged(self, host: str) -> str:
        watch = self.oracle.hosts[host]
        for group in self.world.cluster.groups_of_host.get(host, ()):
            if not self.oracle.orders.managed[group.id].surely(False):
                continue
            if all(watch.last_seen.get(r.id) == 7 for r in group.exclusive):
                continue
            if host in self.confirmed_at:
                continue
            elsewhere = any(
                at.word(r.id) == 0
                for other, at in self.oracle.hosts.items()  # former hosts, too
                if other != host
                for r in group.exclusive
                if watch.last_seen.get(r.id) != 7
            )
            if not elsewhere:
                return group.id
        return ""

    def _has_taker(self, host: str, closed: bool) -> bool:
        orders, watch = self.oracle.orders, self.oracle.hosts[host]
        config, settings = self.world.known_hosts[host], self.world.cluster.settings
        if config.on_loss is LossPolicy.REBOOT and not self.disk.rebooted.get(host):
            return True
        silent_since = self.oracle.silent_since(host)
        verdict = watch.ended_at if closed else silent_since + settings.loss_budget_s
        for group in self._groups_that_may_wait_for(host):
            if orders.managed[group.id].surely(False) or orders.wanted[group.id].surely(False):
                continue
            failures = self.disk.start_failures.get(group.id, set())
            for other in group.candidates:
                at = self.oracle.hosts[other]
                if (
                    other != host
                    and (at.connection is not None or self.clock.now - at.ended_at < DECIDED_S)
                    and not orders.active[other].surely(False)
                    and other not in (() if orders.cleanups[group.id] else failures)
                    and all(r.id in at.shown for r in group.exclusive)
                    and at.answered_sent_at >= verdict - 0.001
                ):
                    return True
        return False

    def _groups_that_may_wait_for(self, host: str) -> list[ResourceGroup]:
        """Groups that have the host as a candidate, or had it in an earlier config: it may be
        needed for proof."""
        ever = self.world.ever_candidates
        return [
            group
            for group in self.world.cluster.groups.values()
            if any(host in ever[disk_of(resource.id)] for resource in group.resources)
        ]

    def _storm(self, host: str) -> str:
        settings = self.world.cluster.settings
        onsets = {
            name: self.fell_silent_at(name)
            for name in self.world.cluster.hosts
            if name == host or self._is_plainly_silent(name)
        }
        if self.oracle.is_legacy(host):  # it gives no signs: silent from when it was lost
            onsets[host] = max(onsets[host], self.oracle.hosts[host].ended_at)
        own = onsets[host]
        together: list[str] = []
        for start in onsets.values():
            end = start + settings.storm_window_s - 1.0
            within = [name for name, onset in onsets.items() if start <= onset <= end]
            if start <= own <= end and len(within) > len(together):
                together = within
        limit = max(settings.storm_hosts, settings.storm_fraction * len(self.world.cluster.hosts))
        return f"{together} fell silent together" if len(together) > limit else ""

    def fell_silent_at(self, host: str) -> float:
        """Of one that was fenced: before that. What its port says since makes no new silence."""
        since = self._silent_at_fence.get(host)
        if since is None or self.oracle.hosts[host].heard_at > self.confirmed_at.get(host, since):
            return self.oracle.silent_since(host)
        return since

    def _is_plainly_silent(self, host: str) -> bool:
        watch = self.oracle.hosts[host]
        since = self.oracle.silent_since(host)
        if self.oracle.is_legacy(host) or self.world.hosts[host].local_trouble:
            return False
        if self.world.shortage:
            return False
        if not self.oracle.orders.active[host].surely(True) or not self.disk.seen.get(host):
            return False  # its silence tells nothing
        attempt = self.oracle.manager.fence_runner.attempt_of(host)
        if attempt is None and host in self.confirmed_at:
            attempt = self._attempts.get(host)
        if attempt is not None and watch.heard_at >= attempt.begun_at:
            return False  # it answered the probe of its fence, and was switched off since
        if self._awake_at.get(host, -1.0) > watch.life_at or host in self.vouched_at:
            return False  # it is off because it was fenced, not because it fell silent
        if watch.sign_at == float("-inf"):  # never heard of by this manager: it waits for longer
            settings = self.world.cluster.settings
            since += settings.loss_budget_s + settings.restart_grace_s
            if self.disk.off.get(host):
                return False
        return self.clock.now - since > PLAINLY_SILENT_S

    def _rate(self) -> str:
        settings = self.world.cluster.settings
        recent = [
            at for at in self.automatic if self.clock.now - at < settings.fence_limit_window_s - 2.0
        ]
        if len(recent) > settings.fence_limit:
            return f"{len(recent)} fences within {settings.fence_limit_window_s:g} s"
        return ""
