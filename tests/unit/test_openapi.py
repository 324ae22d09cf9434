"""The OpenAPI document describes the API as it is: its routes, its bodies, and every answer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from halo.cli.client import Answer, request
from halo.core.cluster.group_state import MakingRoom
from halo.core.cluster.host_state import FencePhase
from halo.core.errors import CommandRefused, UnknownObject
from halo.core.groups.placement import decide
from halo.core.journal.records import Event
from halo.core.journal.remembered import ErrorKind
from halo.core.status.ours import snapshot
from halo.core.why.group import why_group
from halo.core.why.host import why_host
from halo.manager.api.app import make_app
from halo.manager.api.openapi import document
from halo.manager.loop_lag import CollectorPauses
from tests.core.builders import (
    ERROR,
    RUNNING,
    STOPPED,
    Step,
    World,
    amounts,
    make_group,
    then,
)
from tests.fakes.http_operations import FakeOperations, Server, serving
from tests.openapi_contract import answer_faults, faults

DEADLINE_S = 20.0


def a_world() -> World:
    world = World(
        make_group("g", ["h1", "h2", "h3"], {"g": ["x", "net"], "x": [], "net": []}, ["net"]),
        make_group("f", ["h2"], {"f": ["net"], "net": []}, ["net"]),
    )
    for group in world.cluster.groups:
        world.state.ledger.mint(group, "desk")
    world.up("h1", "h2", "h3")
    return world


AT_HOME: Step = lambda w: w.see("g", "h1", RUNNING)  # noqa: E731  # read as a line of a table


def in_phase(phase: FencePhase) -> Step:
    return lambda world: setattr(world.state.hosts["h1"], "fence_phase", phase)


def waits(world: World, group: str) -> None:
    """The placer decides on the group, and keeps the reason."""
    found = world.group(group)
    decision = decide(world.state, found, world.state.candidates_of(found), world.now, world.now)
    assert decision.waits is not None
    at = world.state.groups[group]
    at.decided(decision.text, decision.waits, world.now, failed=decision.failed)


def half_runs(world: World) -> None:
    """h1 manages the group, and a part of it is not running."""
    world.state.groups["g"].managed_on = "h1"
    world.see("g", "h1", STOPPED, only=["x"], at=world.now + 1)


STORIES: list[Step] = [
    lambda world: None,
    AT_HOME,
    lambda world: world.see("g", "h3", RUNNING),
    lambda world: world.see("g", "h1", ERROR, reason="exit 5"),
    then(AT_HOME, lambda world: world.see("g", "h2", RUNNING)),
    lambda world: world.suspect("h1"),
    lambda world: world.disconnect("h1"),
    lambda world: world.lose("h1"),
    lambda world: world.fenced("h1"),
    *map(in_phase, FencePhase),
    *(lambda world, kind=kind: world.error("g", kind) for kind in ErrorKind),
    lambda world: world.start_failed("g", "h2"),
    lambda world: world.journal(Event.MOVE, "g", to="h2"),
    lambda world: world.journal(Event.STOP, "g", "disks"),
    lambda world: world.journal(Event.FREEZE, "test", "switch work"),
    lambda world: world.journal(Event.DISTRUST, "h1", "it lies"),
    lambda world: world.journal(Event.CONNECT, "h1"),
    lambda world: setattr(world.state, "journal_trouble", "no space left"),
    lambda world: world.unmanage("g"),
    then(lambda world: world.unmanage("g"), lambda world: waits(world, "g")),
    then(lambda world: world.lose("h1"), lambda world: waits(world, "g")),
    then(AT_HOME, lambda world: world.unmanage("g"), lambda world: half_runs(world)),
    lambda world: world.state.make_room("f", MakingRoom("h2", ("g",), world.now)),
]


@pytest.mark.parametrize("arrange", STORIES, ids=range(len(STORIES)))
def test_every_status_is_as_documented(arrange: Step) -> None:
    world = a_world()
    arrange(world)
    told = json.loads(json.dumps(snapshot(world.state, "1", now=world.now, wall_now=1000.0)))
    assert faults("Status", told) == []


@pytest.mark.parametrize("arrange", STORIES, ids=range(len(STORIES)))
def test_every_answer_to_why_is_as_documented(arrange: Step) -> None:
    world = a_world()
    arrange(world)
    answers = [
        *(why_group(world.state, g, world.now, 1000.0) for g in world.cluster.groups.values()),
        *(why_host(world.state, h, world.now, 1000.0) for h in world.cluster.hosts),
    ]
    for told in json.loads(json.dumps(answers)):
        assert faults("Why", told) == [], told


def test_what_is_said_of_the_loss_of_a_host_is_as_documented() -> None:
    needy = make_group("g", ["h1", "h2"], needs=amounts({"gb": 9}))
    world = World(needy, capacity={"h2": {"gb": 1}})
    world.state.ledger.mint("g", "desk")
    world.up("h1", running=["g"])
    world.up("h2")
    told = json.loads(json.dumps(snapshot(world.state, "1", now=world.now, wall_now=1000.0)))
    assert told["manager"]["survival"]["host"] == "h1"
    assert faults("Status", told) == []


def test_a_key_that_is_not_documented_is_found() -> None:
    told = json.loads(json.dumps(snapshot(a_world().state, "1", now=100.0, wall_now=1000.0)))
    told["hosts"][0]["colour"] = "red"
    del told["manager"]["mode"]
    assert len(faults("Status", told)) == 2


# --- the routes and their answers ---------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(FakeOperations(), debug=figures) as running:
        yield running


def figures() -> dict[str, Any]:
    """As the manager's own program puts them together."""
    none = {"p50_ms": 0.0, "p99_ms": 0.25, "max_ms": 1.0, "samples": 7}
    return {
        "loop_lag": none,
        "loop_lag_5s": none,
        "collector": CollectorPauses().figures(),
        "tasks": 12,
    }


