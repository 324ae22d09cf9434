"""Carries operations out: one at a time for each resource, with a deadline, to the end.

If a call is cancelled or lost while its script runs, the script continues to its end or deadline.
The resource's next operation waits for that. An operation whose script has not begun is dropped.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import structlog

from halo.core.outcomes import OperationResult, Outcome
from halo.core.peers import bounds
from halo.core.peers.calls import Request
from halo.remote.scripts import ocf, sessions
from halo.remote.scripts.ocf import Script, ScriptError
from halo.remote.scripts.process import ScriptProcess, ScriptRunner
from halo.remote.scripts.queues import QueueFull, ResourceQueues
from halo.remote.scripts.records import OPERATION_VARIABLE, RunDirectory, RunningScript, WatchMarker
from halo.remote.scripts.timeouts import METADATA_TIMEOUT_S, AdvertisedTimeouts
from halo.telling import PeerLog

log = structlog.get_logger()
peer_log = PeerLog()
"""The log for events that a manager can cause as often as it likes."""

BUSY_LIMIT = 300
"""Resources that are busy at once. Each takes three descriptors, of the 1,024 that a process
usually has. No healthy host runs so many scripts. More are refused instead of queued, so that no
resource ever waits for another."""


Giver: TypeAlias = Callable[[OperationResult], None]
"""Takes a result as soon as it is known, and ignores further ones."""


class Monitor:
    """A monitor that runs again and again, with the values that are the same every time."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.key = request.resource_key
        self.script: Script | None = None
        self.environments: dict[float, dict[bytes, bytes]] = {}  # by timeout


