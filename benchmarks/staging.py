"""How fast the mover is, beside `cp -r` and `rsync -a`, on one disk, and how much memory it takes.

    python -m benchmarks.staging [--runs 3] [--only large,small] [--folder DIR] [--gigabytes 4]

The programs take turns. Before each run the page cache forgets the source. The mover's copy is on
the disk when it ends, so the others' time includes a `sync` of the file system. What they take
without it is shown, too.

Run it on a machine that does nothing else, on a disk with three times the size free.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import Row, machine

ROOT = Path(__file__).parents[1]
MIB = 1 << 20
LARGE_FILES = 8
SMALL_FILES = 20_000
SMALL_BYTES = 4096
PER_FOLDER = 100
AGAINST_CP, AGAINST_RSYNC, MEMORY_MB = 90.0, 70.0, 100.0
_POLL_S = 0.02


@dataclass(frozen=True)
class Run:
    """One copy: seconds until the program ended, seconds until all was on the disk, memory."""

    alone_s: float
    on_disk_s: float
    memory_mb: float = 0.0


def make_large(top: Path, gigabytes: float) -> int:
    """A few large files. Returns their bytes."""
    top.mkdir()
    block = os.urandom(16 * MIB)
    blocks = max(1, round(gigabytes * 1024 / 16 / LARGE_FILES))
    for number in range(LARGE_FILES):
        with (top / f"large{number}").open("wb") as file:
            for n in range(blocks):
                file.write(n.to_bytes(8, "little") + block[8:])
    return LARGE_FILES * blocks * len(block)


def make_small(top: Path) -> int:
    """Many small files, a hundred to a folder. Returns their bytes."""
    for start in range(0, SMALL_FILES, PER_FOLDER):
        folder = top / f"d{start // PER_FOLDER}"
        folder.mkdir(parents=True)
        for number in range(start, start + PER_FOLDER):
            (folder / f"f{number}").write_bytes(os.urandom(SMALL_BYTES))
    return SMALL_FILES * SMALL_BYTES


def forget(top: Path) -> None:
    """Let the page cache forget a tree."""
    for folder, _, files in os.walk(top):
        for name in files:
            fd = os.open(os.path.join(folder, name), os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def other(*words: str) -> Callable[[Path, Path], Run]:
    """A program that takes a source and a destination, and a `sync` after it."""

    def run(source: Path, destination: Path) -> Run:
        began = time.monotonic()
        subprocess.run([*words, f"{source}/.", f"{destination}/"], check=True)
        alone = time.monotonic() - began
        subprocess.run(["sync", "--file-system", destination], check=True)
        return Run(alone, time.monotonic() - began)

    return run


def mover(source: Path, destination: Path) -> Run:
    """The mover. Raises SystemExit if it does not succeed."""
    order = {
        "id": "bench",
        "copies": [{"source": str(source), "destination": str(destination)}],
        "source_roots": [str(source.parent)],
        "destination_roots": [str(destination.parent)],
    }
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "halo.remote.mover"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(order).encode())
    process.stdin.close()
    memory_mb = 0.0
    while process.poll() is None:
        memory_mb = max(memory_mb, most_memory_mb(process.pid))
        time.sleep(_POLL_S)
    took = time.monotonic() - began
    last = json.loads(process.stdout.read().splitlines()[-1])
    if last["state"] != "ready":
        raise SystemExit(f"the mover failed: {last}")
    subprocess.run(["rm", "-rf", destination.parent / ".halo-mover-bench-0"], check=True)
    return Run(took, took, memory_mb)


def most_memory_mb(pid: int) -> float:
    """The most memory that a process has had so far; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def measure(
    source: Path, ways: dict[str, Callable[[Path, Path], Run]], runs: int, *, keep: bool
) -> dict[str, list[Run]]:
    """Each way so many times, in turns. With `keep` the copies stay until the end: ext4 searches
    longer for each new inode when many were just freed."""
    found: dict[str, list[Run]] = {name: [] for name in ways}
    for turn in range(runs):
        for name, way in ways.items():
            forget(source)
            destination = source.parent / f"copy-{name}-{turn}"
            if name != "mover":
                destination.mkdir()
            found[name].append(way(source, destination))
            if not keep:
                subprocess.run(["rm", "-rf", destination], check=True)
                subprocess.run(["sync", "--file-system", source], check=True)
    return found


def rows(
    what: str, found: dict[str, list[Run]], size: int, rival: str, limit: float
) -> Iterator[Row]:
    """The mover against one other program."""
    for name, runs in found.items():
        yield Row(f"{what}: {name}, on disk", [size / MIB / r.on_disk_s for r in runs], "MB/s")
    alone = [run.alone_s for run in found[rival]]
    yield Row(f"{what}: {rival} without sync", [size / MIB / s for s in alone], "MB/s")
    pairs = list(zip(found["mover"], found[rival], strict=True))
    shares = [100 * theirs.on_disk_s / ours.on_disk_s for ours, theirs in pairs]
    yield Row(f"{what}: mover of {rival}'s speed, on disk", shares, "%", limit, at_least=True)
    shares = [100 * theirs.alone_s / ours.on_disk_s for ours, theirs in pairs]
    yield Row(f"{what}: mover of {rival}'s speed without sync", shares, "%")
    memory = [run.memory_mb for run in found["mover"]]
    yield Row(f"{what}: memory of the mover", memory, "MB", MEMORY_MB)


def large_rows(folder: Path, options: argparse.Namespace) -> Iterator[Row]:
    """Large files, beside `cp -r`."""
    size = make_large(folder / "large", options.gigabytes)
    ways = {"cp": other("cp", "-r"), "mover": mover}
    found = measure(folder / "large", ways, options.runs, keep=False)
    yield from rows(f"{size / MIB / 1024:.1f} GB in large files", found, size, "cp", AGAINST_CP)
    shutil.rmtree(folder / "large")


def small_rows(folder: Path, options: argparse.Namespace) -> Iterator[Row]:
    """Small files, beside `rsync -a` and `cp -a`."""
    if shutil.which("rsync") is None:
        print("MISSING: rsync (Debian package rsync). Small files are not measured.")
        raise SystemExit(1)
    size = make_small(folder / "small")
    ways = {"rsync": other("rsync", "-a"), "cp": other("cp", "-a"), "mover": mover}
    found = measure(folder / "small", ways, options.runs, keep=True)
    yield from rows(f"{SMALL_FILES:,} small files", found, size, "rsync", AGAINST_RSYNC)
    shutil.rmtree(folder / "small")


PARTS = {"large": large_rows, "small": small_rows}


def main() -> int:
    """Print the rows as they are measured; 1 where a bar was missed."""
    parser = argparse.ArgumentParser(prog="benchmarks.staging")
    parser.add_argument("--runs", type=int, default=3, help="of each program (default: 3)")
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts: {', '.join(PARTS)}")
    parser.add_argument("--folder", type=Path, default=None, help="where (default: temporary)")
    parser.add_argument("--gigabytes", type=float, default=4.0, help="in large files (default: 4)")
    options = parser.parse_args()
    print(machine())
    print(f"{'':<74} {'min':>8} {'median':>8} {'max':>8}")
    missed = 0
    with tempfile.TemporaryDirectory(prefix="halo-staging-", dir=options.folder) as folder:
        for name in options.only.split(","):
            for row in PARTS[name](Path(folder), options):
                print(row, flush=True)
                missed += not row.met
    print(f"{missed} bars missed" if missed else "every bar was met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
