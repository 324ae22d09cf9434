"""The adapter that runs fence programs, against real programs."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from halo.adapters.fence.process import wait_in_thread
from halo.adapters.fence.programs import STARTS_A_TURN, FencePrograms
from halo.core.errors import LeadershipError
from halo.core.outcomes import FenceAction, FenceResult, PowerState
from tests.fence_helpers import (
    bundled,
    device,
    have_numbers,
    is_alive,
    make_program,
    pids_in,
    wait_until,
    wait_until_async,
)

OFF, ON, STATUS = FenceAction.OFF, FenceAction.ON, FenceAction.STATUS


@pytest_asyncio.fixture
async def programs() -> AsyncIterator[FencePrograms]:
    made = FencePrograms()
    yield made
    await made.close()


async def status_of(programs: FencePrograms, path: Path, body: str) -> FenceResult:
    return await programs.run(device(make_program(path, body)), STATUS, 10)


async def test_a_program_reads_its_action_and_parameters_as_whole_lines(
    programs: FencePrograms, tmp_path: Path
) -> None:
    program = make_program(tmp_path / "agent", f"cat > {tmp_path}/input")
    result = await programs.run(device(program, ip="bmc1", action="on", port="7"), OFF, 10)
    assert result.succeeded
    assert (tmp_path / "input").read_text() == "action=off\nip=bmc1\nport=7\n"


async def test_a_manager_that_leads_no_more_switches_nothing(tmp_path: Path) -> None:
    def may_act() -> None:
        raise LeadershipError("not any more")

    made = FencePrograms(may_act=may_act)
    program = make_program(tmp_path / "agent", f"cat >> {tmp_path}/input")
    try:
        for action in (OFF, ON):
            with pytest.raises(LeadershipError):
                await made.run(device(program), action, 10)
        assert not (tmp_path / "input").exists()
        await made.run(device(program), STATUS, 10)  # to ask is harmless
        assert (tmp_path / "input").read_text() == "action=status\n"
    finally:
        await made.close()


@pytest.mark.parametrize(
    ("body", "power"),
    [
        ("exit 0", PowerState.ON),
        ("exit 2", PowerState.OFF),
        ("echo Status: OFF; exit 2", PowerState.OFF),
        ("echo mds00 is ON", PowerState.ON),
        ("echo mds00 is OFF", PowerState.OFF),
    ],
)
async def test_a_status_is_read_from_exit_status_and_words(
    programs: FencePrograms, tmp_path: Path, body: str, power: PowerState
) -> None:
    result = await status_of(programs, tmp_path / "agent", body)
    assert (result.succeeded, result.power) == (True, power)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("echo boom >&2; exit 1", "failed with exit status 1: boom"),
        ("echo mds00 is ON; exit 2", "exit status 2, but the program did not say off"),
        ("echo mds00 is ON; echo mds00 is OFF", "says both on and off"),
        (
            "echo mds00 is ON; head -c 20000 /dev/zero | tr '\\0' x; exit 2",
            "wrote more than 16384 bytes, which is too long an answer",
        ),
        (
            "echo mds00 is ON; head -c 20000 /dev/zero | tr '\\0' x; echo mds00 is OFF",
            "wrote more than 16384 bytes, which is too long an answer",
        ),
        ("kill -SEGV $$", "killed by signal 11"),
        ("exit 127", "failed with exit status 127"),
    ],
)
async def test_an_unclear_status_is_unknown_and_says_why(
    programs: FencePrograms, tmp_path: Path, body: str, words: str
) -> None:
    result = await status_of(programs, tmp_path / "agent", body)
    assert (result.succeeded, result.power) == (False, PowerState.UNKNOWN)
    assert words in result.message


async def test_few_programs_start_in_one_turn_and_each_is_asked_for_in_its_own(
    programs: FencePrograms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def at_once(*_: object) -> None:
        """All of them come to the start in one turn of the loop."""

    monkeypatch.setattr(programs, "_file_system_problem", at_once)
    turn, turns = 0, list[int]()
    loop, is_over = asyncio.get_running_loop(), False

    def count() -> None:
        nonlocal turn
        turn += 1
        if not is_over:
            loop.call_soon(count)

    def expired() -> str | None:
        turns.append(turn)
        return "called off" if turn > turns[0] else None

    count()
    program = device(make_program(tmp_path / "agent", f"echo x >> {tmp_path}/started"))
    results = await asyncio.gather(
        *(programs.run(program, OFF, 60, expired) for _ in range(3 * STARTS_A_TURN))
    )
    is_over = True
    assert max(Counter(turns).values()) == STARTS_A_TURN
    assert [r.succeeded for r in results].count(True) == STARTS_A_TURN
    assert len((tmp_path / "started").read_text().split()) == STARTS_A_TURN


async def test_off_says_nothing_of_the_power_state(programs: FencePrograms, tmp_path: Path) -> None:
    program = make_program(tmp_path / "agent", "echo mds00 is OFF")
    result = await programs.run(device(program), OFF, 10)
    assert (result.succeeded, result.power) == (True, PowerState.UNKNOWN)


async def test_a_bundled_program_that_cannot_run_never_says_off(
    programs: FencePrograms, tmp_path: Path
) -> None:
    # An interpreter that cannot open its script exits 2, which for a status means off.
    missing = bundled("ipmi", ip="127.0.0.1")
    missing = device(missing.program + "-which-is-not-there")
    result = await programs.run(missing, STATUS, 10)
    assert (result.succeeded, result.power) == (False, PowerState.UNKNOWN)


async def test_a_program_that_cannot_be_started_is_a_failure_in_words(
    programs: FencePrograms, tmp_path: Path
) -> None:
    plain = tmp_path / "plain"
    plain.write_text("#!/bin/sh\n")
    headless = make_program(tmp_path / "headless", "", "/no/such/interpreter")
    empty = tmp_path / "empty"
    empty.write_text("no program")
    empty.chmod(0o755)
    for program, words in (
        ("/no/such/program", "there is no program /no/such/program"),
        (str(plain), "is not executable"),
        (headless, "names an interpreter in its first line that does not exist"),
        (str(empty), "cannot be started"),
    ):
        result = await programs.run(device(program), OFF, 10)
        assert not result.succeeded
        assert words in result.message


async def test_the_environment_is_passed_on_but_for_the_secrets_in_it(
    programs: FencePrograms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_PLAIN_VARIABLE", "kept")
    monkeypatch.setenv("A_PASSWORD", "s3cret-env")
    monkeypatch.setenv("HALO_STORE_PASSWORD", "s3cret-store")
    program = make_program(tmp_path / "agent", f"env > {tmp_path}/env; cat > {tmp_path}/input")
    await programs.run(device(program, password="env:A_PASSWORD"), OFF, 10)
    seen = (tmp_path / "env").read_text()
    assert "A_PLAIN_VARIABLE=kept\n" in seen
    assert "s3cret-env" not in seen
    assert "s3cret-store" not in seen
    of_watchdog = Path(f"/proc/{programs.watchdog_pid}/environ").read_bytes()
    assert b"A_PLAIN_VARIABLE=kept" in of_watchdog
    assert b"s3cret-store" not in of_watchdog
    assert "password=s3cret-env\n" in (tmp_path / "input").read_text()


async def test_a_secret_file_is_read_anew_at_each_use(
    programs: FencePrograms, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    program = make_program(tmp_path / "agent", f"cat > {tmp_path}/input")
    for value in ("first", "second"):
        secret.write_text(value + "\n")
        await programs.run(device(program, password=f"file:{secret}"), OFF, 10)
        assert f"password={value}\n" in (tmp_path / "input").read_text()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("file:/no/such/file", "cannot read /no/such/file: No such file"),
        ("env:NO_SUCH_VARIABLE", "the environment variable NO_SUCH_VARIABLE is not set"),
        ("two\nlines", "must be a single line"),
        ("x" * 40000, "longer than"),
    ],
)
async def test_a_parameter_that_cannot_be_used_is_named_and_nothing_runs(
    programs: FencePrograms, tmp_path: Path, value: str, words: str
) -> None:
    program = make_program(tmp_path / "agent", f"touch {tmp_path}/ran")
    result = await programs.run(device(program, password=value), OFF, 10)
    assert not result.succeeded
    assert words in result.message
    assert not (tmp_path / "ran").exists()


async def test_a_secret_file_with_several_lines_is_refused_without_showing_it(
    programs: FencePrograms, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("s3cret-one\ns3cret-two\n")
    program = make_program(tmp_path / "agent", "true")
    result = await programs.run(device(program, password=f"file:{tmp_path}/secret"), OFF, 10)
    assert not result.succeeded
    assert "s3cret" not in result.message


async def test_no_form_of_a_secret_reaches_a_message(
    programs: FencePrograms, tmp_path: Path
) -> None:
    secret = "p@ss 'word\\\"%"
    (tmp_path / "pin").write_text("pin-4711\n")
    body = (
        "import sys, json, base64, shlex, urllib.parse\n"
        "given = dict(line.rstrip('\\n').split('=', 1) for line in sys.stdin)\n"
        "p = given['password']\n"
        "for form in (p, repr(p), json.dumps(p), shlex.quote(p), urllib.parse.quote(p),\n"
        "             base64.b64encode(('admin:' + p).encode()).decode(), given['pin']):\n"
        "    print('seen', form, file=sys.stderr)\n"
        "sys.exit(1)"
    )
    program = make_program(tmp_path / "agent", body, sys.executable)
    result = await programs.run(
        device(program, username="admin", password=secret, pin=f"file:{tmp_path}/pin"), OFF, 10
    )
    assert result.message.count("***") == 7
    for piece in ("p@ss", "word", "p%40ss", "pin-4711", "YWRtaW46"):
        assert piece not in result.message


async def test_a_secret_cut_in_two_by_the_output_bound_is_not_shown(
    programs: FencePrograms, tmp_path: Path
) -> None:
    # 16384 bytes are kept. Filler after the secret moves the cut over every byte of it.
    secret = "abcdefghijklmnopqrstuvwxyz"
    for kept in (1, 5, 25):
        body = (
            "cat > /dev/null\n"
            f"printf 'before%s' {secret} >&2\n"
            f"head -c {16384 - kept} /dev/zero | tr '\\0' '\\n' >&2; exit 1"
        )
        program = make_program(tmp_path / "agent", body)
        result = await programs.run(device(program, password=secret), OFF, 10)
        assert "failed with exit status 1" in result.message
        assert secret[-kept:] not in result.message.partition("status 1")[2]


async def test_a_flood_of_output_is_bounded_and_the_program_still_ends(
    programs: FencePrograms, tmp_path: Path
) -> None:
    program = make_program(
        tmp_path / "agent", "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo last words"
    )
    result = await programs.run(device(program), OFF, 30)
    assert result.succeeded
    assert len(result.message) < 600
    assert result.message.endswith("last words")


async def test_an_endless_flood_ends_at_the_deadline_without_holding_up_the_loop(
    programs: FencePrograms, tmp_path: Path
) -> None:
    program = make_program(tmp_path / "agent", "exec yes")
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    result = await programs.run(device(program), OFF, 1)
    ticking.cancel()
    assert "not finished within 1 s, killed" in result.message
    assert ticks > 20


FAMILY = """
cat > /dev/null
echo $$ > {folder}/a
sh -c 'echo $$ > {folder}/b; exec sleep 600' &
setsid sh -c 'echo $$ > {folder}/c; exec sleep 600' &
{python} -c 'import os, time; os.setpgid(0, 0); \
open("{folder}/d", "w").write(str(os.getpid()) + "\\n"); time.sleep(600)' &
"""


def family(tmp_path: Path, folder: Path, last: str = "wait") -> tuple[str, list[Path]]:
    """A program with children in other groups and sessions; their numbers are in files."""
    body = FAMILY.format(folder=folder, python=sys.executable) + last
    return make_program(tmp_path / "family", body), [folder / name for name in "abcd"]


async def test_at_the_deadline_children_in_other_groups_and_sessions_die_too(
    programs: FencePrograms, tmp_path: Path
) -> None:
    program, files = family(tmp_path, tmp_path)
    started = time.monotonic()
    result = await programs.run(device(program), OFF, 1.5)
    assert not result.succeeded
    assert "not finished within 1.5 s, killed" in result.message
    assert 1.5 <= result.duration_s < 5
    assert time.monotonic() - started < 5
    for pid in pids_in(*files):
        assert not is_alive(pid)


async def test_a_cancelled_run_leaves_nothing_behind(
    programs: FencePrograms, tmp_path: Path
) -> None:
    program, files = family(tmp_path, tmp_path)
    run = asyncio.create_task(programs.run(device(program), OFF, 60))
    await wait_until_async(lambda: have_numbers(*files), "the family at work")
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    for pid in pids_in(*files):
        assert not is_alive(pid)


async def test_a_leftover_that_holds_the_pipes_does_not_delay_the_result(
    programs: FencePrograms, tmp_path: Path
) -> None:
    body = f"setsid sh -c 'echo $$ > {tmp_path}/a; exec sleep 600' &\n" + (
        f"while [ ! -s {tmp_path}/a ]; do :; done; echo done; exit 0"
    )
    program = make_program(tmp_path / "agent", body)
    result = await programs.run(device(program), OFF, 30)
    assert result.succeeded
    assert result.duration_s < 5
    assert not is_alive(pids_in(tmp_path / "a")[0])


CALLER = """
import asyncio, signal, sys
from halo.adapters.fence.programs import FencePrograms
from halo.core.model import FenceDevice
from halo.core.outcomes import FenceAction
program = sys.argv[1]
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in background jobs
asyncio.run(FencePrograms().run(FenceDevice("x", program, {}), FenceAction.OFF, 300))
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_fence_programs_die_with_the_manager_however_it_dies(
    tmp_path: Path, how: signal.Signals
) -> None:
    program, files = family(tmp_path, tmp_path)
    caller = subprocess.Popen([sys.executable, "-c", CALLER, program], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: have_numbers(*files), "the family at work")
    finally:
        caller.send_signal(how)
        caller.wait(20)
    for pid in pids_in(*files):
        wait_until(lambda pid=pid: not is_alive(pid), f"the end of process {pid}")  # type: ignore[misc] # mypy cannot infer a lambda with a default


