"""The state file as a file: its lock, its checks at start-up, and the import of HALO's text file.

Everything here blocks. It runs at start-up, and in the journal's worker thread.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import structlog

from halo.adapters.journal.text_import import import_halo_state
from halo.core.errors import StateError
from halo.error_words import words_of
from halo.ports import JournalRecord

log = structlog.get_logger(__name__)

_MODE = 0o600
_SQLITE_HEADER = b"SQLite format 3\0"
_LOG_SUFFIXES = ("-wal", "-journal", "-shm")
_ATTEMPTS = 10  # to lock a file that another manager is replacing

Inode: TypeAlias = tuple[int, int]
DatabaseBuilder: TypeAlias = Callable[[Path, Sequence[JournalRecord]], None]

_held: set[Inode] = set()
"""Files that this process has locked. Opening and closing one of them again would drop SQLite's
locks on it, because POSIX locks belong to the process. So a second attempt is refused."""


class LockedFile:
    """A state file under this process's lock. Release it after SQLite has closed it."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._inode = _inode(os.fstat(descriptor))
        self._log_inode: Inode | None = None
        _held.add(self._inode)

    def problem(self) -> str | None:
        """What happened to the file meanwhile, or None if it is still in its place."""
        if _inode_at(self.path) != self._inode:
            return f"{self.path}: the state file was removed or replaced"
        log_path = Path(f"{self.path}-wal")
        log_inode = _inode_at(log_path)
        if self._log_inode is not None and log_inode != self._log_inode:
            return f"{log_path}: the log of the state file was removed or replaced"
        self._log_inode = log_inode
        return None

    def release(self) -> None:
        """Release the lock. Safe to repeat."""
        if self._descriptor >= 0:
            _held.discard(self._inode)
            os.close(self._descriptor)
            self._descriptor = -1


def lock_state_file(path: Path, build: DatabaseBuilder) -> LockedFile:
    """Lock the state file at `path`, and make it if it is missing. A HALO text file is imported
    first.

    `build` makes a database of records at a path. Raises StateError.
    """
    real = Path(os.path.realpath(path))
    try:
        for _ in range(_ATTEMPTS):
            _require_the_file_of_its_log(real)
            locked = _lock(real)
            if locked is None:
                continue  # between open and lock, the name was given to another file
            try:
                if not _is_text(real):
                    _require_one_name(real)
                    return locked
                _import_text(real, build)
            except BaseException:
                locked.release()
                raise
            # The database that replaced the text is another file, with its own lock.
            locked.release()
    except OSError as error:
        raise _unusable(real, error) from error
    raise StateError(f"{real}: another process keeps replacing this file; find and stop it")


def _require_the_file_of_its_log(path: Path) -> None:
    """Refuse a log without a database: somebody moved or emptied only one of them. SQLite would
    delete the log, and the manager would forget the orders in it."""
    log_path = Path(f"{path}-wal")
    if _size_of(log_path) and not _size_of(path):
        raise StateError(
            f"{path}: the state file is missing or empty, but its log {log_path} is there. Put "
            "the state file back; or, to begin with nothing remembered (every group managed and "
            "wanted, every host active), move the log aside"
        )


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _lock(path: Path) -> LockedFile | None:
    if path.is_dir():
        raise StateError(f"{path}: is a directory; the state file must be a regular file")
    if path.exists() and not path.is_file():
        raise StateError(f"{path}: is not a regular file; give another path with --statefile")
    if (inode := _inode_at(path)) in _held:
        raise _locked_by_another(path, inode)
    created = not _size_of(path)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _inode_at(path) == _inode(os.fstat(descriptor)):
            if created:
                os.fchmod(descriptor, _MODE)
                os.fsync(descriptor)
                _flush_folder(path)
                log.warning(
                    "new state file",
                    file=str(path),
                    meaning="nothing is remembered: every group is managed and wanted",
                )
            locked = LockedFile(path, descriptor)
            descriptor = -1
            return locked
    except BlockingIOError:
        raise _locked_by_another(path, _inode_at(path)) from None
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return None


