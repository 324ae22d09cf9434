"""Config files: whatever stands in one, the end is a model or a list of mistakes, and soon."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from halo.config.describe import summary
from halo.config.loader import load
from halo.core.errors import ConfigError
from halo.core.model import Cluster
from tests.hostile.fuzz.fuzzer import Finding
from tests.hostile.fuzz.mutate import mutated
from tests.integration.site import ROOT

CPU_LIMIT_S = 5.0
"""Of a file of at most 64 KiB; a good one of that size takes 0.2 s."""

MESSAGE_LIMIT = 64 * 1024

_WRONG: tuple[Callable[[random.Random], Any], ...] = (
    lambda chance: None,
    lambda chance: chance.choice((True, False)),
    lambda chance: chance.choice((0, -1, 1, 2**31, 2**63, -(2**63), 10**400, 1e308, 1e-300)),
    lambda chance: chance.choice((float("nan"), float("inf"), -float("inf"), 0.1)),
    lambda chance: chance.choice(("", " ", "a", "0", "null", "~", "*", "&a", "!x", "x" * 5000)),
    lambda chance: chance.choice(
        ("h[0-9999999]", "h[0-", "h[00-99][00-99]", "a,b,,", "[::1]:99999")
    ),
    lambda chance: chance.choice(
        ("\ud7ff\ue000", "\u202e", "\x85", "ü:1", "a:b:c", "a b", "../x", "/")
    ),
    lambda chance: [],
    lambda chance: {},
    lambda chance: [None, [], {}, "a", 1],
    lambda chance: {"a": {"b": {"c": []}}},
    lambda chance: {0: 2, None: 3, True: 4},
    lambda chance: ["x"] * 3000,
    lambda chance: {f"k{n}": n for n in range(2000)},
    lambda chance: _deep(chance.choice((10, 63, 64, 65, 200))),
)

_YAML = (
    "&a ", "*a", "*b ", "<<: *a\n", "!!binary ", "!!python/object:os.system ", "!!float ", "!!int ",
    "!!set ", "!!omap ", "!!timestamp ", "!x!y ", "%YAML 1.1\n---\n", "%TAG ! tag:x,1:\n", "---\n",
    "...\n", "? ", ": ", "- ", "\t", "|\n", ">-\n", "'", '"', "\\", "#", "{", "}", "[", "]", ",",
    "\0", "\x85", "\u2028", "\ufeff", "0x", "0o7", "1:30:00", "2001-01-01", ".inf", ".nan", "1e999",
    "0b1", "=", "<<", "name: ", "x-a: &b [*b]\n", "settings: ", "hosts: ",
)  # fmt: skip


def _deep(depth: int) -> Any:
    value: Any = "deep"
    for _ in range(depth):
        value = [value]
    return value


def alias_bomb(width: int, depth: int) -> str:
    """A few lines that stand for `width ** depth` values: a "billion laughs"."""
    lines = ["x-0: &x0 [lol]"]
    for level in range(1, depth):
        items = ", ".join([f"*x{level - 1}"] * width)
        lines.append(f"x-{level}: &x{level} [{items}]")
    return "\n".join([*lines, f"hosts: *x{depth - 1}", f"resources: *x{depth - 1}", ""])


def samples() -> list[bytes]:
    """Good configs to begin with."""
    paths = [*sorted(ROOT.glob("examples/**/*.yaml")), *sorted(ROOT.glob("examples/**/*.conf"))]
    found = [path.read_bytes() for path in [*paths, ROOT / "tests" / "failover.yaml"]]
    if len(found) < 3:
        raise ValueError(f"hardly any examples: {paths}")
    return found


class ConfigFuzzer:
    """Files on disk, through :func:`halo.config.loader.load`."""

    def __init__(self) -> None:
        self._samples: list[bytes] = []
        self._path = Path()

    async def open(self, folder: Path) -> None:
        self._samples = samples()
        self._path = folder / "halo.conf"
        for sample in self._samples:
            check(self._path, sample)

    async def case(self, chance: random.Random) -> None:
        check(self._path, self._content(chance))

    def _content(self, chance: random.Random) -> bytes:
        sample = chance.choice(self._samples)
        kind = chance.random()
        if kind < 0.35:
            return mutated(sample, chance, self._samples)
        if kind < 0.6:
            return _with_yaml(sample.decode(), chance).encode("utf-8", "surrogatepass")
        if kind < 0.95:
            return _with_other_values(sample, chance)
        return alias_bomb(chance.randrange(2, 12), chance.randrange(2, 30)).encode()

    async def close(self) -> None:
        pass


def check(path: Path, content: bytes) -> None:
    """Load a config and look at how that ended."""
    path.write_bytes(content)
    began = time.process_time()
    loaded = _loaded(path)
    if isinstance(loaded, Cluster):
        summary(loaded)
    else:
        _check_mistakes(loaded, str(path))
    if (took_s := time.process_time() - began) > CPU_LIMIT_S:
        raise Finding(f"{took_s:.1f} s for {len(content)} bytes: {content[:500]!r}")


def _loaded(path: Path) -> Cluster | ConfigError:
    try:
        return load(path)
    except ConfigError as error:
        return error


def _check_mistakes(error: ConfigError, path: str) -> None:
    text = str(error)
    if not error.mistakes or not text.startswith(path):
        raise Finding(f"a refusal that names no place: {text[:500]!r}")
    if len(text) > MESSAGE_LIMIT:
        raise Finding(f"a refusal of {len(text)} characters: {text[:500]!r}")
    text.encode()  # what an operator is told can be printed
    if any(ord(character) < 32 and character != "\n" for character in text):
        raise Finding(f"control characters in a refusal: {text[:500]!r}")


def _with_yaml(text: str, chance: random.Random) -> str:
    """Pieces of YAML that mean something, put where they do not belong."""
    for _ in range(chance.randrange(1, 5)):
        if chance.random() < 0.5:
            at = chance.randrange(len(text) + 1)
        else:  # where a value begins
            at = text.find(": ", chance.randrange(len(text) + 1)) + 2
        text = text[:at] + chance.choice(_YAML) + text[at:]
    return text


def _with_other_values(sample: bytes, chance: random.Random) -> bytes:
    """Well-formed YAML, with values that should not be where they are."""
    tree: Any = yaml.safe_load(sample)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 5))):
        tree = _change(tree, chance)
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    return text.encode("utf-8", "surrogatepass")


def _change(tree: Any, chance: random.Random) -> Any:
    """Change one place of the tree, and give the tree back."""
    places = list(_places(tree))
    if not places:
        return chance.choice(_WRONG)(chance)
    holder, key = chance.choice(places)
    kind = chance.random()
    if kind < 0.6:
        holder[key] = chance.choice(_WRONG)(chance)
    elif kind < 0.75:  # a value of another place
        other, name = chance.choice(places)
        holder[key] = other[name]
    elif kind < 0.9 and isinstance(holder, dict):
        holder[str(chance.choice(_WRONG)(chance))[:200]] = holder.pop(key)
    elif isinstance(holder, list):
        holder.append(holder[key])
    else:
        del holder[key]
    return tree


def _places(tree: Any) -> Any:
    """Every (holder, key) of the tree; a holder that holds itself is walked once."""
    waiting: list[Any] = [tree]
    seen: set[int] = set()
    while waiting:
        holder = waiting.pop()
        if id(holder) in seen or len(seen) > 2000:
            continue
        seen.add(id(holder))
        keys: Any = list(holder) if isinstance(holder, Mapping) else range(len(holder))
        for key in keys:
            yield holder, key
            if isinstance(holder[key], dict | list):
                waiting.append(holder[key])