async def test_a_watchdog_that_died_is_replaced_before_the_next_program(
    tmp_path: Path,
) -> None:
    programs = FencePrograms()
    program = make_program(tmp_path / "agent", "true")
    await programs.run(device(program), OFF, 10)
    first = programs.watchdog_pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await wait_until_async(lambda: not is_alive(first), "the watchdog's end")
    await programs.run(device(program), OFF, 10)
    second = programs.watchdog_pid
    assert second is not None
    assert second != first
    assert is_alive(second)
    await programs.close()
    await wait_until_async(lambda: not is_alive(second), "the watchdog's end after close")


async def test_no_more_programs_than_the_limit_run_at_once_and_waiting_is_bounded(
    tmp_path: Path,
) -> None:
    programs = FencePrograms(limit=2)
    body = f"echo x >> {tmp_path}/started; exec sleep 600"
    hanging = device(make_program(tmp_path / "agent", body))
    two = [asyncio.create_task(programs.run(hanging, OFF, 60)) for _ in range(2)]
    started = tmp_path / "started"
    await wait_until_async(lambda: started.exists() and len(started.read_text()) == 4, "two")
    result = await programs.run(hanging, OFF, 0.3)
    assert not result.succeeded
    assert "2 other fence programs were running" in result.message
    assert started.read_text() == "x\nx\n"
    for run in two:
        run.cancel()
    await asyncio.gather(*two, return_exceptions=True)
    ended = await programs.run(device(make_program(tmp_path / "quick", "true")), OFF, 10)
    assert ended.succeeded
    await programs.close()


