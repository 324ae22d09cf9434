"""Flags, variables, files and exit statuses of the two daemons, as existing sites use them."""

from __future__ import annotations

import grp
import itertools
import os
import re
import socket
import stat
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import Authority, of_manager
from tests.fence_helpers import make_program
from tests.integration import processes
from tests.integration.cluster import ClusterHarness
from tests.integration.conftest import MakeCluster
from tests.integration.site import DEADLINE_S, ROOT

OCF_ROOT = ROOT / "tests" / "ocf_resources"


class Daemons:
    """Daemons in a folder of their own, started by hand and ended after the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = processes.free_port()
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HALO_", "OCF_"))}
        path = f"{Path(sys.executable).parent}:{kept['PATH']}"
        self.environment = {**kept, "PATH": path, processes.MARK: str(folder)}
        self.config = folder / "halo.conf"
        self.config.write_text(
            "hosts:\n- {hostname: 127.0.0.1, fence_agent: null}\n"
            "resources:\n- {name: web, kind: test/Service, parameters: {name: web}}\n"
            "resource_groups:\n- {root: web, home_host: 127.0.0.1, failover_hosts: []}\n"
        )

    def start(self, *argv: str, **variables: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{argv[0]}_log").open("ab") as log:
            return subprocess.Popen(
                argv,
                cwd=self.folder,
                env={**self.environment, **variables},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def run(self, *argv: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            argv,
            cwd=self.folder,
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )

    def start_agent(self, *flags: str) -> subprocess.Popen[bytes]:
        return self.start(
            *("halo_remote", "--network", "127.0.0.1/32", "--port", str(self.port)),
            *("--ocf-root", str(OCF_ROOT), "--test-id", "h1", *flags),
            HALO_TEST_DIRECTORY=str(self.folder),
        )

    def paths(self, **changed: str | Path) -> list[str]:
        """The manager's flags for its files, some of them changed."""
        named: dict[str, str | Path] = {
            "config": self.config,
            "socket": self.folder / "socket",
            "statefile": self.folder / "state",
            "port": str(self.port),
        }
        return [str(word) for k, v in (named | changed).items() for word in (f"--{k}", v)]

    def refused(self, *flags: str, **changed: str | Path) -> str:
        """Start a manager that must refuse to run; what it says."""
        done = self.run("halo_manager", *self.paths(**changed), *flags)
        assert done.returncode == 64, done
        assert "Traceback" not in done.stderr
        assert done.stdout == ""
        return done.stderr

    def log(self, program: str) -> str:
        return (self.folder / f"{program}_log").read_text()


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Daemons]:
    found = Daemons(tmp_path)
    yield found
    processes.kill_all(lambda: processes.marked(tmp_path))


def until(holds: object, what: str) -> None:
    """Wait until a function returns something true."""
    end = time.monotonic() + DEADLINE_S
    while not holds():  # type: ignore[operator]  # any callable
        assert time.monotonic() < end, f"not in time: {what}"
        time.sleep(0.02)


# Variables -----------------------------------------------------------------------------------


def test_everything_can_be_named_by_variables_alone(daemons: Daemons) -> None:
    folder = daemons.folder
    common = {"HALO_PORT": str(daemons.port), "HALO_LOG": "debug"}
    daemons.start(
        *("halo_remote", "--test-id", "h1"),
        HALO_NET="127.0.0.1/32",
        OCF_ROOT=str(OCF_ROOT),
        HALO_TEST_DIRECTORY=str(folder),
        **common,
    )
    files = {
        "HALO_CONFIG": str(daemons.config),
        "HALO_SOCKET": str(folder / "s"),
        "HALO_STATEFILE": str(folder / "kept"),
    }
    daemons.start("halo_manager", "--manage-resources", **files, **common)

    def status() -> str:
        return daemons.run("halo", "status", **files).stdout

    until(lambda: "web (test/Service): Running on 127.0.0.1" in status(), "web runs")
    assert (folder / "h1.service.web").exists()
    assert (folder / "kept").exists()
    assert "[debug" in daemons.log("halo_manager")
    assert "[debug" in daemons.log("halo_remote")


