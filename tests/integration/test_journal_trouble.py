"""A state file that cannot be written while the manager runs: said loudly, and no failover waits.

Moved aside under the manager, the file refuses writes to root, too, whom no permission stops, and
needs no small disk to fill. A disk that gives no answer is the journal's thread, stopped alone.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.cluster import ClusterHarness, Status
from tests.integration.telling import (
    again,
    ask,
    halo_refused,
    story,
    until_devices_are_checked,
    wanted_state,
)

NOT_WRITTEN = "the journal cannot be written, so nothing was changed"
NO_ANSWER = "the journal gave no answer within 10 s; nothing was changed"
RESCUED_S = 12.0
"""For a fence, and a second for each of the two writes beside it, on a slow machine."""

PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 17, 0x4206, 0x4207
WALL = 0x40000000  # for threads of other processes, too (waitpid(2))


def take_away(cluster: ClusterHarness) -> None:
    """Every write of the state file fails from now on."""
    cluster.statefile.rename(cluster.folder / "aside")


def give_back(cluster: ClusterHarness) -> None:
    """The state file can be written again."""
    (cluster.folder / "aside").rename(cluster.statefile)


@contextmanager
def silent_disk(cluster: ClusterHarness) -> Iterator[None]:
    """No write of the state file ends meanwhile.

    The caller sees to it that nothing is being written and no fence program runs: the journal's
    thread then waits without the interpreter's lock, and all else in the manager goes on."""
    assert cluster.manager is not None
    manager = cluster.manager.pid
    tasks = Path(f"/proc/{manager}/task")
    begun = {int(t.name): _begun(t) for t in tasks.iterdir() if int(t.name) != manager}
    thread = min(begun, key=lambda t: begun[t])  # the first that a manager starts
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
    ptrace.restype = ctypes.c_long
    if ptrace(PTRACE_SEIZE, thread, None, None):
        pytest.skip(f"cannot stop a thread of another process: {os.strerror(ctypes.get_errno())}")
    try:
        ptrace(PTRACE_INTERRUPT, thread, None, None)
        os.waitpid(thread, WALL)
        yield
    finally:
        ptrace(PTRACE_DETACH, thread, None, None)


def _begun(task: Path) -> int:
    """When a thread was started, in ticks since the boot; see proc(5)."""
    return int((task / "stat").read_text().rpartition(")")[2].split()[19])


def journal(status: Status) -> str:
    """`ok`, or what is wrong with the journal."""
    return str(status["manager"]["journal"])


async def until_alarm(cluster: ClusterHarness, *words: str) -> None:
    """Wait until the status tells of trouble with the journal."""
    await cluster.until_status(
        lambda s: all(word in journal(s) for word in words), f"the journal says {words}"
    )


async def until_written_again(cluster: ClusterHarness) -> None:
    """Wait until the alarm has ended."""
    await cluster.until_status(lambda s: journal(s) == "ok", "the journal is ok")


async def test_a_command_that_cannot_be_written_fails_and_changes_nothing(
    quick: ClusterHarness,
) -> None:
    await quick.start()
    before, done = wanted_state(await quick.status()), story(quick)
    take_away(quick)
    said = await halo_refused(quick, "unmanage", "g1")
    assert NOT_WRITTEN in said
    assert f"{quick.statefile}: the state file was removed" in said
    assert said.count("\n") == 1, said
    requests: list[tuple[str, str, dict[str, object]]] = [
        ("PATCH", "/v1/resources/g1", {"managed": False}),
        ("POST", "/v1/groups/g1", {"command": "move", "to": "h2"}),
        ("POST", "/v1/hosts/h1", {"command": "deactivate"}),
        ("POST", "/v1/hosts/h1", {"command": "fence"}),
        ("POST", "/v1/cluster", {"command": "freeze"}),
    ]
    for method, path, body in requests:
        code, answer = await quick.api(method, path, body)
        assert code == 500, (path, body, answer)
        assert NOT_WRITTEN in answer["error"], (path, body, answer)
    status = await quick.until(g1="Running on h1", g2="Running on h2")
    assert wanted_state(status) == before
    assert quick.is_on("h1")
    assert story(quick) == done
    give_back(quick)
    await ask(quick, "unmanage", "g1")
    assert journal(await quick.status()) == "ok"


async def test_a_journal_that_cannot_be_written_is_an_alarm_until_it_can(
    quick: ClusterHarness,
) -> None:
    await quick.start()
    take_away(quick)
    await halo_refused(quick, "unmanage", "g1")
    for arguments in (("status",), ("status", "-x")):
        lines = (await ask(quick, *arguments)).splitlines()
        assert lines[0].startswith("JOURNAL: "), lines
        assert "the state file was removed" in lines[0]
    check = await quick.halo("check")
    assert check.code == 2, check
    assert check.stdout.startswith("HALO CRITICAL"), check
    assert "journal: " in check.stdout
    notices = " ".join((await quick.status())["manager"]["notices"])
    assert "commands are refused" in notices

    give_back(quick)
    await until_written_again(quick)  # though nothing is there to be written
    assert "JOURNAL" not in await ask(quick, "status")
    assert (await quick.halo("check")).code == 0
    await ask(quick, "unmanage", "g1")
    again(quick)
    await quick.until_status(
        lambda s: [g["managed"] for g in s["groups"]] == [False, True], "the command is remembered"
    )


async def test_a_dead_hosts_group_is_rescued_while_the_journal_cannot_be_written(
    quick: ClusterHarness,
) -> None:
    await quick.start()
    take_away(quick)
    quick.kill("h1")
    await quick.until(g1="Running (Failed Over) on h2", g2="Running on h2", deadline=RESCUED_S)
    await quick.until_host("h1", fenced=True)
    await until_alarm(quick, "the state file was removed")
    assert NOT_WRITTEN in await halo_refused(quick, "reset", "h1")

    give_back(quick)
    await until_written_again(quick)
    again(quick)
    await quick.until(g1="Running (Failed Over) on h2", g2="Running on h2")
    status = await quick.until_host("h1", fenced=True)  # what was done meanwhile is remembered
    assert [e["obj_id"] for e in status["events"] if e["event"] == "fence"] == ["h1"]
    await ask(quick, "reset", "h1")


async def test_a_rescue_goes_on_without_a_disk_that_gives_no_answer(
    quick: ClusterHarness,
) -> None:
    await quick.start()
    await until_devices_are_checked(quick)
    await quick.status()  # nothing that it shows is still to be written
    with silent_disk(quick):
        quick.kill("h1")
        await quick.until_true(
            lambda: "start g1 on h2" in story(quick), "g1 is rescued", deadline=RESCUED_S
        )
        await until_alarm(quick, "no answer within 1 s")
        await quick.until(g1="Running (Failed Over) on h2", g2="Running on h2")
        assert (await quick.halo("check")).code == 2
        assert NO_ANSWER in await halo_refused(quick, "unmanage", "g1")
        assert (await quick.group("g1"))["managed"]

    await until_written_again(quick)
    await ask(quick, "unmanage", "g2")
    again(quick)
    await quick.until(g1="Running (Failed Over) on h2", g2="Running on h2")
    status = await quick.until_host("h1", fenced=True)
    assert [g["managed"] for g in status["groups"]] == [True, False]
