"""The rules of S12, written a second time: only the leader acts, under its term.

It knows what no manager knows: who holds the key in the store at every moment. Of a manager's own
knowledge it uses when it sent the renewals that etcd confirmed, by the manager's own clock.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from halo.adapters.etcd.entries import Head, about, log_of, parts_of, records_of
from halo.adapters.etcd.leadership import LEASE_S, MARGIN
from tests.simulation.managers.etcd.store import LOCATION, Change

if TYPE_CHECKING:
    from tests.simulation.managers.ports import NodeConnection
    from tests.simulation.managers.process import Process
    from tests.simulation.managers.world import ManagersWorld
    from tests.simulation.network import SimConnection

LEADER, HEAD, BASE = (LOCATION.key(name) for name in ("leader", "head", "term-base"))
RULE = "S12"

RESCUE_S = 0.999
"""A rescue waits so long for the journal, and goes on without it."""


class Leaders:
    """Watches who leads, and who acts."""

    def __init__(self, world: ManagersWorld) -> None:
        self.world = world
        self.holder: Process | None = None  # by the store
        self.since = 0.0
        self.terms: dict[Process, int] = {}  # of each process that ever held the key
        self._renewed_at: dict[Process, float] = {}  # on its own clock
        self._read_at: dict[Process, float] = {}  # when it asked for the last key that it read
        self._told: dict[str, int] = {}  # host -> the highest term that its agent obeyed
        self._last_term = 0
        self._head: Head | None = None
        self._intents: dict[Process, set[str]] = {}
        self._began: dict[Process, tuple[float, dict[str, bool]]] = {}

    def _broken(self, text: str) -> None:
        self.world.violated(RULE, text)

    # --- what the store tells ----------------------------------------------------------------

    def committed(self, writer: Process | None, changes: list[Change]) -> None:
        """Keys were changed in one step."""
        changed = {change.key: change.item for change in changes}
        if LEADER in changed:
            item = changed[LEADER]
            self.holder, self.since = (writer if item else None), self.world.clock.now
            if writer is not None and item is not None:
                self.world.counts["leaderships"] += 1
                self.terms[writer] = item.create + self._base()
                self._read_at[writer] = self.since
                self.world.say(writer.node.name, f"has the key, term {self.terms[writer]}")
        journal = [key for key in changed if key == HEAD or "/log/" in key or "/parts/" in key]
        if journal:
            if writer is None or writer is not self.holder:
                self._broken(f"{writer} wrote {journal[0]}, and {self.holder} holds the key")
                return
            if self.terms[writer] < self._last_term:
                self._broken(f"{writer} wrote a record of an earlier term")
            self._last_term = self.terms[writer]
        if HEAD in changed and writer is not None:
            self._take_in(writer)

    def rebuilt(self) -> None:
        """The store is a new one, with the same journal."""
        self.holder = None

    @property
    def highest_term(self) -> int:
        """The highest one that an agent or the journal has seen."""
        return max([self._last_term, *self._told.values()])

    def _base(self) -> int:
        item = self.world.store.items.get(BASE)
        return int(json.loads(item.value)["base"]) if item else 0

    def _take_in(self, writer: Process) -> None:
        """The journal as it is now: the oracles of a single manager read it as their disk."""
        items, disk = self.world.store.items, self.world.disk
        before, head = self._head, Head.of(items[HEAD].value)
        self._head = head
        is_new = before is None or head.generation != before.generation
        if head.entries == 0:
            disk.texts.clear()
            return
        key = f"{log_of(LOCATION, head.generation)}{head.entries:012d}"
        entry = about(items[key].value, key)
        text = entry.text
        if entry.parts:
            folder = parts_of(LOCATION, head.generation, entry.id)
            text = b"".join(items[k].value for k in sorted(items) if k.startswith(folder))
        records = records_of(entry, text, key)
        texts = [json.dumps(record) for record in records]
        for record in records:
            if record.get("term", 0) != self.terms[writer]:
                self._broken(f"{writer} wrote a record of term {record.get('term')}: {record}")
            if record["event"] == "fence-intent":
                self._intents.setdefault(writer, set()).add(record["object"])
        disk.writes += 1
        if is_new:
            disk.texts[:] = texts
        else:
            disk.texts += texts
        self.world.recorded(texts)
        self.world.oracle.fences.read_disk()

    # --- what managers do --------------------------------------------------------------------

    def renewed(self, process: Process, sent_at: float) -> None:
        """It learnt that its lease was granted or renewed, as it asked at `sent_at`."""
        self._renewed_at[process] = sent_at

    def has_read(self, process: Process, asked_at: float) -> None:
        """It has read a key, such as that of its leadership, as it asked at this true time."""
        self._read_at[process] = asked_at

    def contacts(self, process: Process, host: str) -> None:
        """It asks a host for something."""
        if process not in self.terms:
            self._broken(f"{process} stands by, and contacts {host}")

    def acts(self, process: Process, what: str) -> None:
        """It is about to start, stop or fence: the step that looks at the clock."""
        self.world.oracle.checks += 1
        who = process.node.name
        if process not in self.terms:
            self._broken(f"{who} stands by: {what}")
            return
        own_clock = process.node.boot_clock()
        renewed_at = self._renewed_at[process]
        if own_clock >= renewed_at + LEASE_S * (1 - MARGIN):
            late_s = own_clock - renewed_at
            self._broken(f"{who}: {what}, {late_s:.2f} s after its last renewal by its own clock")
        elif (
            self.holder not in (None, process)
            and process.node.clock_stood_at < self._read_at[process]
        ):
            self._broken(f"{who}: {what}, while {self.holder} leads")

    def fences(self, process: Process, host: str) -> None:
        """An off is about to be sent. Its intent is on record, or the manager waited for that as
        long as a rescue has to (S7). An administrator's fence waits without limit."""
        assert process.manager is not None
        attempt = process.manager.fence_runner.attempt_of(host)
        is_asked = attempt is None or attempt.ticket is not None
        waited_s = 0.0 if attempt is None else self.world.clock.now - attempt.begun_at
        if host not in self._intents.get(process, ()) and (is_asked or waited_s < RESCUE_S):
            self._broken(f"{process.node.name} fences {host}, and recorded no intent")
        self._check_silence(process, host)

    def begins(self, process: Process) -> None:
        """Its manager is made. Right before, nobody led, and no host was heard of."""
        fences = self.world.oracle.fences
        self._began[process] = (self.world.clock.now, dict(fences.disk.off))

    def _check_silence(self, process: Process, host: str) -> None:
        """A new leader waits for each host as a manager that was restarted does."""
        oracle, settings = self.world.oracle, self.world.cluster.settings
        began_at, was_off = self._began[process]
        watch, led_s = oracle.hosts[host], self.world.clock.now - began_at
        is_heard = max(watch.sign_at, watch.life_at) > float("-inf")
        is_asked = oracle.orders.fencing[host] or host in oracle.orders.fences_asked
        if is_heard or is_asked or was_off.get(host) or oracle.manager is not process.manager:
            return
        if led_s < settings.loss_budget_s + settings.restart_grace_s - 0.001:
            text = f"{process.node.name} led for {led_s:.1f} s, and never heard of {host}"
            self._broken(f"{text}, which it fences")

    def obeyed(self, host: str, connection: SimConnection, term: int) -> None:
        """An agent took a call of this term."""
        link: NodeConnection = connection  # type: ignore[assignment]  # there are no others
        known = self._told.get(host, 0)
        if term < known:
            self._broken(f"the agent of {host} obeys term {term}, and was told of term {known}")
        self._told[host] = max(term, known)
        if term != (true := self.terms.get(link.process, 0)):
            self._broken(f"{link.process} uses the term {term}, and leads under {true}")

    def forget(self) -> None:
        """Let go of all processes."""
        self.holder = None
        for known in (self.terms, self._renewed_at, self._read_at, self._intents, self._began):
            known.clear()

    # --- liveness ----------------------------------------------------------------------------

    def somebody_leads(self) -> None:
        """All faults ended a while ago."""
        if self.holder is None or not self.holder.leads:
            self._broken(f"nobody leads; {self.holder} holds the key")
