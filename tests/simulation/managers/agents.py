"""Simulated agents that serve one of several managers: the real Arbiter decides which one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from halo.core.errors import LinkError, Loss, LossKind
from halo.core.model import Operation
from halo.core.peers.calls import BadTerm, Busy, StaleTerm
from halo.remote.arbiter import Arbiter
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
        link = cast("NodeConnection", connection)
        answer = self.arbiter.claim(
            connection, link.manager, CLUSTER, link.hello_term, self.world.clock.now
        )
        if isinstance(answer, Busy):
            self.world.counts["agents busy with another manager"] += 1
            connection.answer_hello("busy")
        elif isinstance(answer, StaleTerm | BadTerm):
            self.world.counts["greetings with a stale term"] += 1
            link.answer_stale(answer)
        else:
            self._world.leaders.obeyed(self.host.id, connection, link.hello_term)
            self.served = connection
            if answer is not None and answer is not connection:
                self._drop_all(answer)
                answer.end_from_host()
            connection.answer_hello("welcome")

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
        self._terms: dict[str, int] = {}  # on its disk
        super().__init__(world, name, options)

    def arbiter_of_start(self) -> Arbiter[SimConnection]:
        """The arbiter of an agent that starts now."""
        arbiter: Arbiter[SimConnection] = Arbiter()
        arbiter._terms = self._terms
        return arbiter


def stale(answer: StaleTerm | BadTerm) -> LinkError:
    """What a manager makes of this refusal."""
    return LinkError(Loss(LossKind.BUSY, str(answer)))
