"""The `halo` command against a real socket: what it sends, says, and exits with."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from structlog.testing import capture_logs

import halo
from halo.cli.errors import EXIT_CONFIG, EXIT_NOT_REACHED, EXIT_REFUSED, EXIT_UNREACHABLE
from halo.cli.main import COMMANDS, cli
from halo.core.errors import CommandFailed, CommandRefused, UnknownObject
from tests.fakes.http_operations import FakeOperations, Server, serving, short_folder

HALO = [sys.executable, "-c", "from halo.cli.entry import main; main()"]
DEADLINE_S = 60.0

EXAMPLE: dict[str, Any] = {
    "resources": [
        {
            "id": "pool",
            "kind": "heartbeat/ZFS",
            "parameters": {"pool": "pool"},
            "status": "Running",
            "managed": True,
            "home_host": "oss00",
            "failover_host": "oss01",
            "group": "pool",
            "host": "oss00",
        }
    ],
    "groups": [
        {"id": "pool", "status": "Running", "host": "oss00", "managed": True, "home_host": "oss00"}
    ],
    "hosts": [
        {"id": "oss00", "active": True, "connected": True, "fenced": False},
        {"id": "oss01", "active": True, "connected": True, "fenced": False},
    ],
    "events": [
        {"timestamp": "2026-04-28 12:00:00.000000", "event": "fence", "obj_id": "a"},
        {"timestamp": "2026-04-28 12:00:01.000000", "event": "clear", "obj_id": "events"},
        {"timestamp": "2026-04-28 12:00:02.000000", "event": "reset", "obj_id": "a"},
    ],
}


@pytest.fixture(autouse=True)
def _quiet_manager() -> Iterator[None]:
    """The manager's log would stand between the lines of a command run in the same process."""
    with capture_logs():
        yield


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(FakeOperations(json.loads(json.dumps(EXAMPLE)))) as running:
        yield running


def run(server: Server | None, *arguments: str, **environment: str) -> Result:
    """Run the command in this process."""
    if server is not None:
        environment = {"HALO_SOCKET": str(server.path), **environment}
    return CliRunner().invoke(cli, arguments, env=environment, prog_name="halo")


