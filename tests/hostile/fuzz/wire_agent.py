"""Changed frames of a manager's session, sent to a real agent."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from halo.core.peers.bounds import TERM_LIMIT
from tests.hostile import frames
from tests.hostile.agent_site import AgentSite, agent_site
from tests.hostile.fuzz.fuzzer import Finding
from tests.hostile.fuzz.mutate import mutated
from tests.hostile.manager_behaviours import items_params, run_params
from tests.hostile.measure import memory_mib
from tests.hostile.nonsense import MESSAGES
from tests.hostile.rogue import completed

ANSWER_WAIT_S = 0.02
HONEST_EVERY = 150
MEMORY_LIMIT_MIB = 96


def session() -> list[bytes]:
    """What a manager says, in its order; the answers are not waited for."""

    def hello(params: Any) -> None:
        params.manager, params.cluster, params.term = "fuzz", "cluster", 0

    return [
        frames.bootstrap(0),
        frames.call(1, "hello", hello, on_answer=0),
        frames.call(2, "heartbeat", on_answer=0),
        frames.watch(3, items_params(3), on_answer=0),
        frames.call(4, "run", run_params(), on_answer=0),
        frames.call(5, "monitorMany", items_params(3), on_answer=0),
        frames.call(6, "operation", None, on_answer=0),
        frames.finish(2),
        frames.results(0, "report"),  # to the agent's first report
        frames.call(7, "heartbeat", on_import=0),
        frames.call(8, "validateAll", run_params(), on_answer=0),
        frames.exception(1, "no"),
        frames.release(0, 1),
    ]


class AgentWireFuzzer:
    """Connections to one `halo_remote`, a session on each, some of whose frames are changed."""

    def __init__(self) -> None:
        self._exit = contextlib.ExitStack()
        self._site: AgentSite | None = None
        self._session: Sequence[bytes] = ()
        self._pool: Sequence[bytes] = ()
        self._memory_mib = 0.0
        self._since_honest = 0

    async def open(self, folder: Path) -> None:
        # A changed frame may hold a high term, which the agent then has to remember.
        self._site = self._exit.enter_context(agent_site(folder, TERM_LIMIT))
        await self._site.start()
        self._session = session()
        self._pool = [
            *self._session,
            *(m for messages in MESSAGES.values() for m in messages if len(m) < 2000),
            frames.results(5, "monitorMany", lambda r: completed()(r.init("outcomes", 1)[0])),
        ]
        self._memory_mib = memory_mib(self._site.agent.pid)

    async def case(self, chance: random.Random) -> None:
        assert self._site is not None
        said = self._changed_session(chance)
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self._site.agent.port)
            try:
                writer.write(b"".join(said))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(ANSWER_WAIT_S):
                        while await reader.read(1 << 16):
                            pass
            finally:
                writer.transport.abort()
        self._since_honest += 1
        if self._since_honest >= HONEST_EVERY:
            self._since_honest = 0
            await self._look(said)
        elif ended := self._site.ended():
            raise Finding(f"{ended[0]} after {b''.join(said)!r:.2000}")

    def _changed_session(self, chance: random.Random) -> list[bytes]:
        kept = chance.randrange(len(self._session) + 1)
        said = list(self._session[: max(kept, chance.choice((0, 2)))])
        for _ in range(chance.choice((1, 1, 2, 5))):
            frame = chance.choice(self._pool)
            if chance.random() < 0.8:
                frame = mutated(frame, chance, self._pool)
            at = chance.randrange(len(said) + 1) if chance.random() < 0.3 else len(said)
            said.insert(at, frame)
        return said

    async def _look(self, said: Sequence[bytes]) -> None:
        assert self._site is not None
        problems = await self._site.honest()
        if (grown := memory_mib(self._site.agent.pid) - self._memory_mib) > MEMORY_LIMIT_MIB:
            problems.append(f"the agent grew by {grown:.0f} MiB")
        if problems:
            raise Finding(f"{problems} after {b''.join(said)!r:.2000}\n{self._site.log_end()}")

    async def close(self) -> None:
        assert self._site is not None
        await self._look(())
        log = self._site.agent.log.read_text(errors="replace")
        self._exit.close()
        if "Traceback" in log:
            at = log.index("Traceback")
            raise Finding(f"a traceback in the agent's log: {log[at : at + 3000]}")
