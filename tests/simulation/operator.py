"""The operator: gives commands as the HTTP API does, remembers the answers, mends what is broken.

Keeps to the second axiom of fencing: vouches for a host being off only while it is, and keeps it
off until the manager has said that it took note.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from halo.core.errors import CommandError, HaloError
from halo.manager.api.routes import CLUSTER_COMMANDS, GROUP_COMMANDS
from tests.simulation.model import disk_of

if TYPE_CHECKING:
    from halo.core.model import ResourceGroup
    from tests.simulation.hosts import SimHost
    from tests.simulation.simulation import Incarnation, Simulation

COMMAND_BOUND_S = 60.0
"""The API answers any command but a fence within this (:mod:`halo.manager.api.running`)."""

COMMANDS_AT_ONCE = 4


@dataclass(eq=False)
class Pending:
    """A command without an answer."""

    name: str
    object: str
    asked_at: float
    bound_s: float
    incarnation: Incarnation
    force: bool = False
    to: str = ""
    heard_at: float = float("-inf")  # later than it was asked where the manager stood still


class Operator:
    """Gives commands to whichever manager runs."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.world = simulation.world
        self.orders = simulation.world.oracle.orders
        self.clock = simulation.clock
        self.pending: dict[Pending, None] = {}
        self.world.oracles.pending = self.pending

    def command(
        self,
        name: str,
        object: str = "",
        to: str = "",
        force: bool = False,
        reason: str = "because",
    ) -> None:
        """Give one command, if a manager runs and not too many are under way."""
        current = self.simulation.current
        if current is None or len(self.pending) >= COMMANDS_AT_ONCE:
            return
        if name == "confirm-off" and not self._may_vouch(object, current):
            return
        if name == "cleanup" and not self._may_say_stopped(object):
            return
        bound_s = COMMAND_BOUND_S
        if name == "fence":
            settings = self.world.cluster.settings
            levels = self.world.known_hosts[object].fence_levels if object else ()
            bound_s = 45.0 + 2.2 * settings.fence_timeout_s * len(levels)
        entry = Pending(name, object, self.clock.now, bound_s, current, force, to)
        self.pending[entry] = None
        self.world.counts["commands"] += 1
        self.world.say("operator", f"{name} {object} {to} {'--force' if force else ''}")
        self._asked(entry)
        current.spawn(self._give(entry, current, to, force, reason))
        self.world.tell("command", object)

    def _may_vouch(self, host: str, current: Incarnation) -> bool:
        sim, at = self.world.hosts[host], current.manager.state.hosts.get(host)
        if not sim.powered:
            sim.hold_off_until = self.clock.now + COMMAND_BOUND_S
            return True
        return bool(
            at is not None and at.connected and at.suspect_at is None
        )  # absurd, and to be refused

    def _may_say_stopped(self, group: str) -> bool:
        """A cleanup of a group that was removed says that it is stopped. People look first."""
        disks = self.world.last_disks.get(group, set())
        return group in self.world.cluster.groups or not any(
            disk_of(name) in disks
            for host in self.world.hosts.values()
            for name in (*host.running, *host.scripts)
        )

    async def _give(
        self, entry: Pending, current: Incarnation, to: str, force: bool, reason: str
    ) -> None:
        operations = current.manager.operations
        entry.heard_at = self.clock.now
        oracles = self.world.oracles
        oracles.command(entry)
        is_judged = oracles.judges(entry)
        if is_judged:
            alone = len(self.pending) == 1 and not self.world.disk.is_behind
            oracles.commands.heard(entry, operations.status() if alone else None)
        failure: HaloError | None = None
        if entry.name == "fence":
            self.world.oracle.departures.fence_heard(entry)
        try:
            match entry.name:
                case "manage" | "unmanage":
                    answer = await operations.set_managed(
                        entry.object, entry.name == "manage", reason
                    )
                case "confirm-stopped":
                    answer = await operations.confirm_stopped(entry.object, to, reason)
                case name if name in GROUP_COMMANDS:
                    answer = await operations.group_command(
                        entry.object, entry.name, to=to or None, comment=reason
                    )
                case name if name in (*CLUSTER_COMMANDS, "clear_events"):
                    answer = await operations.cluster_command(entry.name, comment=reason)
                case _:
                    answer = await operations.host_command(
                        entry.object, entry.name, force=force, comment=reason
                    )
            outcome = "done"
        except CommandError as error:
            answer = f"{type(error).__name__}: {error}"
            outcome = "unknown" if "takes effect if" in str(error) else "refused"
            failure = error
        except HaloError as error:
            failure = error
            answer, outcome = f"{type(error).__name__}: {error}", "refused"
        self.world.say("operator", f"{entry.name} {entry.object}: {answer}")
        self.world.counts[f"commands {outcome}"] += 1
        self._answered(entry, outcome, answer)
        status = operations.status() if is_judged or outcome == "done" else None
        if is_judged:
            oracles.commands.answered(entry, failure, answer, status)
        oracles.command(entry, answer)
        if outcome == "done":
            self.simulation.compare_orders(current, status)

    # --- what the answers mean ---------------------------------------------------------------

    def _told(self, entry: Pending) -> tuple[Any, bool] | None:
        """The remembered value that a command sets, and to what."""
        orders = self.orders
        match entry.name:
            case "manage" | "unmanage":
                return orders.managed[entry.object], entry.name == "manage"
            case "start" | "stop":
                return orders.wanted[entry.object], entry.name == "start"
            case "activate" | "deactivate":
                return orders.active[entry.object], entry.name == "activate"
            case "freeze" | "thaw":
                return orders.frozen, entry.name == "freeze"
        return None

    def _asked(self, entry: Pending) -> None:
        told = self._told(entry)
        if entry.name in ("fence", "cancel-fence"):
            self.orders.fences_asked.add(entry.object)
        if told is not None:
            told[0].asked(told[1])
        elif entry.name == "fence":
            self.orders.fencing[entry.object] += 1
        elif entry.name == "confirm-off":
            self.orders.confirming.setdefault(entry.object, []).append(entry)
        elif entry.name == "cleanup":
            self.orders.cleanups[entry.object] += 1

    def _answered(self, entry: Pending, outcome: str, answer: str = "") -> None:
        self.pending.pop(entry, None)
        told = self._told(entry)
        if told is not None:
            told[0].settled(told[1], outcome)
        elif entry.name == "fence":
            self.orders.fencing[entry.object] -= 1
            self.world.oracle.departures.fence_answered(entry)
        elif entry.name == "confirm-off":
            under_way = self.orders.confirming[entry.object]
            under_way.remove(entry)
            if outcome != "refused":
                self.world.oracle.fences.vouched(entry.object, entry.asked_at, entry.heard_at)
            if not under_way:
                self.world.hosts[entry.object].hold_off_until = 0.0
        elif entry.name == "cleanup":
            self.orders.cleanups[entry.object] -= 1

    def manager_gone(self, incarnation: Incarnation) -> None:
        """Commands under way get no answer: they may have been carried out or not."""
        for entry in [e for e in self.pending if e.incarnation is incarnation]:
            self.world.counts["commands unknown"] += 1
            self._answered(entry, "unknown")

    def check_deadlines(self) -> None:
        """No command may be without an answer for longer than the API promises. Nobody answers
        while the manager stands still."""
        if self.clock.now < self.simulation.stalled_until:
            return
        fresh_at = self.world.oracle.fresh_at
        for entry in self.pending:
            waited_s = self.clock.now - max(entry.asked_at, fresh_at)
            if waited_s > entry.bound_s:
                self.world.violated(
                    "API", f"{entry.name} {entry.object} has no answer after {waited_s:.0f} s"
                )

    # --- mending -----------------------------------------------------------------------------

    def look_after(self) -> None:
        """What a good operator does now and then."""
        current = self.simulation.current
        if current is None:
            return
        state = current.manager.state
        for host in self.world.cluster.hosts:
            memory = state.memory_of_host(host)
            if (memory.fenced or memory.distrusted) and state.hosts[host].connected:
                self.command("reset", host)
        for group in self.world.cluster.groups.values():
            remembered = state.memory_of(group)
            if remembered.error or remembered.start_failures or remembered.left_alone:
                if remembered.error_kind is not None:
                    self.remove_copies(group.id)
                self.command("cleanup", group.id)

    def remove_copies(self, name: str) -> None:
        """Stop by hand every copy of a group but the one that is managed, or the fullest."""
        group = self.world.cluster.groups[name]
        hosts = list(self.world.hosts.values())
        counts = {h.id: sum(self.world.runs(h, r) for r in group.exclusive) for h in hosts}
        at = [host for host in hosts if counts[host.id]]
        if len(at) < 2:
            return
        current = self.simulation.current
        holder = current.manager.state.groups[name].managed_on if current else None
        keep = holder if holder in [h.id for h in at] else max(at, key=lambda h: counts[h.id]).id
        for host in at:
            if host.id != keep:
                self._stop_by_hand(group, host)

    def _stop_by_hand(self, group: ResourceGroup, host: SimHost) -> None:
        for resource in group.exclusive:
            host.stop_by_itself(disk_of(resource.id))

    def see_to_former_hosts(self) -> None:
        """Stop by hand what still runs on hosts that are no candidates any more, and confirm it
        where the manager cannot see it."""
        current = self.simulation.current
        if current is None:
            return
        for group in self.world.cluster.groups.values():
            disks = {disk_of(resource.id) for resource in group.exclusive}
            for name in list(current.manager.state.memory_of(group).former):
                host = self.world.hosts[name]
                if current.manager.state.groups[group.id].managed_on == name:
                    continue  # what it gained was there before
                if any(disk_of(lane) in disks for lane in host.scripts):
                    continue  # it may start there in the next moment
                self._stop_by_hand(group, host)
                if name not in self.world.cluster.hosts:
                    self.command("confirm-stopped", group.id, to=name)