def process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a process of its own."""
    return subprocess.run(
        [*HALO, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


# Around all commands


def test_status_as_a_process_of_its_own(server: Server) -> None:
    done = process("status", "--socket", str(server.path))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "pool (heartbeat/ZFS): Running on oss00",
        "Connected hosts: oss[00-01]",
        "Disconnected hosts: none",
        "Events:",
        '2026-04-28 12:00:02.000000 event=reset object=a comment=""',
    ]


@pytest.mark.parametrize("place", ["before", "after", "environment"])
def test_the_socket_may_be_named_anywhere(server: Server, place: str) -> None:
    path = str(server.path)
    wrong = {"HALO_SOCKET": "/nonexistent"}
    if place == "before":
        result = run(None, "--socket", path, "status", **wrong)
    elif place == "after":
        result = run(None, "--socket", "/other", "status", "--socket", path, **wrong)
    else:
        result = run(None, "status", HALO_SOCKET=path)
    assert result.exit_code == 0, result.output


def test_shared_options_reach_commands_below_commands(server: Server) -> None:
    path = str(server.path)
    assert run(None, "events", "--socket", path, "show").exit_code == 0
    assert run(None, "events", "show", "--socket", path).exit_code == 0


@pytest.mark.parametrize("options", [[], ["-x"], ["--json"]])
def test_status_loads_nothing_it_can_do_without(server: Server, options: list[str]) -> None:
    code = (
        f"import sys; sys.argv = {['halo', 'status', *options]}\n"
        "from halo.cli.entry import main\n"
        "try: main()\n"
        "finally: print(*sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HALO_SOCKET": str(server.path)},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )
    loaded = set(done.stderr.split())
    unwanted = {"yaml", "structlog", "aiohttp", "rich", "asyncio", "capnp", "http.client", "ssl"}
    unwanted |= {"click", "inspect", "dataclasses", "socket", "halo.config.nodesets.nodeset"}
    assert loaded & unwanted == set()
    assert not any(name.startswith("halo.manager") for name in loaded)


@pytest.mark.parametrize("options", [[], ["-x"], ["--json"]])
@pytest.mark.parametrize("manager", ["there", "not there", "with nothing to tell"])
def test_a_plain_status_is_that_of_the_parsed_command(
    server: Server, manager: str, options: list[str]
) -> None:
    there = manager != "not there"
    path = str(server.path if there else server.path.with_name("nobody"))
    if manager == "with nothing to tell":
        for kind in ("resources", "groups", "hosts", "events"):
            server.operations.current[kind] = []
    plain, parsed = (
        subprocess.run(
            [*HALO, *arguments],
            env={**os.environ, "HALO_SOCKET": path},
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        for arguments in (["status", *options], ["--socket", path, "status", *options])
    )
    assert (plain.returncode, plain.stdout, plain.stderr) == (
        parsed.returncode,
        parsed.stdout,
        parsed.stderr,
    )
    assert (plain.returncode == 0) == there


@pytest.mark.parametrize("arguments", [["status"], ["status", "--json"]])
@pytest.mark.parametrize("stderr", ["closed", "unread"])
def test_an_error_that_nobody_reads_has_its_exit_status_all_the_same(
    tmp_path: Path, arguments: list[str], stderr: str
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = shlex.join([*HALO, *arguments])
    done = subprocess.run(
        ["/bin/sh", "-c", f"exec {command} {'2>&-' if stderr == 'closed' else ''}"],
        env={**os.environ, "HALO_SOCKET": str(tmp_path / "nobody")},
        stdout=subprocess.PIPE,
        stderr=writing,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stdout) == (EXIT_UNREACHABLE, "")


@pytest.mark.parametrize("arguments", [["status"], ["status", "--json"]])
def test_output_for_which_there_is_no_room_ends_with_a_sentence(
    server: Server, arguments: list[str]
) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*HALO, *arguments],
            env={**os.environ, "HALO_SOCKET": str(server.path)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
    assert done.returncode == EXIT_REFUSED
    assert done.stderr == "The output could not be written: No space left on device.\n"


def test_a_status_without_a_stdout_says_nothing(server: Server) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"exec {shlex.join(HALO)} status >&-"],
        env={**os.environ, "HALO_SOCKET": str(server.path)},
        stderr=subprocess.PIPE,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_plain_status_whose_reader_has_gone_ends_without_a_traceback(server: Server) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*HALO, "status"],
        env={**os.environ, "HALO_SOCKET": str(server.path)},
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    os.close(writing)
    assert done.returncode == 1
    assert done.stderr == ""


def test_version() -> None:
    assert run(None, "--version").output == f"halo {halo.__version__}\n"


def test_help_lists_every_command_without_loading_it() -> None:
    result = run(None, "--help")
    assert result.exit_code == 0
    for name, entry in COMMANDS.items():
        assert name in result.output
        assert entry.help in " ".join(result.output.split())


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_loads_and_has_help(name: str) -> None:
    result = run(None, name, "--help")
    assert result.exit_code == 0, result.output
    assert "--socket" in result.output


@pytest.mark.parametrize("typed", ["stauts", "stat"])
def test_a_mistyped_command_gets_a_suggestion(typed: str) -> None:
    """The command that begins so comes before one that is only alike: `start` changes things."""
    result = run(None, typed)
    assert result.exit_code == 2
    assert 'Did you mean "status"?' in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["fence"],
        ["failback"],
        ["move", "g"],
        ["status", "-e", "-1"],
        ["fence", "h", "--confirm-off"],
        ["fence", "h", "--confirm-off", "--reason", " "],
        ["fence", "h", "--confirm-off", "--cancel", "--reason", "x"],
        ["fence", "h[1-"],
        ["completion", "tcsh"],
        ["start", "g", "--wait", "soon"],
    ],
)
def test_wrong_usage_exits_with_2_and_sends_nothing(server: Server, arguments: list[str]) -> None:
    result = run(server, *arguments)
    assert result.exit_code == 2, result.output
    assert server.operations.calls == []


# The manager is not reachable


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield listener


def test_a_missing_socket_is_named() -> None:
    result = run(None, "--socket", "/nonexistent/halo.socket", "status")
    assert result.exit_code == 69
    assert "/nonexistent/halo.socket does not exist" in result.stderr
    assert "--socket" in result.stderr


def test_a_socket_without_a_manager_is_named() -> None:
    with short_folder() as folder:
        path = folder / "s"
        with listening(path):
            pass
        result = run(None, "--socket", str(path), "fence", "a,b")
    assert result.exit_code == 69
    assert "nothing listens" in result.stderr
    assert "1 more not tried" in result.stderr


def test_a_file_that_is_no_socket_is_named() -> None:
    with short_folder() as folder:
        (folder / "s").write_text("")
        result = run(None, "--socket", str(folder / "s"), "status")
    assert result.exit_code == 69
    assert "is not a socket" in result.stderr


def test_a_path_no_socket_can_have_is_named() -> None:
    result = run(None, "--socket", "/tmp/" + "x" * 200, "status")
    assert result.exit_code == 69
    assert "Cannot connect" in result.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="needs another user's identity")
def test_a_socket_of_others_is_named_with_its_owner(server: Server) -> None:
    server.path.parent.chmod(0o755)
    # All is loaded before the change: the interpreter may be where others cannot read it.
    code = (
        "import grp, os, pwd, halo.cli.main, halo.cli.client, halo.cli.commands.status\n"
        "from halo.cli.entry import main\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--socket", str(server.path), "status"],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 69, done.stderr
    assert "owner root, group root, mode 0600" in done.stderr
    assert "--socket-group" in done.stderr


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"", "ended the connection"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}", "ended the connection"),
        (b"HTTP/1.1 200", "ended the connection"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not a HALO manager"),
        (b"HTTP/1.1 OK\r\n\r\n", "not a HALO manager"),
        (b"HTTP/1.1 200 OK\r\n\r\n[]", "not a HALO manager"),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", "not a HALO manager"),
    ],
)
def test_what_answers_may_be_no_manager(answer: bytes, says: str) -> None:
    with short_folder() as folder, listening(folder / "s") as listener:

        def serve() -> None:
            connection, _address = listener.accept()
            with connection:
                while b"\r\n\r\n" not in connection.recv(65536):
                    pass
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        result = run(None, "--socket", str(folder / "s"), "status")
        thread.join(DEADLINE_S)
    assert result.exit_code == 69
    assert says in result.stderr


def test_a_manager_that_does_not_answer_is_given_up() -> None:
    from halo.cli.client import get_status, request
    from halo.cli.errors import ManagerUnreachable

    with short_folder() as folder, listening(folder / "s"):
        with pytest.raises(ManagerUnreachable, match=r"did not answer within 0\.05 s"):
            get_status(str(folder / "s"), deadline_s=0.05)
        with pytest.raises(ManagerUnreachable, match="may still carry out the command"):
            request(str(folder / "s"), "POST", "/cluster", {}, deadline_s=0.05)


def test_a_manager_whose_queue_is_full_is_given_up() -> None:
    from halo.cli.client import get_status
    from halo.cli.errors import ManagerUnreachable

    with short_folder() as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "s"))
        listener.listen(0)
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(str(folder / "s"))
            with pytest.raises(ManagerUnreachable, match="did not answer"):
                get_status(str(folder / "s"), deadline_s=0.1)


# Commands


@pytest.mark.parametrize(
    ("arguments", "calls"),
    [
        (["failback", "--onto", "oss00"], [("failback", "oss00", False, None)]),
        (["fence", "oss00"], [("fence", "oss00", False, None)]),
        (
            ["fence", "oss00", "--force", "--reason", "smokes"],
            [("fence", "oss00", True, "smokes")],
        ),
        (
            ["fence", "oss00", "--confirm-off", "--reason", "saw it dark"],
            [("confirm-off", "oss00", False, "saw it dark")],
        ),
        (["fence", "oss00", "--cancel"], [("cancel-fence", "oss00", False, None)]),
        (["reset", "oss00", "--reason", "new PSU"], [("reset", "oss00", False, "new PSU")]),
        (["activate", "oss00"], [("activate", "oss00", False, None)]),
        (["deactivate", "oss00"], [("deactivate", "oss00", False, None)]),
        (
            ["deactivate", "oss[00-02]", "oss01", "mds0"],
            [("deactivate", host, False, None) for host in ("oss00", "oss01", "oss02", "mds0")],
        ),
        (["manage", "a/b"], [("set_managed", "a/b", True, None)]),
        (["unmanage", "g", "--reason", "r"], [("set_managed", "g", False, "r")]),
        (["start", "g"], [("start", "g", None, None)]),
        (["stop", "g", "h"], [("stop", "g", None, None), ("stop", "h", None, None)]),
        (["cleanup", "g"], [("cleanup", "g", None, None)]),
        (
            ["move", "g", "--to", "oss01", "--reason", "r"],
            [("move", "g", "oss01", "r")],
        ),
        (["freeze", "--reason", "firmware"], [("freeze", "firmware")]),
        (["thaw"], [("thaw", None)]),
        (["events", "clear"], [("clear_events", None)]),
        (["events", "clear", "--reason", "old"], [("clear_events", "old")]),
    ],
)
def test_each_command_asks_the_manager(
    server: Server, arguments: list[str], calls: list[tuple[Any, ...]]
) -> None:
    result = run(server, *arguments)
    assert result.exit_code == 0, result.output
    assert server.operations.calls == calls
    assert len(result.stdout.splitlines()) == len(calls)
    assert f"{calls[0][0]} is done." in result.stdout


@pytest.mark.parametrize(
    ("arguments", "command", "error", "said"),
    [
        (
            ["fence", "oss00"],
            "fence",
            CommandRefused("Its partner is deactivated."),
            "Could not fence 'oss00': Its partner is deactivated.",
        ),
        (
            ["fence", "oss00"],
            "fence",
            CommandFailed("The device is silent."),
            "Could not fence 'oss00': The device is silent.",
        ),
        (
            ["failback", "--onto", "x"],
            "failback",
            UnknownObject('There is no host "x".'),
            "Could not fail back onto 'x': There is no host \"x\".",
        ),
        (
            ["unmanage", "g"],
            "set_managed",
            UnknownObject('There is no group "g".'),
            "Could not unmanage 'g': There is no group \"g\".",
        ),
        (
            ["move", "g", "--to", "h"],
            "move",
            CommandRefused("h is not connected."),
            "Could not move 'g': h is not connected.",
        ),
        (
            ["freeze"],
            "freeze",
            CommandRefused("It is frozen already."),
            "Could not freeze the cluster: It is frozen already.",
        ),
        (
            ["events", "clear"],
            "clear_events",
            CommandFailed("The journal is full."),
            "Could not clear the events: The journal is full.",
        ),
    ],
)
def test_the_managers_refusal_stands_on_stderr(
    server: Server, arguments: list[str], command: str, error: Exception, said: str
) -> None:
    server.operations.errors[command] = error
    result = run(server, *arguments)
    assert result.exit_code == 1
    assert result.stderr == said + "\n"
    assert result.stdout == ""


def test_of_several_hosts_each_has_its_line_and_the_worst_counts(server: Server) -> None:
    server.operations.errors["reset oss01"] = CommandRefused("oss01 has not been fenced.")
    result = run(server, "reset", "oss[00-02]")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "reset 'oss00': reset is done.",
        "reset 'oss02': reset is done.",
    ]
    assert result.stderr == "Could not reset 'oss01': oss01 has not been fenced.\n"


def test_a_halo_managers_empty_answer_counts_as_done() -> None:
    with short_folder() as folder, listening(folder / "s") as listener:

        def serve() -> None:
            connection, _address = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        result = run(None, "--socket", str(folder / "s"), "reset", "oss00")
        thread.join(DEADLINE_S)
    assert (result.exit_code, result.stdout) == (0, "Done.\n")


@pytest.mark.parametrize("command", ["start", "stop", "cleanup", "manage"])
def test_an_empty_name_is_told_before_anything_is_sent(server: Server, command: str) -> None:
    result = run(server, command, "pool", "")
    assert result.exit_code == 2
    assert "a name is empty; `halo status` lists the groups" in result.output
    assert server.operations.calls == []


@pytest.mark.parametrize("command", ["fence", "reset", "deactivate"])
def test_an_empty_host_is_told_before_anything_is_sent(server: Server, command: str) -> None:
    result = run(server, command, "")
    assert result.exit_code == 2
    assert "the name of a host is empty" in result.output
    assert server.operations.calls == []


def test_events_show_prints_all_of_history(server: Server) -> None:
    result = run(server, "events", "show")
    assert [line.split()[2] for line in result.stdout.splitlines()] == [
        "event=fence",
        "event=clear",
        "event=reset",
    ]


def test_no_event_is_no_line_for_scripts_and_a_sentence_for_people(server: Server) -> None:
    server.operations.current["events"] = []
    result = run(server, "events", "show")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "No events.\n")


def test_status_as_json(server: Server) -> None:
    assert json.loads(run(server, "status", "--json").stdout) == EXAMPLE


def test_status_asked_again_and_again() -> None:
    operations = FakeOperations(EXAMPLE)
    with serving(operations) as server:
        watching = subprocess.Popen(
            [*HALO, "--socket", str(server.path), "status", "--watch", "0.1"],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        try:
            assert watching.stdout is not None
            seen = 0
            for line in watching.stdout:
                seen += line.startswith("Connected hosts:")
                if seen == 3:
                    break
        finally:
            watching.kill()
            watching.communicate(timeout=DEADLINE_S)
    assert seen == 3


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False), ({"NO_COLOR": ""}, True)],
)
def test_colour_only_on_a_terminal_that_wants_it(
    server: Server, environment: dict[str, str], coloured: bool
) -> None:
    base = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
    ours, theirs = pty.openpty()
    try:
        subprocess.run(
            [*HALO, "--socket", str(server.path), "status"],
            stdout=theirs,
            env={**base, "TERM": "xterm", **environment},
            timeout=DEADLINE_S,
            check=True,
        )
        shown = os.read(ours, 65536)
    finally:
        os.close(theirs)
        os.close(ours)
    assert (b"\x1b[32mRunning" in shown) == coloured
    piped = process("--socket", str(server.path), "status", TERM="xterm").stdout
    assert "\x1b" not in piped


def test_output_in_a_poor_encoding_goes_on(server: Server) -> None:
    server.operations.current["resources"][0]["comment"] = "oss00 → oss01"
    done = process("--socket", str(server.path), "status", PYTHONIOENCODING="latin-1")
    assert done.returncode == 0
    assert "oss00 \\u2192 oss01" in done.stdout


# --wait


@pytest.mark.parametrize(
    ("arguments", "change"),
    [
        (["start", "pool"], lambda s: s["groups"][0].update(status="Running")),
        (["stop", "pool"], lambda s: s["groups"][0].update(status="Stopped", host=None)),
        (
            ["move", "pool", "--to", "oss01"],
            lambda s: s["groups"][0].update(status="Running (Failed Over)", host="oss01"),
        ),
        (["cleanup", "pool"], lambda s: s["groups"][0].update(status="Running")),
        (
            ["failback", "--onto", "oss00"],
            lambda s: s["groups"][0].update(status="Running", host="oss00"),
        ),
        (["activate", "oss00"], lambda s: s["hosts"][0].update(active=True)),
        (
            ["deactivate", "oss00"],
            lambda s: (
                s["hosts"][0].update(active=False),
                s["groups"][0].update(status="Running (Failed Over)", host="oss01"),
            ),
        ),
    ],
)
def test_wait_ends_when_it_is_so_and_not_before(
    server: Server, arguments: list[str], change: Any
) -> None:
    current = server.operations.current
    group, first = current["groups"][0], current["hosts"][0]
    if arguments[0] in ("stop", "deactivate", "move"):
        group.update(status="Running", host="oss00")
    else:
        group.update(status="Error", host=None, comment="start failed")
        first["active"] = arguments[0] != "activate"

    result = run(server, *arguments, "--wait", "0.1")
    assert result.exit_code == 75
    assert "Not reached within 0.1 s:" in result.stderr
    assert "oss00" in result.stderr or "pool is Error: start failed" in result.stderr

    finished: list[Result] = []
    waiting = threading.Thread(
        target=lambda: finished.append(run(server, *arguments, "--wait", "30"))
    )
    waiting.start()
    change(current)
    waiting.join(DEADLINE_S)
    assert [result.exit_code for result in finished] == [0]
    assert re.fullmatch(
        r"The requested state was reached after \d+\.\d s\.", finished[0].stdout.splitlines()[-1]
    )


def event(name: str, group: str = "pool", comment: str = "") -> dict[str, str]:
    stamp = "2026-04-28 12:00:03.000000"
    return {"timestamp": stamp, "event": name, "obj_id": group, "comment": comment}


def test_a_host_on_which_a_group_may_still_run_is_not_empty(server: Server) -> None:
    current = server.operations.current
    current["hosts"][0].update(active=False, connected=False)
    current["groups"][0].update(
        status="Unknown", host=None, candidates={"oss00": "Unknown", "oss01": "Stopped"}
    )
    result = run(server, "deactivate", "oss00", "--wait", "0.1")
    assert result.exit_code == EXIT_NOT_REACHED
    assert "pool may still run on oss00" in result.stderr
    current["groups"][0].update(status="Running", host="oss01")
    assert run(server, "deactivate", "oss00", "--wait", "5").exit_code == 0


@pytest.mark.parametrize(
    "arguments", [["move", "pool", "--to", "oss01"], ["failback", "--onto", "oss00"]]
)
def test_wait_ends_at_once_where_the_move_was_given_up(
    server: Server, arguments: list[str]
) -> None:
    current = server.operations.current
    where = "oss00" if arguments[0] == "move" else "oss02"
    current["groups"][0].update(status="Running", host=where)
    current["events"] += [event("move"), event("move-failed", comment="start of pool: no disk")]
    began = time.monotonic()
    result = run(server, *arguments, "--wait", "300")
    assert time.monotonic() - began < DEADLINE_S
    assert result.exit_code == EXIT_REFUSED
    assert result.stderr == "Given up:\n  pool was not moved: start of pool: no disk\n"


def test_a_move_that_failed_before_this_command_does_not_end_the_wait(server: Server) -> None:
    server.operations.current["events"] += [event("move-failed"), event("move")]
    result = run(server, "move", "pool", "--to", "oss01", "--wait", "0.1")
    assert result.exit_code == EXIT_NOT_REACHED


def test_of_several_groups_the_others_are_still_waited_for(server: Server) -> None:
    current = server.operations.current
    current["groups"].append({**current["groups"][0], "id": "other"})
    current["events"] += [event("move-failed"), event("move", "other")]
    result = run(server, "move", "pool", "other", "--to", "oss01", "--wait", "0.1")
    assert result.exit_code == EXIT_NOT_REACHED
    assert "pool was not moved" in result.stderr
    assert "other is Running on oss00" in result.stderr


def test_a_start_is_not_reached_while_an_earlier_stop_is_under_way(server: Server) -> None:
    group = server.operations.current["groups"][0]
    group.update(status="Running", host="oss00", under_way=["stop of pool on oss00"])
    result = run(server, "start", "pool", "--wait", "0.1")
    assert result.exit_code == EXIT_NOT_REACHED
    assert "pool: stop of pool on oss00 is still running" in result.stderr
    group["under_way"] = []
    assert run(server, "start", "pool", "--wait", "0.1").exit_code == 0


@pytest.mark.parametrize(
    ("kind", "code"), [("stop-failed", EXIT_REFUSED), ("restart-limit", EXIT_NOT_REACHED)]
)
def test_a_stop_that_failed_is_not_waited_for(server: Server, kind: str, code: int) -> None:
    group = server.operations.current["groups"][0]
    group.update(status="Error", host="oss00", error_kind=kind, comment="stop of pool: busy")
    result = run(server, "stop", "pool", "--wait", "0.2")
    assert result.exit_code == code
    assert "pool is Error on oss00: stop of pool: busy" in result.stderr


def test_a_refused_command_is_not_waited_for(server: Server) -> None:
    server.operations.errors["stop"] = CommandRefused("It is unmanaged.")
    began = time.monotonic()
    result = run(server, "stop", "pool", "--wait", "600")
    assert result.exit_code == 1
    assert time.monotonic() - began < 300


# check


@pytest.mark.parametrize(
    ("changes", "code", "line"),
    [
        ({}, 0, "HALO OK - 1 groups run at home | groups=1 running=1 "),
        (
            {"groups": {"status": "Running (Failed Over)", "host": "oss01"}},
            1,
            "HALO WARNING - pool is failed over to oss01 | ",
        ),
        ({"groups": {"status": "Stopped", "host": None}}, 2, "HALO CRITICAL - pool is Stopped | "),
        (
            {"groups": {"status": "Error", "comment": "a|b\nc"}},
            2,
            "HALO CRITICAL - pool is Error (a/b c) | ",
        ),
        ({"groups": {"status": "Unknown"}}, 2, "HALO CRITICAL - pool is Unknown | "),
        ({"groups": {"status": "Stopped", "wanted": "stopped"}}, 0, "HALO OK - 0 groups run"),
        ({"groups": {"wanted": "stopped"}}, 1, "HALO WARNING - pool runs on oss00 and should"),
        (
            {"groups": {"wanted": "stopped", "status": "Unknown"}},
            1,
            "HALO WARNING - pool is Unknown",
        ),
        (
            {"groups": {"wanted": "stopped", "status": "Error", "comment": "busy"}},
            2,
            "HALO CRITICAL - pool is Error (busy)",
        ),
        (
            {"groups": {"move_target": "oss01", "status": "Unknown", "comment": "moving"}},
            1,
            "HALO WARNING - pool is Unknown (moving)",
        ),
        (
            {"groups": {"cannot_take": {"oss01": "pool on oss01: monitor: hangs"}}},
            1,
            "HALO WARNING - oss01 cannot take pool (pool on oss01: monitor: hangs) | ",
        ),
        ({"hosts": {"connected": False, "state": "fenced"}}, 1, "HALO WARNING - host oss00 is off"),
        ({"groups": {"managed": False}}, 1, "HALO WARNING - pool is unmanaged | "),
        ({"groups": {"managed": False, "status": "Stopped"}}, 1, "HALO WARNING - pool is Stopped"),
        ({"hosts": {"connected": False}}, 1, "HALO WARNING - host oss00 is disconnected | "),
        ({"hosts": {"connected": False, "active": False}}, 0, "HALO OK"),
        ({"hosts": {"fenced": True, "connected": False}}, 1, "HALO WARNING - host oss00 is fenced"),
        (
            {"hosts": {"state": "fence failed", "connected": False, "comment": "silent"}},
            2,
            "HALO CRITICAL - host oss00: fence failed (silent) | ",
        ),
        ({"hosts": {"fence_trusted": False}}, 1, "HALO WARNING - the fence device of oss00"),
        ({"manager": {"frozen": True}}, 1, "HALO WARNING - the cluster is frozen | "),
        ({"manager": {"mode": "observe"}}, 1, "HALO WARNING - the manager only observes | "),
        ({"manager": {"journal": "disk full"}}, 2, "HALO CRITICAL - journal: disk full | "),
        ({"manager": {"notices": ["Fencing is held."]}}, 1, "HALO WARNING - Fencing is held."),
    ],
)
def test_check_tells_a_monitoring_system(
    server: Server, changes: dict[str, Any], code: int, line: str
) -> None:
    current = server.operations.current
    for key, values in changes.items():
        if key == "manager":
            current["manager"] = values
        else:
            current[key][0].update(values)
    result = run(server, "check")
    assert result.exit_code == code, result.output
    assert result.stdout.startswith(line)
    assert len(result.stdout.splitlines()) == 1


def test_check_puts_the_worst_first_and_bounds_its_line(server: Server) -> None:
    group = server.operations.current["groups"][0]
    server.operations.current["groups"] = [
        {**group, "id": f"g{n}", "status": "Stopped" if n == 9 else "Running (Failed Over)"}
        for n in range(12)
    ]
    line = run(server, "check").stdout
    assert line.startswith("HALO CRITICAL - g9 is Stopped; g0 is failed over")
    assert "and 4 more |" in line


def test_check_without_a_manager_is_critical_and_on_a_wrong_path_unknown() -> None:
    with short_folder() as folder:
        gone = run(None, "--socket", str(folder / "s"), "check")
        (folder / "file").write_text("")
        wrong = run(None, "--socket", str(folder / "file"), "check")
    assert (gone.exit_code, wrong.exit_code) == (2, 3)
    assert gone.stdout.startswith("HALO CRITICAL - The manager's socket")
    assert wrong.stdout.startswith("HALO UNKNOWN - ")


# validate


CONFIG = """\
hosts:
- hostname: oss00
- hostname: oss01
resources:
- name: pool
  kind: heartbeat/ZFS
  parameters: {pool: pool}