def _is_text(path: Path) -> bool:
    """Is this HALO's text file, and not a database? Raises StateError if it is damaged."""
    with path.open("rb") as file:
        start = file.read(len(_SQLITE_HEADER))
    if start in (_SQLITE_HEADER, b""):
        return False
    if b"\0" in start:
        raise StateError(
            f"{path}: is neither a database of HALO nor a HALO state file (its first bytes are "
            f"{start!r}); restore a copy, or move the file aside to start with an empty journal"
        )
    return True


def _require_one_name(path: Path) -> None:
    links = path.stat().st_nlink
    if links > 1:
        raise StateError(
            f"{path}: has {links} names (hard links), but SQLite finds its log by the name; "
            f"remove the other names (find them with: find / -xdev -samefile {path})"
        )


def _import_text(path: Path, build: DatabaseBuilder) -> None:
    """Replace HALO's text file by a database. The text file is kept under another name.

    After a crash in any step, `path` is the text file or the complete database.
    """
    records = import_halo_state(path)
    new = Path(f"{path}.importing")
    _remove(new)
    for suffix in _LOG_SUFFIXES:
        _remove(Path(f"{new}{suffix}"))
        # The log of an earlier database of this name would be replayed into the new one.
        _remove(Path(f"{path}{suffix}"))
    try:
        os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE))
        build(new, records)
    except sqlite3.Error as error:
        raise StateError(
            f"{path}: this HALO state file could not be imported to {new}: {error}; "
            "make sure that its folder is writable and has space, then start again"
        ) from error
    _flush(new)
    aside = _keep_aside(path)
    os.replace(new, path)
    _flush_folder(path)
    log.warning(
        "imported a HALO state file", file=str(path), records=len(records), kept_as=str(aside)
    )


def _keep_aside(path: Path) -> Path:
    """Give the file a second name. It keeps the first name until that is replaced."""
    number = 0
    while True:
        aside = Path(f"{path}.halo-text" + (f".{number}" if number else ""))
        try:
            os.link(path, aside)
        except FileExistsError:
            if not aside.samefile(path):  # else it is ours, from before a crash
                number += 1
                continue
        _flush_folder(path)
        return aside


def _remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(path: Path) -> None:
    _flush(path.parent)


def _inode(status: os.stat_result) -> Inode:
    return status.st_dev, status.st_ino


def _inode_at(path: Path) -> Inode | None:
    try:
        return _inode(path.stat())
    except OSError:
        return None


def _locked_by_another(path: Path, inode: Inode | None) -> StateError:
    pid = None if inode is None else _holder(inode)
    if pid is None:
        who = "another process"
    elif pid == os.getpid():
        who = f"this process (pid {pid})"
    else:
        who = f"pid {pid} ({_command_of(pid)})"
    return StateError(
        f"{path}: in use by {who}, probably another manager; stop that manager first, "
        "or give this one its own state file with --statefile"
    )


def _holder(inode: Inode) -> int | None:
    """The process that holds the `flock` on a file, if the kernel names it."""
    device = f"{os.major(inode[0]):02x}:{os.minor(inode[0]):02x}:{inode[1]}"
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/locks").read_text().splitlines():
            # 1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF
            fields = line.split()
            if len(fields) > 5 and fields[1] == "FLOCK" and fields[5] == device:
                return int(fields[4])
    return None


def _command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "ended meanwhile"


def _unusable(path: Path, error: OSError) -> StateError:
    what, remedy = {
        errno.ENOENT: ("its folder does not exist", f"create {path.parent}"),
        errno.ENOTDIR: ("its folder is not a folder", "give another path with --statefile"),
        errno.EACCES: ("permission denied", "make the file and its folder writable"),
        errno.EPERM: ("not permitted", "make the file and its folder writable"),
        errno.EROFS: ("its file system is read-only", "mount it read-write"),
        errno.ENOSPC: ("no space left on its disk", "free some space"),
    }.get(error.errno or 0, (words_of(error), "check the disk"))
    return StateError(f"{path}: the state file cannot be used: {what}; {remedy}")