async def test_the_deadline_counts_from_the_start_of_the_program(tmp_path: Path) -> None:
    programs = FencePrograms(limit=1)
    slow = device(make_program(tmp_path / "agent", "sleep 0.7"))
    results = await asyncio.gather(*(programs.run(slow, OFF, 1.2) for _ in range(2)))
    assert [result.succeeded for result in results] == [True, True]
    await programs.close()


async def test_a_program_on_a_dead_file_system_fails_at_the_deadline_and_holds_up_nobody(
    programs: FencePrograms, tmp_path: Path
) -> None:
    dead = tmp_path / "dead"
    os.mkfifo(dead)  # whoever opens it for reading waits, as on a dead file server
    alive = make_program(tmp_path / "alive", "exit 0")
    runs = [asyncio.create_task(programs.run(device(str(dead)), OFF, 0.5)) for _ in range(20)]
    assert (await programs.run(device(alive), OFF, 10)).succeeded
    assert not any(run.done() for run in runs)
    results = await asyncio.gather(*runs)
    assert not any(result.succeeded for result in results)
    assert "could not be read within 0.5 s" in results[0].message
    assert sum(thread.name == f"read {dead}" for thread in threading.enumerate()) == 1
    # When the file server is back the program is asked again.
    os.close(os.open(dead, os.O_WRONLY))
    await wait_until_async(
        lambda: not any(thread.name == f"read {dead}" for thread in threading.enumerate()),
        "the end of the thread that read",
    )
    dead.unlink()
    assert (await programs.run(device(make_program(dead, "exit 0")), OFF, 10)).succeeded


async def test_an_exit_is_seen_without_pidfd_too() -> None:
    process = await asyncio.to_thread(subprocess.Popen, ["/bin/true"])
    exited: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    wait_in_thread(process.pid, exited)
    await asyncio.wait_for(exited, 10)
    assert process.wait() == 0  # it was not reaped by the thread


async def test_starting_a_program_costs_milliseconds(
    programs: FencePrograms, tmp_path: Path
) -> None:
    costs = []
    for _ in range(15):
        started = sum(os.times()[:4])  # processor time, its children's too: load does not count
        await programs.run(device("/bin/true"), OFF, 10)
        costs.append(sum(os.times()[:4]) - started)
    # 1 ms on an idle machine; the bound leaves no room for a second interpreter. The clock ticks
    # every 10 ms, and now and then one stands for something else.
    assert statistics.median(costs) < 0.01
