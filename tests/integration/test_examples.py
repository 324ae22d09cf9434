"""Each example config, twice: as it stands, and come up whole.

As it stands a real manager meets hosts that this machine does not know: it serves its status, waits
with a reason for every group, and fences nobody. Come up whole, its groups run on the harness:
addresses, fence agents and settings are the harness's, a kind that is not emulated is a
`test/Service`, and all else is as the example says."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from halo.config import load
from halo.core.model import Cluster, Resource, ResourceGroup
from tests.integration.cluster import ClusterHarness, GroupSpec, ResourceSpec, service
from tests.integration.conftest import MakeCluster
from tests.integration.telling import QUICK_MONITORS, story_of

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
EMULATED = ROOT / "tests" / "ocf_resources" / "resource.d"
DURATIONS = ("monitor_interval", "monitor_timeout", "start_timeout", "stop_timeout")
PROGRAMS = Path(sys.executable).parent
DEADLINE_S = 30.0


def status_of(socket: Path) -> dict[str, list[dict[str, object]]]:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        done = subprocess.run(
            [PROGRAMS / "halo", "--socket", socket, "status", "--json"],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        if done.returncode == 0 or time.monotonic() > deadline:
            assert done.returncode == 0, done.stderr
            found: dict[str, list[dict[str, object]]] = json.loads(done.stdout)
            return found


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_can_be_started_as_it_stands(example: Path, tmp_path: Path) -> None:
    valid = subprocess.run(
        [PROGRAMS / "halo", "--config", example, "validate"],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert valid.returncode == 0, valid.stdout + valid.stderr
    socket = tmp_path / "s"
    with (tmp_path / "log").open("wb") as log:
        flags = ["--config", str(example), "--socket", str(socket)]
        flags += ["--statefile", str(tmp_path / "state"), "--manage-resources"]
        manager = subprocess.Popen([str(PROGRAMS / "halo_manager"), *flags], stdout=log, stderr=log)
    try:
        status = status_of(socket)
        assert status["groups"]
        assert all(group["status"] == "Unknown" for group in status["groups"])
        assert all(group["comment"] for group in status["groups"])
        assert all(not host["fenced"] for host in status["hosts"])
    finally:
        manager.terminate()
        assert manager.wait(DEADLINE_S) == 0, (tmp_path / "log").read_text()


def emulated(resource: Resource) -> ResourceSpec:
    """A resource of an example: of its own kind where that is emulated, else a `test/Service`."""
    options = {
        key: value for key in DURATIONS if (value := getattr(resource, f"{key}_s")) is not None
    }
    if (EMULATED / resource.kind).exists():
        return ResourceSpec(
            *(resource.id, resource.kind, resource.parameters, resource.dependents),
            shared=resource.shared,
            options=options,
        )
    return service(resource.id, resource.dependents, shared=resource.shared, **options)


def emulated_group(group: ResourceGroup) -> GroupSpec:
    """A group of an example, its root first."""
    return GroupSpec(
        [emulated(resource) for resource in group.resources],
        group.home_host,
        group.failover_hosts,
        {
            "on_start_failure": group.on_start_failure.value,
            "second_copy": group.second_copy.value,
            "after": list(group.after),
        },
    )


def shape(config: Cluster) -> dict[str, object]:
    """What a config says but for addresses, fence devices, kinds and settings of the whole."""
    return {
        "hosts": list(config.hosts),
        "groups": {
            group.id: (
                *(group.candidates, group.on_start_failure, group.second_copy, group.after),
                [
                    (r.id, r.dependents, r.shared, *(getattr(r, f"{key}_s") for key in DURATIONS))
                    for r in group.resources
                ],
            )
            for group in config.groups.values()
        },
    }


def only_start(cluster: ClusterHarness, resource: str, host: str) -> dict[str, float]:
    """When the one start of a resource on a host began (BEGIN) and ended (END)."""
    name = cluster.resources[resource].state_suffix
    lines = [
        (action.phase, action.at)
        for action in cluster.actions()
        if (action.operation, action.resource, action.host) == ("start", name, host)
    ]
    assert [phase for phase, _ in lines] == ["BEGIN", "END"], f"{resource} on {host}: {lines}"
    return dict(lines)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
async def test_an_example_comes_up_at_home_and_parents_first(
    example: Path, make_cluster: MakeCluster
) -> None:
    config = load(example)
    cluster = make_cluster(
        hosts=list(config.hosts),
        groups=[emulated_group(group) for group in config.groups.values()],
        flags=QUICK_MONITORS,
    )
    assert shape(load(cluster.config)) == shape(config)
    for name, spec in cluster.resources.items():
        if spec.dependents:
            cluster.fault(name, "start-slow 0.3")  # a dependent that does not wait begins meanwhile
    await cluster.start()

    for group in config.groups.values():
        assert (await cluster.group(group.id))["host"] == group.home_host
        for parent in group.resources:
            ended = only_start(cluster, parent.id, group.home_host)["END"]
            for dependent in parent.dependents:
                begun = only_start(cluster, dependent, group.home_host)["BEGIN"]
                assert ended < begun, f"{dependent} did not wait for {parent.id}"

    # Each runs where it is needed, the shared one on several hosts; nothing else was ever begun.
    needed = {host: set[str]() for host in config.hosts}
    for group in config.groups.values():
        needed[group.home_host] |= set(group.by_id)
    for host, names in needed.items():
        assert {name for name in cluster.resources if host in cluster.running_on(name)} == names
        assert sorted(story_of(cluster, host)) == sorted(f"start {name}" for name in names)
