"""The program `halo_remote`: its flags, where it listens, and how it refuses to start."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import ifaddr
import pytest

from halo.core.errors import EXIT_ADMINISTRATOR
from halo.remote.listen import ListenError, bind, choose_address, parse_network
from tests.unit.remote_helpers import PATIENCE_S, AgentProcess, agent_process, connected, until


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    with agent_process(tmp_path) as made:
        yield made


def refusal(agent: AgentProcess, *extra: str, **environment: str) -> str:
    done = subprocess.run(
        agent.command(*extra),
        env={**os.environ, "HALO_TEST_DIRECTORY": str(agent.folder), **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == EXIT_ADMINISTRATOR, done
    assert "Traceback" not in done.stderr
    return done.stderr


def test_no_address_in_the_network_is_an_error_that_names_it(agent: AgentProcess) -> None:
    assert "203.0.113.0/24" in refusal(agent, "--network=203.0.113.0/24")
    assert "203.0.113.7/24" in refusal(agent, "--network=203.0.113.7/24")


@pytest.mark.parametrize(
    "text", ["nonsense", "10.0.0.0/33", "300.1.1.0/24", "", "a'b\\c", "127.12.34.0/24"]
)
def test_a_network_that_cannot_be_served_is_refused_by_its_given_text(
    agent: AgentProcess, text: str
) -> None:
    assert text in refusal(agent, f"--network={text}")
    assert not (agent.folder / "agent.pid").exists()


def test_a_wrong_flag_or_variable_is_an_error_of_the_same_kind(agent: AgentProcess) -> None:
    assert "http" in refusal(agent, "--port=http")
    assert "--nonsense" in refusal(agent, "--nonsense")


def test_a_port_in_use_is_an_error_that_names_it(agent: AgentProcess) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        agent.port = other.getsockname()[1]
        text = refusal(agent)
    assert f"port {agent.port}" in text
    assert "another program" in text
    assert not (agent.folder / "agent.pid").exists()


def test_mtls_without_its_files_names_the_file(agent: AgentProcess) -> None:
    text = refusal(agent, "--mtls", HALO_SERVER_CERT=str(agent.folder / "no.crt"))
    assert str(agent.folder / "no.crt") in text


async def test_a_managers_name_without_mtls_is_told_to_have_no_effect(agent: AgentProcess) -> None:
    await agent.start(HALO_MANAGER_NAME="mgmt")
    assert "HALO_MANAGER_NAME has no effect without --mtls" in agent.log.read_text()


@pytest.mark.parametrize("text", [",", ".", " , ", " "])
def test_a_managers_name_that_is_none_is_refused(agent: AgentProcess, text: str) -> None:
    """Roles would not be set then, and whoever set them would not know."""
    assert "HALO_MANAGER_NAME" in refusal(agent, HALO_MANAGER_NAME=text)


def test_a_run_folder_that_cannot_be_made_is_an_error(agent: AgentProcess) -> None:
    (agent.folder / "file").touch()
    assert "HALO_RUN_DIR" in refusal(agent, HALO_RUN_DIR=str(agent.folder / "file"))


async def test_the_network_may_be_any_address_of_the_loopback(agent: AgentProcess) -> None:
    await agent.start("--network=127.0.0.77/32")
    with socket.socket() as probe:
        probe.connect(("127.0.0.77", agent.port))


async def test_logs_are_json_lines_when_asked(agent: AgentProcess) -> None:
    agent.spawn("--log-format=json")
    await until(lambda: b"listening" in agent.log.read_bytes(), "the agent to listen")
    lines = [json.loads(line) for line in agent.log.read_text().splitlines()]
    assert lines[-1]["event"] == "listening"
    assert lines[-1]["level"] == "info"


async def test_a_quiet_level_keeps_quiet(agent: AgentProcess) -> None:
    agent.spawn(HALO_LOG="error")
    await until(lambda: (agent.folder / "agent.run").exists(), "the agent to start")
    agent.signal(signal.SIGTERM)
    assert agent.process is not None
    await asyncio.to_thread(agent.process.wait, PATIENCE_S)
    assert agent.log.read_text() == ""


async def test_systemd_is_told_and_its_watchdog_fed(agent: AgentProcess) -> None:
    path = agent.folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(path))
        systemd.settimeout(PATIENCE_S)
        await agent.start(NOTIFY_SOCKET=str(path), WATCHDOG_USEC="300000")
        assert systemd.recv(1000).startswith(b"READY=1\nSTATUS=listening")
        assert [systemd.recv(1000) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        agent.signal(signal.SIGTERM)
        seen = b""
        while seen != b"STOPPING=1":
            seen = systemd.recv(1000)


async def test_an_agent_without_a_test_id_records_by_its_address(agent: AgentProcess) -> None:
    agent.script("exit 0")
    folder = agent.folder / "run"
    await agent.start(HALO_RUN_DIR=str(folder))
    assert (folder / "agent").is_dir()
    assert (folder / "agent").stat().st_mode & 0o777 == 0o700
    async with connected(agent) as connection:
        await connection.heartbeat()


def test_the_address_is_one_of_this_machine_within_the_network() -> None:
    own = [
        ipaddress.ip_address(entry.ip)
        for adapter in ifaddr.get_adapters()
        for entry in adapter.ips
        if isinstance(entry.ip, str)
    ]
    for address in own:
        exact = parse_network(f"{address}/32")
        assert str(choose_address(exact)) == str(address)
    assert str(choose_address(parse_network("127.0.0.0/24"))) == "127.0.0.1"
    assert str(choose_address(parse_network("127.0.0.0/8"))) == "127.0.0.1"
    assert str(choose_address(parse_network("127.0.0.5"))) == "127.0.0.5"
    assert choose_address(parse_network("0.0.0.0/0")) in own
    with pytest.raises(ListenError, match=r"203\.0\.113\.0/24"):
        choose_address(parse_network("203.0.113.7/24"))


def test_binding_does_not_listen_yet() -> None:
    with bind(parse_network("127.0.0.1"), 0) as sock, socket.socket() as probe:
        assert probe.connect_ex(sock.getsockname()) != 0
