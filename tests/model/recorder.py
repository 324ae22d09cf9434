"""Records what crosses the manager's ports in a simulated run, as events of the model.

:class:`RecordingWorld` is a world that also writes down. The simulation itself stays as it is. The
model has one group of one resource on three hosts, and no watching agents, so scenarios are cut
down to that (:func:`scenario`).
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from halo.core.journal.fold import apply
from halo.core.journal.records import Event as Journaled
from halo.core.journal.records import Record
from halo.core.journal.remembered import Remembered
from halo.core.model import FenceDevice, Operation
from halo.core.outcomes import FenceAction, FenceResult, OperationResult, Outcome, PowerState
from tests.simulation.hosts import Script, SimCall, SimHost
from tests.simulation.loop import Clock
from tests.simulation.model import Action, GroupPlan, Scenario
from tests.simulation.network import SimConnection
from tests.simulation.plan import scenario as planned
from tests.simulation.runner import quiet
from tests.simulation.simulation import Simulation
from tests.simulation.world import World

HOSTS = ("h0", "h1", "h2")
GROUP = "g0"
KINDS = (
    "power_off", "agent_crash", "hole", "reset", "die", "device", "manager_crash",
    "manage", "unmanage", "move", "fence", "cancel-fence",
)  # fmt: skip
DURATION_S = 90.0
WORD_S = 10.05
"""So long a device's word is proof (S1), and a step of the loop longer."""

ON_THE_WAY_S = 0.0005
"""A question is on its way so long at least. A change in that time is before the agent looks."""

Trace = list[dict[str, Any]]

_RECORDS = {
    Journaled.FENCE: "confirmed",
    Journaled.FENCE_FAILED: "failed",
    Journaled.FENCE_CANCEL: "cancelled",
    Journaled.MANAGE: "manage",
    Journaled.UNMANAGE: "unmanage",
}


class RecordingWorld(World):
    """A simulated world that records what the model calls by a name."""

    def __init__(self, scenario: Scenario, clock: Clock) -> None:
        super().__init__(scenario, clock)
        self.trace: Trace = []
        self.lives = 0
        self._changed_at = dict.fromkeys(HOSTS, float("-inf"))
        self._asked_at: dict[SimCall, float] = {}
        self._heard: set[SimConnection] = set()
        self._words = dict.fromkeys(HOSTS, 0)  # how often the device of each host said off
        self.disk.on_kept = self._kept

    def forget(self) -> None:
        """Let go of the manager's connections, so that it can be disposed of."""
        self._asked_at.clear()
        self._heard.clear()

    def note(self, what: str, host: str, **more: Any) -> None:
        """One event."""
        self.trace.append({"what": what, "host": host, **more})

    def say(self, who: str, what: str) -> None:
        """What only people are told: power, and what stops by itself."""
        super().say(who, what)
        if who == "manager" and what.startswith("starts"):
            self.lives += 1
            if self.lives > 1:
                self.note("restart", HOSTS[0], notes=_notes(self.disk.texts))
        elif who in HOSTS:
            for beginning, name in (("power off", "power off"), ("power on", "power on")):
                if what.startswith(beginning):
                    self._change(name, who)
            if what == f"{GROUP} stops by itself":
                self._change("crash", who)

    def _change(self, what: str, host: str) -> None:
        self._changed_at[host] = self.clock.now
        self.note(what, host)

    def _kept(self, texts: list[str]) -> None:
        """Records are on the disk."""
        for text in texts:
            record = Record.from_json(json.loads(text))
            host = record.object if record.object in HOSTS else HOSTS[0]
            if record.event in _RECORDS:
                self.note(_RECORDS[record.event], host)
            elif record.event is Journaled.FENCE_INTENT:
                self.note("intent" if record.data.get("automatic") else "order", host)

    def beat_answered(self, connection: SimConnection, sent_at: float) -> None:
        """A heartbeat was answered. The first one makes a connection: the probe of a fence, which
        only asks whether the agent answers, sends none."""
        super().beat_answered(connection, sent_at)
        if connection not in self._heard:
            self._heard.add(connection)
            self.note("connect", connection.host.id)

    def disconnected(self, connection: SimConnection) -> None:
        """A connection is gone, as the manager sees it."""
        super().disconnected(connection)
        if connection in self._heard:
            self.note("disconnect", connection.host.id)

    def operation_sent(self, call: SimCall) -> None:
        """The manager asks an agent for something."""
        super().operation_sent(call)
        self._asked_at[call] = self.clock.now
        if call.operation is not Operation.MONITOR:
            self.note(call.operation.value, call.connection.host.id)

    def script_begins(self, host: SimHost, script: Script) -> None:
        """The agent begins a start or a stop."""
        super().script_begins(host, script)
        self._change("begin", host.id)

    def operation_answered(self, call: SimCall, result: OperationResult) -> None:
        """A monitor's answer. In the model an agent looks and answers in one step, so an answer to
        a question from before the last change there is left out."""
        super().operation_answered(call, result)
        host = call.connection.host.id
        asked_at = self._asked_at.pop(call, float("-inf"))
        if call.operation is not Operation.MONITOR or result.outcome is not Outcome.COMPLETED:
            return
        if asked_at > self._changed_at[host] - ON_THE_WAY_S:
            self.note("says running" if result.code == 0 else "says stopped", host)

    def fence_begins(self, device: FenceDevice, action: FenceAction) -> None:
        """The manager runs a fence program."""
        super().fence_begins(device, action)
        names = {FenceAction.OFF: "off", FenceAction.STATUS: "asked"}
        if action in names:
            self.note(names[action], device.parameters["plug"])

    def fence_ends(
        self, device: FenceDevice, action: FenceAction, result: FenceResult | None, began: float
    ) -> None:
        """A fence program ended."""
        super().fence_ends(device, action, result, began)
        host = device.parameters["plug"]
        if result is None or not result.succeeded:
            return
        if action is FenceAction.OFF:
            self.note("done", host)
        elif action is FenceAction.STATUS and result.power is PowerState.OFF:
            self.note("says off", host)
            self._words[host] += 1
            self.clock.after(WORD_S, self._grows_old, host, self._words[host])

    def _grows_old(self, host: str, word: int) -> None:
        """The last word of a device is no proof any more."""
        if self._words[host] == word:
            self.note("aged", host)


