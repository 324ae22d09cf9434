"""Both halves of the HTTP API of a real manager.

In every other test, too, the harness holds the answers of our half against the OpenAPI document,
and decodes the status of the root when the test ends.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from halo.manager.api.openapi import document
from tests.halo_decoder import decodes, one_host_status
from tests.integration.cluster import ClusterHarness, GroupSpec, group, service
from tests.integration.conftest import MakeCluster
from tests.integration.telling import QUICK_MONITORS, ask, until_reported


def sharing(name: str, home: str, partner: str) -> GroupSpec:
    """A tree of three, with a leaf that it shares."""
    resources = [
        service(name, [f"{name}-mnt", "net"]),
        service(f"{name}-mnt"),
        service("net", shared=True),
    ]
    return group(name, home, [partner], resources=resources)


@pytest.fixture
async def sharers(make_cluster: MakeCluster) -> ClusterHarness:
    """Group a at home on h1, group b on h2; both need `net`, which runs on both."""
    cluster = make_cluster(
        groups=[sharing("a", "h1", "h2"), sharing("b", "h2", "h1")], flags=QUICK_MONITORS
    )
    await cluster.start()
    return cluster


async def root_status(cluster: ClusterHarness) -> dict[str, Any]:
    code, text = await cluster.root("GET", "/status")
    assert code == 200
    found = json.loads(text)
    assert decodes(found)
    return dict(found)


async def shown_at_the_root(cluster: ClusterHarness) -> dict[str, str]:
    """What HALO's own `halo status` shows of each exclusive resource."""
    rows = (await root_status(cluster))["resources"]
    return {row["id"]: one_host_status(row) for row in rows if row["exclusive"]}


async def test_the_root_shows_what_halos_own_command_decodes(sharers: ClusterHarness) -> None:
    found = await root_status(sharers)
    assert [row["id"] for row in found["resources"]] == ["a", "a-mnt", "net", "b", "b-mnt"]
    net = found["resources"][2]
    assert {host: told["status"] for host, told in net["status"].items()} == {
        "h1": "Running",
        "h2": "Running",
    }
    assert not net["exclusive"]
    assert set((await shown_at_the_root(sharers)).values()) == {"Running"}
    sharers.kill("h1")
    await sharers.until(a="Running (Failed Over) on h2")
    shown = await shown_at_the_root(sharers)
    assert (shown["a"], shown["b"]) == ("Running (Failed Over)", "Running")
    found = await root_status(sharers)
    assert [h["fenced"] for h in found["hosts"]] == [True, False]
    assert "fence" in [event["event"] for event in found["events"]]


async def test_the_root_carries_out_halos_commands(sharers: ClusterHarness) -> None:
    async def commanded(path: str, method: str = "POST", **body: Any) -> None:
        # Every key that it knows, as HALO's own command sends them.
        code, text = await sharers.root(method, path, body or None)
        assert (code, text) == (200, ""), f"{path}: {text}"

    def told(command: str, comment: str | None = None) -> dict[str, Any]:
        return {"command": command, "force": None, "comment": comment}

    await commanded("/resources/a", "PATCH", managed=False, comment="new disks")
    assert not (await sharers.group("a"))["managed"]
    await commanded("/resources/a", "PATCH", managed=True, comment=None)
    await until_reported(sharers, "h1", "h2")  # else h2 cannot take it yet, on a slow machine
    await commanded("/hosts/h1", **told("deactivate", "service"))
    await sharers.until(a="Running (Failed Over) on h2")
    await commanded("/hosts/h1", **told("activate"))
    await commanded("/hosts/h1", **told("failback"))
    await sharers.until(a="Running on h1")
    await commanded("/hosts/h2", **{**told("fence", "smokes"), "force": False})
    await sharers.until(b="Running (Failed Over) on h1")
    await commanded("/hosts/h2", **told("reset"))
    events = [(e["event"], e["comment"]) for e in (await root_status(sharers))["events"]]
    for expected in (("unmanage", "new disks"), ("deactivate", "service"), ("fence", "smokes")):
        assert expected in events
    await commanded("/clear_events")
    assert (await root_status(sharers))["events"][-1]["event"] == "clear"


async def test_the_root_refuses_in_bare_sentences(sharers: ClusterHarness) -> None:
    for path, body, code, words in (
        ("/hosts/h9", {"command": "reset"}, 404, "no host h9"),
        ("/hosts/h1", {"command": "reset"}, 409, "not"),
        ("/hosts/h1", {"command": "start"}, 400, "one of"),
        ("/nowhere", {}, 404, "no route /nowhere"),
    ):
        found, text = await sharers.root("POST", path, body)
        assert (found, words in text) == (code, True), (path, found, text)
        assert not text.startswith("{")


async def test_halo_status_draws_the_tree_and_names_both_hosts(sharers: ClusterHarness) -> None:
    kind = sharers.resources["a"].kind
    assert (await ask(sharers, "status")).splitlines()[:6] == [
        f"a ({kind}): Running on h1",
        f"  a-mnt ({kind}): Running on h1",
        f"  net ({kind}): Running on h[1-2]",
        f"b ({kind}): Running on h2",
        f"  b-mnt ({kind}): Running on h2",
        "Connected hosts: h[1-2]",
    ]
    told = json.loads(await ask(sharers, "status", "--json"))
    [net] = [row for row in told["resources"] if row["id"] == "net"]
    assert (net["hosts"], net["host"], net["groups"]) == (["h1", "h2"], None, ["a", "b"])
    assert await ask(sharers, "status", "-x") == ""


async def test_every_route_of_ours_answers_as_its_document_says(sharers: ClusterHarness) -> None:
    assert await sharers.api("GET", "/v1/openapi.json") == (200, json.loads(json.dumps(document())))
    for method, path, body, code in (
        ("GET", "/v1/version", None, 200),
        ("GET", "/v1/debug", None, 200),
        ("POST", "/v1/validate/h1", {}, 200),
        ("PATCH", "/v1/resources/a", {"managed": False}, 200),
        ("PATCH", "/v1/resources/a", {"managed": True}, 200),
        ("POST", "/v1/groups/a", {"command": "cleanup"}, 200),
        ("POST", "/v1/groups/a", {"command": "move", "to": "h9"}, 404),
        ("POST", "/v1/hosts/h1", {"command": "failback"}, 200),
        ("POST", "/v1/hosts/h1", {"command": "reset"}, 409),
        ("POST", "/v1/cluster", {"command": "freeze", "comment": "work"}, 200),
        ("POST", "/v1/cluster", {"command": "thaw"}, 200),
        ("POST", "/v1/clear_events", None, 200),
        ("POST", "/v1/clear_events", {"comment": 3}, 400),
    ):
        found, answer = await sharers.api(method, path, body)
        assert found == code, (method, path, answer)
