"""Has a leader's term on disk before its manager is answered.

The disk may be slow, full or dead. The event loop goes on meanwhile, and a manager whose term could
not be recorded is refused. To serve it all the same would be unsafe: after a restart, the agent
would not know of it, and serve the leader before it. The host itself stays as it is: its groups run
on, it answers, and it is not fenced.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from halo.core.peers.calls import NotRecorded
from halo.error_words import words_of
from halo.remote.terms import InUse, TermFile, Terms
from halo.telling import PeerLog

DEADLINE_S = 0.25
"""How long a greeting may wait for a write, counted from its beginning. A manager takes an agent
that gives no answer for silent, and at last for dead. It waits half of its loss budget, which is
1.5 s by default. A refusal costs little: the manager soon asks again, and the write goes on."""

DEADLINE_IN_TROUBLE_S = 0.05
"""The same, if the write before it failed."""

WRITE_INTERVAL_S = 0.2
"""Between the beginnings of two writes. So no peer can keep the disk busy with terms that rise. All
terms that came meanwhile go into the next write."""

log = PeerLog()


class TermKeeper:
    """Writes what `seen` gives to the file. Without a file, everything counts as recorded.

    Used on one event loop."""

    def __init__(self, file: TermFile | None, on_record: Terms, seen: Callable[[], Terms]) -> None:
        self._file = file
        self._on_record = on_record
        self._seen = seen
        self._writing: asyncio.Task[str] | None = None
        self._answer_by = 0.0  # whoever waits for the present write
        self._failed = False
        self._begun_at = -WRITE_INTERVAL_S

    async def record(self, cluster: str, term: int) -> NotRecorded | None:
        """Return when this term, which was seen, is on disk; or why it is not, within the
        deadline."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + DEADLINE_S
        while not self._is_recorded(cluster, term):
            if cluster not in self._seen():
                return self._refused(term, "the terms of too many other clusters came meanwhile")
            if self._writing is None:
                patience_s = DEADLINE_IN_TROUBLE_S if self._failed else DEADLINE_S
                self._answer_by = loop.time() + patience_s
                self._writing = loop.create_task(self._write())
            writing = self._writing
            left_s = min(ends, self._answer_by) - loop.time()
            done, _ = await asyncio.wait([writing], timeout=max(0.0, left_s))
            if not done:
                return self._refused(term, "the disk has not answered yet")
            if problem := writing.result():
                return self._refused(term, problem)
        return None

    def _is_recorded(self, cluster: str, term: int) -> bool:
        if self._file is None or term == 0:
            return True
        seen = self._on_record.get(cluster)
        return seen is not None and seen.term >= term

    def _refused(self, term: int, why: str) -> NotRecorded:
        assert self._file is not None
        log.warning("cannot record a term", file=str(self._file.path), term=term, problem=why)
        return NotRecorded(term, f"{self._file.path}: {why}")

    async def _write(self) -> str:
        """One write of all that is seen. Returns the problem, or nothing."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._begun_at + WRITE_INTERVAL_S - loop.time()))
        self._begun_at = loop.time()
        terms, file = dict(self._seen()), self._file
        assert file is not None

        def work() -> str:
            try:
                file.write(terms)
            except (OSError, InUse) as error:
                return words_of(error)
            return ""

        try:
            problem = await asyncio.to_thread(work)  # one thread at most: the next write waits
        finally:
            self._writing = None
        self._failed = bool(problem)
        if not problem:
            self._on_record = terms
        return problem
