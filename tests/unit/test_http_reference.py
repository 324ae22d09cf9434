"""docs/http_api.md documents `GET /v1/status` as it is: every key, its kind of value, every state.

The example there is compared with the status of a small cluster, made by the code that answers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from halo.core.cluster.host_state import FencePhase
from halo.core.journal.records import Event
from halo.core.journal.remembered import ErrorKind, Lifecycle
from halo.core.status.ours import snapshot
from halo.manager.api.managers import Managers
from halo.ports import Lead
from tests.core.builders import Step, World, amounts, make_group
from tests.fakes.managers import FakeStanding, manager

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "http_api.md"
PLACES = ("resources", "resources.candidates.*", "groups", "hosts", "hosts.lifecycle", "events")


def the_status() -> str:
    """The chapter on the status."""
    return REFERENCE.read_text().partition("\n## The status\n")[2].partition("\n## ")[0]


def documented() -> dict[str, Any]:
    found = re.search(r"```json\n(.*?)```", the_status(), re.DOTALL)
    assert found is not None, f"{REFERENCE} has no example of a status"
    return dict(json.loads(found[1]))


def a_world() -> World:
    world = World(make_group("pool", ["h1", "h2"], {"pool": ["mount"], "mount": []}))
    world.state.ledger.mint("pool", "desk")
    world.up("h1", running=["pool"])
    world.up("h2")
    return world


def answer(world: World) -> dict[str, Any]:
    """The status, as a client reads it."""
    made = snapshot(world.state, "1", now=world.now, wall_now=1000.0)
    return dict(json.loads(json.dumps(made)))


def answers() -> Iterator[dict[str, Any]]:
    """Status of a cluster to which things happen, so that every key has a value for once."""
    world = a_world()
    yield answer(world)
    world.start_failed("pool", "h2")
    world.error("pool", ErrorKind.STOP_FAILED)
    world.journal(Event.MOVE, "pool", to="h2")
    world.journal(Event.FREEZE, "test", "switch work")
    world.journal(Event.DISTRUST, "h1", "it lies")
    world.state.journal_trouble = "no space left"
    world.lose("h1")
    world.state.hosts["h1"].fence_held = "frozen"
    world.state.groups["pool"].gives_way_to = "pool"
    yield answer(world)


def the_managers() -> dict[str, Any]:
    """The example of `GET /v1/managers`."""
    chapter = REFERENCE.read_text().partition("\n## Several managers\n")[2].partition("\n## ")[0]
    found = re.search(r'^    (\{"journal".*?)\n\n', chapter, re.DOTALL | re.MULTILINE)
    assert found is not None, f"{REFERENCE} has no example of the managers"
    return dict(json.loads(found[1]))


def test_the_documented_managers_are_those_of_the_answer() -> None:
    standing = FakeStanding("2")
    standing.seen, standing.leads = [manager("1"), manager("2")], "1"
    standing.lead = Lead("1", 1000.0)
    given, told = Managers(standing, {"3": "mgmt3"}).table(), the_managers()
    assert not differences(set(told), set(given))
    for place in ("lead", "managers", "missing"):
        for keys in map(set, part(told, place)):
            assert not differences(keys, set(part(given, place)[0])), place


def part(status: Mapping[str, Any], place: str) -> list[Any]:
    """Everything at a place: `hosts`, `hosts.lifecycle`, `resources.candidates.*`."""
    found: list[Any] = [status]
    for key in place.split("."):
        values = [v for item in found for v in ((item.values()) if key == "*" else [item[key]])]
        found = [v for value in values for v in (value if isinstance(value, list) else [value])]
    return found


def kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    names = {str: "text", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return "null" if value is None else names[type(value)]


def kinds(items: list[Any]) -> dict[str, set[str]]:
    """Each key of some objects, with the kinds of value it has, null left out."""
    found: dict[str, set[str]] = {}
    for item in items:
        for key, value in item.items():
            found.setdefault(key, set()).update({kind(value)} - {"null"})
    return found


def differences(told: set[str], given: set[str]) -> dict[str, list[str]]:
    """What the reference lacks, and what it has too much."""
    both = {"not documented": given - told, "documented, and not there": told - given}
    return {words: sorted(names) for words, names in both.items() if names}


@pytest.mark.parametrize("place", [*PLACES, "manager"])
def test_the_documented_keys_of_the_status_are_those_of_the_status(place: str) -> None:
    given = {key for status in answers() for item in part(status, place) for key in item}
    told = [set(item) for item in part(documented(), place)]
    assert told, f"{place}: no example"
    for keys in told:
        assert not differences(keys, given), f"{place}: {differences(keys, given)}"


def test_the_documented_parts_of_the_status_are_those_of_the_status() -> None:
    assert not differences(set(documented()), set(answer(a_world())))


@pytest.mark.parametrize("place", [*PLACES, "manager"])
def test_the_documented_values_are_of_the_kind_that_is_given(place: str) -> None:
    given = kinds([item for status in answers() for item in part(status, place)])
    for key, told in kinds(part(documented(), place)).items():
        if told and given[key]:  # else null alone is known
            assert told <= given[key], f"{place}: {key} is {given[key]}, documented as {told}"


def test_what_is_said_of_the_loss_of_a_host_is_documented_as_it_is() -> None:
    needy = make_group("pool", ["h1", "h2"], needs=amounts({"gb": 9}))
    world = World(needy, capacity={"h2": {"gb": 1}})
    world.state.ledger.mint("pool", "desk")
    world.up("h1", running=["pool"])
    world.up("h2")
    [given], [told] = (part(s, "manager.survival") for s in (answer(world), documented()))
    assert not differences(set(told), set(given))
    assert kinds([told]) == kinds([given])
    assert kinds([told["reasons"]]).keys() == {"mds00e0"}


def test_what_is_known_of_a_groups_candidates_is_documented_as_it_is() -> None:
    told = {kind(known) for known in part(documented(), "groups.candidates.*")}
    assert told == {kind(known) for known in part(answer(a_world()), "groups.candidates.*")}


def in_phase(phase: FencePhase) -> Step:
    return lambda world: setattr(world.state.hosts["h1"], "fence_phase", phase)


TO_H1: list[Step] = [
    lambda world: None,
    lambda world: world.suspect("h1"),
    lambda world: world.disconnect("h1"),
    lambda world: world.lose("h1"),
    lambda world: world.fenced("h1"),
    *map(in_phase, FencePhase),
]
"""What happens to a host, once for every `state` that the status can give it."""


def host_states() -> set[str]:
    found = set()
    for happens in TO_H1:
        world = a_world()
        happens(world)
        found.add(str(part(answer(world), "hosts")[0]["state"]))
    return found


def listed(bullet: str) -> set[str]:
    """The words that a list item gives after its colon; `bullet` is how it begins."""
    found = re.search(
        rf"^- {re.escape(bullet)}.*?(?=^- |\Z)", the_status(), re.DOTALL | re.MULTILINE
    )
    assert found is not None, f"{REFERENCE} says nothing that begins with: {bullet}"
    return set(re.findall(r"`([a-z -]+)`", found[0].partition(":")[2]))


def test_every_state_of_a_host_is_documented() -> None:
    assert not differences(listed("A host's `state`"), host_states())


def test_every_state_of_a_hosts_lifecycle_is_documented() -> None:
    assert not differences(listed("A host's `lifecycle`"), set(Lifecycle))
