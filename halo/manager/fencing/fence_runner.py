"""The shell around the fence machines: it runs their works, and hands the results back.

:mod:`halo.core.fencing.machine` decides what a fence does next. The journal, the fence programs,
the probes of agents and the clock are here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count

import structlog

from halo.core.errors import CommandFailed, InvariantError, RecordError
from halo.core.fencing import rules
from halo.core.fencing.answers import ProbeAnswer
from halo.core.fencing.attempt import Attempt
from halo.core.fencing.inquiry import PROBE_DEADLINE_S
from halo.core.fencing.machine import FenceMachine
from halo.core.fencing.steps import (
    Action,
    AgentAnswered,
    Answer,
    Ask,
    Begin,
    Cancel,
    DenyOff,
    DevicesSaid,
    Do,
    Event,
    GatherTokens,
    Kind,
    Learnt,
    Listen,
    NotWritten,
    Poke,
    Probe,
    Probed,
    ProgramsEnded,
    Result,
    Resume,
    Sleep,
    StandDown,
    Stop,
    Stopped,
    SwitchOff,
    SwitchOn,
    Tell,
    TimeUp,
    TokensHome,
    Weight,
    Work,
    Write,
    Written,
)
from halo.core.model import HostId
from halo.core.outcomes import FenceAction
from halo.manager.common.context import Context
from halo.manager.fencing.device_runner import DeviceRunner
from halo.manager.hosts.host_task import HostTask

TOKENS_HOME_DEADLINE_S = 30.0

log = structlog.get_logger("halo.fence")


class FenceRunner:
    """Fences hosts: by itself, for the administrator, and again after failures."""

    def __init__(
        self, context: Context, hosts: dict[HostId, HostTask], devices: DeviceRunner
    ) -> None:
        self._context = context
        self._state = context.state
        self._hosts = hosts
        self._devices = devices
        self._loop = asyncio.get_running_loop()
        self._machines = {host: FenceMachine(self._state, host) for host in self._state.hosts}
        self._works: dict[tuple[HostId, int], asyncio.Task[None]] = {}
        self._stopped: set[tuple[HostId, int]] = set()
        self._answers: dict[int, asyncio.Future[None]] = {}
        self._tickets = count(1)
        self._closed = False

    # --- by itself ---------------------------------------------------------------------------

    def fence_automatically(self, host: HostId) -> None:
        """Begin one automatic attempt. The caller decided on it in this same step."""
        comment = rules.automatic_comment(self._state, host, self._loop.time())
        self._feed(host, Begin(Kind.AUTOMATIC, comment))

    def fence_second_copy(self, host: HostId, comment: str) -> None:
        """One attempt, by policy `second_copy: fence`. The caller checked that it is allowed."""
        self._feed(host, Begin(Kind.SECOND_COPY, comment))

    def resolve_open_intents(self) -> None:
        """At start-up, before any link runs: settle every fence without a recorded outcome."""
        for host in self._state.hosts:
            intent = self._state.memory_of_host(host).fence_intent
            if intent is not None:
                self._feed(host, Begin(Kind.OPEN_INTENT, intent or rules.AUTOMATIC_COMMENT))

    def resume_reboots(self) -> None:
        """At start-up: power on each host that `on_loss: reboot` powered off and not on again."""
        for host, machine in self._machines.items():
            self._carry_out(host, machine.resume_reboot(self._loop.time()))

    # --- for the administrator ---------------------------------------------------------------

    async def fence_by_command(self, host: HostId, comment: str) -> None:
        """One attempt. Raises CommandFailed if the device failed. The caller checked S8."""
        await self._order(host, lambda ticket: Begin(Kind.COMMAND, comment, ticket))

    async def confirm_off(self, host: HostId, comment: str) -> None:
        """The administrator saw that the host is off. This counts as a confirmed fence. Raises
        RecordError."""
        await self._order(host, lambda ticket: Begin(Kind.CONFIRM_OFF, comment, ticket))

    async def cancel(self, host: HostId, comment: str) -> None:
        """Stop trying. An attempt under way is abandoned, and its result is discarded. Raises
        CommandRefused, RecordError."""
        await self._order(host, lambda ticket: Cancel(comment, ticket))

    async def _order(self, host: HostId, event_of: Callable[[int], Event]) -> None:
        """Give a command to the host's machine, and wait for its answer.

        Every work of the machine has a deadline, and :meth:`close` answers what is left."""
        if self._closed:
            raise CommandFailed("the manager is ending; nothing was done; try again when it runs")
        ticket = next(self._tickets)
        answer = self._answers[ticket] = self._loop.create_future()
        self._feed(host, event_of(ticket))
        await answer

    # --- for observers -----------------------------------------------------------------------

    def attempt_of(self, host: HostId) -> Attempt | None:
        """The attempt to fence this host that is under way. Compare attempts by identity."""
        return self._machines[host].attempt

    # --- running the machines ----------------------------------------------------------------

    def _feed(self, host: HostId, event: Event) -> None:
        if self._closed:
            return  # fence programs die with the manager, and no new one may begin
        self._carry_out(host, self._machines[host].handle(event, self._loop.time()))

    def _carry_out(self, host: HostId, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Do(run, work):
                    self._begin(host, run, work)
                case Stop(run):
                    self._stopped.add((host, run))
                    self._works[host, run].cancel()
                case StandDown():
                    self._hosts[host].link.stand_down()
                case Resume():
                    self._hosts[host].link.resume()
                case Poke():
                    self._hosts[host].poke()
                case DenyOff(why):
                    self._hosts[host].void_power_proof(why)
                case Learnt(afresh):
                    placer, groups = self._context.placer, self._context.groups_of(host)
                    (placer.changed if afresh else placer.learnt)(groups)
                case Tell(weight, text, fields):
                    tell = log.warning if weight is Weight.WARNING else log.error
                    tell(text, host=host, **fields)
                case Answer(ticket, error):
                    self._answer(ticket, error)

    def _answer(self, ticket: int, error: Exception | None) -> None:
        answer = self._answers.pop(ticket)
        if answer.done():
            return  # the caller of the command has gone
        if error is None:
            answer.set_result(None)
        else:
            answer.set_exception(error)

    def _begin(self, host: HostId, run: int, work: Work) -> None:
        task = self._works[host, run] = self._context.spawn(self._run(host, run, work))
        task.add_done_callback(lambda _: self._never_began(host, run))

    def _never_began(self, host: HostId, run: int) -> None:
        """Finish a work whose task was stopped before its first step."""
        if self._works.pop((host, run), None) is not None and (host, run) in self._stopped:
            self._stopped.discard((host, run))
            try:
                self._feed(host, Stopped(run))
            except Exception as error:  # nobody else would see it
                self._context.fatal(error)

    async def _run(self, host: HostId, run: int, work: Work) -> None:
        """One work, from its beginning to its result. The result is handed on at once."""
        event: Result
        try:
            event = await self._perform(host, run, work)
        except asyncio.CancelledError:
            if self._closed or (host, run) not in self._stopped:
                raise  # the manager ends
            event = Stopped(run)
        finally:
            del self._works[host, run]
            self._stopped.discard((host, run))
        self._feed(host, event)

    async def _perform(self, host: HostId, run: int, work: Work) -> Result:
        match work:
            case Write():
                return await self._write(host, run, work)
            case GatherTokens():
                await self._tokens_home(host)
                return TokensHome(run)
            case Probe():
                return Probed(run, await self._hosts[host].link.probe(PROBE_DEADLINE_S))
            case Listen():
                return AgentAnswered(run, await self._until_it_answers(host))
            case Ask(level):
                if level is None:
                    return DevicesSaid(run, await self._devices.ask_whether_off(host, None))
                word = await self._devices.ask_level(host, level, after_off=True)
                return DevicesSaid(run, word)
            case SwitchOff(level):
                return await self._switch_off(host, run, level)
            case SwitchOn():
                return await self._switch_on(host, run)
            case Sleep(seconds):
                await asyncio.sleep(seconds)
                return TimeUp(run)

    async def _write(self, host: HostId, run: int, work: Write) -> Result:
        journal = self._context.journal
        records = [journal.make(e.event, host, e.comment, **e.data) for e in work.entries]
        if not work.must:
            await journal.rescue(*records)
            return Written(run)
        try:
            await journal.command(*records)
        except RecordError as error:
            return NotWritten(run, error)
        return Written(run)

    async def _tokens_home(self, host: HostId) -> None:
        """Wait until every child of the host has given its token back."""
        try:
            async with asyncio.timeout(TOKENS_HOME_DEADLINE_S):
                await self._hosts[host].wait_idle()
        except TimeoutError:
            raise InvariantError(
                f"the tokens of {host} did not come home within {TOKENS_HOME_DEADLINE_S:g} s"
            ) from None

    async def _until_it_answers(self, host: HostId) -> int:
        """Ask the agent once a second. Returns the number of the probe that it answered."""
        for number in count(1):
            began_at = self._loop.time()
            if await self._hosts[host].link.probe(PROBE_DEADLINE_S) is ProbeAnswer.ANSWERS:
                return number
            await asyncio.sleep(max(began_at + PROBE_DEADLINE_S - self._loop.time(), 0.0))
        raise AssertionError  # there is no last number

    async def _switch_off(self, host: HostId, run: int, level: int) -> ProgramsEnded:
        devices = self._state.host_config(host).fence_levels[level - 1]
        expired = self._machines[host].expired
        results = await self._devices.run_all(host, devices, FenceAction.OFF, expired)
        return ProgramsEnded(run, results)

    async def _switch_on(self, host: HostId, run: int) -> ProgramsEnded:
        results = []
        for devices in self._state.host_config(host).fence_levels:
            results += await self._devices.run_all(host, devices, FenceAction.ON)
        return ProgramsEnded(run, results)

    def close(self) -> None:
        """End every work: fence programs die with the manager. Waiting commands are answered."""
        self._closed = True
        for task in self._works.values():
            task.cancel()
        ends = (
            "the manager is ending; the command takes effect if it was recorded in time; look at "
            "`halo status` when a manager runs again"
        )
        for ticket in list(self._answers):
            self._answer(ticket, CommandFailed(ends))