def test_no_program_of_the_manager_gets_the_password_for_etcd(daemons: Daemons) -> None:
    """It may be in the environment of a manager that needs none: a file of systemd is shared."""
    folder = daemons.folder
    dump = f"env > {folder}/env.new && mv {folder}/env.new {folder}/env; cat > /dev/null"
    program = make_program(folder / "fence_dump", dump)
    config = daemons.config.read_text()
    daemons.config.write_text(config.replace("fence_agent: null", f"fence_agent: {program}"))
    daemons.start_agent()
    daemons.start(
        *("halo_manager", *daemons.paths(), "--manage-resources"),
        HALO_STORE_PASSWORD="hunter2",
        A_PLAIN_VARIABLE="kept",
    )
    until((folder / "env").exists, "the device is asked for its status")
    inherited = (folder / "env").read_text()
    assert "A_PLAIN_VARIABLE=kept\n" in inherited
    assert "hunter2" not in inherited


def test_a_kind_that_no_host_has_is_named_with_its_path_and_no_host_is_to_be_fenced(
    daemons: Daemons,
) -> None:
    daemons.config.write_text(
        "hosts:\n- {hostname: 127.0.0.1, fence_agent: null}\n"
        "- {hostname: 127.0.0.2, fence_agent: null}\n"
        "resources:\n- {name: web, kind: test/Servise, parameters: {name: web}}\n"
        "resource_groups:\n- {root: web, home_host: 127.0.0.1, failover_hosts: [127.0.0.2]}\n"
    )
    daemons.start_agent()
    daemons.start_agent("--network", "127.0.0.2/32", "--test-id", "h2")
    daemons.start("halo_manager", *daemons.paths(), "--manage-resources")

    def told() -> str:
        return " ".join(daemons.run("halo", "why", "web", *socket_of).stdout.split())

    socket_of = ("--socket", str(daemons.folder / "socket"))
    missing = f"cannot run {OCF_ROOT}/resource.d/test/Servise: there is no such resource agent"
    until(lambda: told().count(missing) > 2, "both agents were asked")
    assert "or correct `kind` in the config" in told()
    shown = daemons.run("halo", "status", *socket_of).stdout
    assert "test/Servise: there is no such resource agent on this host" in shown
    assert "halo fence" not in told() + shown


def test_a_flag_beats_its_variable(daemons: Daemons) -> None:
    words = daemons.refused(config=daemons.folder / "by-flag")
    assert "by-flag" in words
    done = daemons.run(
        "halo_manager", *daemons.paths(config="/by-flag"), HALO_CONFIG="/by-variable"
    )
    assert done.returncode == 64
    assert "/by-flag" in done.stderr
    assert "/by-variable" not in done.stderr


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (
            "halo_manager",
            ["/etc/halo/halo.conf", "/var/run/halo.socket", "/etc/halo/halo.state", "5000"],
        ),
        ("halo_remote", ["192.168.1.0/24", "8000", "/usr/lib/ocf"]),
    ],
)
def test_help_names_flags_with_their_defaults(
    daemons: Daemons, program: str, words: list[str]
) -> None:
    done = daemons.run(program, "--help", COLUMNS="200")
    assert done.returncode == 0
    for word in words:
        assert word in done.stdout
    assert re.fullmatch(rf"{program}, version \S+\n", daemons.run(program, "--version").stdout)


# What an administrator must mend: exit status 64 ---------------------------------------------


def test_a_config_with_mistakes_names_every_place(daemons: Daemons) -> None:
    daemons.config.write_text(
        "hosts:\n- {hostname: a, fence_agent: null}\n- {hostnam: b}\n"
        "resource_groups:\n- {root: x, home_host: nobody}\n"
    )
    words = daemons.refused()
    places = re.findall(rf"{re.escape(str(daemons.config))}:(\d+):\d+: ", words)
    assert {"3", "5"} <= set(places)


