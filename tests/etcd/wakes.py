"""Leaders that stand still for longer than their lease, again and again: `make wakes`.

    python -m tests.etcd.wakes [--count 100] [--lease 2] [--seed N]

Each time, the leader is stopped (SIGSTOP) at a random moment in the middle of starts and stops. A
host with a group dies meanwhile, and a command waits in the leader's socket. The next manager
leads, fences the host and starts its groups. Then the first one continues. It must start nothing,
fence nothing, record nothing and end with 75. At the end no group may have been started twice.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from halo.adapters.etcd.location import Store
from tests.etcd.members import Members
from tests.etcd.several import NOT_LEADING, QUICK_FLAGS, Managers
from tests.integration.telling import comes_to_rest, story

NODES = ("1", "2")
WAIT_S = 120.0


class Wakes:
    """One cluster, in which the two managers change their roles each time."""

    def __init__(self, cluster: Managers, chance: random.Random) -> None:
        self._cluster = cluster
        self._chance = chance

    async def once(self) -> str | None:
        """Stop a leader, let it wake. None: it did no harm. Else what it did, in words."""
        cluster = self._cluster
        leader, other = await self._roles()
        first = cluster.of[leader]
        [here] = cluster.running_on("g1")
        await self._move("g1", next(host for host in cluster.ports if host != here))
        await asyncio.sleep(self._chance.uniform(0, 0.6))
        first.send_signal(signal.SIGSTOP)
        if first.poll() is not None:
            return None  # it was late by itself, and ended: no case of this kind
        await asyncio.sleep(0.2)  # the scripts that it began end
        waiting = cluster.ask_without_waiting("/v1/groups/g2", {"command": "stop"})
        victim = self._victim()
        cluster.kill(victim)
        await cluster.until_leads(other, deadline=WAIT_S)
        await cluster.until_status(self._all_run, "the groups run", deadline=WAIT_S)
        await comes_to_rest(cluster)
        head, begun, asked = await cluster.journal_rests(), story(cluster), cluster.fence_steps()
        first.send_signal(signal.SIGCONT)
        status = await cluster.until_ended(leader)
        waiting.close()
        wrong = []
        if status != NOT_LEADING:
            wrong.append(f"it ended with {status}")
        if story(cluster) != begun:
            wrong.append(f"scripts ran: {story(cluster)[len(begun) :]}")
        fenced = [s for s in cluster.fence_steps()[len(asked) :] if "status" not in s.point]
        if fenced:
            wrong.append(f"it fenced: {fenced}")
        names = {record["event"] for record in cluster.recorded_since(head)}
        if names - {"seen-stopped"}:  # the other manager notes that by itself
            wrong.append(f"recorded: {names}")
        await self._bring_back(victim)
        return "; ".join(wrong) or None

    async def _roles(self) -> tuple[str, str]:
        """Who leads, and who stands by. Managers that ended are started."""
        cluster = self._cluster
        for node in NODES:
            if node not in cluster.of or cluster.of[node].poll() is not None:
                cluster.start_manager(node)
        leader = await cluster.until_one_leads()
        [other] = set(NODES) - {leader}
        await cluster.stands_by(other)
        await cluster.until_status(self._all_run, "the groups run", deadline=WAIT_S)
        return leader, other

    def _victim(self) -> str:
        hosts = [host for group in ("g1", "g2") for host in self._cluster.running_on(group)]
        return self._chance.choice(sorted(hosts) or ["h1"])

    @staticmethod
    def _all_run(status: Any) -> bool:
        return all(group["status"].startswith("Running") for group in status["groups"])

    async def _move(self, group: str, host: str) -> None:
        body = {"command": "move", "to": host}
        code, answer = await self._cluster.api("POST", f"/v1/groups/{group}", body)
        assert code == 200, answer

    async def _bring_back(self, host: str) -> None:
        self._cluster.boot(host)
        await self._cluster.until_host(host, connected=True, deadline=WAIT_S)
        await self._cluster.api("POST", f"/v1/hosts/{host}", {"command": "reset"})


async def run(count: int, lease_s: int, seed: int) -> int:
    """Do it so often. Returns how often a leader that woke did something."""
    failed = 0
    with tempfile.TemporaryDirectory(prefix="halo-wakes-") as folder:
        members = Members(Path(folder))
        try:
            members.start()
            store: Store = members.store()
            cluster = Managers("wakes", members, store, flags=QUICK_FLAGS)
            cluster.lease_s = lease_s
            try:
                for host in cluster.ports:
                    cluster.boot(host)
                wakes = Wakes(cluster, random.Random(seed))
                for number in range(1, count + 1):
                    wrong = await wakes.once()
                    failed += wrong is not None
                    print(f"{number} of {count}: {wrong or 'no harm'}", flush=True)
            finally:
                await cluster.finish()
        finally:
            members.close()
    return failed


def main() -> int:
    """0 if no leader that woke did anything."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--lease", type=int, default=2, help="seconds")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    failed = asyncio.run(run(options.count, options.lease, options.seed))
    print(f"{failed} of {options.count} did harm")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
