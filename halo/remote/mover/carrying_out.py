"""Carrying out an order: its copies one after the other, all measured before the first begins."""

from __future__ import annotations

import os
from dataclasses import dataclass

from halo.remote.mover.kernel import flush_file_system
from halo.remote.mover.log import Header
from halo.remote.mover.orders import Action, Copy, Order
from halo.remote.mover.outcomes import End, Failure, State, failure_of, shown
from halo.remote.mover.pace import Pace, Stop
from halo.remote.mover.places import Destination, Source, open_destination, open_source
from halo.remote.mover.progress import Phase, Tally
from halo.remote.mover.tree.checking import Size, check_same, measure, space_taken
from halo.remote.mover.tree.filling import Filling, Tools
from halo.remote.mover.tree.large import Ends
from halo.remote.mover.tree.metadata import Keeper
from halo.remote.mover.tree.publishing import present, publish
from halo.remote.mover.workspace import TREE, Workspace, folder_name, lstat, open_workspace

_FORMAT = 1


@dataclass(slots=True)
class Job:
    """One copy of the order, with both ends open, and its working folder."""

    copy: Copy
    place: Destination
    space: Workspace
    source: Source | None = None
    size: Size | None = None
    is_done: bool = False


class Worker:
    """Carries out one order. Used by one thread, besides `tell`."""

    def __init__(self, order: Order, tally: Tally, stop: Stop) -> None:
        self._order = order
        self._tally = tally
        self._stop = stop
        self._keeper = Keeper()
        self._jobs: list[Job] = []

    def run(self) -> dict[str, object]:
        """Returns what the last line says of a success. Raises Failure and Stopped.

        It may leave descriptors and threads behind: the program ends afterwards.
        """
        if self._order.action is Action.REMOVE:
            return {"state": State.REMOVED, "removed": self._remove()}
        try:
            self._open()
            self._measure()
        except BaseException:
            self._tidy()
            raise
        for job in self._jobs:
            if not job.is_done:
                self._copy(job)
        done = {"state": State.READY, **self._tally.totals()}
        return {**done, "attributes_lost": self._keeper.attributes_lost}

    def tell(self, line: bytes) -> None:
        """Keep the last line of progress, for whoever finds this order busy."""
        for job in self._jobs[:1]:
            job.space.tell(line)

    # --- removing ----------------------------------------------------------------------------

    def _remove(self) -> int:
        """Remove the working folders of the order. Returns how many there were."""
        removed = 0
        for number, copy in enumerate(self._order.copies):
            try:
                place = open_destination(copy.destination, self._order.destination_roots)
            except Failure as failure:
                if failure.state is State.DESTINATION_MISSING:
                    continue  # and so is the working folder
                raise
            space = open_workspace(place.folder, folder_name(self._order.id, number), create=False)
            if space is None:
                continue
            if space.log.header is not None:
                self._check_header(space, copy)
            try:
                space.remove()
            except OSError as error:
                raise failure_of(error, End.DESTINATION, place.name) from error
            space.close()
            removed += 1
        return removed

    # --- before anything is copied -----------------------------------------------------------

    def _open(self) -> None:
        """Take the working folders of all copies, so that no other mover works on this order."""
        for number, copy in enumerate(self._order.copies):
            place = open_destination(copy.destination, self._order.destination_roots)
            name = folder_name(self._order.id, number)
            space = open_workspace(place.folder, name, create=False)
            if space is None:
                if lstat(place.folder, place.name) is not None:
                    raise present(copy.destination)
                space = open_workspace(place.folder, name, create=True)
            if space is None:
                raise AssertionError("a working folder was neither found nor made")
            job = Job(copy, place, space)
            self._jobs.append(job)
            self._begin_header(space, copy)
            self._check_header(space, copy)
            job.is_done = self._is_done(job)

    def _begin_header(self, space: Workspace, copy: Copy) -> None:
        if space.log.header is None:  # nothing was written down, so nothing counts
            try:
                space.clear_tree()
                space.log.begin(_header(copy))
            except OSError as error:
                raise failure_of(error, End.DESTINATION, copy.destination) from error

    def _check_header(self, space: Workspace, copy: Copy) -> None:
        """Raises Failure if another order with the same id has worked here."""
        if space.log.header != _header(copy):
            message = f"the id {self._order.id} belongs to another order: {space.log.header}"
            raise Failure(State.OTHER_ORDER, message[:1000])

    def _is_done(self, job: Job) -> bool:
        """Has this order put there what stands at the destination? Raises Failure if somebody else
        has, or if somebody has removed it."""
        log, place = job.space.log, job.place
        found = lstat(place.folder, place.name)
        if found is not None and found.st_ino == log.published:
            result = log.finished or {}
            if log.finished is None or job.space.has_tree():
                self._finish(job, found.st_ino, result)
            self._tally.kept(_number(result, "files"), _number(result, "bytes"))
            return True
        if log.finished is not None:
            text = shown(job.copy.destination)
            message = f"the copy was complete, and was moved away or removed since: {text}"
            raise Failure(State.DESTINATION_GONE, message, path=text)
        if found is not None:
            raise present(job.copy.destination)
        return False

    def _measure(self) -> None:
        """Open and measure all sources, and see whether there is room for them."""
        files = size = 0
        needed: dict[int, int] = {}
        for job in self._jobs:
            if job.is_done:
                continue
            job.source = open_source(job.copy.source, self._order.source_roots)
            block = os.fstatvfs(job.space.fd).f_frsize or 4096
            source = job.source
            job.size = measure(source.folder, source.only, job.place.folder, block, self._stop)
            files, size = files + job.size.files, size + job.size.bytes
            device = os.fstat(job.space.fd).st_dev
            already = space_taken(job.space.fd, TREE)
            needed[device] = needed.get(device, 0) + max(job.size.space - already, 0)
            _check_room(job, needed[device])
        kept = self._tally.totals()
        self._tally.set_total(files + kept["files"], size + kept["bytes"])

    def _tidy(self) -> None:
        """Nothing was copied: leave no working folder behind, unless a predecessor has begun."""
        jobs, self._jobs = self._jobs, []  # nobody writes progress into the folders any more
        for job in jobs:
            log = job.space.log
            if not (log.has_begun or job.space.has_tree()):
                try:
                    job.space.remove()
                except OSError:
                    continue  # `remove` will do it

    # --- copying -----------------------------------------------------------------------------

    def _copy(self, job: Job) -> None:
        if job.source is None or job.size is None:
            raise AssertionError("a copy that was not measured")
        source, space, tally = job.source, job.space, self._tally
        taken_up = space.has_tree()
        try:
            tree = space.open_tree()
        except OSError as error:
            raise failure_of(error, End.DESTINATION, job.copy.destination) from error
        rate = self._order.bandwidth_bytes_s
        tools = Tools(
            self._order.threads,
            Pace(rate, self._stop),
            Pace(rate, self._stop),
            tally,
            self._keeper,
            self._stop,
        )
        filling = Filling(Ends(source.folder, tree), source.only, space.log, tools, taken_up)
        before = tally.totals()
        tally.phase = Phase.COPYING
        try:
            filling.fill()
            tally.phase = Phase.FLUSHING
            _flush(tree)
        except Failure as failure:
            raise _with_room(failure, job, job.size.space) from failure
        tally.phase = Phase.CHECKING
        check_same(source.folder, source.only, filling.seen, self._stop)
        tally.phase = Phase.PUBLISHING
        self._stop.check()
        inode = publish(space, tree, source.only, job.place.folder, job.place.name)
        after = tally.totals()
        self._finish(job, inode, {k: after[k] - before[k] for k in ("files", "bytes")})

    def _finish(self, job: Job, inode: int, result: Header) -> None:
        """The copy is at its destination: write that down, and remove what is left."""
        try:
            os.fsync(job.place.folder)
            job.space.log.finish(inode, result)
            job.space.clear_tree()
        except OSError as error:
            raise failure_of(error, End.DESTINATION, job.copy.destination) from error