@pytest.mark.parametrize("text", ["hosts: [\n", "\x00", "- just\n- a list\n", ""])
def test_a_config_that_is_none_is_refused(daemons: Daemons, text: str) -> None:
    daemons.config.write_text(text)
    assert str(daemons.config) in daemons.refused()


@pytest.mark.parametrize(
    ("flag", "path", "words"),
    [
        ("config", "none", "cannot be read"),
        ("socket", "none/socket", "Create it, or choose another"),
        ("socket", "halo.conf", "is not a socket and is left alone"),
        ("socket", "s" * 108, "longer than 107 bytes"),
        ("statefile", ".", "is a directory"),
        ("statefile", "none/state", "its folder does not exist"),
    ],
)
def test_a_path_that_cannot_be_had_is_named(
    daemons: Daemons, flag: str, path: str, words: str
) -> None:
    config = daemons.config.read_text()
    assert words in daemons.refused(**{flag: daemons.folder / path})
    assert daemons.config.read_text() == config


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--socket-group", "nobodies"], 'There is no group "nobodies"'),
        (["--mtls"], "HALO_CLIENT_CERT"),
    ],
)
def test_what_a_flag_needs_is_named(daemons: Daemons, flags: list[str], words: str) -> None:
    assert words in daemons.refused(*flags)


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"SQLite format 3\x00" + bytes(range(256)) * 64, ""),
        (b"2026-04-28T12:54:34.337109\tfence\toss00\tby hand\nwhat is this\n", ":2: "),
    ],
    ids=["a database", "a text file"],
)
def test_a_damaged_state_stops_the_start_and_stays_as_it_is(
    daemons: Daemons, content: bytes, place: str
) -> None:
    state = daemons.folder / "state"
    state.write_bytes(content)
    assert f"{state}{place}" in daemons.refused()
    assert state.read_bytes() == content


@pytest.mark.parametrize("flags", [("--nonsense",), ("--sleep-time", "soon"), ("more",)])
def test_wrong_flags_do_not_make_systemd_try_again(
    daemons: Daemons, flags: tuple[str, ...]
) -> None:
    assert "Usage: halo_manager" in daemons.refused(*flags)


# The socket ----------------------------------------------------------------------------------


def test_the_socket_is_the_owners_alone(daemons: Daemons) -> None:
    path = daemons.folder / "socket"
    manager = daemons.start("halo_manager", *daemons.paths())
    until(path.exists, "the socket")
    until(lambda: "observing" in daemons.log("halo_manager"), "it serves")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    manager.terminate()
    assert manager.wait(DEADLINE_S) == 0
    assert not path.exists()


def test_a_group_may_use_the_socket_where_one_is_named(daemons: Daemons) -> None:
    path = daemons.folder / "socket"
    daemons.start("halo_manager", *daemons.paths(), "--socket-group", "daemon")
    until(lambda: path.exists() and stat.S_IMODE(path.stat().st_mode) == 0o660, "mode 0660")
    assert path.stat().st_gid == grp.getgrnam("daemon").gr_gid


def test_a_socket_that_a_killed_manager_left_is_replaced(daemons: Daemons) -> None:
    path = daemons.folder / "socket"
    first = daemons.start("halo_manager", *daemons.paths())
    until(path.exists, "the socket")
    first.kill()
    first.wait(DEADLINE_S)
    assert path.is_socket()
    daemons.start("halo_manager", *daemons.paths())
    until(lambda: daemons.run("halo", "--socket", str(path), "status").returncode == 0, "it serves")


# The agent -----------------------------------------------------------------------------------


def test_an_agent_tells_its_pid_before_it_can_be_reached(daemons: Daemons) -> None:
    agent = daemons.start_agent()
    pid_file = daemons.folder / "h1.pid"

    def reached() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", daemons.port)) == 0

    end = time.monotonic() + DEADLINE_S
    while not reached():
        assert time.monotonic() < end
    assert pid_file.read_text() == f"{agent.pid}\n"


