"""Fuzzing led by coverage, of what is pure Python: needs `atheris`, which `make fuzz` installs.

    python -m tests.hostile.fuzz.guided frames --seconds 60 --seed 1
    python -m tests.hostile.fuzz.guided frames --file tests/test_output/crash-...

A finding ends it with a status other than 0 and leaves the bytes in a file, which repeats it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

OUTPUT = Path(__file__).resolve().parents[3] / "tests" / "test_output"
_INPUT_LIMIT = 4096
_MEMORY_MIB = 2048

try:
    import atheris
except ImportError:
    atheris = None


def _frames() -> tuple[Callable[[bytes], None], list[bytes]]:
    from tests.hostile.fuzz import wire_frames

    def one(data: bytes) -> None:
        pieces = [1 + byte % 64 for byte in data[:4]] or [1]
        wire_frames.check(data[4:], pieces)

    return one, [b"\7\40\100\1" + sample for sample in wire_frames.samples()]


def _config() -> tuple[Callable[[bytes], None], list[bytes]]:
    from tests.hostile.fuzz import config

    path = Path(tempfile.mkdtemp(prefix="halo-fuzz-")) / "halo.conf"
    return lambda data: config.check(path, data), config.samples()


TARGETS = {
    "frames": (_frames, ["halo.adapters.rpc.frames", "halo.adapters.rpc.frame_layout"]),
    "config": (_config, ["halo.config"]),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--file", type=Path, help="repeat what a file holds")
    given = parser.parse_args()
    make, packages = TARGETS[given.target]
    if given.file is not None:
        make()[0](given.file.read_bytes())
        return 0
    if atheris is None:
        print("atheris is not installed: nothing is led by coverage")
        return 0
    with atheris.instrument_imports(include=packages):
        one, samples = make()
    corpus = Path(tempfile.mkdtemp(prefix="halo-corpus-"))
    for number, sample in enumerate(samples):
        (corpus / str(number)).write_bytes(sample)
    options = {
        "max_total_time": given.seconds,
        "seed": given.seed,
        "max_len": _INPUT_LIMIT,
        "rss_limit_mb": _MEMORY_MIB,
        "timeout": 20,
        "artifact_prefix": f"{OUTPUT}/",
        "verbosity": 0,
        "print_final_stats": 1,
    }
    arguments = [f"-{name}={value}" for name, value in options.items()]
    atheris.Setup([sys.argv[0], *arguments, str(corpus)], one)
    atheris.Fuzz()  # never returns
    return 0


if __name__ == "__main__":
    sys.exit(main())
