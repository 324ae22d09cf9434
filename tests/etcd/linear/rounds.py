"""Rounds of faults, while clients command and ask: real managers on real members of etcd.

    python -m tests.etcd.linear [--count 100] [--lease 3] [--seed N] [--mutant NAME]

In each round, one fault befalls the managers or etcd, and is repaired. Then all answers of the
round must fit one order of all commands and questions.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from halo.adapters.etcd.location import Store
from tests.etcd.linear.clients import PATIENCE_S, Clients
from tests.etcd.linear.history import History
from tests.etcd.members import Members
from tests.etcd.several import NOT_LEADING, Managers
from tests.etcd.stand_ins import Wire
from tests.integration.cluster import group, service

NODES = ("1", "2", "3")
FAULTS = ("kill", "stop", "pause", "cut", "step_down", "member")
ROUNDS_OF_A_CLUSTER = 24
"""The status shows a thousand events, and a log that is read again and again grows."""
CALM = 15
"""Requests that are answered before a fault, and after its repair."""


class Rounds:
    """One cluster of three managers, each with its own way to etcd."""

    def __init__(self, cluster: Managers, members: Members, chance: random.Random) -> None:
        self._cluster = cluster
        self._members = members
        self._chance = chance
        self._wires: dict[str, list[Wire]] = {}
        self.clients = Clients(cluster, NODES, chance)
        self.commands = self.looks = 0
        """How many commands took effect, as their answers said, and how often was looked."""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Everything runs, and one manager leads."""
        cluster = self._cluster
        cluster.let_them_ask_each_other(NODES)
        for host in cluster.ports:
            cluster.boot(host)
        async with contextlib.AsyncExitStack() as stack:
            for node in NODES:
                wires = [Wire(address) for address in self._members.addresses]
                addresses = [await stack.enter_async_context(wire) for wire in wires]
                self._wires[node] = wires
                cluster.stores[node] = Store(tuple(addresses), cluster.store.prefix)
                cluster.start_manager(node)
            cluster.keep_managers()
            begin = await self.clients.look_everywhere()
            self.clients.history = History(begin)
            try:
                yield
            finally:
                await self._leave_one()
                await cluster.finish()

    async def _leave_one(self) -> None:
        """End all managers but one, which leads and is looked at."""
        cluster = self._cluster
        cluster.stop_keeping()
        for node in NODES[1:]:
            cluster.of[node].terminate()
        for node in NODES[1:]:
            await cluster.until_ended(node)
        if cluster.of[NODES[0]].poll() is not None:  # just now: nobody starts it any more
            cluster.start_manager(NODES[0])
        await cluster.until_leads(NODES[0], deadline=PATIENCE_S)

    async def once(self, fault: str) -> list[str]:
        """One round. Returns what cannot be explained."""
        clients, over = self.clients, asyncio.Event()
        working = asyncio.ensure_future(clients.run(over))
        try:
            await clients.more(CALM)
            await getattr(self, f"_{fault}")(await clients.leader())
            await clients.more(CALM)
        finally:
            over.set()
            await asyncio.wait_for(working, 2 * PATIENCE_S)
        history = clients.history
        assert history is not None
        end = await clients.look_everywhere()
        self.commands += sum(call.is_recorded for call in history.calls)
        self.looks += len(history.looks)
        # Not in this loop, which carries what the managers and etcd say to each other.
        wrong = await asyncio.to_thread(history.violations, end)
        wrong += [f"no leader is named in {answer}" for answer in clients.nameless]
        clients.nameless.clear()
        ended = [found for found in self._cluster.ended if found[1] != NOT_LEADING]
        wrong += [f"manager {node} ended with {status}" for node, status in ended]
        self._cluster.ended.clear()
        carried = [replace(call, called=0.0) for call in history.unknown(end)]
        clients.history = History(end, carried)
        return wrong

    # The faults --------------------------------------------------------------------------------

    async def _kill(self, leader: str) -> None:
        process = self._cluster.of[leader]
        process.kill()
        ended_by_itself = process.wait(PATIENCE_S) >= 0  # then it is started again anyway
        await self.clients.leader(but_not=process.pid)
        if not ended_by_itself:
            self._cluster.start_manager(leader)

    async def _stop(self, leader: str) -> None:
        """It stands still, another one leads and is commanded, and it wakes. Then it is asked."""
        process = self._cluster.of[leader]
        process.send_signal(signal.SIGSTOP)
        try:
            await self.clients.leader(but_not=process.pid)
            await self.clients.more(CALM)
        finally:
            process.send_signal(signal.SIGCONT)
        ended = asyncio.Event()
        asking = [asyncio.ensure_future(self.clients.burst(leader, ended)) for _ in range(3)]
        try:
            await self._cluster.until_true(
                lambda: self._cluster.of[leader] is not process, "it ends", deadline=PATIENCE_S
            )
        finally:
            ended.set()
            await asyncio.wait_for(asyncio.gather(*asking), PATIENCE_S)

    async def _pause(self, leader: str) -> None:
        """It stands still for less than its lease, or for a little longer."""
        process = self._cluster.of[leader]
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(self._chance.uniform(0.1, 1.2) * self._cluster.lease_s)
        process.send_signal(signal.SIGCONT)

    async def _cut(self, leader: str) -> None:
        """It does not reach etcd, until another one leads."""
        for wire in self._wires[leader]:
            wire.swallows_answers = True
            wire.swallows_requests = self._chance.random() < 0.5
        await self.clients.leader(but_not=self._cluster.of[leader].pid)
        for wire in self._wires[leader]:
            wire.swallows_answers = wire.swallows_requests = False

    async def _step_down(self, leader: str) -> None:
        await self.clients.step_down(self._chance.choice(NODES), self._cluster.of[leader].pid)

    async def _member(self, _leader: str) -> None:
        """etcd's own leader is killed, so that the others elect one."""
        await asyncio.to_thread(self._members.wait_until_healthy)
        number = await asyncio.to_thread(self._members.leader)
        self._members.kill(number)
        await self.clients.more(2 * CALM)
        self._members.start_one(number)
        await asyncio.to_thread(self._members.wait_until_healthy)


