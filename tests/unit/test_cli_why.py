"""`halo why`: what it asks, and how it tells the answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from halo.cli.errors import EXIT_REFUSED
from halo.cli.main import cli
from halo.cli.show.why import why_lines
from halo.core.errors import UnknownObject
from tests.fakes.http_operations import FakeOperations, Server, serving


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(FakeOperations()) as running:
        yield running


def run(server: Server, *arguments: str) -> Result:
    environment = {"HALO_SOCKET": str(server.path)}
    return CliRunner().invoke(cli, ["why", *arguments], env=environment, prog_name="halo")


def test_a_name_is_a_group_first_and_then_a_host(server: Server) -> None:
    assert run(server, "pool/a").output.startswith("why_group is done.")
    server.operations.errors["why_group oss00"] = UnknownObject("there is no group oss00")
    assert run(server, "oss00").output.startswith("why_host is done.")
    assert run(server, "--host", "pool").output.startswith("why_host is done.")
    assert [call[:2] for call in server.operations.calls] == [
        ("why_group", "pool/a"),
        ("why_group", "oss00"),
        ("why_host", "oss00"),
        ("why_host", "pool"),
    ]


def test_what_nobody_knows_is_an_error_about_the_group(server: Server) -> None:
    server.operations.errors["why_group"] = UnknownObject("there is no resource group x")
    server.operations.errors["why_host"] = UnknownObject("there is no host x")
    done = run(server, "x")
    assert done.exit_code == EXIT_REFUSED
    assert "Could not tell why: there is no resource group x" in done.output
    assert "there is no host" in run(server, "--host", "x").output


def test_json_is_the_answer_of_the_manager(server: Server) -> None:
    told = json.loads(run(server, "--json", "g").output)
    assert (told["kind"], told["id"], told["you_can"]) == ("group", "g", ["look at g"])


ANSWER: dict[str, Any] = {
    "kind": "group",
    "id": "g",
    "text": "g should run, and waits: h2 is disconnected",
    "waiting": {
        "reason": "Proof",
        "since": 940.0,
        "text": "h2 is disconnected",
        "ends_when": "g is proven stopped on h2",
        "data": {"hosts": {"h2": "h2 is disconnected"}},
    },
    "facts": [
        {"about": "h1", "text": "g is stopped", "how": "monitors", "at": 997.5},
        {"about": "g", "text": "it should run", "how": "the journal", "at": None},
    ],
    "halo_does": ["HALO waits"],
    "you_can": ["bring h2 back"],
}


def test_the_text_has_the_reason_the_facts_and_what_comes_next() -> None:
    assert list(why_lines(ANSWER, 1000.0)) == [
        "g should run, and waits: h2 is disconnected",
        "Reason: Proof (for 1 min)",
        "The wait ends when g is proven stopped on h2.",
        "Facts:",
        "  h1: g is stopped (monitors, 2.5 s ago)",
        "  g: it should run (the journal)",
        "HALO:",
        "  - HALO waits",
        "You can:",
        "  - bring h2 back",
    ]


def test_without_a_wait_or_a_way_out_their_lines_are_left_out() -> None:
    lines = list(why_lines({**ANSWER, "waiting": None, "you_can": []}, 1000.0))
    assert not any(line.startswith(("Reason", "The wait", "You can")) for line in lines)


@pytest.mark.parametrize(
    ("age_s", "told"), [(-1, "0.0 s"), (59.94, "59.9 s"), (3599, "60 min"), (7200, "2 h"),
                        (200_000, "2 days")]
)  # fmt: skip
def test_an_age_is_told_in_a_fitting_unit(age_s: float, told: str) -> None:
    fact = {**ANSWER["facts"][0], "at": 1_000_000.0 - age_s}
    lines = list(why_lines({**ANSWER, "facts": [fact]}, 1_000_000.0))
    assert f"  h1: g is stopped (monitors, {told} ago)" in lines