def _flush(tree: int) -> None:
    try:
        flush_file_system(tree)
    except OSError as error:
        raise failure_of(error, End.DESTINATION, b"") from error


def _number(result: Header, key: str) -> int:
    found = result.get(key)
    return found if isinstance(found, int) else 0


def _header(copy: Copy) -> Header:
    return {
        "format": _FORMAT,
        "source": os.fsdecode(copy.source),
        "destination": os.fsdecode(copy.destination),
    }


def _check_room(job: Job, needed: int) -> None:
    """Raises Failure if the copies so far need more than there is. Met early, it costs nothing."""
    if job.size is None:
        return
    found = os.fstatvfs(job.space.fd)
    free = found.f_bavail * found.f_frsize
    if needed > free:
        message = f"the destination has no room: {needed} bytes are needed, {free} are free"
        raise Failure(State.NO_SPACE, message, needed_bytes=needed, free_bytes=free)
    entries = job.size.files + job.size.folders
    if found.f_files and entries > found.f_favail and not job.space.log.has_begun:
        message = (
            f"the destination has no room for so many files: {entries} are needed, "
            f"{found.f_favail} are free"
        )
        raise Failure(State.NO_SPACE, message, needed_files=entries, free_files=found.f_favail)


def _with_room(failure: Failure, job: Job, needed: int) -> Failure:
    """A disk that became full, or a quota that was reached: with numbers."""
    if failure.state not in (State.NO_SPACE, State.QUOTA):
        return failure
    found = os.fstatvfs(job.space.fd)
    free = found.f_bavail * found.f_frsize
    message = f"{failure.message}; the whole copy needs {needed} bytes, {free} are free"
    return Failure(failure.state, message, needed_bytes=needed, free_bytes=free, **failure.numbers)
