"""Clients of the services on test hosts: they go on asking, whatever happens, and write down what
they were told.

    clients.py web URL              one JSON line for each answer: {"at", "answer"}
    clients.py rows ADDRESS [PAUSE] {"at", "acknowledged": N} for each row that the database took;
                                    PAUSE: seconds between two rows
"""

from __future__ import annotations

import contextlib
import itertools
import json
import select
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from typing import IO, Any

EVERY_S = 0.02
ANSWER_S = 0.5
PSQL = ("psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--username=postgres")


def tell(**what: Any) -> None:
    """One line, at once."""
    print(json.dumps({"at": time.time(), **what}), flush=True)


def web(url: str) -> None:
    """Ask a web server again and again; only answers are told."""
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=ANSWER_S) as answer:
            tell(answer=answer.read().decode().strip())
        time.sleep(EVERY_S)


class Database:
    """A session of psql, made anew when it breaks."""

    def __init__(self, address: str) -> None:
        words = [*PSQL, f"--dbname=host={address} connect_timeout=1"]
        self._psql = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._psql.stdin is not None
        assert self._psql.stdout is not None
        self._ask: IO[bytes] = self._psql.stdin
        self._answers: IO[bytes] = self._psql.stdout

    def write(self, number: int) -> bool:
        """Write a row; True when the database said that it is committed."""
        try:
            self._ask.write(f"insert into numbered values ({number}) returning n;\n".encode())
            self._ask.flush()
        except OSError:
            return False
        if not select.select([self._answers], [], [], 2.0)[0]:
            return False
        return self._answers.readline().strip() == str(number).encode()

    def close(self) -> None:
        """Leave at once."""
        self._psql.kill()
        self._psql.wait()


def rows(address: str, pause: str = "0") -> None:
    """Write numbered rows, one after another; a number whose fate is unknown is not used again."""
    numbers = itertools.count(1)
    while True:
        database = Database(address)
        for number in numbers:
            if not database.write(number):
                break
            tell(acknowledged=number)
            time.sleep(float(pause))
        database.close()
        time.sleep(EVERY_S)


if __name__ == "__main__":
    clients: dict[str, Callable[..., None]] = {"web": web, "rows": rows}
    clients[sys.argv[1]](*sys.argv[2:])
