"""The status tells what the journal holds: all that is remembered, and nothing else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.simulation.oracles.book import Book

if TYPE_CHECKING:
    from tests.simulation.world import World

RULE = "memory"
EVENTS_COMPARED = 4
DISK_REST_S = 4.0
"""A disk that was in trouble within this may still owe what was noted then."""


class MemoryOracle:
    """Compares a status with the records on the disk, whenever the two have to agree."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.book = Book()
        self._read = 0
        self._disk_bad_at = float("-inf")
        self._read_at_start = 0  # how many records the present manager began with

    def begin(self) -> None:
        """A manager starts: it reads the disk."""
        self._read_at_start = self.book.records

    def restored(self) -> None:
        """An older copy is on the disk: it is all that a manager can remember."""
        self.book = Book()
        for text in self.world.disk.texts:
            self.book.take(json.loads(text))
        self._read = len(self.world.disk.texts)

    def new_on_disk(self) -> list[dict[str, Any]]:
        """What was written since the last time; to be folded in one by one."""
        texts = self.world.disk.texts
        if len(texts) < self._read:  # compacted
            self._read = 0
        new: list[dict[str, Any]] = [json.loads(text) for text in texts[self._read :]]
        self._read = len(texts)
        return new

    @property
    def is_settled(self) -> bool:
        """Is everything that was noted on the disk by now?"""
        if self.disk_was_bad() or self.world.manager_is_away():
            return False
        return not self.world.was_away(self.world.clock.now)

    def disk_was_bad(self) -> bool:
        """Was the disk in trouble lately? Ask at least once a second."""
        disk = self.world.disk
        if disk.full or disk.hangs or disk.delay_s > 0:
            self._disk_bad_at = self.world.clock.now
        bad_at = max(self._disk_bad_at, disk.failed_at)
        return disk.in_flight > 0 or self.world.clock.now - bad_at < DISK_REST_S

    def check(self, status: dict[str, Any]) -> None:
        """Compare what both know."""
        if not self.is_settled or status["manager"]["journal"] != "ok":
            return
        for host in status["hosts"]:
            self._host(host)
        for group in status["groups"]:
            self._group(group)
        frozen = status["manager"]["frozen"], status["manager"]["frozen_comment"]
        if frozen != (self.book.frozen is not None, self.book.frozen):
            self._wrong("the cluster", "frozen", frozen, self.book.frozen)
        self._left_alone(status)
        self._events(status["events"])

    def _host(self, shown: dict[str, Any]) -> None:
        page = self.book.host(shown["id"])
        last = shown["lifecycle"]
        for what, told, written in (
            ("active", shown["active"], page.active),
            ("fenced", shown["fenced"], page.fenced),
            ("fence_trusted", shown["fence_trusted"], page.distrusted is None),
            ("lifecycle", last["state"], page.lifecycle),
            ("lifecycle since", last["since"], page.since or None),
            ("lifecycle reason", last["reason"], page.reason or None),
        ):
            if told != written:
                self._wrong(shown["id"], what, told, written)

    def _group(self, shown: dict[str, Any]) -> None:
        page, candidates = self.book.group(shown["id"]), set(shown["candidates"])
        former = {  # seen running there, it is shown before the journal has it
            host
            for host, presence in shown["former_hosts"].items()
            if host in page.former or presence != "Running"
        }
        for what, told, written in (
            ("managed", shown["managed"], page.managed),
            ("wanted", shown["wanted"], "started" if page.wanted else "stopped"),
            ("move_target", shown["move_target"], page.target),
            ("error", shown["error"], page.error),
            ("error_kind", shown["error_kind"], page.kind),
            ("start_failures", shown["start_failures"], page.start_failures),
            ("former_hosts", former, set(page.former) - candidates),
        ):
            if told != written:
                self._wrong(shown["id"], what, told, written)

    def _left_alone(self, status: dict[str, Any]) -> None:
        """What is not touched until cleanup is shown so, with the reason."""
        if not any(page.left_alone for page in self.book.groups.values()):
            return
        rows = {row["id"]: row for row in status["resources"] if not row["shared"]}
        for name, page in self.book.groups.items():
            for (host, resource), (event, text, number) in page.left_alone.items():
                row = rows.get(resource)
                is_here = row is not None and row["group"] == name and host in row["candidates"]
                if (
                    row is None
                    or not is_here
                    or (event == "start-failed" and number > self._read_at_start)
                ):
                    continue  # shared: another group may know better; its group may be leaving
                at = row["candidates"][host]
                if at["status"] not in ("Running", "Error") or at["comment"] != text:
                    self._wrong(f"{resource} on {host}", "left alone", at, text)

    def _events(self, shown: list[dict[str, Any]]) -> None:
        told = [(e["event"], e["obj_id"], e["comment"]) for e in shown[-EVENTS_COMPARED:]]
        written = self.book.events[-EVENTS_COMPARED:]
        if told != written:
            self._wrong("the cluster", "events", told, written)

    def _wrong(self, who: str, what: str, told: object, written: object) -> None:
        text = f"{who} is shown with {what}={told!r}, and the journal says {written!r}"
        self.world.violated(RULE, text)
