"""Our `halo` command before a manager of HALO (Rust): what it shows, and what it can command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from halo.cli.main import cli
from tests.fakes.halo_manager import HaloManager, halo_manager


def resource(name: str, status: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": name,
        "kind": "heartbeat/ZFS",
        "parameters": {"pool": name},
        "status": {
            host: {"status": told, "comment": "gone" if told == "Unknown" else None}
            for host, told in status.items()
        },
        "managed": True,
        "home_host": "mds00",
        "failover_host": "mds01",
        "dependents": [],
        "exclusive": True,
        **more,
    }


HERE = {"mds00": "Running", "mds01": "Stopped"}
AWAY = {"mds00": "Stopped", "mds01": "Running"}
STATUS: dict[str, Any] = {
    "resources": [
        # As its manager lists them: each level of a tree, and what is shared with each group.
        resource("pool", HERE, dependents=["mgt", "net"]),
        resource("mgt", HERE, dependents=["leaf"]),
        resource("net", {"mds00": "Running", "mds01": "Running"}, exclusive=False),
        resource("leaf", {"mds00": "Stopped", "mds01": "Unknown"}),
        resource("away", AWAY, dependents=["net"], managed=False),
        resource("net", {"mds00": "Running", "mds01": "Running"}, exclusive=False),
    ],
    "hosts": [
        {"id": "mds00", "active": True, "connected": True, "fenced": False},
        {"id": "mds01", "active": False, "connected": True, "fenced": False},
        {"id": "mds02", "active": True, "connected": False, "fenced": True},
        {"id": "mds03", "active": True, "connected": False, "fenced": True},
    ],
    "events": [
        {
            "timestamp": "2026-04-28 12:54:34.337109",
            "event": "fence",
            "obj_id": "mds02",
            "comment": None,
        },
    ],
}
SHOWN = """\
pool (heartbeat/ZFS): Running on mds00
  mgt (heartbeat/ZFS): Running on mds00
    leaf (heartbeat/ZFS): Unknown: gone
  net (heartbeat/ZFS): Running on mds[00-01]
away (heartbeat/ZFS): Running (Failed Over) on mds01 (Unmanaged)
Connected hosts: mds00, mds01 (deactivated)
Disconnected hosts: mds[02-03] (fenced)
Events:
2026-04-28 12:54:34.337109 event=fence object=mds02 comment=""
"""


@pytest.fixture
def manager() -> Iterator[HaloManager]:
    with halo_manager(json.loads(json.dumps(STATUS)), {"fence": "Partner is deactivated."}) as made:
        yield made


def run(manager: HaloManager, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["--socket", str(manager.path), *arguments], prog_name="halo")


def test_its_status_is_shown_as_ours(manager: HaloManager) -> None:
    result = run(manager, "status")
    assert (result.exit_code, result.stdout) == (0, SHOWN)
    assert json.loads(run(manager, "status", "--json").stdout) == STATUS


def test_its_events_are_shown(manager: HaloManager) -> None:
    assert run(manager, "events", "show").stdout.splitlines() == SHOWN.splitlines()[-1:]


def test_its_health_is_told(manager: HaloManager) -> None:
    result = run(manager, "check")
    assert result.exit_code == 2
    assert "leaf is Unknown" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "path", "body"),
    [
        (["failback", "--onto", "mds00"], "/hosts/mds00", {"command": "failback"}),
        (
            ["deactivate", "mds00", "--reason", "x"],
            "/hosts/mds00",
            {"command": "deactivate", "comment": "x"},
        ),
        (["activate", "mds01"], "/hosts/mds01", {"command": "activate"}),
        (["reset", "mds02"], "/hosts/mds02", {"command": "reset"}),
        (
            ["manage", "away", "--reason", "x"],
            "/resources/away",
            {"managed": True, "comment": "x"},
        ),
        (["unmanage", "pool"], "/resources/pool", {"managed": False}),
        (["events", "clear"], "/clear_events", {}),
    ],
)
def test_its_commands_are_given(
    manager: HaloManager, arguments: list[str], path: str, body: dict[str, Any]
) -> None:
    result = run(manager, *arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    method = "PATCH" if "resources" in path else "POST"
    assert manager.asked == [(method, f"/v1{path}", body), (method, path, body)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fence", "mds00"], "Could not fence 'mds00': Partner is deactivated."),
        (
            ["reset", "mds09"],
            "Could not reset 'mds09': the manager knows no such host or group.",
        ),
        (["manage", "mgt2"], "Could not manage 'mgt2': Resource group not found."),
    ],
)
def test_its_refusals_are_passed_on(manager: HaloManager, arguments: list[str], said: str) -> None:
    result = run(manager, *arguments)
    assert (result.exit_code, result.stderr.strip()) == (1, said)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["start", "pool"], "start"),
        (["stop", "pool"], "stop"),
        (["move", "pool", "--to", "mds01"], "move"),
        (["cleanup", "pool"], "cleanup"),
        (["freeze"], "freeze"),
        (["thaw"], "thaw"),
        (["fence", "mds00", "--cancel"], "cancel-fence"),
        (["fence", "mds00", "--confirm-off", "--reason", "dark"], "confirm-off"),
    ],
)
def test_what_it_does_not_know_is_not_sent_and_said(
    manager: HaloManager, arguments: list[str], name: str
) -> None:
    result = run(manager, *arguments)
    assert result.exit_code == 1
    assert f'is one of HALO (Rust), which knows no "{name}"' in result.stderr
    assert [path.startswith("/v1/") for _method, path, _body in manager.asked] == [True]


def test_scripts_cannot_be_validated_by_it(manager: HaloManager, tmp_path: Any) -> None:
    config = tmp_path / "halo.conf"
    config.write_text("hosts: [{hostname: mds00}]")
    result = run(manager, "--config", str(config), "validate", "--agents")
    assert result.exit_code == 1
    assert 'knows no "validate"' in result.output


def test_waiting_goes_by_what_it_shows(manager: HaloManager) -> None:
    result = run(manager, "deactivate", "mds00", "--wait", "0.1")
    assert result.exit_code == 75
    assert "mds00 is not deactivated" in result.stderr
    assert "pool is Running on mds00" in result.stderr
    result = run(manager, "activate", "mds00", "--wait", "20")
    assert (result.exit_code, result.stderr) == (0, "")


def test_the_socket_for_all_users_shows_and_commands_nothing(manager: HaloManager) -> None:
    manager.shows_only = True
    assert run(manager, "status").stdout == SHOWN
    result = run(manager, "reset", "mds02")
    assert result.exit_code == 1
    assert "only shows the status; it takes no commands" in result.stderr
