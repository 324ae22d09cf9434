"""The manager's socket: whose it is, what is replaced, what is left alone."""

from __future__ import annotations

import asyncio
import fcntl
import grp
import os
import socket
import stat
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohttp import web

from halo.adapters import unix_socket
from halo.adapters.unix_socket import UnixSite
from halo.cli.client import request
from halo.core.errors import SocketError
from halo.manager.api.app import make_app, make_runner
from tests.fakes.http_operations import FakeOperations, short_folder


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as found:
        yield found


@pytest.fixture
async def runner() -> AsyncIterator[web.AppRunner]:
    made = make_runner(make_app(FakeOperations()))
    await made.setup()
    yield made
    await made.cleanup()


async def open_unix_site(
    runner: web.AppRunner, path: str, group: str | None = None, **options: float
) -> UnixSite:
    site = UnixSite(path, group, **options)
    try:
        await site.serve(runner)
    except BaseException:
        await site.close()
        raise
    return site


async def answers(path: Path) -> bool:
    answer = await asyncio.to_thread(request, str(path), "GET", "/v1/version", deadline_s=20.0)
    return answer.status == 200


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def stale_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))


async def test_it_serves_its_owner_alone_and_is_removed_at_exit(
    runner: web.AppRunner, folder: Path
) -> None:
    path = folder / "halo.socket"
    site = await open_unix_site(runner, str(path))
    assert await answers(path)
    assert mode_of(path) == 0o600
    await site.close()
    assert not path.exists()
    await site.close()  # safe to repeat


async def test_a_client_that_comes_between_two_runners_waits_for_the_second(
    runner: web.AppRunner, folder: Path
) -> None:
    path = folder / "halo.socket"
    site = await open_unix_site(runner, str(path))
    inode = path.lstat().st_ino
    await site.pause()
    asking = asyncio.create_task(answers(path))
    with socket.socket(socket.AF_UNIX) as other:
        await asyncio.get_running_loop().run_in_executor(None, other.connect, str(path))
    assert not asking.done()
    second = make_runner(make_app(FakeOperations()))
    await second.setup()
    await site.serve(second)
    assert await asking
    assert path.lstat().st_ino == inode
    await site.close()
    await second.cleanup()
    assert not path.exists()


async def test_the_umask_neither_opens_nor_closes_it(runner: web.AppRunner, folder: Path) -> None:
    before = os.umask(0o777)
    try:
        site = await open_unix_site(runner, str(folder / "closed"))
        os.umask(0)
        other = make_runner(make_app(FakeOperations()))
        await other.setup()
        open_site = await open_unix_site(other, str(folder / "open"))
    finally:
        os.umask(before)
    assert mode_of(folder / "closed") == 0o600
    assert mode_of(folder / "open") == 0o600
    await open_site.close()
    await other.cleanup()
    await site.close()


def test_it_is_born_private(folder: Path) -> None:
    """The kernel gives the file the mode of the unbound socket: no instant is open to others."""
    path = folder / "halo.socket"
    before = os.umask(0)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            os.fchmod(listener.fileno(), 0o600)
            listener.bind(str(path))
            assert mode_of(path) == 0o600
    finally:
        os.umask(before)


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give a file to any group")
async def test_a_group_may_use_it_where_one_is_named(runner: web.AppRunner, folder: Path) -> None:
    path = folder / "halo.socket"
    group = next(entry for entry in grp.getgrall() if entry.gr_gid != os.getgid())
    site = await open_unix_site(runner, str(path), group.gr_name)
    assert mode_of(path) == 0o660
    assert path.lstat().st_gid == group.gr_gid
    await site.close()


async def test_an_unknown_group_is_refused(runner: web.AppRunner, folder: Path) -> None:
    with pytest.raises(SocketError, match=r'no group "no-such-group".*--socket-group'):
        await open_unix_site(runner, str(folder / "halo.socket"), "no-such-group")
    assert list(folder.iterdir()) == []