def _notes(texts: list[str]) -> dict[str, str]:
    """The journal's last word on the fences of each host."""
    remembered = Remembered()
    for text in texts:
        apply(remembered, Record.from_json(json.loads(text)))
    notes = {}
    for name in HOSTS:
        host = remembered.host(name)
        held = "cancelled" if host.fence_cancelled else "-"
        notes[name] = "intent" if host.fence_intent else "off" if host.powered_off else held
    return notes


def scenario(seed: int, kinds: tuple[str, ...] = KINDS) -> Scenario:
    """The faults and commands of a seed, on a cluster that the model can follow."""
    full = planned(seed, DURATION_S, focus=kinds)
    actions = [_fitted(action) for action in full.actions]
    settings = {**full.settings, "fence_on_connection_close": False}
    return replace(
        full,
        hosts={name: {} for name in HOSTS},
        groups=(GroupPlan(HOSTS, ((GROUP, ""),)),),
        settings=settings,
        actions=tuple(actions),
        monitor_interval_s={},
        options={**full.options, "observe": False, "operator_s": 0.0},
    )


def _fitted(action: Action) -> Action:
    """The same on this cluster: every other host and resource becomes one of those here."""
    args = dict(action.args)
    for key in ("host", "to", "object"):
        value = args.get(key)
        if isinstance(value, str) and value.startswith("h"):
            args[key] = HOSTS[int(value[1:]) % len(HOSTS)]
        elif isinstance(value, str) and value.startswith(("g", "s")):
            args[key] = GROUP
    if "hosts" in args:
        args["hosts"] = sorted({HOSTS[int(name[1:]) % len(HOSTS)] for name in args["hosts"]})
    if "resource" in args:
        args["resource"] = GROUP
    if action.kind == "device":
        args.update(level=0, number=0)
    if action.kind == "manager_crash":
        args["observe"] = False
    if action.kind == "command":
        args["force"] = False
    return replace(action, args=args)


def record(seed: int, kinds: tuple[str, ...] = KINDS) -> Trace:
    """Run the scenario of a seed with these kinds of faults and commands, and return its trace."""
    with quiet():
        return _without_repetitions(_play(scenario(seed, kinds)))


def _play(found: Scenario) -> Trace:
    simulation = Simulation(found, world_type=RecordingWorld)
    simulation.faults.schedule()
    simulation.start_manager()
    simulation.run_until(found.duration_s)
    world = simulation.world
    if not isinstance(world, RecordingWorld):
        raise TypeError("the simulation made another world")
    world.forget()
    simulation.dispose()
    return world.trace


def _without_repetitions(trace: Trace) -> Trace:
    """Leave out a monitor's answer that repeats the last one while nothing else happened."""
    kept: Trace = []
    last: dict[str, str] = {}
    for event in trace:
        what, host = event["what"], event["host"]
        if not what.startswith("says ") or what == "says off":
            last.clear()
        elif last.get(host) == what:
            continue
        else:
            last[host] = what
        kept.append(event)
    return kept