@pytest.mark.parametrize("name", ["a..b", ".site"])
def test_a_manager_with_an_impossible_name_for_agents_refuses_to_start(
    daemons: Daemons, name: str
) -> None:
    """It would end at the first handshake, and again after each restart."""
    files = Authority(daemons.folder / "ca").manager("client", "mgmt")
    daemons.environment |= {**of_manager(files), "HALO_SERVER_DOMAIN_NAME": name}
    assert f"HALO_SERVER_DOMAIN_NAME='{name}'" in daemons.refused("--mtls")
    assert not (daemons.folder / "state").exists()


def test_an_agent_without_an_address_in_its_network_refuses_to_start(daemons: Daemons) -> None:
    done = daemons.run("halo_remote", "--network", "203.0.113.0/24")
    assert done.returncode == 64
    assert "203.0.113.0/24" in done.stderr
    assert "Traceback" not in done.stderr


async def test_scripts_see_their_parameters_and_the_rest_of_the_environment(
    cluster: ClusterHarness,
) -> None:
    usual = cluster.environment
    cluster.environment = {**usual, "SITE_SETTING": "kept"}
    cluster.fault("g1_mnt0", "start-slow 1", host="h1")
    await cluster.start(settled=False)
    cluster.environment = usual
    found: dict[str, str] = {}

    def is_seen() -> bool:
        for pid in processes.marked(cluster.folder, "h1"):
            environment = processes.environment_of(pid)
            if "OCF_RESKEY_target" in environment and "start" in processes.command_of(pid):
                found.update(environment)
        return bool(found)

    await cluster.until_true(is_seen, "the start of g1_mnt0 runs")
    assert found["OCF_RESKEY_mountpoint"] == "/mnt/g1_mnt0"
    assert found["OCF_ROOT"] == str(OCF_ROOT)
    assert found["HALO_TEST_ID"] == "h1"
    assert found["SITE_SETTING"] == "kept"
    await cluster.until(g1="Running on h1")


# How often is looked ---------------------------------------------------------------------------

SELDOM = {"monitor_interval": 20, "watch_interval": 60, "survey_interval": 60}
"""Without the flag nothing is looked at within the time of these tests."""


async def gaps_between_monitors(cluster: ClusterHarness, number: int) -> list[float]:
    """Wait for so many periods of g1's monitor on h1 from now on; how long each took, in s."""
    name = cluster.resources["g1"].state_suffix

    def ends() -> list[float]:
        return [
            action.at
            for action in cluster.actions()
            if (action.resource, action.operation, action.phase, action.host)
            == (name, "monitor", "END", "h1")
        ]

    seen = len(ends())
    await cluster.until_true(lambda: len(ends()) > seen + number, f"{number} periods of g1")
    found = ends()[seen : seen + number + 1]
    return [later - earlier for earlier, later in itertools.pairwise(found)]


@pytest.mark.parametrize("watched", [True, False], ids=["a watching agent", "an agent of old"])
@pytest.mark.parametrize(
    ("sleep_time", "periods", "at_least_s", "below_s"),
    [("200", 10, 0.15, 0.6), ("3000", 2, 2.8, 4.5)],
    ids=["200 ms", "3 s"],
)
async def test_sleep_time_is_the_time_between_two_monitors(
    make_cluster: MakeCluster,
    watched: bool,
    sleep_time: str,
    periods: int,
    at_least_s: float,
    below_s: float,
) -> None:
    cluster = make_cluster(
        flags=["--manage-resources", "--sleep-time", sleep_time], settings=SELDOM
    )
    for host in cluster.ports:
        if watched:
            cluster.boot(host)
        else:
            cluster.boot_old(host, greets=True)
    cluster.start_manager()
    await cluster.until(g1="Running on h1", g2="Running on h2")
    if watched:
        log = cluster.folder / "manager_log"
        await cluster.until_true(
            lambda: log.read_text().count("watching host=") >= len(cluster.ports), "agents watch"
        )
    gaps = await gaps_between_monitors(cluster, periods)
    assert at_least_s <= statistics.median(gaps) < below_s, gaps
