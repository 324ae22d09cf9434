"""What programs may write: the payloads of fence programs and OCF scripts, and a program that
writes them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

KIB = 1024

PIECES = (
    *(b"is ON", b"is OFF", b"Status: ON\n", b"Status: OFF\n", b"Chassis power is OFF\n", b"\n"),
    *(b"is O", b"FF", b"N", b"is\tON", b"IS OFF", b"\r\n", b"\0", b"\xff\xfe", b"\xed\xa0\x80"),
    *(b"\x1b[2J", b"\x1b]0;x\x07", "\u202eis FFO".encode(), "\u2028".encode(), b"%s%n", b"{0}"),
    *(b"ocf-exit-reason:", b"ERROR: ", b"password=", b"Traceback (most recent call last):\n"),
)


@dataclass(frozen=True)
class Said:
    """What one run of a program does."""

    out: bytes
    err: bytes
    status: int
    """Its exit status; negative: it kills itself with that signal."""
    endless: bool = False
    """It writes `out` again and again."""
    leftover: bool = False
    """A child of it keeps the pipes open."""


def payload(chance: random.Random) -> bytes:
    """Anything, from nothing to a megabyte."""
    kind = chance.random()
    if kind < 0.1:
        return b""
    if kind < 0.5:
        return b"".join(chance.choice(PIECES) for _ in range(chance.randrange(1, 20)))
    if kind < 0.7:
        return chance.randbytes(chance.choice((1, 16, 300, 5000)))
    if kind < 0.9:  # what matters is far from the end, or just where it is cut
        size = chance.choice((15, 16, 17, 64, 256, 257)) * KIB + chance.randrange(-16, 16)
        filler = chance.choice((b"x", b"\n", b"a line\n", b"\xff"))
        noise = (filler * size)[:size]
        return chance.choice(PIECES) + noise + chance.choice(PIECES)
    return chance.choice(PIECES) * (chance.choice((64, 1024)) * KIB // 8)


def said(chance: random.Random, *, endless: float = 0.0, leftover: float = 0.0) -> Said:
    """One run; `endless` and `leftover` are how probable those are."""
    status = chance.choice((0, 0, 0, 1, 2, 2, 5, 7, 8, 126, 127, 255, -9, -15, -11))
    is_endless = chance.random() < endless
    out = payload(chance) or b"x" if is_endless else payload(chance)
    return Said(out, payload(chance), status, is_endless, chance.random() < leftover)


PROGRAM = """#!/bin/sh
cd {folder} || exit 99
. ./how
if [ "$leftover" = 1 ]; then sleep 5 & fi
if [ "$endless" = 1 ]; then while cat ./out; do :; done; fi
cat ./out
cat ./err >&2
if [ "$status" -lt 0 ]; then kill $status $$; fi
exit "$status"
"""


def write_program(path: Path, folder: Path) -> None:
    """The program, which looks into `folder` for what it is to do."""
    folder.mkdir(exist_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(PROGRAM.format(folder=folder))
    path.chmod(0o755)


def order(folder: Path, what: Said) -> None:
    """Have the program do this at its next run."""
    (folder / "out").write_bytes(what.out)
    (folder / "err").write_bytes(what.err)
    how = f"status={what.status}\nendless={int(what.endless)}\nleftover={int(what.leftover)}\n"
    (folder / "how").write_text(how)


def check_message(text: str, limit: int) -> str | None:
    """What is wrong with a message for people; None where nothing is."""
    if len(text) > limit:
        return f"a message of {len(text)} characters: {text[:200]!r}"
    if bad := sorted({c for c in text if ord(c) < 32 and c not in "\n\t"}):
        return f"control characters {bad!r} in a message: {text[:200]!r}"
    try:
        text.encode()
    except UnicodeEncodeError:
        return f"a message that is no text: {text[:200]!r}"
    return None
