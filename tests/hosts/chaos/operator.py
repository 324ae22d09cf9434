"""The operator: gives the commands of the plan, and mends what only an operator may."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.hosts.chaos.faults import Faults, Skipped
from tests.hosts.chaos.schedule import Act
from tests.hosts.chaos.site import Site
from tests.hosts.cluster import Status
from tests.hosts.world import Ran

PATIENCE_S = (3.0, 14.0)
"""How long a dead host lies there before the operator comes: at random."""
ERROR_PATIENCE_S = 3.0
UNDO_DEADLINE_S = 90.0
UNDO = {"deactivate": "activate", "unmanage": "manage", "stop": "start"}
COMMAND_DEADLINE_S = 60.0
NO_MANAGER = 69  # the exit status
Say = Callable[[str, str], None]


class Operator:
    """One person with one command, `halo`, and a hand at the power switch."""

    def __init__(
        self, site: Site, faults: Faults, say: Say, seed: int, pool: ThreadPoolExecutor
    ) -> None:
        self._site = site
        self._world = site.world
        self._faults = faults
        self._say = say
        self._dice = random.Random(seed)
        self._pool = pool
        self._since: dict[str, tuple[float, float]] = {}  # seen broken at, come at
        self._at_work: set[str] = set()
        self._lock = threading.Lock()
        self.mended: Counter[str] = Counter()
        """What was mended, and how often."""
        self.problems: list[str] = []

    # --- commands of the plan ------------------------------------------------------------------

    def command(self, act: Act) -> str:
        """Give a command; what came of it, in words. One that is refused is as good as any."""
        words = [act.kind, act.target]
        if act.kind == "failback":
            words = ["failback", "--onto", act.target]
        if act.kind == "move":
            words += ["--to", self._elsewhere(act.target)]
        return self._words(words, self._halo(*words))

    def _elsewhere(self, group: str) -> str:
        holders = self._world.holders()[group]
        if not holders:
            raise Skipped(f"{group} runs nowhere")
        return self._site.partner(holders[0])

    def undo(self, act: Act) -> str:
        """End what a command began; retried: the manager may be dead. Raises AssertionError."""
        verb = UNDO[act.kind]
        end = time.monotonic() + UNDO_DEADLINE_S
        while True:
            done = self._halo(verb, act.target)
            if done.code == 0 or self._is_undone(act):
                return self._words([verb, act.target], done)
            if time.monotonic() > end:
                raise AssertionError(f"no success of {verb} {act.target}: {_answer(done)}")
            time.sleep(0.5)

    def _is_undone(self, act: Act) -> bool:
        key, field, value = {
            "deactivate": ("hosts", "active", True),
            "unmanage": ("groups", "managed", True),
            "stop": ("groups", "wanted", "started"),
        }[act.kind]
        items = self._site.cluster.status().get(key, ())
        return any(item["id"] == act.target and item[field] == value for item in items)

    def _halo(self, *words: str) -> Ran:
        return self._site.cluster.halo(
            *words, *(() if words[0] == "power" else ("--reason", "chaos")),
            deadline=COMMAND_DEADLINE_S,
        )  # fmt: skip

    @staticmethod
    def _words(words: list[str], done: Ran) -> str:
        return f"halo {' '.join(words)}: {'done' if done.code == 0 else _answer(done)}"

    # --- mending -------------------------------------------------------------------------------

    def look(self, status: Status) -> None:
        """Look at the status, and go to work on what has been broken for long enough."""
        broken: dict[str, Callable[[], str]] = {}
        for host in status.get("hosts", ()):
            self._look_at_host(host, broken)
        up = {host["id"] for host in status.get("hosts", ()) if host["connected"]}
        for group in status.get("groups", ()):
            # While a candidate is away, the error is most likely that: the host comes first.
            if (
                group["status"] == "Error"
                and group["managed"]
                and up.issuperset(group["candidates"])
            ):
                broken[group["id"]] = lambda g=group: self._clean_up(g)  # type: ignore[misc] # mypy does not infer lambdas with defaults
        now = time.monotonic()
        with self._lock:
            for name in set(self._since) - set(broken):
                del self._since[name]
            for name, mend in broken.items():
                _, due = self._since.setdefault(name, (now, now + self._patience(name)))
                if now >= due and name not in self._at_work:
                    self._at_work.add(name)
                    self._pool.submit(self._mend, name, mend)

    def is_at_work(self) -> bool:
        """Whether something is being mended."""
        with self._lock:
            return bool(self._at_work)

    def _patience(self, name: str) -> float:
        return ERROR_PATIENCE_S if name in self._site.homes else self._dice.uniform(*PATIENCE_S)

    def _look_at_host(self, host: dict[str, Any], broken: dict[str, Callable[[], str]]) -> None:
        name = host["id"]
        if self._faults.is_at_fault(name):
            return
        if not self._world.is_alive(name):
            broken[name] = lambda: self._revive(name)
        elif host["connected"] and (host["fenced"] or not host["fence_trusted"]):
            broken[name] = lambda: self._reset(name)

    def _mend(self, name: str, mend: Callable[[], str]) -> None:
        try:
            self._say("operator", mend())
        except AssertionError as error:  # such as a host that dies again meanwhile
            self._say("operator", f"{name}: {first_line(error)}")
        except Exception as error:
            self.problems.append(f"the operator at {name}: {first_line(error)}")
        finally:
            with self._lock:
                self._at_work.discard(name)
                self._since.pop(name, None)

    def _revive(self, host: str) -> str:
        if self._world.is_alive(host):
            return f"{host} lives"
        self.mended["power on"] += 1
        if self._world.outlet_is_on(host):  # dead, and nobody has fenced it
            self._world.cut_power(host)
        done = self._halo("power", "on", host)
        if self._world.is_alive(host):
            return f"halo power on {host}: done"
        self._world.power_on(host)
        return f"{host} switched on by hand, since halo power on: {_answer(done)}"

    def _reset(self, host: str) -> str:
        self.mended["reset"] += 1
        return self._words(["reset", host], self._halo("reset", host))

    def _clean_up(self, group: dict[str, Any]) -> str:
        self.mended["cleanup"] += 1
        words = ["cleanup", group["id"]]
        return f"{self._words(words, self._halo(*words))}; it was: {group['comment']}"


def first_line(error: Exception) -> str:
    """An error in one line; those of a world have all logs behind the first."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def _answer(done: Ran) -> str:
    """What a command said, in one line."""
    if done.code == NO_MANAGER:
        return "no manager answers"
    said = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return f"exit status {done.code}: {said[-1] if said else 'nothing said'}"
