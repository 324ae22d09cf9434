"""The faults of several managers and their store, besides those of a cluster."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from halo.adapters.etcd.leadership import LEASE_S
from halo.adapters.etcd.values import put, transaction
from tests.simulation.faults import Faults
from tests.simulation.managers.etcd.store import ELECTION_S, EXPIRY_S
from tests.simulation.managers.leaders import BASE, HEAD, LEADER

if TYPE_CHECKING:
    from tests.simulation.managers.node import Node
    from tests.simulation.managers.simulation import ManagersSimulation

LEADS_AFTER_S = (LEASE_S + ELECTION_S) / 0.95 + EXPIRY_S + 4.0
"""After the last fault: a lease that is extended once, by slow clocks. Then a restart, a look at
the key, and the reading of the journal."""


class ManagersFaults(Faults):
    """The scenario's actions on several managers."""

    def __init__(self, simulation: ManagersSimulation) -> None:
        super().__init__(simulation)
        self.managers = simulation
        self._leaders = simulation.managers_world.leaders
        self.ways, self.store = simulation.managers_world.ways, simulation.managers_world.store

    def _node(self, args: dict[str, Any]) -> Node | None:
        """A node by its number; or the one that leads, if any."""
        if args["node"] == "leader":
            current = self.managers.current
            return None if current is None else current.node
        found: Node = self.managers.nodes[args["node"]]
        return found

    # --- managers ----------------------------------------------------------------------------

    def _node_freeze(self, args: dict[str, Any]) -> None:
        if (node := self._node(args)) is not None:
            node.freeze(args["for_s"], args["how"])

    def _node_wake(self, args: dict[str, Any]) -> None:
        self.managers.wake_manager()

    def _agents_restart(self, args: dict[str, Any]) -> None:
        for host in self.world.hosts.values():
            if host.calm_until <= self.clock.now:
                host.crash_agent()
                self._for(args, host.start_agent)

    def _node_cut(self, args: dict[str, Any]) -> None:
        """A machine that does not reach some hosts, which the others reach."""
        if (node := self._node(args)) is None:
            return
        names = [name for name in self.world.hosts if args["every"] or name in args["hosts"]]
        hosts = [self.world.hosts[name] for name in names]
        pairs = {(node.name, host.id) for host in hosts if host.calm_until <= self.clock.now}
        self.managers.managers_world.cut_hosts |= pairs
        self._for(args, self._mend_cuts, pairs)

    def _mend_cuts(self, pairs: set[tuple[str, str]]) -> None:
        self.managers.managers_world.cut_hosts -= pairs
        for _, host in sorted(pairs):
            for connection in list(self.world.hosts[host].connections):
                # TCP sends again some time later, backing off as it does.
                self.clock.after(self.world.random.uniform(0.01, 1.5), connection.path_mended)

    def _node_stop_at(self, args: dict[str, Any]) -> None:
        if (node := self._node(args)) is not None:
            node.stop_at(args["what"], args["for_s"], args["how"])

    def _node_kill(self, args: dict[str, Any]) -> None:
        if (node := self._node(args)) is not None:
            node.kill(args["down_s"])

    def _node_term(self, args: dict[str, Any]) -> None:
        if (node := self._node(args)) is not None and node.process is not None:
            self.world.say(node.name, "the manager is told to end")
            node.process.terminate()

    def _step_down(self, args: dict[str, Any]) -> None:
        if self.managers.current is not None:
            self.managers.current.step_down()

    # --- the store ---------------------------------------------------------------------------

    def _etcd_cut(self, args: dict[str, Any]) -> None:
        if (node := self._node(args)) is not None:
            pairs = {(node.name, member) for member in args["members"]}
            self.ways.cut |= pairs
            self._for(args, self.ways.cut.difference_update, pairs)

    def _etcd_down(self, args: dict[str, Any]) -> None:
        self.ways.down.add(args["member"])
        if args["member"] == self.store.leader and self.store.has_quorum:
            self.clock.after(ELECTION_S, self._elect, args["member"])
        self._for(args, self.ways.down.discard, args["member"])

    def _elect(self, gone: int) -> None:
        if self.store.leader == gone:
            self.store.elect((gone + 1) % 3)

    def _etcd_slow(self, args: dict[str, Any]) -> None:
        for member in args["members"]:
            self.ways.slow_s[member] = args["up_to_s"]
            self._for(args, self._quick_again, member)

    def _quick_again(self, member: int) -> None:
        self.ways.slow_s.pop(member, None)

    def _etcd_lossy(self, args: dict[str, Any]) -> None:
        for what in ("lost", "unanswered", "errors"):
            setattr(self.ways, what, args[what])
            self._for(args, setattr, self.ways, what, 0.0)

    def _etcd_quorum(self, args: dict[str, Any]) -> None:
        self.store.lose_quorum()
        self._for(args, self.store.regain_quorum)

    def _etcd_elect(self, args: dict[str, Any]) -> None:
        if self.store.has_quorum:
            self.store.elect((self.store.leader + 1) % 3)

    def _etcd_depose(self, args: dict[str, Any]) -> None:
        self.store.depose(args["for_s"])

    def _etcd_rebuild(self, args: dict[str, Any]) -> None:
        """An operator loses etcd and imports the journal into a new one. He forgets the terms."""
        self.world.say("operator", "builds etcd anew, from a copy of the journal")
        for node in self.managers.nodes:
            node.kill()
        self.store.rebuild(lambda key: key == HEAD or "/log/" in key or "/parts/" in key)
        self._leaders.rebuilt()
        self.managers.managers_world.waits_for_operator = True
        self._for(args, self._raise_terms)

    def _raise_terms(self) -> None:
        """`halo store raise-term`, while nobody leads. Then all managers are started."""
        world = self.managers.managers_world
        if not world.waits_for_operator:
            return
        for node in self.managers.nodes:
            node.kill(1.0)
        if self.store.items.get(LEADER) is not None:
            self.clock.after(1.0, self._raise_terms)
            return
        base = {"base": self._leaders.highest_term, "reason": "rebuilt", "at": 0.0}
        world.say("operator", f"raises the terms above {base['base']}")
        self.store.txn(None, transaction([], [put(BASE, json.dumps(base).encode())]))
        world.waits_for_operator = False
        for node in self.managers.nodes:
            node.start()

    # --- the end of all faults ---------------------------------------------------------------

    def heal(self) -> None:
        self.ways.heal()
        self.managers.managers_world.cut_hosts.clear()
        for node in self.managers.nodes:
            node.stop_at("", 0.0, "")
        super().heal()
        self._raise_terms()
        for node in self.managers.nodes:
            node.start()
        raising_s = 2 * LEASE_S if self.managers.managers_world.waits_for_operator else 0.0
        self.clock.after(LEADS_AFTER_S + raising_s, self._leaders.somebody_leads)
