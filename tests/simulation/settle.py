"""What must come true once faults end: groups run, in the right place, and the status says so.

Three stages, each until all is as expected or its bound has passed:

1. faults end, hosts without power stay without it: groups whose hosts may be fenced run elsewhere;
2. every host is up: what was neither stopped, unmanaged nor in error runs, without any command;
3. the operator mends what only an operator may: everything runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from halo.core.cluster.knowledge import Presence
from halo.core.model import LossPolicy, ResourceGroup
from tests.simulation.devices import DEAD_S
from tests.simulation.hosts import SimHost

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

STAGE_BOUND_S = 150.0
SLOW_ROUNDS = 8
"""So many answers of the slowest device longer: one may just have been asked in vain, then there is
a pause, an off, the question that confirms; and where several hosts are off, rounds of questions
until their answers come together."""

POLL_S = 3.0


class Settling:
    """Lets one simulation come to rest, and checks that it does."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.world = simulation.world
        self.orders = simulation.world.oracle.orders
        self.stage = 1
        devices = simulation.world.outlets.by_name.values()
        slowest_s = max((DEAD_S if o.dead else o.slow_s for o in devices), default=0.0)
        self.bound_s = STAGE_BOUND_S + SLOW_ROUNDS * slowest_s

    def run(self) -> None:
        """All three stages; a violation ends it early."""
        self.simulation.faults.heal()
        if not self.simulation.scenario.options.get("leave_off"):
            self._power_up()
        self._wait(1)
        self._power_up()
        self._wait(2)
        self._repair()
        self._wait(3)

    def _power_up(self) -> None:
        self.world.outlets.repair()
        for host in self.world.hosts.values():
            host.hold_off_until = 0.0
            self.world.outlets.reconnect(host.id)
            host.power_on("the end of all faults")

    def _wait(self, stage: int) -> None:
        self.stage = stage
        self.world.say("CHECK", f"stage {stage} of coming to rest")
        began = self.world.clock.now
        wrong = ["not looked yet"]
        while wrong and not self.world.violations:
            if self.world.clock.now - began > self.bound_s:
                self.world.violated("liveness", f"stage {stage}: {'; '.join(wrong[:4])}")
                return
            self.simulation.run_until(self.world.clock.now + POLL_S)
            if stage == 3 and (self.world.clock.now - began) % 15.0 < POLL_S:
                self._mend()
            wrong = self._wrong()
            self.world.oracle.checks += 1

    # --- the operator's part -----------------------------------------------------------------

    def _repair(self) -> None:
        """In an order that an operator would take; refusals do no harm."""
        self._give("thaw", "")
        self._mend()
        for host in self.world.cluster.hosts:
            self._give("activate", host)
        for group in self.world.cluster.groups:
            self._give("manage", group)
            self._give("start", group)

    def _mend(self) -> None:
        self._power_up()  # an off that came late, after all faults had ended, is to be undone
        for name in self.world.cluster.groups:
            self.simulation.operator.remove_copies(name)
        self.simulation.operator.see_to_former_hosts()
        current = self.simulation.current
        if current is None:
            return
        for host in self.world.cluster.hosts:
            memory = current.manager.state.memory_of_host(host)
            if memory.fenced or memory.distrusted:
                self._give("reset", host)
        for group in self.world.cluster.groups.values():
            remembered = current.manager.state.memory_of(group)
            if remembered.error or remembered.start_failures or remembered.left_alone:
                self._give("cleanup", group.id)
            if self.stage == 3 and self.orders.wanted[group.id].possible != [True]:
                # A stop whose fate nobody knows; a start was refused on account of an error.
                self._give("start", group.id)

    def _give(self, name: str, object: str) -> None:
        while self.simulation.operator.pending and not self.world.violations:
            self.simulation.run_until(self.world.clock.now + 0.1)
        self.simulation.operator.command(name, object)

    # --- what is expected --------------------------------------------------------------------

    def _wrong(self) -> list[str]:
        current = self.simulation.current
        if current is None:
            return ["no manager runs"]
        status = current.manager.operations.status()
        shown = {group["id"]: group for group in status["groups"]}
        wrong = [
            f"{host['id']} is shown as connected={host['connected']}"
            for host in status["hosts"]
            if host["connected"] != self.world.hosts[host["id"]].powered
        ]
        for group in self.world.cluster.groups.values():
            if self._is_expected(group):
                wrong += self._problems(group, shown[group.id])
            elif self.stage == 3:
                wrong.append(f"{group.id} may not run: {self._why_not(group)}")
        return wrong

    def _problems(self, group: ResourceGroup, shown: dict[str, Any]) -> list[str]:
        complete = [
            host
            for host in self._candidates(group)
            if all(self.world.runs(host, r) for r in group.resources)
        ]
        if len(complete) != 1:
            where = {
                h.id: [r.id for r in group.resources if self.world.runs(h, r)]
                for h in self._candidates(group)
            }
            return [f"{group.id} does not run: {where}; {shown['status']}: {shown['comment']}"]
        host = complete[0]
        if not shown["status"].startswith("Running") or shown["host"] != host.id:
            return [f"{group.id} runs on {host.id}, shown {shown['status']} on {shown['host']}"]
        for name in group.company.together_with if self.stage == 3 else ():
            if not all(self.world.runs(host, r) for r in self.world.cluster.groups[name].resources):
                return [f"{group.id} runs on {host.id}, away from {name}"]
        at_home = host.id == group.home_host
        if (shown["status"] == "Running") != at_home:
            return [f"{group.id} runs on {host.id}, shown as {shown['status']}"]
        if not self._memory_active(host.id) and self._better(group, host):
            return [f"{group.id} still runs on {host.id}, which is deactivated"]
        return []

    def _candidates(self, group: ResourceGroup) -> list[SimHost]:
        return [self.world.hosts[host] for host in group.candidates]

    def _memory_active(self, host: str) -> bool:
        return bool(self.simulation.current.manager.state.memory_of_host(host).active)  # type: ignore[union-attr]  # checked by the caller

    def _better(self, group: ResourceGroup, than: SimHost) -> list[str]:
        return [
            host.id
            for host in self._candidates(group)
            if host is not than and host.powered and self._memory_active(host.id)
        ]

    def _why_not(self, group: ResourceGroup) -> str:
        memory = self.simulation.current.manager.state.memory_of(group)  # type: ignore[union-attr]  # checked by the caller
        where = {h.id: sorted(h.running) for h in self._candidates(group)}
        return f"{memory} {self.orders.managed[group.id].possible} {where}"

    def _is_expected(self, group: ResourceGroup) -> bool:
        """May and should this group run by now?"""
        current = self.simulation.current
        assert current is not None
        state = current.manager.state
        memory = state.memory_of(group)
        name = group.id
        if not (
            self.orders.managed[name].possible == [True]
            and self.orders.wanted[name].possible == [True]
            and self.orders.frozen.possible == [False]
        ):
            return False
        if memory.error is not None or memory.start_failures or memory.left_alone:
            return False
        if set(memory.former) - set(group.candidates if self.stage > 1 else ()):
            return False  # it waits for proof, or for the operator's word
        everywhere = self.world.hosts.values()
        if sum(any(self.world.runs(h, r) for r in group.exclusive) for h in everywhere) > 1:
            return False  # copies by hand, or what another config left running
        if not all(self._is_expected(self.world.cluster.groups[name]) for name in group.after):
            return False  # it waits for its turn
        if self.stage < 3 and (group.needs or group.company.apart_from):
            return False  # there may be no room for it before all hosts are back
        if not all(
            self._is_expected(self.world.cluster.groups[name])
            for name in group.company.together_with
        ):
            return False
        hosts = self._candidates(group)
        if self._waits_for_an_operator(group):
            return False
        if not any(h.powered and self._memory_active(h.id) for h in hosts):
            return False
        return all(h.powered or self._may_be_fenced(h) for h in hosts)

    def _waits_for_an_operator(self, group: ResourceGroup) -> bool:
        """Did somebody start the group by hand while it was last seen on a host that is dark now?

        These are two copies. Nothing is started until an operator steps in or the dark host is back
        (S9), and the status says so."""
        state = self.simulation.current.manager.state  # type: ignore[union-attr]  # checked by the caller
        copies = [h.running.get(r.id) for h in self._candidates(group) for r in group.exclusive]
        return any(copy is not None and copy.by_hand for copy in copies) and any(
            not host.powered
            and state.hosts[host.id].is_out_of_sight
            and state.candidate(group, host.id).last_seen is Presence.RUNNING
            for host in self._candidates(group)
        )

    def _may_be_fenced(self, host: SimHost) -> bool:
        """Is it plain that a dead host is, or will be, proven off?"""
        fences, state = self.world.oracle.fences, self.simulation.current.manager.state  # type: ignore[union-attr]  # checked by the caller
        at, memory = state.hosts[host.id], state.memory_of_host(host.id)
        config = self.world.cluster.hosts[host.id]
        if not config.fence_levels:
            return False
        if at.power_proof is not None:
            return True  # confirmed already, and the device works
        dark = [h for h in self.world.hosts.values() if not h.powered]
        return (
            config.on_loss is LossPolicy.FENCE
            and not memory.fenced
            and not memory.distrusted
            and memory.seen
            and len(dark) <= 2
            and len(fences.automatic) < self.world.cluster.settings.fence_limit - 1
            and host.id not in self.orders.fences_asked
            and all(
                self.orders.managed[g.id].possible == [True]
                for g in self.world.cluster.groups_of_host[host.id]
            )
        )
