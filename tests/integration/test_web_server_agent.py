"""The bundled OCF agents halo/WebServer and halo/Emulated, run as the cluster's agent runs them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import processes
from tests.integration.site import ROOT

AGENTS = ROOT / "ocf_agents" / "resource.d" / "halo"
IP = "127.0.0.1"


class Web:
    """A web server on one of several hosts, which share an address and a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = processes.free_port()

    def run(self, action: str, host: str = "h1", **more: str) -> tuple[int, str]:
        done = subprocess.run(
            [str(AGENTS / "WebServer"), action],
            env={
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "HALO_TEST_DIRECTORY": str(self.folder),
                "HALO_TEST_ID": host,
                "OCF_RESKEY_ip": IP,
                "OCF_RESKEY_port": str(self.port),
                **more,
            },
            capture_output=True,
            text=True,
            timeout=30,
        )
        return done.returncode, done.stdout + done.stderr

    def pid(self, host: str = "h1") -> int:
        return int((self.folder / f"{host}.webserver.{IP}_{self.port}").read_text().split()[0])

    def page(self) -> str:
        with urllib.request.urlopen(f"http://{IP}:{self.port}/", timeout=10) as answer:
            text: str = answer.read().decode()
        return text


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    server = Web(tmp_path)
    yield server
    for host in ("h1", "h2"):
        server.run("stop", host)


def test_it_serves_a_page_that_names_its_host(web: Web) -> None:
    assert web.run("monitor") == (7, "")
    assert web.run("start") == (0, "")
    assert web.run("start") == (0, "")
    assert web.run("monitor") == (0, "")
    assert web.page() == "served by h1\n"
    pid = web.pid()
    assert web.run("stop") == (0, "")
    assert not processes.is_alive(pid)
    assert web.run("monitor") == (7, "")
    assert web.run("stop") == (0, "")


def test_another_host_does_not_take_it_for_its_own(web: Web) -> None:
    web.run("start", "h1")
    assert web.run("monitor", "h2") == (7, "")
    code, words = web.run("start", "h2")
    assert code == 1
    assert "Address already in use" in words
    assert web.run("stop", "h2") == (0, "")
    assert web.page() == "served by h1\n"


def test_a_server_that_was_killed_does_not_run(web: Web) -> None:
    web.run("start")
    os.kill(web.pid(), signal.SIGKILL)
    assert web.run("monitor") == (7, "")
    assert web.run("start") == (0, "")
    assert web.page() == "served by h1\n"


def test_a_server_that_does_not_answer_is_an_error_and_can_be_stopped(web: Web) -> None:
    web.run("start")
    pid = web.pid()
    os.kill(pid, signal.SIGSTOP)
    code, words = web.run("monitor")
    assert code == 1
    assert "no answer" in words
    assert web.run("stop") == (0, "")
    assert not processes.is_alive(pid)


def test_a_reused_pid_is_not_taken_for_the_server(web: Web) -> None:
    web.run("start")
    path = web.folder / f"h1.webserver.{IP}_{web.port}"
    pid, started = path.read_text().split()
    path.write_text(f"{os.getpid()} {started}\n")
    assert web.run("monitor") == (7, "")
    assert web.run("stop") == (0, "")  # and this test is still alive
    os.kill(int(pid), signal.SIGKILL)


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"OCF_RESKEY_ip": ""}, 6),
        ({"OCF_RESKEY_ip": "example.com"}, 6),
        ({"OCF_RESKEY_port": "0"}, 6),
        ({"OCF_RESKEY_port": "http"}, 6),
        ({"OCF_RESKEY_directory": "/nowhere"}, 5),
    ],
)
def test_wrong_parameters_are_refused(web: Web, parameters: dict[str, str], code: int) -> None:
    for action in ("start", "validate-all", "monitor"):
        assert web.run(action, **parameters)[0] == code


def test_an_unknown_action_is_unimplemented(web: Web) -> None:
    assert web.run("promote")[0] == 3


@pytest.mark.parametrize("name", ["WebServer", "Emulated"])
def test_meta_data_is_xml(name: str) -> None:
    if not shutil.which("xmllint"):
        pytest.skip("xmllint is not installed")
    text = subprocess.run([str(AGENTS / name), "meta-data"], capture_output=True, check=True).stdout
    subprocess.run(["xmllint", "--noout", "-"], input=text, check=True, timeout=20)


def test_an_emulated_resource_runs_where_its_state_file_is(tmp_path: Path) -> None:
    def run(action: str, host: str = "h1", name: str = "files") -> int:
        environment = {
            "PATH": os.environ["PATH"],
            "HALO_TEST_DIRECTORY": str(tmp_path),
            "HALO_TEST_ID": host,
            "OCF_RESKEY_name": name,
        }
        return subprocess.run(
            [str(AGENTS / "Emulated"), action], env=environment, capture_output=True, timeout=20
        ).returncode

    assert [run(a) for a in ("monitor", "start", "start", "monitor")] == [7, 0, 0, 0]
    assert run("monitor", "h2") == 7
    assert (tmp_path / "h1.emulated.files").exists()
    assert [run(a) for a in ("stop", "stop", "monitor")] == [0, 0, 7]
    assert run("start", name="") == 6
    assert run("start", name="a/b") == 6
    assert run("promote") == 3
