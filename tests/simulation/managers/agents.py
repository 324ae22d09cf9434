"""Simulated agents that serve one of several managers: the real Arbiter decides which one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from halo.core.errors import LinkError, Loss, LossKind
from halo.core.model import Operation
from halo.core.peers.calls import BadTerm, Busy, SameTerm, StaleTerm
from halo.remote.arbiter import Arbiter
from halo.remote.terms import Terms
from tests.simulation.hosts import SimAgent, SimCall, SimHost

if TYPE_CHECKING:
    from tests.simulation.managers.ports import NodeConnection
    from tests.simulation.managers.world import ManagersWorld
    from tests.simulation.network import SimConnection
    from tests.simulation.world import World

CLUSTER = "simulation"


class TermedAgent(SimAgent):
    """An agent that obeys no lower term than it has seen."""

    def __init__(self, host: SimHost) -> None:
        super().__init__(host)
        self.arbiter: Arbiter[SimConnection] = cast("TermedHost", host).arbiter_of_start()
        self._world = cast("ManagersWorld", host.world)

    def receive(self, what: str, connection: SimConnection, call: Any) -> None:
        now = self.world.clock.now
        if not self.hung and what == "heartbeat":
            self.arbiter.call(connection, now)
        if not self.hung and what == "watch" and (why := self._refusal(connection, call.term)):
            cast("NodeConnection", connection).deliver_watch_refusal(why)
            return
        super().receive(what, connection, call)

    def _refusal(self, connection: SimConnection, term: int) -> str:
        """Why a call is not carried out; empty if it is."""
        if not self.arbiter.call(connection, self.world.clock.now):
            return "not served"
        refusal = self.arbiter.check_term(connection, term)
        if refusal is not None:
            return str(refusal)
        self._world.leaders.obeyed(self.host.id, connection, term)
        return ""

    def _hello(self, connection: SimConnection) -> None:
        if self.busy_until > self.world.clock.now:
            connection.answer_hello("busy")
            return
        link, now = cast("NodeConnection", connection), self.world.clock.now
        refusal = self.arbiter.note(link.manager, CLUSTER, link.hello_term, now)
        if refusal is not None:
            self._refuse(link, refusal)
            return
        seen = cast("TermedHost", self.host).on_record.get(CLUSTER)
        is_new = seen is None or seen.term < link.hello_term
        write_s = self.world.random.uniform(0.001, 0.01) if is_new else 0.0
        self.world.clock.after(write_s, self._recorded, link)

    def _recorded(self, link: NodeConnection) -> None:
        """The term is on the disk of the host, if the agent lived so long."""
        if not self.alive or not self.host.powered:
            return
        cast("TermedHost", self.host).on_record = dict(self.arbiter.terms)
        if link.ended_at_host or link.loss is not None:
            return
        now, term = self.world.clock.now, link.hello_term
        answer = self.arbiter.claim(link, link.manager, CLUSTER, term, now)
        if isinstance(answer, Busy | StaleTerm | SameTerm | BadTerm):
            self._refuse(link, answer)
            return
        self._world.leaders.obeyed(self.host.id, link, term)
        self.served = link
        if answer is not None and answer is not link:
            self._drop_all(answer)
            answer.end_from_host()
        link.answer_hello("welcome")

    def _refuse(self, link: NodeConnection, refusal: Busy | StaleTerm | SameTerm | BadTerm) -> None:
        if isinstance(refusal, Busy):
            self.world.counts["agents busy with another manager"] += 1
            link.answer_hello("busy")
        else:
            self.world.counts["greetings with a stale term"] += 1
            link.answer_stale(refusal)

    def closed(self, connection: SimConnection) -> None:
        super().closed(connection)
        self.arbiter.forget(connection)

    def _operation(self, connection: SimConnection, call: SimCall) -> None:
        if (why := self._refusal(connection, call.term)) == "":
            self.enqueue(call)
            return
        connection.operation_is_over(call)
        if call.operation is not Operation.MONITOR:
            self.world.counts["operations refused by agents"] += 1
        self.world.say(self.host.id, f"refuses {call.operation.value} {call.resource.id}: {why}")
        connection.deliver_refusal(call)


class TermedHost(SimHost):
    """A host whose disk keeps the highest term that its agent has seen."""

    agent_type = TermedAgent

    def __init__(self, world: World, name: str, options: dict[str, Any]) -> None:
        self.on_record: Terms = {}
        super().__init__(world, name, options)

    @property
    def answers_promptly(self) -> bool:
        """The axiom of fencing asks for an answer to every manager."""
        cut = cast("ManagersWorld", self.world).cut_hosts
        return super().answers_promptly and all(host != self.id for _, host in cut)

    def arbiter_of_start(self) -> Arbiter[SimConnection]:
        """The arbiter of an agent that starts now."""
        return Arbiter(self.on_record)


def stale(answer: StaleTerm | SameTerm | BadTerm) -> LinkError:
    """What a manager makes of this refusal."""
    return LinkError(Loss(LossKind.BUSY, str(answer)))
