"""The lines of a story that describe its cluster."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from halo.core.model import Settings
from tests.simulation.model import GroupPlan, Scenario
from tests.stories.mistakes import Mistake

SETTINGS = {entry.name: entry.type for entry in fields(Settings)}
LONG_S = 86_400.0


class ClusterLines:
    """Gathers them, and makes a scenario without actions of them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._line = 0
        self._hosts: dict[str, dict[str, Any]] = {}
        self._groups: list[GroupPlan] = []
        self._settings: dict[str, Any] = {}

    def take(self, number: int, line: str) -> None:
        """Take one line in. Raises Mistake."""
        self._line = number
        key, colon, value = (part.strip() for part in line.partition(":"))
        words, said = key.split(), value.split()
        match words:
            case ["hosts"] if colon and said:
                self._hosts.update({name: {"watches": True} for name in said})
            case ["host", name] if colon and said:
                for text in value.split(","):
                    self._host_option(self._known(name), text.strip())
            case ["group", name] if colon and said:
                self._group(name, value.split(","))
            case ["setting"] if len(said) == 2:
                self._setting(*said)
            case _:
                raise self._mistake(
                    "a line here begins with `hosts:`, `host NAME:`, `group NAME:` or `setting:`"
                )

    def scenario(self, line: int) -> Scenario:
        """What was taken in. Raises Mistake, naming `line`."""
        self._line = line
        if not self._hosts or not self._groups:
            raise self._mistake("a cluster has hosts and groups")
        return Scenario(0, self._hosts, tuple(self._groups), self._settings, (), LONG_S, options={})

    # --- hosts -------------------------------------------------------------------------------

    def _host_option(self, options: dict[str, Any], text: str) -> None:
        for pattern, take in self._host_options().items():
            found = re.fullmatch(pattern, text)
            if found is not None:
                take(options, *found.groups())
                return
        raise self._mistake(f"unknown of a host: {text!r}")

    def _host_options(self) -> dict[str, Callable[..., None]]:
        return {
            "no fence": lambda options: options.update(fence=[]),
            r"fence ((?:bmc|pdu).*)": self._fence_levels,
            r"on loss (fence|reboot|wait)": lambda options, word: options.update(on_loss=word),
            "old agent": lambda options: options.update(legacy=True),
            "first level is dead": lambda options: options.update(dead_level=True),
            r"device takes (\d+) s": lambda options, seconds: options.update(
                slow_s=[float(seconds)] * 4, steady=True
            ),
        }

    def _fence_levels(self, options: dict[str, Any], text: str) -> None:
        levels = [level.strip().split("+") for level in text.split("then")]
        if any(kind not in ("bmc", "pdu") for level in levels for kind in level):
            raise self._mistake("devices are bmc and pdu, as in `fence bmc then pdu+pdu`")
        options["fence"] = levels

    def _known(self, host: str) -> dict[str, Any]:
        if host not in self._hosts:
            raise self._mistake(f"{host} is not among the hosts")
        return self._hosts[host]

    # --- groups and settings -----------------------------------------------------------------

    def _group(self, name: str, parts: list[str]) -> None:
        candidates = tuple(parts[0].split())
        for host in candidates:
            self._known(host)
        tree, shared = [(name, "")], []
        after: tuple[str, ...] = ()
        policies: dict[str, Any] = {"on_start_failure": "move", "second_copy": "report"}
        for part in parts[1:]:
            match part.split():
                case ["with", *resources]:
                    for resource in resources:
                        tree.append((resource, tree[-1][0]))
                case ["shares", *resources]:
                    shared += [(resource, "") for resource in resources]
                case ["after", *names]:
                    after = tuple(names)
                case ["start", "failure", ("move" | "stay") as policy]:
                    policies["on_start_failure"] = policy
                case ["second", "copy", ("report" | "stop" | "fence") as policy]:
                    policies["second_copy"] = policy
                case _:
                    raise self._mistake(f"unknown of a group: {part.strip()!r}")
        plan = GroupPlan(candidates, tuple(tree), tuple(shared), **policies, after=after)
        self._groups.append(plan)

    def _setting(self, name: str, value: str) -> None:
        if name not in SETTINGS:
            raise self._mistake(f"there is no setting {name}")
        try:
            number = float(value)
        except ValueError:
            raise self._mistake(f"{value} is no number") from None
        self._settings[name] = int(number) if SETTINGS[name] == "int" else number

    def _mistake(self, text: str) -> Mistake:
        return Mistake(self._path, self._line, text)
