"""The program: one order on standard input, lines of JSON on standard output, an exit code.

The main thread copies nothing. It tells the progress and hears signals, so that neither waits for a
disk that hangs. Whatever it leaves behind when it ends is what a successor takes up.

Exit codes: 0 ready or removed; 1 failed, the last line says how; 2 no valid order; 3 another mover
works on the order; 4 ended by a signal; 5 the deadline passed.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import select
import signal
import sys
import threading
import time
from types import FrameType
from typing import NoReturn

from halo.remote.mover.carrying_out import Worker
from halo.remote.mover.kernel import lower_disk_priority
from halo.remote.mover.orders import ORDER_LIMIT, Order, parse
from halo.remote.mover.outcomes import Failure, State
from halo.remote.mover.pace import Stop, Stopped
from halo.remote.mover.progress import INTERVAL_S, Tally, Teller

END_S = 0.3
"""How long the threads may take to end after a signal."""

LAST_LINE_S = 0.1
"""How long the last line is waited for if nobody reads."""

_LOWEST = 19
_OVER = 0
"""What the thread that works says at its end, where a signal says its number."""


class Program:
    """One order from its first to its last line."""

    def __init__(self, order: Order, teller: Teller) -> None:
        self._order = order
        self._teller = teller
        self._stop = Stop()
        self._tally = Tally()
        self._worker = Worker(order, self._tally, self._stop)
        self._why: State | None = None
        self._outcome: dict[str, object] | None = None
        self._line = b""
        self._heard, self._told = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> State:
        """Carry the order out. Returns how it ended, after the last line."""
        # A handler that sets an event could meet the event's lock held by the thread it interrupts.
        signal.set_wakeup_fd(self._told, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _hear)
        for work in (self._work, self._keep_progress):
            threading.Thread(target=work, daemon=True).start()
        end = time.monotonic() + (self._order.deadline_s or math.inf)
        while self._outcome is None and self._why is None:
            left_s = end - time.monotonic()
            heard = self._wait(min(INTERVAL_S, max(left_s, 0.0)))
            if heard - {_OVER}:
                self._why = State.CANCELLED
            elif left_s <= 0:
                self._why = State.DEADLINE_PASSED
            else:
                self._tell()
        self._end()
        outcome = self._outcome or self._stopped()
        self._teller.tell({"kind": "outcome", "id": self._order.id, **outcome}, LAST_LINE_S)
        return State(str(outcome["state"]))

    def _wait(self, seconds: float) -> set[int]:
        """Wait for the work to end, or a signal. Returns the numbers of what came."""
        poll = select.poll()
        poll.register(self._heard, select.POLLIN)
        return set(os.read(self._heard, 1024)) if poll.poll(seconds * 1000) else set()

    def _end(self) -> None:
        """Let the threads end."""
        self._stop.tell()
        end = time.monotonic() + END_S
        while self._outcome is None and (left_s := end - time.monotonic()) > 0:
            self._wait(left_s)

    def _tell(self) -> None:
        line = {"kind": "progress", "id": self._order.id, **self._tally.now()}
        self._line = json.dumps(line).encode()
        self._teller.tell(line)

    def _keep_progress(self) -> None:
        """In a thread of its own, since the disk may hang."""
        told = b""
        with contextlib.suppress(Stopped):
            while True:
                self._stop.wait(INTERVAL_S)
                if told != self._line:
                    told = self._line
                    self._worker.tell(told)

    def _work(self) -> None:
        try:
            self._outcome = self._worker.run()
        except Stopped:
            self._outcome = self._stopped()
        except Failure as failure:
            self._outcome = failed(failure)
        except BaseException as error:
            text = f"a defect of the mover: {type(error).__name__}: {error}"
            self._outcome = {"state": State.IO_ERROR, "message": text[:1000]}
            raise
        finally:
            os.write(self._told, bytes([_OVER]))

    def _stopped(self) -> dict[str, object]:
        done = self._tally.totals()
        if self._why is State.DEADLINE_PASSED:
            message = f"not complete within {self._order.deadline_s:g} s"
        else:
            message = "ended by a signal"
        return {
            "state": self._why or State.CANCELLED,
            "message": f"{message}: {done['files']} files and {done['bytes']} bytes are copied",
            **done,
        }


def _hear(_number: int, _frame: FrameType | None) -> None:
    """Python writes the number of the signal into the pipe."""


def failed(failure: Failure) -> dict[str, object]:
    """What the last line says of a failure."""
    return {"state": failure.state, "message": failure.message, **failure.numbers}


def main() -> NoReturn:
    """Run one order, and end."""
    _give_way()
    teller = Teller(sys.stdout.fileno())
    try:
        order = parse(sys.stdin.buffer.read(ORDER_LIMIT + 1))
    except Failure as failure:
        teller.tell({"kind": "outcome", "id": None, **failed(failure)}, LAST_LINE_S)
        state = failure.state
    else:
        state = Program(order, teller).run()
    # Without waiting for threads: one may hang in a call to a disk that does not answer.
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    os._exit(state.exit_code)


def _give_way() -> None:
    """Everybody else comes first, and each folder of a deep tree may be open."""
    with contextlib.suppress(OSError):
        os.nice(_LOWEST)
    lower_disk_priority()
    with contextlib.suppress(OSError, ValueError):
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.umask(0o077)


if __name__ == "__main__":
    main()
