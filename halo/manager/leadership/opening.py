"""Opens the journal in etcd, and stands by until this manager leads.

The code for etcd is loaded only here, so that a manager with an embedded journal does without it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from halo import __version__
from halo.adapters.slow_files import in_daemon_thread
from halo.adapters.store_files import NO_FILES, StoreFiles
from halo.adapters.systemd import Notifier
from halo.core.errors import AdministratorError, LeadershipError, StateError
from halo.core.secrets import STORE_PASSWORD
from halo.error_words import words_of
from halo.manager.leadership.standing import StoreStanding
from halo.ports import ManagerSeen, WallClock
from halo.telling import PeerLog

if TYPE_CHECKING:
    from halo.adapters.etcd.location import Store
    from halo.adapters.etcd.medium import EtcdMedium

Answering: TypeAlias = Callable[[Callable[[], str]], AbstractAsyncContextManager[None]]


class Leading(Protocol):
    """The leadership of a manager whose journal is in etcd."""

    @property
    def term(self) -> int:
        """The term of this leadership; 0 for a manager that is the only one."""
        ...

    def when_lost(
        self, tell: Callable[[LeadershipError], None], end_process: Callable[[], None]
    ) -> None:
        """Have `tell` called when the leadership is lost. `end_process` is called if that was not
        enough."""
        ...

    def require_leading(self) -> None:
        """Raise LeadershipError unless this manager can prove that it leads."""
        ...


class Alone:
    """The leadership of a manager whose journal is a file that it has locked: it is never lost."""

    @property
    def term(self) -> int:
        """There is one manager only, and its calls and records carry no term."""
        return 0

    def when_lost(
        self, tell: Callable[[LeadershipError], None], end_process: Callable[[], None]
    ) -> None:
        """Nothing to watch."""

    def require_leading(self) -> None:
        """Nothing to prove."""


log = PeerLog("halo.manager")

LOOK_DEADLINE_S = 10.0
SOON_S = 1.0
"""A manager that has not opened its journal by then answers on its socket, and says what it does.
"""

EXIT_NOT_LEADING = 75
"""Exit status if the manager does not lead any more (EX_TEMPFAIL). systemd restarts it."""


def store_of(text: str | None, files: StoreFiles) -> Store | None:
    """The store that the options name; None: the journal is an embedded file.

    Reads files. In any case, no password stays in the environment. Raises AdministratorError."""
    if text is None:
        os.environ.pop(STORE_PASSWORD, None)
        if files != NO_FILES:
            raise AdministratorError("--store-... options need --store, which is not given")
        return None
    from halo.adapters.etcd.location import store_at

    return store_at(text, files)


@dataclass(frozen=True, slots=True)
class Node:
    """This manager, as the others see it. `lease_s`: for how long it leads without renewal.
    `observes`: it acts on nothing, also when it leads."""

    id: str
    lease_s: int
    url: str | None = None
    observes: bool = False


def open_store(store: Store, node: Node, clock: WallClock) -> tuple[EtcdMedium, StoreStanding]:
    """The journal in etcd, which :func:`stand_by` opens, and the standing of this manager."""
    from halo.adapters.etcd.medium import EtcdMedium

    own = ManagerSeen(
        id=node.id,
        host=socket.gethostname(),
        pid=os.getpid(),
        url=node.url,
        version=__version__,
        since=clock.now(),
        entries=0,
        leads=False,
        observes=node.observes,
    )
    medium = EtcdMedium(store, node.lease_s, own)
    assert medium.beside is not None
    return medium, StoreStanding(medium.beside, node.id, clock)


async def stand_by(
    store: Store,
    medium: EtcdMedium,
    standing: StoreStanding,
    statefile: Path,
    notifier: Notifier,
    answering: Answering,
) -> None:
    """Wait for etcd and for the leadership, without limit, and open the journal.

    A cancellation ends the wait. `answering` is entered as soon as something is waited for, and
    after a second at the latest: then whoever asks is told what it is. Raises StateError if an
    administrator must mend something, or if a journal in a file would be forgotten; LeadershipError
    if the leadership was lost at once."""
    loop = asyncio.get_running_loop()
    reason = f"it opens its journal in etcd ({store}), and waits for etcd without limit"
    waits = asyncio.Event()

    def say() -> None:
        log.info("not leading", reason=reason)
        notifier.status(reason)

    def tell(text: str) -> None:
        nonlocal reason
        if text != reason:
            reason = text
            say()
        waits.set()

    opening = loop.create_task(_open(store, medium, standing, statefile, tell))
    waiting = loop.create_task(waits.wait())
    try:
        await asyncio.wait({opening, waiting}, timeout=SOON_S, return_when=asyncio.FIRST_COMPLETED)
        if not opening.done():
            if not waits.is_set():
                say()
            async with answering(lambda: reason):
                notifier.ready(reason)
                await asyncio.wait({opening})
        await opening
    except BaseException:  # a signal came, or the socket is in use
        opening.cancel()
        await asyncio.wait({opening})
        if not opening.cancelled() and opening.exception() is None:
            await medium.close()  # it was opened in this very step
        raise
    finally:
        waiting.cancel()


@contextmanager
def signals_end_this() -> Iterator[None]:
    """Have the first SIGTERM or SIGINT cancel this task, until others take the signals."""
    task = asyncio.current_task()
    assert task is not None
    signals_cancel(task)
    yield


def signals_cancel(task: asyncio.Task[Any]) -> None:
    """From now on, the first SIGTERM or SIGINT cancels `task`. A second cancellation would end the
    ending: the lead would be given back while work is under way, and records would be lost."""
    came = list[int]()

    def take(number: int) -> None:
        came.append(number)
        if len(came) == 1:
            task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, take, number)


async def _open(
    store: Store,
    medium: EtcdMedium,
    standing: StoreStanding,
    statefile: Path,
    tell: Callable[[str], None],
) -> None:
    await medium.stand_by(tell, standing.take)
    try:
        if medium.is_empty:
            await _require_no_journal_in(statefile, store)
    except BaseException:
        await medium.close()
        raise


async def _require_no_journal_in(statefile: Path, store: Store) -> None:
    """The orders in it would be forgotten, and a group that must stay down would start."""

    def look() -> int | OSError:
        try:
            return statefile.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return 0
        except OSError as error:
            return error

    try:
        async with asyncio.timeout(LOOK_DEADLINE_S):
            size = await in_daemon_thread(look, f"look at {statefile}")
    except TimeoutError:
        size = OSError(None, f"no answer within {LOOK_DEADLINE_S:g} s")
    if isinstance(size, OSError):
        raise StateError(
            f"{store}: the journal there is empty, and whether there is one in the state file "
            f"{statefile} cannot be seen: {words_of(size)}. Correct that, or name a file that does "
            "not exist with --statefile"
        )
    if size:
        raise StateError(
            f"{store}: the journal there is empty, but the state file {statefile} is not. Import "
            f"it with `halo store import {statefile} {store}`; or, to begin with nothing "
            "remembered (every group managed and wanted, every host active), move the file aside"
        )
