"""Managers with a mistake built in, which the checks must find.

python -m tests.etcd.linear.mutants NAME [flags of halo_manager]
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiohttp import web

from halo.adapters.etcd.medium import EtcdMedium
from halo.core.errors import LeadershipError
from halo.core.journal.records import Record
from halo.core.status.ours import event
from halo.manager import main as program
from halo.manager.api import app
from halo.manager.api.ours import as_json
from halo.manager.common.journal import Journal
from halo.manager.peers.forwarding import Forwarder
from halo.ports import JournalRecord, ManagerSeen, PeerAnswer, PeerRequest


def answers_when_deposed() -> None:
    """A manager that woke answers from its memory, until it has ended."""
    _guards_only()


def _guards_only(*methods: str) -> None:
    """Only the answers to these need that the manager leads."""
    while_leading = app._while_leading

    def half(require: Callable[[], None]) -> Any:
        guarded = while_leading(require)

        @web.middleware
        async def guard(request: web.Request, handler: app.Handler) -> web.StreamResponse:
            return await (
                guarded(request, handler) if request.method in methods else handler(request)
            )

        return guard

    app._while_leading = half


def succeeds_when_deposed() -> None:
    """A manager that woke answers commands from its memory: that nothing was to be done, or that it
    is refused. It even reports success where the store refused its record."""
    append = EtcdMedium.append

    async def careless(self: EtcdMedium, records: Sequence[JournalRecord]) -> None:
        with contextlib.suppress(LeadershipError):
            await append(self, records)

    EtcdMedium.append = careless  # type: ignore[method-assign]  # on purpose
    _guards_only("GET")


def acknowledges_before_it_writes() -> None:
    """A command is answered when it is folded; its record follows."""

    async def hasty(self: Journal, *records: Record) -> None:
        self._apply(self._enqueue(records, keep=True))

    Journal.command = hasty  # type: ignore[method-assign]  # on purpose

    async def settled(self: Journal) -> bool:
        return True

    Journal.settled = settled  # type: ignore[method-assign]  # on purpose


def sends_commands_again() -> None:
    """A manager that stands by sends each command on twice."""
    ask = Forwarder._ask

    async def stubborn(
        self: Forwarder, leader: ManagerSeen, request: PeerRequest, ends: float
    ) -> PeerAnswer:
        answer = await ask(self, leader, request, ends)
        if request.method not in ("GET", "HEAD"):
            await asyncio.sleep(0.05)
            answer = await ask(self, leader, request, ends)
        return answer

    Forwarder._ask = stubborn  # type: ignore[method-assign]  # on purpose


def answers_from_its_own_fold() -> None:
    """A manager that stands by answers `GET /v1/status` itself, as if that were the status."""
    send_on = Forwarder.send_on

    async def own(self: Forwarder, request: PeerRequest) -> tuple[str, PeerAnswer]:
        if request.target != "/v1/status" or not self.standing.known().as_of:
            return await send_on(self, request)
        body = as_json(_status_of(self.standing)).body
        assert isinstance(body, bytes)
        return "?", PeerAnswer(200, body, "application/json", "")

    Forwarder.send_on = own  # type: ignore[method-assign]  # on purpose


def _status_of(standing: Any) -> Mapping[str, Any]:
    remembered = standing.known().remembered
    return {
        "events": [event(record) for record in remembered.events],
        "groups": [
            {
                "id": name,
                "managed": remembered.group(name).managed,
                "wanted": "started" if remembered.group(name).wanted else "stopped",
            }
            for name in ("g1", "g2")
        ],
        "manager": {"frozen_comment": remembered.frozen},
    }


def forgets_what_it_reads_last() -> None:
    """A manager that stood by and leads now lacks the last command of the journal."""
    read = EtcdMedium.read

    def short(self: EtcdMedium) -> list[JournalRecord]:
        records = list(read(self))
        last = [n for n, raw in enumerate(records) if str(raw["comment"]).startswith("c")][-1:]
        return [raw for n, raw in enumerate(records) if n not in last]

    EtcdMedium.read = short  # type: ignore[method-assign]  # on purpose


MUTANTS: Mapping[str, Callable[[], None]] = {
    found.__name__: found
    for found in (
        answers_when_deposed,
        succeeds_when_deposed,
        acknowledges_before_it_writes,
        sends_commands_again,
        answers_from_its_own_fold,
        forgets_what_it_reads_last,
    )
}

if __name__ == "__main__":
    MUTANTS[sys.argv[1]]()
    program.main(sys.argv[2:], prog_name="halo_manager")
