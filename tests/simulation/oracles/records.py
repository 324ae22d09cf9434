"""No record without its act: whatever the journal gains has just happened, and is news."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from halo.core.errors import Loss, LossKind
from halo.core.model import LossPolicy, Operation
from halo.core.outcomes import OperationResult, Outcome
from tests.simulation.oracles.happened import Acts

if TYPE_CHECKING:
    from tests.simulation.hosts import SimCall
    from tests.simulation.oracle import HostWatch
    from tests.simulation.oracles.book import GroupPage, HostPage
    from tests.simulation.oracles.memory import MemoryOracle
    from tests.simulation.world import World

RULE = "record"
AT_ONCE_S = 0.05
"""Between an act and the step that notes it."""

OLDEST_S = 600.0
PRESENT = (0, 8, 190, 191)
SPEAKS = (LossKind.BUSY, LossKind.TLS, LossKind.PROTOCOL)


class RecordOracle:
    """Judges every record as it lands on the disk, before it is folded into the second book."""

    def __init__(self, world: World, memory: MemoryOracle) -> None:
        self.world = world
        self.memory = memory
        self.clock = world.clock
        self.acts = Acts()
        self.landed = Acts()  # records, by event and object
        self.offsets = world.wall.offsets  # of the time of day
        self._before = ""  # the record before this one
        self._started: dict[str, float] = {}  # when the last order to start a group landed

    # --- what happens ------------------------------------------------------------------------

    def note(self, *what: str) -> None:
        """An act."""
        self.acts.note(self.clock.now, *what)

    def connect_failed(self, host: str, loss: Loss) -> None:
        """An attempt failed."""
        self.note("attempt failed", host)
        if loss.kind in SPEAKS:
            self.note("speaks", host)

    def answered(self, call: SimCall, result: OperationResult | None) -> None:
        """An answer; without a result, none came in time."""
        host, name = call.connection.host.id, call.resource.id
        code = -1
        if result is not None and result.outcome is Outcome.COMPLETED:
            code = result.code
        good = (0, 7) if call.operation is Operation.STOP else (0,)
        how = "well" if code in good else "badly"
        if call.operation is Operation.MONITOR:
            how = "gone" if code == 7 else "there" if code in PRESENT else "unclear"
        self.note(f"{call.operation.value} {how}", host, name)

    # --- a record ----------------------------------------------------------------------------

    @property
    def knows_when(self) -> bool:
        """Does a record's time tell when it was made? Not after a step of the time of day."""
        return len(self.offsets) == 1

    def made_at(self, raw: dict[str, Any]) -> float | None:
        """When it was made, in virtual seconds; None if the time of day does not tell."""
        found = {
            raw["at"] - offset
            for offset in self.offsets
            if -0.001 <= self.clock.now - (raw["at"] - offset) < OLDEST_S
        }
        return found.pop() if len(found) == 1 else None

    def restored(self) -> None:
        """An older copy is on the disk."""
        self._before = ""

    def judge(self, raw: dict[str, Any]) -> None:
        """A record landed, and is not folded yet."""
        event, name, made = raw["event"], raw["object"], self.made_at(raw)
        before, self._before = self._before, f"{event} {name}"
        if made is not None:
            self.landed.note(made, event, name)
        if event == "start":
            self._started[name] = self.clock.now
        if made is None or made < self.world.oracle.started_at:
            return  # of an earlier life, or of an unknown moment
        judge = getattr(self, f"_{event.replace('-', '_')}", None)
        if judge is None:
            return
        book = self.memory.book
        if name in self.world.hosts:
            why = judge(raw, made, book.host(name), before)
        else:
            why = judge(raw, made, book.group(name), before)
        if why:
            self.world.violated(RULE, f"{event} of {name} ({raw['comment']}): {why}")

    def _just(self, made: float, *what: str) -> bool:
        """Did this act happen just before, as far as a manager that stood still could know?"""
        slack_s = AT_ONCE_S
        if made - self.world.oracle.fresh_at < AT_ONCE_S or self.world.was_away(made):
            slack_s = OLDEST_S
        return self.acts.may_be_within(made - slack_s, made + 1e-6, *what)

    # --- hosts -------------------------------------------------------------------------------

    def _watch(self, raw: dict[str, Any]) -> HostWatch:
        return self.world.oracle.hosts[raw["object"]]

    def _reconnect(self, raw: dict[str, Any], made: float, page: HostPage, _: str) -> str:
        return "" if self._just(made, "connected", raw["object"]) else "no connection was made"

    def _connect(self, raw: dict[str, Any], made: float, page: HostPage, before: str) -> str:
        name = raw["object"]
        if not self._just(made, "ready", name):
            return "it did not answer just then"
        if page.away and before != f"return {name}":
            return "it was away, and its return is not told"
        boot = self.world.hosts[name].boot
        connection = self._watch(raw).connection
        legacy = self.world.oracle.is_legacy(name)
        if connection is not None and connection.opened_at <= made and connection.boot == boot:
            told = raw["data"].get("boot_id")
            if told != ("" if legacy else f"boot-{boot}"):
                return f"boot {told}, and it is {boot}"
        return ""

    def _return(self, raw: dict[str, Any], made: float, page: HostPage, _: str) -> str:
        if not page.away:
            return "it was not away"
        connection = self._watch(raw).connection
        if connection is None or connection.opened_at > made:
            return ""
        now = "" if connection.identity.legacy else f"boot-{connection.boot}"
        expected = "not known" if not (now and page.boot) else (
            "has not booted" if now == page.boot else "has booted"
        )  # fmt: skip
        return "" if expected in raw["comment"] else f"it {expected} since ({page.boot})"

    def _disconnect(self, raw: dict[str, Any], made: float, page: HostPage, _: str) -> str:
        if page.lifecycle == "disconnected" and not page.connected:
            return "it is recorded already"
        name = raw["object"]
        lost = self._just(made, "disconnected", name)
        return "" if lost or self._just(made, "attempt failed", name) else "nothing ended just then"

    def _suspect(self, raw: dict[str, Any], made: float, page: HostPage, _: str) -> str:
        if page.lifecycle == "suspect":
            return "it is recorded already"
        late_s = 1.4 * self.world.oracles.shown.beat_s
        recently = self.acts.within(made - late_s, made - 0.01, "beat", raw["object"])
        return "a heartbeat was answered just before" if recently else ""

    def _answers(self, raw: dict[str, Any], made: float, page: HostPage, _: str) -> str:
        if page.lifecycle != "suspect":
            return f"it was not suspect, but {page.lifecycle}"
        return "" if self._just(made, "beat", raw["object"]) else "it did not answer just then"

    def _not_off(self, raw: dict[str, Any], made: float, page: HostPage, _: str) -> str:
        if not page.off:
            return "it did not count as off"
        name = raw["object"]
        heard = any(self._just(made, what, name) for what in ("speaks", "connected"))
        # The other devices of the step are awaited before one that says on is acted on.
        patience_s = self.world.cluster.settings.fence_timeout_s + AT_ONCE_S
        heard = heard or self.acts.may_be_within(made - patience_s, made, "says on", name)
        return "" if heard or self.world.was_away(made) else "there was no sign of it just then"

    # --- fences ------------------------------------------------------------------------------

    def _fence_intent(self, raw: dict[str, Any], made: float, page: HostPage, _: str) -> str:
        if page.intent:
            return "another fence is recorded as open"
        return self._untrue_of_intent(raw, made) if raw["data"].get("automatic") else ""

    def _untrue_of_intent(self, raw: dict[str, Any], made: float) -> str:
        """An automatic fence says who began it, and for which groups it is."""
        name, comment, oracle = raw["object"], raw["comment"], self.world.oracle
        if not comment.startswith("Manager service initiated fence action. "):
            return "it does not say that the manager began it"
        whom = re.search(r"; for ([\w~, ]+?)(?: and \d+ more)?$", comment)
        reboot = self.world.cluster.hosts[name].on_loss is LossPolicy.REBOOT
        if whom is None:
            return "" if comment.endswith("on_loss: reboot") and reboot else "for nobody"
        for group in whom[1].split(", "):
            former = self.memory.book.group(group).former
            is_there = name in self.world.cluster.groups[group].candidates or name in former
            orders = oracle.orders
            stays = orders.managed[group].surely(False) or orders.wanted[group].surely(False)
            if not is_there or (stays and self.world.oracles.command_at < made):
                return f"{group} does not wait for it"
        return ""

    def _fence(self, raw: dict[str, Any], made: float, page: HostPage, _: str) -> str:
        config, data = self.world.cluster.hosts[raw["object"]], raw["data"]
        if data.get("confirmed_by"):
            return ""
        if not page.intent and self.memory.is_settled:  # else a cancellation was written first
            return "no intent is recorded"
        level = data.get("level")
        if not level or level > len(config.fence_levels):
            return f"level {level}"
        devices = config.fence_levels[level - 1]
        if data.get("agents") != [device.agent for device in devices]:
            return f"agents {data.get('agents')}"
        due = data["automatic"] and config.on_loss is LossPolicy.REBOOT and not page.rebooted
        return "" if bool(data.get("reboot")) == due else f"a reboot is owed: {due}"

    def _fence_failed(self, raw: dict[str, Any], made: float, page: HostPage, _: str) -> str:
        return "" if page.intent else "no intent is recorded"

    def _power_on(self, raw: dict[str, Any], made: float, page: HostPage, _: str) -> str:
        levels = len(self.world.cluster.hosts[raw["object"]].fence_levels)
        patience_s = levels * self.world.cluster.settings.fence_timeout_s + AT_ONCE_S
        # It may have answered meanwhile, and have been lost again.
        began = self.acts.may_be_within(made - patience_s, made, "on, as owed", raw["object"])
        known = self.memory.is_settled and not self.world.was_away(made)
        if known and not page.owes_power and not began:
            return "it was not owed"
        went_on = self._just(made, "switched on", raw["object"])
        return "" if went_on else "no device was switched on just then"

    def _distrust(self, raw: dict[str, Any], made: float, page: HostPage, _: str) -> str:
        patience_s = 2 * self.world.cluster.settings.fence_timeout_s + 10.0
        said = self.acts.may_be_within(made - patience_s, made, "says off", raw["object"])
        return "" if said or self.world.was_away(made) else "no device said off"

    # --- groups ------------------------------------------------------------------------------

    def _moved(self, raw: dict[str, Any], made: float, page: GroupPage, _: str) -> str:
        host = raw["data"]["host"]
        if page.target != host and self.memory.is_settled:  # else the command was written first
            return f"it was to move to {page.target}"
        watch = self.world.oracle.hosts[host]
        down = [
            resource.id
            for resource in self.world.cluster.groups[raw["object"]].exclusive
            if watch.connection is not None
            and watch.shown.get(resource.id) not in PRESENT
            and watch.changed_at.get(resource.id, made) < made - AT_ONCE_S
        ]
        return f"{down} do not run there" if down else ""

    def _move_failed(self, raw: dict[str, Any], made: float, page: GroupPage, _: str) -> str:
        was_moving = page.target is not None or not self.memory.is_settled  # as with `moved`
        return "" if was_moving else "it was not moving"

    def _start_failed(self, raw: dict[str, Any], made: float, page: GroupPage, _: str) -> str:
        host, resource = raw["data"]["host"], raw["data"]["resource"]
        failed = self._just(made, "start badly", host, resource)
        return "" if failed else f"no start of {resource} failed just then"

    def _restarted(self, raw: dict[str, Any], made: float, page: GroupPage, _: str) -> str:
        host, resource = raw["data"]["host"], raw["data"]["resource"]
        started = self._just(made, "start well", host, resource)
        return "" if started else f"{resource} was not started just then"

    def _error(self, raw: dict[str, Any], made: float, page: GroupPage, _: str) -> str:
        kind, data = raw["data"]["kind"], raw["data"]
        if page.error == raw["comment"] and page.kind == kind:
            return "it is recorded already"
        if kind == "second-copy":
            return "" if len(data["hosts"]) > 1 else f"copies on {data['hosts']}"
        about = data["host"], data["resource"]
        if kind == "stop-failed":
            after_stop = ("monitor there", "monitor unclear", "stop badly", "reported")
            found = any(self._just(made, what, *about) for what in after_stop)
            return "" if found else f"no stop of {about[1]} failed just then"
        return ""

    def _at_rest(self, raw: dict[str, Any], made: float, page: GroupPage, _: str) -> str:
        known = bool(raw["data"].get("known"))
        if known == page.at_rest:
            return "it is recorded already"
        was_ordered = self._started.get(raw["object"], float("-inf")) <= made
        return "it is to run" if known and page.wanted and was_ordered else ""

    def _config(self, raw: dict[str, Any], made: float, page: GroupPage, _: str) -> str:
        began = self.world.oracle.started_at
        return "" if made - began < AT_ONCE_S or self.world.was_away(made) else "nothing began"
