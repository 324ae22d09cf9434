"""`halo start --all`, `halo stop --all` and `halo stop GROUP --with-dependents` keep the order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from halo.cli.errors import EXIT_NOT_REACHED, EXIT_REFUSED
from halo.cli.main import cli
from halo.cli.order import start_steps, with_dependents
from halo.core.errors import CommandRefused
from tests.fakes.http_operations import FakeOperations, Server, serving

USAGE = 2


def status(**after: list[str]) -> dict[str, Any]:
    """Groups that are all stopped, each with those that it is started after."""
    groups = [
        {"id": name, "status": "Stopped", "host": None, "managed": True, "after": names}
        for name, names in after.items()
    ]
    return {"resources": [], "hosts": [], "events": [], "groups": groups}


LUSTRE = status(ost1=["mgs", "mdt"], ost0=["mgs", "mdt"], mdt=["mgs"], mgs=[], other=[])


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(FakeOperations(LUSTRE)) as running:
        yield running


def run(server: Server, *arguments: str) -> Result:
    environment = {"HALO_SOCKET": str(server.path)}
    return CliRunner().invoke(cli, arguments, env=environment, prog_name="halo")


def told(server: Server) -> list[str]:
    return [f"{call[0]} {call[1]}" for call in server.operations.calls]


def test_steps_hold_what_may_be_started_together() -> None:
    assert start_steps(LUSTRE) == [["mgs", "other"], ["mdt"], ["ost1", "ost0"]]
    assert start_steps(LUSTRE, ["ost0", "mgs"]) == [["mgs"], ["ost0"]]
    assert start_steps({"groups": [{"id": "g"}]}) == [["g"]]  # a manager that knows no order


def test_dependents_are_followed_to_the_end() -> None:
    assert sorted(with_dependents(LUSTRE, ["mdt"])) == ["mdt", "ost0", "ost1"]
    assert with_dependents(LUSTRE, ["other"]) == ["other"]


def test_all_are_started_in_order(server: Server) -> None:
    done = run(server, "start", "--all")
    assert done.exit_code == 0, done.output
    assert told(server) == [f"start {name}" for name in ("mgs", "other", "mdt", "ost1", "ost0")]
    assert "Step 3 of 3: start ost1, ost0" in done.output


def test_all_are_stopped_against_their_order(server: Server) -> None:
    done = run(server, "stop", "--all", "--wait", "5", "--reason", "power work")
    assert done.exit_code == 0, done.output
    assert told(server) == [f"stop {name}" for name in ("ost1", "ost0", "mdt", "mgs", "other")]
    assert server.operations.calls[0][-1] == "power work"


def test_dependents_are_stopped_first_and_nothing_else(server: Server) -> None:
    assert run(server, "stop", "mdt", "--with-dependents").exit_code == 0
    assert told(server) == ["stop ost1", "stop ost0", "stop mdt"]


def test_a_step_that_is_not_reached_ends_it(server: Server) -> None:
    server.operations.current["groups"][1]["status"] = "Running"
    done = run(server, "stop", "--all", "--wait", "0.1")
    server.operations.current["groups"][1]["status"] = "Stopped"
    assert done.exit_code == EXIT_NOT_REACHED
    assert told(server) == ["stop ost1", "stop ost0"]
    assert "Ended here. Not tried: mdt, mgs, other" in done.output


def test_a_refusal_ends_it(server: Server) -> None:
    server.operations.errors["stop ost0"] = CommandRefused("ost0 is unmanaged.")
    done = run(server, "stop", "mgs", "--with-dependents")
    assert done.exit_code == EXIT_REFUSED
    assert told(server) == ["stop ost1", "stop ost0"]
    assert "Not tried: mdt, mgs" in done.output


@pytest.mark.parametrize(
    "arguments", [["start"], ["stop"], ["start", "g", "--all"], ["stop", "g", "--all"]]
)
def test_either_groups_or_all(server: Server, arguments: list[str]) -> None:
    assert run(server, *arguments).exit_code == USAGE
    assert told(server) == []