def ask(server: Server, method: str, path: str, body: Any = None) -> Answer:
    return request(str(server.path), method, path, body, deadline_s=DEADLINE_S)


def test_every_route_is_documented_and_every_documented_one_is_there() -> None:
    app = make_app(FakeOperations(), debug=dict)
    there = {
        (route.method, re.sub(r"\{(\w+):[^}]*\}", r"{\1}", route.resource.canonical))
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    told = {
        (method.upper(), path)
        for path, operations in document()["paths"].items()
        for method in operations
    }
    assert {entry for entry in there if entry[1].startswith("/v1/")} == told


ANSWERS: list[tuple[str, str, Any, int]] = [
    ("GET", "/v1/version", None, 200),
    ("GET", "/v1/debug", None, 200),
    ("GET", "/v1/openapi.json", None, 200),
    ("GET", "/v1/managers", None, 200),
    ("POST", "/v1/managers", {"command": "step-down"}, 409),
    ("POST", "/v1/managers", {"command": "dance"}, 400),
    ("PATCH", "/v1/resources/g", {"managed": True}, 200),
    ("PATCH", "/v1/resources/g", {"managed": 3}, 400),
    ("POST", "/v1/hosts/h", {"command": "reset", "force": None}, 200),
    ("POST", "/v1/hosts/h", {"command": "fence"}, 409),
    ("POST", "/v1/hosts/h", {"command": "dance"}, 400),
    ("POST", "/v1/groups/a/b", {"command": "move", "to": "h"}, 200),
    ("POST", "/v1/groups/g", {"command": "move"}, 400),
    ("POST", "/v1/groups/g", {"command": "start"}, 404),
    ("GET", "/v1/groups/g/why", None, 200),
    ("GET", "/v1/groups/a/b/why", None, 200),
    ("GET", "/v1/hosts/h/why", None, 200),
    ("GET", "/v1/hosts/nobody/why", None, 404),
    ("POST", "/v1/cluster", {"command": "freeze"}, 200),
    ("POST", "/v1/validate/h", {}, 200),
    ("POST", "/v1/clear_events", None, 200),
    ("POST", "/v1/clear_events", {"comment": "x" * 70_000}, 413),
    ("GET", "/v1/nowhere", None, 404),
    ("GET", "/v1/cluster", None, 405),
]


@pytest.mark.parametrize(("method", "path", "body", "status"), ANSWERS)
def test_every_answer_is_as_documented(
    server: Server, method: str, path: str, body: Any, status: int
) -> None:
    server.operations.errors["fence"] = CommandRefused("It has been fenced already.")
    server.operations.errors["start"] = UnknownObject('There is no group "g".')
    server.operations.errors["why_host nobody"] = UnknownObject("There is no host nobody.")
    answer = ask(server, method, path, body)
    assert answer.status == status, answer
    assert answer_faults(method, path, status, answer.content) == []


def test_the_document_is_valid_and_complete() -> None:
    told = document()
    assert told["openapi"].startswith("3.")
    for schema in told["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    names = {name.rpartition("/")[2] for name in re.findall(r'"#/([^"]*)"', json.dumps(told))}
    assert names == set(told["components"]["schemas"]), "a schema is missing, or used nowhere"


BODIES: list[tuple[str, str, Any]] = [
    ("PATCH", "/v1/resources/g", {"managed": True, "comment": None}),
    ("PATCH", "/v1/resources/g", {}),
    ("PATCH", "/v1/resources/g", {"managed": None}),
    ("POST", "/v1/hosts/h", {"command": "fence", "force": True, "comment": "x"}),
    ("POST", "/v1/hosts/h", {"command": "fence", "force": "yes"}),
    ("POST", "/v1/hosts/h", {"command": "fence", "comment": "x" * 4096}),
    ("POST", "/v1/hosts/h", {"command": "fence", "comment": "x" * 4097}),
    ("POST", "/v1/hosts/h", {"command": "start"}),
    ("POST", "/v1/hosts/h", {"command": "fence", "colour": "red"}),
    ("POST", "/v1/groups/g", {"command": "move", "to": "h"}),
    ("POST", "/v1/groups/g", {"command": "move", "to": None}),
    ("POST", "/v1/groups/g", {"command": "stop", "to": "h"}),
    ("POST", "/v1/groups/g", {"command": "stop", "to": None}),
    ("POST", "/v1/groups/g", {"to": "h"}),
    ("POST", "/v1/cluster", {"command": "thaw"}),
    ("POST", "/v1/cluster", []),
    ("POST", "/v1/managers", {}),
    ("POST", "/v1/managers", {"command": "step-down", "force": True}),
    ("POST", "/v1/validate/h", {}),
    ("POST", "/v1/validate/h", {"deep": True}),
    ("POST", "/v1/clear_events", {"comment": "old"}),
    ("POST", "/v1/clear_events", {"comment": 3}),
]


@pytest.mark.parametrize(("method", "path", "body"), BODIES)
def test_a_body_is_taken_when_the_document_says_so_and_only_then(
    server: Server, method: str, path: str, body: Any
) -> None:
    template = path if path in document()["paths"] else path.rpartition("/")[0] + "/{id}"
    operation = document()["paths"][template][method.lower()]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    is_valid = Draft202012Validator(schema).is_valid(body)
    assert ask(server, method, path, body).status == (200 if is_valid else 400)