resource_groups:
- root: pool
  home_host: oss00
  failover_hosts: [oss01]
"""


def test_validate_summarises_a_good_config(tmp_path: Path) -> None:
    path = tmp_path / "halo.conf"
    path.write_text(CONFIG)
    for arguments in (["validate", "--config", str(path)], ["validate", str(path)]):
        result = run(None, *arguments)
        assert result.exit_code == 0, result.output
        assert "oss00" in result.stdout
        assert "warning: " in result.stderr  # hosts that cannot be fenced


def test_validate_names_every_mistake_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "halo.conf"
    path.write_text(CONFIG.replace("home_host: oss00", "home_host: oss9").replace("kind", "kinf"))
    done = process("validate", HALO_CONFIG=str(path))
    assert done.returncode == 64
    assert f"{path}:10:" in done.stderr
    assert f"{path}:6:" in done.stderr
    assert "Traceback" not in done.stderr


def test_validate_of_a_missing_file(tmp_path: Path) -> None:
    result = run(None, "validate", str(tmp_path / "none"))
    assert result.exit_code == 64
    assert str(tmp_path / "none") in result.stderr


# completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str) -> None:
    result = run(None, "completion", shell)
    assert result.exit_code == 0
    assert "_HALO_COMPLETE" in result.stdout


def completed(words: str, **environment: str) -> list[str]:
    parts = words.split(" ")
    done = process(
        _HALO_COMPLETE="bash_complete",
        COMP_WORDS=words,
        COMP_CWORD=str(len(parts) - 1),
        **environment,
    )
    assert done.returncode == 0, done.stderr
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


def test_hosts_and_groups_are_completed_from_the_manager(server: Server) -> None:
    path = str(server.path)
    assert completed("halo fence o", HALO_SOCKET=path) == ["oss00", "oss01"]
    assert completed("halo fence oss00,o", HALO_SOCKET=path) == ["oss00,oss00", "oss00,oss01"]
    assert completed("halo stop p", HALO_SOCKET=path) == ["pool"]
    assert completed("halo move pool --to oss01", HALO_SOCKET=path) == ["oss01"]
    assert completed(f"halo --socket {path} fence o") == ["oss00", "oss01"]
    assert completed(f"halo fence --socket {path} o") == ["oss00", "oss01"]
    assert "status" in completed("halo st")


def test_they_are_completed_from_the_config_without_a_manager(tmp_path: Path) -> None:
    path = tmp_path / "halo.conf"
    path.write_text(CONFIG)
    environment = {"HALO_SOCKET": "/nonexistent", "HALO_CONFIG": str(path)}
    assert completed("halo fence o", **environment) == ["oss00", "oss01"]
    assert completed("halo stop p", **environment) == ["pool"]
    environment["HALO_CONFIG"] = "/nonexistent"
    assert completed("halo fence o", **environment) == []


def test_a_commands_own_option_stays_its_own() -> None:
    from halo.cli.context import add_shared_options

    @click.command()
    @click.option("--verbose", "-v", count=True)
    def own(verbose: int) -> None:
        click.echo(str(verbose))

    add_shared_options(own)
    add_shared_options(own)
    assert [p.name for p in own.params] == ["verbose", "config", "socket"]
    assert CliRunner().invoke(own, ["-vv"]).output == "2\n"


# The handbook


def test_the_handbook_explains_every_command_and_exit_status() -> None:
    handbook = (Path(__file__).parents[2] / "docs" / "operators.md").read_text()
    for name in COMMANDS:
        assert f"### `halo {name}" in handbook, name
    for code in (0, EXIT_REFUSED, 2, EXIT_CONFIG, EXIT_UNREACHABLE, EXIT_NOT_REACHED):
        assert f"| {code} |" in handbook, code