@contextlib.asynccontextmanager
async def cluster_of(
    name: str, members: Members, prefix: str, chance: random.Random, lease_s: int, mutant: str = ""
) -> AsyncIterator[Rounds]:
    """A cluster that runs; its groups are those that the clients command."""
    cluster = Managers(
        name,
        members,
        members.store(prefix),
        groups=[
            group("g1", "h1", ["h2"], resources=[service("g1")]),
            group("g2", "h2", ["h1"], resources=[service("g2")]),
        ],
        host_options={host: {"on_loss": "wait"} for host in ("h1", "h2")},
    )
    cluster.lease_s = lease_s
    if mutant:
        program = (sys.executable, "-m", "tests.etcd.linear.mutants", mutant)
        cluster.program_of = dict.fromkeys(NODES, program)
    rounds = Rounds(cluster, members, chance)
    async with rounds.running():
        yield rounds


async def run(count: int, lease_s: int, seed: int, faults: tuple[str, ...], mutant: str) -> int:
    """So many rounds. Returns in how many something could not be explained."""
    failed = done = commands = looks = 0
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="halo-linear-") as folder:
        members = Members(Path(folder))
        try:
            members.start()
            while done < count:
                prefix = f"/halo/linear{done}"
                async with cluster_of("linear", members, prefix, chance, lease_s, mutant) as rounds:
                    for _ in range(min(ROUNDS_OF_A_CLUSTER, count - done)):
                        fault = chance.choice(faults)
                        wrong = await rounds.once(fault)
                        done, failed = done + 1, failed + bool(wrong)
                        told = "\n".join(wrong) or "all answers fit"
                        print(f"{done} of {count}, {fault}: {told}", flush=True)
                    commands, looks = commands + rounds.commands, looks + rounds.looks
        finally:
            members.close()
    print(f"{commands} commands took effect, {looks} looks")
    return failed


def main() -> int:
    """0 if all answers fit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--lease", type=int, default=3, help="seconds")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--faults", default=",".join(FAULTS), help="only these")
    parser.add_argument("--mutant", default="", help="managers with this mistake built in")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    faults = tuple(options.faults.split(","))
    failed = asyncio.run(run(options.count, options.lease, options.seed, faults, options.mutant))
    print(f"in {failed} of {options.count} rounds, some answer fits no order")
    return 1 if failed else 0