class Operations:
    """The agent's scripts. `environment` is what they inherit. Needs a running event loop."""

    def __init__(
        self,
        runner: ScriptRunner,
        records: RunDirectory,
        ocf_root: Path,
        test_id: str,
        environment: Mapping[str, str],
    ) -> None:
        self._runner = runner
        self._records = records
        self._ocf_root = ocf_root
        self._test_id = test_id
        self._inherited = dict(environment)
        self._queues = ResourceQueues()
        self._timeouts = AdvertisedTimeouts(runner)
        self._marker = WatchMarker(records.path, ocf_root / "resource.d")
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> int:
        """How many resources are busy."""
        return self._queues.busy

    async def perform(
        self, request: Request, ended: Callable[[], None] = lambda: None
    ) -> OperationResult:
        """Run one operation when its resource is free. A script's fault never raises.

        Cancelling drops the operation if its script has not begun, and otherwise only the answer.
        `ended` is called once: when the operation was dropped or refused, or when it is over and
        before the resource's next operation begins.
        """
        key = request.resource_key
        try:
            script = ocf.locate(self._ocf_root, request)
            if self._queues.busy >= BUSY_LIMIT:
                raise ScriptError(f"this agent already runs {BUSY_LIMIT} operations")
            await self._queues.enter(key)
        except (ScriptError, QueueFull) as error:
            ended()
            return _not_run(request, str(error))
        except asyncio.CancelledError:
            ended()
            raise
        answer: asyncio.Future[OperationResult] = asyncio.get_running_loop().create_future()
        self._keep(self._occupy_lane(key, script, request, answer, ended))
        return await asyncio.shield(answer)

    async def monitor(self, monitor: Monitor, begin: Callable[[], bool], found: Giver) -> None:
        """Run a monitor of a watch when its resource is free. A script's fault never raises.

        `begin` is called when the resource is free, and may call the monitor off with False.
        `found` is called as soon as the result is known. It is not called if the monitor was called
        off, or if too many operations wait for the resource. Returns when the resource is free
        again.
        """
        try:
            await self._queues.enter(monitor.key)
        except QueueFull:
            return
        try:
            if begin():
                monitor.script = monitor.script or ocf.locate(self._ocf_root, monitor.request)
                await self._run_monitor(monitor, monitor.script, found)
        except ScriptError as error:
            found(OperationResult(Outcome.NOT_RUN, message=str(error)))
        finally:
            self._queues.leave(monitor.key)

    async def _run_monitor(self, monitor: Monitor, script: Script, found: Giver) -> None:
        request = monitor.request
        timeout_s = await self._timeout_s(script, request)
        environment = monitor.environments.get(timeout_s)
        if environment is None:
            marker = self._marker.operation_id(monitor.key, timeout_s)
            text = self._environment(script, request, timeout_s, marker)
            environment = {os.fsencode(name): os.fsencode(text[name]) for name in text}
            monitor.environments = {timeout_s: environment}
        starting = self._runner.start([str(script.path), "monitor"], environment)
        process, left_s = await self._await_start(starting, script, timeout_s, found)
        await self._see_through(process, request, left_s, found)

    async def _timeout_s(self, script: Script, request: Request) -> float:
        if request.timeout_s is not None:
            return request.timeout_s
        bare = self._environment(script, replace(request, parameters={}), METADATA_TIMEOUT_S)
        return await self._timeouts.of(script, request.operation, bare)

    async def resume(self) -> None:
        """Take over scripts that a crashed agent left running. Call it before serving."""
        found = await self._runner.in_thread(self._find_running)
        left: dict[str, list[RunningScript]] = {}
        for record in found:
            left.setdefault(record.resource_key, []).append(record)
        for key, records in left.items():
            self._queues.occupy(key)
            self._keep(self._await_orphans(key, records))

    def _find_running(self) -> list[RunningScript]:
        running = []
        for record in self._records.load():
            found = record.find()
            if found is None:
                self._records.remove(record.id)
            else:
                running.append(found)
        return running + self._marker.find()

    def _keep(self, work: asyncio._CoroutineLike[None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _occupy_lane(
        self,
        key: str,
        script: Script,
        request: Request,
        answer: asyncio.Future[OperationResult],
        ended: Callable[[], None],
    ) -> None:
        def give(result: OperationResult) -> None:
            if not answer.done():
                answer.set_result(result)

        try:
            await self._run(key, script, request, give)
        except ScriptError as error:
            give(_not_run(request, str(error)))
        except Exception as error:
            peer_log.exception("an operation failed inside the agent", kind=request.kind)
            give(_not_run(request, f"internal error of the agent: {error!r}"))
        finally:
            ended()
            self._queues.leave(key)

    async def _run(self, key: str, script: Script, request: Request, give: Giver) -> None:
        timeout_s = await self._timeout_s(script, request)
        id = uuid.uuid4().hex
        environment = self._environment(script, request, timeout_s, id)
        record = RunningScript(
            id=id,
            resource_key=key,
            kind=request.kind,
            operation=request.operation.value,
            boot_id=sessions.boot_id(),
            deadline_boot_s=sessions.boot_clock() + timeout_s,
            deadline_unix_s=time.time() + timeout_s,
        )
        began = time.monotonic()
        argv = [str(script.path), request.operation.value]
        starting = self._runner.start(argv, environment, record=record)
        process, left_s = await self._await_start(starting, script, timeout_s, give)
        try:
            result = await self._see_through(process, request, left_s, give)
        finally:
            await self._remove(record)
        _log_end(request, result, time.monotonic() - began)

    async def _await_start(
        self,
        starting: Coroutine[Any, Any, ScriptProcess],
        script: Script,
        timeout_s: float,
        give: Giver,
    ) -> tuple[ScriptProcess, float]:
        """Wait until the script has started. Also returns how much of its time is left.

        On a dead file system the start may take for ever. The caller gets an answer at the
        deadline. A script that starts after it must not run.
        """
        task = asyncio.get_running_loop().create_task(starting)
        done, _ = await asyncio.wait([task], timeout=timeout_s)
        if done:
            return task.result(), timeout_s
        why = f"{script.path} could not be read in time; check whether its file system answers"
        give(OperationResult(Outcome.TIMED_OUT, message=why))
        log.error("a script cannot be read", path=str(script.path))
        return await task, 0.0

    def _environment(
        self, script: Script, request: Request, timeout_s: float, id: str = ""
    ) -> dict[str, str]:
        environment = ocf.environment(
            script,
            request,
            timeout_s,
            ocf_root=self._ocf_root,
            test_id=self._test_id,
            inherited=self._inherited,
        )
        if id:
            environment[OPERATION_VARIABLE] = id
        return environment

    async def _see_through(
        self,
        process: ScriptProcess,
        request: Request,
        timeout_s: float,
        give: Giver,
    ) -> OperationResult:
        """Wait until the script ends or its deadline ends it. Answer as soon as possible."""
        try:
            async with asyncio.timeout(timeout_s):
                status = await asyncio.shield(process.exited)
        except TimeoutError:
            return await self._end_late(process, request, timeout_s, give)
        result = _completed(status, process.stderr)
        give(result)
        return result

    async def _end_late(
        self,
        process: ScriptProcess,
        request: Request,
        timeout_s: float,
        give: Giver,
    ) -> OperationResult:
        gone = await self._runner.end_session(process.pid, process.start_ticks)
        message = f"{request.operation} of {request.kind} was killed after {timeout_s:g} s"
        if not gone:
            message += "; one process did not die, and the resource is busy until it has ended"
            log.error("a script survives SIGKILL", kind=request.kind, pid=process.pid)
        if process.stderr:
            message += f": {process.stderr}"
        result = OperationResult(Outcome.TIMED_OUT, message=message)
        give(result)
        if not gone:
            await self._runner.end_stubborn_session(process.pid, process.start_ticks)
        await process.exited
        return result

    async def _remove(self, record: RunningScript) -> None:
        await self._runner.in_thread(lambda: self._records.remove(record.id))

    async def _await_orphans(self, key: str, records: list[RunningScript]) -> None:
        try:
            for record in records:
                await self._await_orphan(record)
                await self._remove(record)
        finally:
            self._queues.leave(key)

    async def _await_orphan(self, record: RunningScript) -> None:
        remaining_s = record.deadline_boot_s - sessions.boot_clock()
        log.info(
            "waiting for a script of an earlier agent",
            kind=record.kind,
            operation=record.operation,
            pid=record.pid,
            seconds_left=round(remaining_s, 1),
        )
        if remaining_s > 0 and await _exits_within(record, remaining_s):
            log.info("a script of an earlier agent ended", kind=record.kind, pid=record.pid)
            return
        log.warning("ending a script of an earlier agent at its deadline", kind=record.kind)
        if not await self._runner.end_session(record.pid, record.start_ticks):
            await self._runner.end_stubborn_session(record.pid, record.start_ticks)


async def _exits_within(record: RunningScript, timeout_s: float) -> bool:
    """Whether a process that is not our child ends in time."""
    try:
        pidfd = os.pidfd_open(record.pid)
    except ProcessLookupError:
        return True
    loop = asyncio.get_running_loop()
    try:
        stat = sessions.stat_of(record.pid)
        if stat is None or stat.start_ticks != record.start_ticks or not stat.is_running:
            return True
        ended: asyncio.Future[None] = loop.create_future()
        loop.add_reader(pidfd, _set, ended)
        try:
            async with asyncio.timeout(timeout_s):
                await ended
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(pidfd)
        return True
    finally:
        os.close(pidfd)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _completed(status: int, stderr: str) -> OperationResult:
    if status >= 0:
        return OperationResult(Outcome.COMPLETED, status, stderr if status else "")
    # As shells do. No OCF code is that high, so this proves nothing about the resource.
    words = f"the script was killed by signal {-status}"
    return OperationResult(
        Outcome.COMPLETED, 128 - status, f"{words}: {stderr}" if stderr else words
    )


def _not_run(request: Request, why: str) -> OperationResult:
    kind = bounds.name(request.kind)
    peer_log.warning("not run", kind=kind, operation=request.operation.value, why=why)
    return OperationResult(Outcome.NOT_RUN, message=why)


def _log_end(request: Request, result: OperationResult, duration_s: float) -> None:
    """One line for a start or stop. Other operations only at debug. Never a parameter's value."""
    if result.outcome is Outcome.TIMED_OUT:
        write = log.warning
    else:
        write = log.info if request.operation.changes else log.debug
    write(
        f"{request.operation.value} {result.outcome.value}",
        kind=bounds.name(request.kind),
        instance=bounds.name(request.instance),
        code=result.code,
        seconds=round(duration_s, 3),
    )
