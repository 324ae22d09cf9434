"""For fake connections: a monitor asked for by a callback, made of one that is awaited."""

from __future__ import annotations

import asyncio

from halo.core.model import Operation, Resource
from halo.core.outcomes import OperationResult
from halo.ports import AgentConnection, AnswerTaker


class MonitorsByOperation:
    """Implements `monitor` of :class:`halo.ports.AgentConnection` by its `operation`."""

    def monitor(
        self: AgentConnection, resource: Resource, deadline_s: float, take: AnswerTaker
    ) -> None:
        def answered(call: asyncio.Task[OperationResult]) -> None:
            if call.cancelled():
                return
            error = call.exception()
            assert error is None or isinstance(error, Exception)
            take(call.result() if error is None else error)

        work = self.operation(resource, Operation.MONITOR, deadline_s)
        call = asyncio.get_running_loop().create_task(work)
        call.add_done_callback(answered)