async def test_a_socket_left_by_a_dead_manager_is_replaced(
    runner: web.AppRunner, folder: Path
) -> None:
    path = folder / "halo.socket"
    stale_socket(path)
    site = await open_unix_site(runner, str(path))
    assert await answers(path)
    await site.close()


async def test_a_socket_in_use_is_not_stolen(runner: web.AppRunner, folder: Path) -> None:
    path = folder / "halo.socket"
    site = await open_unix_site(runner, str(path))
    second = make_runner(make_app(FakeOperations()))
    await second.setup()
    with pytest.raises(SocketError, match=rf"in use by process {os.getpid()} .*--socket"):
        await open_unix_site(second, str(path))
    assert await answers(path)
    await second.cleanup()
    await site.close()


async def test_a_manager_that_hangs_keeps_its_socket(runner: web.AppRunner, folder: Path) -> None:
    path = folder / "halo.socket"
    with socket.socket(socket.AF_UNIX) as hung, socket.socket(socket.AF_UNIX) as client:
        hung.bind(str(path))
        hung.listen(0)
        client.connect(str(path))  # fills its queue; it accepts nobody
        with pytest.raises(SocketError, match="accepts no connection"):
            await open_unix_site(runner, str(path))
        assert path.is_socket()


async def test_another_programs_datagram_socket_is_left_alone(
    runner: web.AppRunner, folder: Path
) -> None:
    path = folder / "halo.socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        with pytest.raises(SocketError, match="another program"):
            await open_unix_site(runner, str(path))
        assert path.is_socket()


@pytest.mark.parametrize("kind", ["file", "folder", "link", "dangling link", "pipe"])
async def test_what_is_no_socket_is_never_deleted(
    runner: web.AppRunner, folder: Path, kind: str
) -> None:
    path = folder / "halo.socket"
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        target = folder / "target"
        if kind == "link":
            stale_socket(target)
        path.symlink_to(target)
    before = path.lstat()
    with pytest.raises(SocketError, match=r"is not a socket.*--socket"):
        await open_unix_site(runner, str(path))
    assert path.lstat().st_ino == before.st_ino


async def test_a_missing_folder_is_named(runner: web.AppRunner, folder: Path) -> None:
    with pytest.raises(SocketError, match=rf"{folder}/none cannot be opened"):
        await open_unix_site(runner, str(folder / "none" / "halo.socket"))


async def test_a_path_too_long_is_refused(runner: web.AppRunner, folder: Path) -> None:
    name = "x" * (unix_socket.PATH_LIMIT_BYTES - len(str(folder)))
    with pytest.raises(SocketError, match=r"longer than 107 bytes.*--socket"):
        await open_unix_site(runner, str(folder / name))
    site = await open_unix_site(runner, str(folder / name[:-1]))
    assert await answers(folder / name[:-1])
    await site.close()


async def test_a_relative_path_is_taken_as_it_is(
    runner: web.AppRunner, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    site = await open_unix_site(runner, "halo.socket")
    assert await answers(folder / "halo.socket")
    await site.close()


async def test_at_exit_anothers_socket_is_left_alone(runner: web.AppRunner, folder: Path) -> None:
    path = folder / "halo.socket"
    site = await open_unix_site(runner, str(path))
    path.unlink()
    stale_socket(path)
    await site.close()
    assert path.is_socket()


async def test_of_many_that_start_at_once_exactly_one_gets_a_stale_socket(folder: Path) -> None:
    path = folder / "halo.socket"
    stale_socket(path)
    won: list[unix_socket._Bound] = []
    lost: list[SocketError] = []
    together = threading.Barrier(8)

    def start() -> None:
        together.wait()
        try:
            won.append(unix_socket._bind(str(path), None))
        except SocketError as error:
            lost.append(error)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert (len(won), len(lost)) == (1, 7)
    assert won[0].inode == path.lstat().st_ino
    won[0].listener.close()


async def test_a_folder_locked_for_good_is_reported(runner: web.AppRunner, folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(SocketError, match="holds a lock"):
            await open_unix_site(runner, str(folder / "halo.socket"), lock_deadline_s=0.05)
    finally:
        os.close(descriptor)
