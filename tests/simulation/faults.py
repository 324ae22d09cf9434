"""Makes the actions of a scenario happen, and ends each fault when its time is over."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.simulation.devices import Outlet
from tests.simulation.hosts import SimHost
from tests.simulation.model import Action
from tests.simulation.orders import Remembered

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

SILENCING = frozenset(
    {
        "agent_crash",
        "agent_hang",
        "hole",
        "delay",
        "handshake",
        "refuse",
        "busy",
        "local",
        "tardy",
        "upgrade",
        "shortage",
    }
)


class Faults:
    """The scenario's actions on one simulation."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.world = simulation.world
        self.clock = simulation.clock
        self.over = False  # from here on the world is calm

    def schedule(self) -> None:
        """Put every action on the clock."""
        for action in self.simulation.scenario.actions:
            self.clock.at(action.at, self._arm, action)

    def _arm(self, action: Action) -> None:
        if self.over:
            return
        if not action.trigger:
            self.happen(action, "")
            return

        def act(host: str) -> None:
            if action.kind == "burst":  # in the middle of what the manager does
                self.happen(action, host)
                return
            self.clock.after(action.delay, self.happen, action, host)

        self.world.waiting.setdefault(action.trigger, []).append(act)

    def happen(self, action: Action, event_host: str) -> None:
        """Make one action happen now; "*" as host stands for the host of the event."""
        if self.over:
            return
        args = dict(action.args)
        if args.get("host") == "*":
            if event_host not in self.world.hosts:
                return
            args["host"] = event_host
        self.world.counts[f"fault {action.kind}"] += 1
        if action.kind in SILENCING and self._is_calm(action, args):
            return
        if action.kind != "command":
            self.world.say("FAULT", f"{action.kind} {args}")
        getattr(self, f"_{action.kind}")(args)

    def _is_calm(self, action: Action, args: dict[str, Any]) -> bool:
        """The axiom of fencing: a host whose device says off falsely must go on answering."""
        names = args.get("hosts") or ([args["host"]] if "host" in args else list(self.world.hosts))
        until = max(self.world.hosts[name].calm_until for name in names)
        if until <= self.clock.now:
            return False
        self.clock.at(until + 0.001, self.happen, action, args.get("host", ""))
        return True

    def _host(self, args: dict[str, Any]) -> SimHost:
        return self.world.hosts[args["host"]]

    def _for(self, args: dict[str, Any], undo: Callable[..., None], *what: Any) -> None:
        self.clock.after(args["for_s"], undo, *what)

    # --- hosts -------------------------------------------------------------------------------

    def _power_off(self, args: dict[str, Any]) -> None:
        host = self._host(args)
        host.power_off("fault")
        if args["back_s"]:
            self.clock.after(args["back_s"], host.power_on, "back")

    def _agent_crash(self, args: dict[str, Any]) -> None:
        host = self._host(args)
        host.crash_agent()
        self._for(args, host.start_agent)

    def _agent_hang(self, args: dict[str, Any]) -> None:
        host = self._host(args)
        host.hang_agent()
        self._for(args, host.wake_agent)

    def _blink(self, args: dict[str, Any]) -> None:
        host = self._host(args)
        host.power_off("fault")
        self.clock.after(
            args["off_s"], host.power_on, "back at once", args["agent_s"], args["services"]
        )

    def _upgrade(self, args: dict[str, Any]) -> None:
        host = self._host(args)
        host.crash_agent()
        host.legacy, host.watches = args["version"] == "old", args["version"] == "watches"
        self.clock.after(args["down_s"], host.start_agent)

    def _tardy(self, args: dict[str, Any]) -> None:
        host = self._host(args)
        host.tardy = dict.fromkeys(args["what"], args["up_to_s"])
        self._for(args, setattr, host, "tardy", {})

    def _shortage(self, args: dict[str, Any]) -> None:
        if "host" in args:
            self._host(args).shortage = args["share"]
            self._for(args, setattr, self._host(args), "shortage", 0.0)
        else:
            self.world.shortage = dict.fromkeys(args["of"], args["share"])
            self._for(args, setattr, self.world, "shortage", {})

    def _die(self, args: dict[str, Any]) -> None:
        for host in self.world.hosts.values():
            host.stop_by_itself(args["resource"])

    def _hand_start(self, args: dict[str, Any]) -> None:
        self._host(args).start_by_hand(args["resource"])

    def _boot_services(self, args: dict[str, Any]) -> None:
        self._host(args).boot_services = args["resources"]

    def _script(self, args: dict[str, Any]) -> None:
        key = (args["host"], args["resource"], args["operation"])
        self.world.script_faults[key] = [args["fault"], args["count"]]

    def _report_lost(self, args: dict[str, Any]) -> None:
        self._host(args).reports_to_lose = args["count"]

    # --- network -----------------------------------------------------------------------------

    def _hole(self, args: dict[str, Any]) -> None:
        hosts = [self.world.hosts[n] for n in args.get("hosts", [args.get("host")])]
        for host in hosts:
            host.hole_to = host.hole_to or args["way"] in ("to", "both")
            host.hole_from = host.hole_from or args["way"] in ("from", "both")
        self._for(args, self._mend_holes, hosts)

    def _mend_holes(self, hosts: list[SimHost]) -> None:
        for host in hosts:
            host.hole_to = host.hole_from = False
            for connection in list(host.connections):
                # TCP sends again some time later, backing off as it does.
                self.clock.after(self.world.random.uniform(0.01, 1.5), connection.path_mended)

    def _delay(self, args: dict[str, Any]) -> None:
        host = self._host(args)
        host.delay_s = args["delay_s"]
        self._for(args, setattr, host, "delay_s", 0.0)

    def _handshake(self, args: dict[str, Any]) -> None:
        host = self._host(args)
        host.handshake_s = args["delay_s"]
        self._for(args, setattr, host, "handshake_s", 0.0)

    def _refuse(self, args: dict[str, Any]) -> None:
        host = self._host(args)
        host.refuses = True
        self._for(args, setattr, host, "refuses", False)
        self._reset(args)

    def _reset(self, args: dict[str, Any]) -> None:
        host = self._host(args)
        for connection in list(host.connections):
            if connection.agent is not None and connection.agent.alive:
                if not connection.agent.hung:
                    connection.agent.closed(connection)
                connection.end_from_host()

    def _cut(self, args: dict[str, Any]) -> None:
        """The agent ended its connections some time ago, and the manager learns it now."""
        for connection in list(self._host(args).connections):
            if connection.agent is not None and connection.agent.alive and connection.is_up:
                connection.ended_at_host = True
                if not connection.agent.hung:
                    connection.agent.closed(connection)
                connection.cut()

    def _local(self, args: dict[str, Any]) -> None:
        host = self._host(args)
        host.local_trouble = args["loss"]
        self._for(args, setattr, host, "local_trouble", "")
        self._reset(args)

    def _busy(self, args: dict[str, Any]) -> None:
        agent = self._host(args).agent
        if agent is not None:
            agent.busy_until = self.clock.now + args["for_s"]
            self._reset(args)

    # --- fence devices -----------------------------------------------------------------------

    def _outlet(self, args: dict[str, Any]) -> Outlet | None:
        devices = self.world.outlets.by_name
        named = devices.get(f"{args['host']}/{args['level']}.{args['number']}")
        return named or devices.get(f"{args['host']}/0.0")

    def _device(self, args: dict[str, Any]) -> None:
        outlet = self._outlet(args)
        if outlet is not None:
            outlet.fault = args["fault"]
            self._for(args, setattr, outlet, "fault", "")

    def _miswire(self, args: dict[str, Any]) -> None:
        outlet = self.world.outlets.by_name.get(f"{args['host']}/0.0")
        if outlet is not None and args["to"] != args["host"]:
            outlet.miswired_to, outlet.way = self.world.hosts[args["to"]], "both"
            self._for(args, setattr, outlet, "miswired_to", None)

    def _crossed(self, args: dict[str, Any]) -> None:
        outlet = self._outlet(args)
        if outlet is not None and args["to"] != args["host"]:
            outlet.miswired_to, outlet.way = self.world.hosts[args["to"]], args["way"]
            self._for(args, setattr, outlet, "miswired_to", None)

    def _erratic(self, args: dict[str, Any]) -> None:
        for outlet in self.world.outlets.of_host.get(args["host"], []):
            outlet.erratic_s = args["up_to_s"]
            self._for(args, setattr, outlet, "erratic_s", 0.0)

    # --- the manager -------------------------------------------------------------------------

    def _manager_crash(self, args: dict[str, Any]) -> None:
        simulation = self.simulation
        simulation.observe_only = args["observe"]
        simulation.down_s = args["down_s"]
        simulation.kill_in = args["steps"]
        if args["steps"] == 0:
            simulation.kill_manager()

    def _manager_term(self, args: dict[str, Any]) -> None:
        self.simulation.down_s = args["down_s"]
        self.simulation.terminate_manager()

    def _manager_stall(self, args: dict[str, Any]) -> None:
        self.simulation.stall_manager(args["for_s"])

    def _config(self, args: dict[str, Any]) -> None:
        self.simulation.config.order(args)

    def _vm_pause(self, args: dict[str, Any]) -> None:
        self.simulation.pause_machine(args["for_s"])

    def _backup(self, args: dict[str, Any]) -> None:
        texts, told = list(self.world.disk.texts), self.world.oracle.orders.remembered()
        self.clock.after(args["restore_s"], self._restore, texts, told, args["down_s"])

    def _restore(self, texts: list[str], told: Remembered, down_s: float) -> None:
        """Somebody starts the manager with an older copy of its state file."""
        if self.over:
            return
        self.simulation.down_s = down_s
        self.simulation.kill_manager()
        self.world.say("operator", "restores a backup of the state file")
        self.world.counts["records lost by a restore"] += len(self.world.disk.texts) - len(texts)
        self.world.disk.texts[:] = texts
        self.world.oracle.orders.restore(told)
        self.world.oracle.fences.restored()
        self.world.oracles.restored()

    def _burst(self, args: dict[str, Any]) -> None:
        """Faults within one decision: after steps of the manager, or after a time."""
        for fault in args["faults"]:
            action = Action(self.clock.now, fault["kind"], fault["args"])
            happen = partial(self.happen, action, args["host"])
            if "steps" in fault:
                self.simulation.between_steps(fault["steps"], happen)
            else:
                self.clock.after(fault["delay"], happen)

    def _disk_full(self, args: dict[str, Any]) -> None:
        self.world.disk.full = True
        self._for(args, setattr, self.world.disk, "full", False)

    def _disk_slow(self, args: dict[str, Any]) -> None:
        self.world.disk.delay_s = args["delay_s"]
        self._for(args, setattr, self.world.disk, "delay_s", 0.0)

    def _disk_hang(self, args: dict[str, Any]) -> None:
        self.world.disk.hangs = True
        self._for(args, setattr, self.world.disk, "hangs", False)

    def _clock_step(self, args: dict[str, Any]) -> None:
        self.world.wall.step(args["by_s"])

    # --- people ------------------------------------------------------------------------------

    def _command(self, args: dict[str, Any]) -> None:
        if args.get("object") == "*":
            return
        self.simulation.operator.command(**{k: v for k, v in args.items() if k != "for_s"})
        if "for_s" in args:
            self.clock.after(args["for_s"], self._thaw)

    def _thaw(self) -> None:
        self.simulation.operator.command("thaw")

    # --- the end of all faults ---------------------------------------------------------------

    def heal(self) -> None:
        """Everything but people and power is as it should be, from now on."""
        self.over = True
        self.world.say("FAULT", "all faults end")
        self.world.waiting.clear()
        self.world.script_faults.clear()
        self.world.outlets.repair()
        self.world.shortage = {}
        self.simulation.meanwhile.clear()
        disk = self.world.disk
        disk.full = disk.hangs = False
        disk.delay_s = 0.0
        for host in self.world.hosts.values():
            host.hole_to = host.hole_from = host.refuses = False
            host.delay_s = host.handshake_s = 0.0
            host.local_trouble = ""
            host.boot_services = []
            host.reports_to_lose = 0
            host.tardy = {}
            host.shortage = 0.0
            host.start_agent()
            if host.agent is not None:
                host.agent.busy_until = 0.0
            host.wake_agent()
            for connection in list(host.connections):
                connection.path_mended()
        self.simulation.wake_manager()
        self.simulation.kill_in = None
        if self.simulation.observe_only or self.world.oracle.observe_only:
            self.simulation.observe_only = False
            self.simulation.down_s = 0.1
            self.simulation.kill_manager()
