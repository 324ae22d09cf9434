"""The connection to one agent: what silence, refusals and our own faults come to, and when.

On a clock that jumps, with agents that behave as each test says.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from halo.core.errors import Loss, LossKind
from halo.core.fencing.answers import ProbeAnswer
from halo.core.model import Host, Settings
from halo.manager.common.concurrency_limit import ConcurrencyLimit
from halo.manager.hosts.link import HEARTBEATS_IN_FLIGHT, HostLink
from halo.ports import AgentConnection

from .fake_agents import FakeAgent, FakeConnector
from .virtual_time import loop_now, run, settle

HOST = Host("h", "192.0.2.1")


class Bench:
    """A link, the agent at its other end, and what the link told, each with its time."""

    def __init__(
        self,
        agent: FakeAgent | None = None,
        grace_s: float = 0.0,
        greetings: ConcurrencyLimit | None = None,
        **settings: Any,
    ) -> None:
        self.loop = loop_now()
        self.agent = agent or FakeAgent()
        self.told: list[str] = []
        self.at: dict[str, float] = {}
        self.suspect_since: float | None = None
        self.releases = True
        self.link = HostLink(
            HOST,
            FakeConnector({"h": self.agent}),
            replace(Settings(), **settings),
            self,
            greetings or ConcurrencyLimit(64, patience_s=0.5),
            grace_s,
        )
        self.began = self.loop.time()
        self.work = asyncio.create_task(self.link.run())

    def _tell(self, what: str) -> None:
        self.told.append(what)
        self.at[what.split(":")[0]] = self.loop.time()

    # What a link tells its owner.

    def link_up(self, connection: AgentConnection) -> None:
        self._tell("up")

    def link_down(self, loss: Loss) -> None:
        self._tell(f"down: {loss.kind.name}")
        if self.releases:
            self.link.release()

    def link_alive(self, loss: Loss) -> None:
        self._tell(f"alive: {loss.kind.name}")

    def link_probed(self, loss: Loss | None) -> None:
        self._tell(f"probed: {loss}")

    def link_unheard(self) -> None:
        self._tell("unheard")

    def link_missed(self, loss: Loss) -> None:
        self._tell(f"missed: {loss.kind.name}")

    def link_answered(self, sent_at: float) -> None:
        self.at["answered"] = sent_at

    def link_suspect(self, since: float) -> None:
        self._tell("suspect")
        self.suspect_since = since

    def link_lost(self, loss: Loss) -> None:
        self._tell(f"lost: {loss.kind.name}")

    def kinds(self) -> set[str]:
        return {what.split(":")[0] for what in self.told}

    async def until(self, what: str, within_s: float = 100.0) -> float:
        """The time at which the link tells this for the first time from now on."""
        self.at.pop(what, None)
        deadline = self.loop.time() + within_s
        while what not in self.at:
            assert self.loop.time() < deadline, f"no {what}: {self.told}"
            assert not self.work.done(), self.work
            await asyncio.sleep(0.001)
        return self.at[what]


def virtual(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    async def body() -> None:
        await test()

    def wrapper() -> None:
        run(body())

    wrapper.__name__ = getattr(test, "__name__", "test")
    return wrapper


# --- silence ------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget_s", [3.0, 0.5, 10.0])
def test_a_connected_host_that_falls_silent_is_lost_after_one_budget(budget_s: float) -> None:
    async def body() -> None:
        moments = random.Random(budget_s)
        for _ in range(5):
            bench = Bench(loss_budget_s=budget_s)
            await bench.until("up")
            await asyncio.sleep(moments.uniform(0, 2))
            last_answer = bench.at["answered"]
            bench.agent.fall_silent()
            lost_at = await bench.until("lost")
            assert lost_at - last_answer == pytest.approx(budget_s, abs=0.01)
            assert bench.told[-2:] == ["suspect", "lost: SILENT"]
            assert "down: SILENT" in bench.told
            bench.work.cancel()

    run(body())


@pytest.mark.parametrize("budget_s", [3.0, 0.5])
def test_a_host_that_never_answered_is_lost_after_one_budget(budget_s: float) -> None:
    async def body() -> None:
        agent = FakeAgent()
        agent.fall_silent()
        bench = Bench(agent, loss_budget_s=budget_s)
        lost_at = await bench.until("lost")
        assert lost_at - bench.began == pytest.approx(budget_s, abs=0.02)

    run(body())


@virtual
async def test_after_a_restart_of_the_manager_it_has_a_grace() -> None:
    agent = FakeAgent()
    agent.fall_silent()
    bench = Bench(agent, grace_s=10.0)
    assert await bench.until("lost") - bench.began == pytest.approx(13.0, abs=0.02)


@virtual
async def test_an_overdue_answer_is_suspect_long_before_it_is_lost() -> None:
    bench = Bench()
    await bench.until("up")
    bench.agent.fall_silent()
    silent_from = bench.loop.time()
    suspect_at = await bench.until("suspect")
    assert suspect_at - silent_from < 2.0
    bench.agent.speak_again()
    await asyncio.sleep(20.0)
    assert "lost" not in bench.kinds()


@virtual
async def test_a_pause_shorter_than_the_budget_less_a_heartbeat_is_no_loss() -> None:
    bench = Bench()
    await bench.until("up")
    for _ in range(20):
        bench.agent.fall_silent()
        await asyncio.sleep(1.95)
        bench.agent.speak_again()
        await asyncio.sleep(1.2)
    assert bench.kinds() <= {"up", "suspect"}


@virtual
async def test_slow_answers_are_answers() -> None:
    agent = FakeAgent()
    agent.latency_s = 1.4
    bench = Bench(agent)
    await bench.until("up")
    await asyncio.sleep(60.0)
    assert bench.kinds() <= {"up", "suspect"}


@virtual
async def test_a_lost_host_is_told_once_and_is_up_again_when_it_answers() -> None:
    bench = Bench()
    await bench.until("up")
    bench.agent.fall_silent()
    await bench.until("lost")
    await asyncio.sleep(60.0)
    assert bench.told.count("lost: SILENT") == 1
    bench.agent.speak_again()
    assert await bench.until("up") - bench.loop.time() < 1.0
    bench.agent.fall_silent()
    await bench.until("lost")
    assert bench.told.count("lost: SILENT") == 2


@virtual
async def test_no_route_to_the_host_is_silence_and_its_verdict_is_not_late() -> None:
    for offset in (0.0, 0.1, 0.2, 0.3, 0.4):
        bench = Bench()
        await bench.until("up")
        await asyncio.sleep(offset)
        bench.agent.refuses = LossKind.REFUSED
        bench.agent.end(LossKind.RESET)
        await bench.until("alive")
        alive_at = bench.loop.time()
        bench.agent.refuses = LossKind.NO_ROUTE_TO_HOST
        lost_at = await bench.until("lost")
        assert lost_at - alive_at == pytest.approx(3.0, abs=0.02)
        bench.work.cancel()


# --- signs of life, and what proves nothing -----------------------------------------------------


@pytest.mark.parametrize(
    "kind", [LossKind.REFUSED, LossKind.RESET, LossKind.BUSY, LossKind.TLS, LossKind.PROTOCOL]
)
def test_a_host_that_answers_for_its_agent_is_not_lost(kind: LossKind) -> None:
    async def body() -> None:
        agent = FakeAgent()
        agent.refuses = kind
        bench = Bench(agent)
        await asyncio.sleep(60.0)
        assert bench.kinds() == {"alive"}

    run(body())


@pytest.mark.parametrize("kind", [LossKind.NO_ROUTE_TO_NETWORK, LossKind.DNS, LossKind.LOCAL])
def test_our_own_troubles_are_no_verdict_on_a_host(kind: LossKind) -> None:
    async def body() -> None:
        agent = FakeAgent()
        agent.refuses = kind
        bench = Bench(agent)
        await asyncio.sleep(60.0)
        assert bench.kinds() == {"missed"}

    run(body())


@virtual
async def test_our_own_trouble_in_between_begins_the_count_again() -> None:
    bench = Bench()
    await bench.until("up")
    bench.agent.fall_silent()
    bench.agent.end(LossKind.SILENT)
    await asyncio.sleep(1.2)
    bench.agent.refuses = LossKind.NO_ROUTE_TO_NETWORK
    await asyncio.sleep(1.0)
    assert bench.told[-1] == "missed: NO_ROUTE_TO_NETWORK"
    bench.agent.refuses = None
    restarted_at = bench.loop.time()
    assert await bench.until("lost") - restarted_at > 2.4


@pytest.mark.parametrize("kind", [LossKind.REFUSED, LossKind.RESET])
def test_in_test_environments_a_closed_port_is_death_at_once(kind: LossKind) -> None:
    async def body() -> None:
        bench = Bench(fence_on_connection_close=True)
        await bench.until("up")
        ended_at = bench.loop.time()
        bench.agent.refuses = kind
        bench.agent.end(LossKind.RESET)
        assert await bench.until("lost") - ended_at < 0.01
        await asyncio.sleep(10.0)
        assert [what for what in bench.told if what.startswith("lost")] == ["lost: RESET"]
        assert "alive" not in bench.kinds()

    run(body())


@virtual
async def test_a_refused_first_connection_is_death_there_too() -> None:
    agent = FakeAgent()
    agent.refuses = LossKind.REFUSED
    bench = Bench(agent, fence_on_connection_close=True)
    assert await bench.until("lost") - bench.began < 0.01


@virtual
async def test_a_connection_that_we_close_ourselves_says_nothing_of_the_host() -> None:
    bench = Bench(fence_on_connection_close=True)
    await bench.until("up")
    bench.link.stand_down()
    await asyncio.sleep(30.0)
    assert bench.told[-1] == "down: STALE"
    assert "lost" not in bench.kinds()


# --- the loop ran late --------------------------------------------------------------------------


@virtual
async def test_a_manager_that_was_stopped_for_a_while_loses_nobody_who_lives() -> None:
    bench = Bench()
    await bench.until("up")
    for seconds in (0.5, 2.0, 2.9, 3.1, 30.0, 3000.0):
        await asyncio.sleep(0.37)
        bench.agent.fall_silent()  # its answers lie unread
        bench.loop.run_late(seconds)
        await settle(5)
        bench.agent.speak_again()
        await asyncio.sleep(5.0)
    assert bench.kinds() <= {"up", "suspect"}


@virtual
async def test_a_manager_that_was_stopped_while_a_host_was_out_of_sight_counts_afresh() -> None:
    """Half a budget of silence, then a stop of the manager: that is not a whole budget."""
    bench = Bench()
    await bench.until("up")
    bench.agent.fall_silent()
    bench.agent.end(LossKind.SILENT)
    await asyncio.sleep(1.8)
    bench.loop.run_late(5.0)
    resumed_at = bench.loop.time()
    assert await bench.until("lost") - resumed_at >= 2.9


@virtual
async def test_a_manager_that_stood_still_as_it_began_counts_from_when_it_woke() -> None:
    bench = Bench(FakeAgent(), grace_s=10.0)
    bench.agent.fall_silent()
    bench.loop.run_late(11.0)  # before the first step of the link
    woke_at = bench.loop.time()
    assert await bench.until("lost") - woke_at >= 2.9


@virtual
async def test_a_dead_host_is_lost_after_a_late_loop_as_well() -> None:
    bench = Bench()
    await bench.until("up")
    bench.agent.fall_silent()
    bench.loop.run_late(10.0)
    resumed_at = bench.loop.time()
    assert await bench.until("lost") - resumed_at == pytest.approx(3.0, abs=0.1)


@virtual
async def test_a_defect_of_ours_in_a_heartbeat_ends_the_manager_and_not_the_host() -> None:
    bench = Bench()
    await bench.until("up")
    bench.agent.defect = KeyError("ours")
    await asyncio.wait({bench.work}, timeout=10.0)
    assert bench.work.done()
    assert isinstance(bench.work.exception(), KeyError)
    assert "lost" not in bench.kinds()


# --- one connection after the other -------------------------------------------------------------


@virtual
async def test_it_connects_again_at_least_every_half_second() -> None:
    agent = FakeAgent()
    agent.refuses = LossKind.REFUSED
    Bench(agent)
    await asyncio.sleep(10.0)
    gaps = [b - a for a, b in zip(agent.attempts, agent.attempts[1:], strict=False)]
    assert max(gaps) <= 0.51
    assert min(gaps) >= 0.4


@virtual
async def test_it_does_not_connect_again_before_every_token_is_home() -> None:
    bench = Bench()
    bench.releases = False
    await bench.until("up")
    bench.agent.end(LossKind.RESET)
    await asyncio.sleep(30.0)
    assert len(bench.agent.attempts) == 1
    bench.link.release()
    await bench.until("up")
    assert len(bench.agent.attempts) == 2


@virtual
async def test_stood_down_it_drops_its_connection_and_stays_away() -> None:
    bench = Bench()
    await bench.until("up")
    bench.link.stand_down()
    await asyncio.sleep(60.0)
    assert bench.told == ["up", "down: STALE"]
    assert bench.agent.standing == []
    assert len(bench.agent.attempts) == 1
    bench.link.resume()
    await bench.until("up")


@virtual
async def test_an_attempt_under_way_is_dropped_when_it_is_stood_down() -> None:
    agent = FakeAgent()
    agent.latency_s = 1.0
    bench = Bench(agent)
    await asyncio.sleep(0.5)
    bench.link.stand_down()
    await asyncio.sleep(30.0)
    assert bench.told == []
    assert agent.standing == []
    bench.link.resume()
    await bench.until("up")


@virtual
async def test_an_attempt_that_succeeds_in_the_very_moment_is_dropped_too() -> None:
    bench = Bench()
    bench.agent.on_connect = lambda: bench.loop.call_soon(bench.link.stand_down)
    await asyncio.sleep(30.0)
    assert len(bench.agent.connections) == 1
    assert bench.told == []
    assert bench.agent.standing == []


@virtual
async def test_after_it_resumed_silence_is_counted_from_then() -> None:
    bench = Bench()
    await bench.until("up")
    bench.link.stand_down()
    bench.agent.fall_silent()
    await asyncio.sleep(60.0)
    assert "lost" not in bench.kinds()
    bench.link.resume()
    resumed_at = bench.loop.time()
    assert await bench.until("lost") - resumed_at == pytest.approx(3.0, abs=0.02)


@virtual
async def test_when_it_ends_its_connection_is_closed_and_nothing_is_left() -> None:
    bench = Bench()
    await bench.until("up")
    bench.agent.fall_silent()
    await asyncio.sleep(1.0)
    bench.work.cancel()
    await settle()
    assert bench.agent.standing == []
    assert [t for t in asyncio.all_tasks() if t is not asyncio.current_task()] == []


# --- many links ---------------------------------------------------------------------------------


FOR_EVER = 1e6


@virtual
async def test_what_waits_for_its_turn_is_not_silent() -> None:
    limit = ConcurrencyLimit(1, FOR_EVER)
    async with limit.slot():
        bench = Bench(greetings=limit)
        await asyncio.sleep(20.0)
        assert not bench.told
        assert len(bench.agent.attempts) == 1
    await bench.until("up", within_s=0.1)
    bench.work.cancel()


@virtual
async def test_a_host_that_was_silent_before_is_not_lost_while_it_waits_for_its_turn() -> None:
    limit = ConcurrencyLimit(1, FOR_EVER)
    bench = Bench(greetings=limit, loss_budget_s=3.0, connect_timeout_s=1.0)
    await bench.until("up")
    bench.agent.is_off = True
    bench.agent.end(LossKind.RESET)
    await bench.until("missed")  # an attempt in vain
    async with limit.slot():
        bench.agent.is_off = False  # from now on its kernel accepts
        await asyncio.sleep(20.0)
        assert "lost" not in bench.kinds()
    await bench.until("up", within_s=0.1)
    assert "lost" not in bench.kinds()
    bench.work.cancel()


@virtual
async def test_the_verdict_on_a_host_that_is_off_waits_for_no_turn() -> None:
    limit = ConcurrencyLimit(1, FOR_EVER)
    agent = FakeAgent()
    agent.is_off = True
    async with limit.slot():
        bench = Bench(agent, greetings=limit, loss_budget_s=3.0)
        assert await bench.until("lost") - bench.began == pytest.approx(3.0, abs=0.02)
    bench.work.cancel()


@virtual
async def test_a_host_that_hangs_after_its_turn_came_is_lost_a_budget_later() -> None:
    limit = ConcurrencyLimit(1, FOR_EVER)
    agent = FakeAgent()
    agent.fall_silent()
    async with limit.slot():
        bench = Bench(agent, greetings=limit, loss_budget_s=3.0)
        await asyncio.sleep(20.0)
    turn_came_at = bench.loop.time()
    assert await bench.until("lost") - turn_came_at == pytest.approx(3.0, abs=0.02)
    bench.work.cancel()


@virtual
async def test_so_many_that_hang_that_each_attempt_waits_are_lost_all_the_same() -> None:
    limit = ConcurrencyLimit(1, patience_s=0.5)
    agents = [FakeAgent() for _ in range(8)]
    for agent in agents:
        agent.fall_silent()
    benches = [Bench(agent, greetings=limit, loss_budget_s=3.0) for agent in agents]
    for bench in benches:
        if "lost" not in bench.at:
            await bench.until("lost", within_s=60.0)
        bench.work.cancel()


@virtual
async def test_one_that_waits_for_its_turn_gives_it_up_when_it_is_stood_down() -> None:
    limit = ConcurrencyLimit(1, FOR_EVER)
    async with limit.slot():
        bench = Bench(greetings=limit)
        await settle()
        bench.link.stand_down()
    await asyncio.sleep(20.0)
    assert not bench.told
    bench.link.resume()
    await bench.until("up")
    async with asyncio.timeout(0.1), limit.slot():
        pass
    bench.work.cancel()


@virtual
async def test_neither_what_hangs_nor_what_stands_keeps_others_from_their_turn() -> None:
    limit = ConcurrencyLimit(1, patience_s=0.5)
    hanging = FakeAgent()
    hanging.fall_silent()
    hung = Bench(hanging, greetings=limit)
    await settle()
    benches = [Bench(greetings=limit) for _ in range(3)]
    for bench in benches:
        if "up" not in bench.at:
            await bench.until("up", within_s=2.0)
    for bench in (hung, *benches):
        bench.work.cancel()


# --- pings and probes ---------------------------------------------------------------------------


@virtual
async def test_a_ping_is_answered_out_of_turn() -> None:
    bench = Bench()
    await bench.until("up")
    await asyncio.sleep(0.3)
    pinged_at = bench.loop.time()
    bench.link.ping()
    await settle()
    assert bench.at["answered"] == pytest.approx(pinged_at)


@virtual
async def test_what_hangs_is_bounded() -> None:
    bench = Bench(loss_budget_s=100.0)
    await bench.until("up")
    bench.agent.fall_silent()
    await settle()
    before = bench.agent.heartbeats
    for _ in range(50):
        bench.link.ping()
    await settle()
    assert bench.agent.heartbeats - before <= HEARTBEATS_IN_FLIGHT


@virtual
async def test_the_silence_of_a_host_with_an_old_agent_begins_when_the_kernel_tells_of_it() -> None:
    """Not when it connected: hosts that fall silent together would not be seen to (S5)."""
    bench = Bench(FakeAgent(legacy=True))
    await asyncio.sleep(3600.0)
    told_at = bench.loop.time()
    bench.agent.fall_silent()
    bench.agent.end(LossKind.SILENT)
    await bench.until("lost")
    assert bench.suspect_since == pytest.approx(told_at, abs=0.1)
    assert bench.at["lost"] - told_at < 4.0


@virtual
async def test_an_old_agent_gets_no_heartbeats_and_may_be_busy_for_long() -> None:
    agent = FakeAgent(legacy=True)
    bench = Bench(agent)
    await bench.until("up")
    agent.fall_silent()
    bench.link.ping()
    await asyncio.sleep(300.0)
    assert bench.told == ["up"]
    assert agent.heartbeats == 0


@virtual
async def test_an_old_agent_whose_connection_dies_of_silence_is_lost() -> None:
    agent = FakeAgent(legacy=True)
    bench = Bench(agent)
    await bench.until("up")
    agent.fall_silent()
    await asyncio.sleep(60.0)
    agent.end(LossKind.SILENT)  # by the kernel's keepalive
    ended_at = bench.loop.time()
    assert await bench.until("lost") - ended_at < 3.1


PROBES: list[tuple[LossKind | None, ProbeAnswer]] = [
    (None, ProbeAnswer.ANSWERS),
    (LossKind.BUSY, ProbeAnswer.ANSWERS),
    (LossKind.PROTOCOL, ProbeAnswer.ANSWERS),
    (LossKind.TLS, ProbeAnswer.ANSWERS),  # something spoke, if not our language
    (LossKind.SILENT, ProbeAnswer.NONE),
    (LossKind.NO_ROUTE_TO_HOST, ProbeAnswer.NONE),
    (LossKind.REFUSED, ProbeAnswer.CLOSED_PORT),
    (LossKind.LOCAL, ProbeAnswer.NOT_ASKED),
    (LossKind.DNS, ProbeAnswer.NOT_ASKED),
    (LossKind.NO_ROUTE_TO_NETWORK, ProbeAnswer.NOT_ASKED),
]


@pytest.mark.parametrize(("refuses", "answers"), PROBES)
def test_does_the_agent_answer_a_fresh_connection(
    refuses: LossKind | None, answers: ProbeAnswer
) -> None:
    async def body() -> None:
        bench = Bench()
        await bench.until("up")
        bench.link.stand_down()
        bench.agent.refuses = refuses
        told = len(bench.told)
        assert await bench.link.probe(1.0) is answers
        speaks = refuses is None or refuses.is_sign_of_life
        is_silent = refuses is not None and refuses.is_silence
        told_now = [what.split(":")[0] for what in bench.told[told:]]
        assert told_now == ["probed"] * speaks + ["unheard"] * is_silent
        assert bench.agent.standing == []

    run(body())


@virtual
async def test_a_probe_of_a_silent_host_ends_at_its_deadline() -> None:
    bench = Bench()
    bench.link.stand_down()
    bench.agent.fall_silent()
    began = bench.loop.time()
    assert await bench.link.probe(1.0) is ProbeAnswer.NONE
    assert bench.loop.time() - began == pytest.approx(1.0)


@virtual
async def test_an_agent_that_greets_and_breaks_off_is_not_greeted_without_end() -> None:
    bench = Bench()
    for _ in range(200):
        await bench.until("up")
        bench.agent.end(LossKind.PROTOCOL)
        await bench.until("down")
        if bench.loop.time() - bench.began > 10.0:
            break
    assert len(bench.agent.attempts) <= 25
    bench.work.cancel()


@virtual
async def test_a_connection_that_stood_is_made_again_at_once() -> None:
    bench = Bench()
    await bench.until("up")
    await asyncio.sleep(5.0)
    bench.agent.end(LossKind.RESET)
    await asyncio.sleep(0.1)
    assert bench.told == ["up", "down: RESET", "up"]
    bench.work.cancel()
