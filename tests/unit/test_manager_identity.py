"""The id of a manager: where it comes from, and that it stays the same."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from halo.core.errors import AdministratorError
from halo.core.model import ConfiguredManager
from halo.manager import main
from halo.manager.answering import PeerPort
from halo.manager.leadership.identity import node_id, remember_id

PAIR = (ConfiguredManager("a", "mgmt-a"), ConfiguredManager("2", "mgmt-b.example.com"))


@pytest.mark.parametrize(
    ("given", "configured", "hostname", "expected"),
    [
        ("x.Y_z-9", PAIR, "mgmt-a", "x.Y_z-9"),
        (None, PAIR, "mgmt-a", "a"),
        (None, PAIR, "MGMT-A.example.com", "a"),
        (None, PAIR, "mgmt-b", "2"),
        (None, PAIR, "mgmt-b.example.com", "2"),
        (None, (), "mgmt7", "7"),
        (None, (), "mgmt07.rack3.example.com", "07"),
        (None, PAIR, "mgmt7", "7"),
    ],
)
def test_where_an_id_comes_from(
    given: str | None, configured: tuple[ConfiguredManager, ...], hostname: str, expected: str
) -> None:
    assert node_id(given, configured, hostname) == expected


@pytest.mark.parametrize(
    ("given", "configured", "hostname", "words"),
    [
        (None, (), "mgmt", "give one with --node-id"),
        (None, (), "mgmt.rack3", "ends in no number"),
        (None, PAIR, "mgmt-b.example.org", "ends in no number"),
        (None, PAIR, "mgmt2", "gives the id 2 to the manager on mgmt-b.example.com"),
        (None, (*PAIR, ConfiguredManager("c", "mgmt-a")), "mgmt-a", "several managers"),
        ("", (), "mgmt1", "is no id"),
        ("..", (), "mgmt1", "is no id"),
        ("a b", (), "mgmt1", "is no id"),
        ("1\n", (), "mgmt1", "is no id"),
        ("x" * 64, (), "mgmt1", "at most 63"),
    ],
)
def test_what_gives_no_id_is_told(
    given: str | None, configured: tuple[ConfiguredManager, ...], hostname: str, words: str
) -> None:
    with pytest.raises(AdministratorError, match=words):
        node_id(given, configured, hostname)


def test_an_id_is_kept_beside_the_state_file(tmp_path: Path) -> None:
    state = tmp_path / "halo.state"
    remember_id(state, "1")
    remember_id(state, "1")
    assert (tmp_path / "halo.state.node").read_text() == "1\n"
    with pytest.raises(AdministratorError, match=r"has the id 2 now.*'1' before.*remove that file"):
        remember_id(state, "2")
    (tmp_path / "halo.state.node").unlink()
    remember_id(state, "2")
    assert [path.name for path in tmp_path.iterdir()] == ["halo.state.node"]


def test_a_place_where_it_cannot_be_kept_is_named(tmp_path: Path) -> None:
    with pytest.raises(AdministratorError, match="cannot be kept there: No such file"):
        remember_id(tmp_path / "none" / "halo.state", "1")
    (tmp_path / "halo.state.node").write_bytes(b"\xff\xfe")
    with pytest.raises(AdministratorError, match="cannot be kept there"):
        remember_id(tmp_path / "halo.state", "1")


@pytest.mark.parametrize(("own", "is_told"), [("a", False), ("7", True)])
def test_a_manager_that_the_config_does_not_name_says_so(
    own: str, is_told: bool, tmp_path: Path
) -> None:
    given = {"node_id": own, "statefile": tmp_path / "state", "lease_s": 10}
    options: Any = SimpleNamespace(**given, manage_resources=False)
    cluster, port = cast("Any", SimpleNamespace(managers=PAIR)), PeerPort(None, None, None, "")
    with capture_logs() as logs:
        node = main._node(options, cluster, port)
    assert (node.id, node.observes) == (own, True)
    told = [(line["log_level"], line["id"], line["named"]) for line in logs]
    assert told == ([("warning", own, ["a", "2"])] if is_told else [])
