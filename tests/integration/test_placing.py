"""Room on hosts and company of groups, on real processes."""

from __future__ import annotations

from tests.integration.cluster import ClusterHarness
from tests.integration.conftest import MakeCluster
from tests.integration.layout import group
from tests.integration.telling import QUICK_MONITORS, ask, story, story_of, until_says

ROOM = {"h1": {"capacity": {"memory_gb": 100}}, "h2": {"capacity": {"memory_gb": 100}}}


async def test_a_takeover_starts_what_fits_the_most_important_first(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(
        groups=[
            group("small", "h1", ["h2"], needs={"memory_gb": 30}),
            group("low", "h2", ["h1"], needs={"memory_gb": 60}, priority=1),
            group("high", "h2", ["h1"], needs={"memory_gb": 60}, priority=2),
        ],
        host_options={**ROOM, "h2": {"capacity": {"memory_gb": 120}}},
        flags=QUICK_MONITORS,
    )
    await cluster.start()
    h2 = next(host for host in (await cluster.status())["hosts"] if host["id"] == "h2")
    assert h2["capacity"] == {"memory_gb": {"total": 120, "used": 120}}

    cluster.kill("h2")
    await cluster.until(high="Running (Failed Over) on h1", small="Running on h1")
    told = await until_says(cluster, "low", "h1 has 10 of 100 memory_gb free, and low needs 60")
    assert told.startswith("no host has room for low: ")
    waiting = (await cluster.group("low"))["waiting"]
    assert (waiting["reason"], waiting["ends_when"]) == ("HostCapacity", "a host has room for low")
    why = (await cluster.halo("why", "low")).stdout
    assert "move or stop a group that takes room on h1: small, high" in why

    await ask(cluster, "stop", "high")
    await cluster.until(low="Running (Failed Over) on h1", high="Stopped")
    refused = await cluster.halo("start", "high")
    assert "no host has room for high" in (await until_says(cluster, "high", "no host has room"))
    assert refused.code == 0  # it is wanted, and waits


async def test_a_move_to_a_host_without_room_is_refused(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(
        groups=[
            group("a", "h1", ["h2"], needs={"memory_gb": 60}),
            group("b", "h2", ["h1"], needs={"memory_gb": 60}),
        ],
        host_options=ROOM,
        flags=QUICK_MONITORS,
    )
    await cluster.start()
    refused = await cluster.halo("move", "a", "--to", "h2")
    assert refused.code != 0
    assert "h2 has 40 of 100 memory_gb free, and a needs 60" in refused.stderr
    refused = await cluster.halo("deactivate", "h1")
    assert refused.code != 0
    assert "h2 has 40 of 100 memory_gb free" in refused.stderr
    await cluster.until(a="Running on h1", b="Running on h2")


async def test_a_cluster_that_could_not_lose_a_host_warns_before_it_does(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(
        groups=[
            group("a", "h1", ["h2"], needs={"memory_gb": 60}),
            group("b", "h2", ["h1"], needs={"memory_gb": 60}, priority=1),
        ],
        host_options=ROOM,
        flags=QUICK_MONITORS,
    )
    validated = await cluster.halo("validate")
    why = "b (h1 would have 40 of 100 memory_gb free, and b needs 60)"
    loss = f"the loss of h2 would leave 1 group down: {why}"
    assert f"warning: even with all hosts up, {loss}" in validated.stderr
    assert validated.code == 0

    await cluster.start()
    check = await cluster.halo("check")
    assert (check.code, loss in check.stdout) == (1, True), check
    assert f"NOTICE: {loss}" in (await cluster.halo("status")).stdout
    assert (await cluster.status())["manager"]["survival"] == {
        "host": "h2",
        "groups": 1,
        "reasons": {"b": "h1 would have 40 of 100 memory_gb free, and b needs 60"},
        "further_hosts": 1,
    }

    await ask(cluster, "stop", "a")
    await cluster.until_status(
        lambda status: status["manager"]["survival"]["host"] is None, "there is room for b on h1"
    )
    await cluster.until(a="Stopped")
    check = await cluster.halo("check")
    assert (check.code, "the loss of" in check.stdout) == (0, False), check
    cluster.kill("h2")
    await cluster.until(b="Running (Failed Over) on h1")


async def test_replicas_are_never_started_on_one_host(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(
        groups=[
            group("db0", "h1", ["h2"]),
            group("db1", "h2", ["h1"], apart_from=["db0"]),
        ],
        flags=QUICK_MONITORS,
    )
    await cluster.start()
    cluster.kill("h2")
    await until_says(cluster, "db1", "db0 is on h1, and db1 has to be apart from it")
    await cluster.until(db0="Running on h1")
    refused = await cluster.halo("move", "db0", "--to", "h2")
    assert refused.code != 0
    await ask(cluster, "stop", "db0")
    await cluster.until(db0="Stopped", db1="Running (Failed Over) on h1")


async def test_a_group_follows_its_company_and_leaves_a_host_with_it(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(
        groups=[
            group("db", "h1", ["h2"]),
            group("web", "h1", ["h2"], together_with=["db"]),
        ],
        flags=QUICK_MONITORS,
    )
    await cluster.start()
    await _moves_both(cluster, "move", "db", "--to", "h2")
    await cluster.until(db="Running (Failed Over) on h2", web="Running (Failed Over) on h2")
    told = await ask(cluster, "deactivate", "h2")
    assert "staying here: web (it follows db)" in told
    await cluster.until(db="Running on h1", web="Running on h1")


async def _moves_both(cluster: ClusterHarness, *command: str) -> None:
    refused = await cluster.halo("move", "web", "--to", "h2")
    assert refused.code != 0
    assert "db runs on h1, and web has to be together with it" in refused.stderr
    await ask(cluster, *command)


async def test_a_host_that_starts_one_group_at_a_time_takes_them_over_in_turn(
    make_cluster: MakeCluster,
) -> None:
    names = {"low": 0, "middle": 1, "high": 2}
    cluster = make_cluster(
        groups=[group(name, "h1", ["h2"], priority=p) for name, p in names.items()],
        host_options={"h2": {"max_starts": 1}},
        flags=QUICK_MONITORS,
    )
    await cluster.start()
    for name in names:
        cluster.fault(name, "start-slow 1", host="h2")
    cluster.kill("h1")
    await until_says(cluster, "low", "h2 starts one group at a time, and starts ")
    waiting = (await cluster.group("low"))["waiting"]
    assert (waiting["reason"], waiting["ends_when"]) == ("Turn", "it is the turn of low on h2")
    why = (await cluster.halo("why", "low")).stdout
    assert "when it is the turn of low on h2, HALO starts the group there at once" in why
    away = "Running (Failed Over) on h2"
    await cluster.until(low=away, middle=away, high=away)
    started = [line.removeprefix("start ") for line in story_of(cluster, "h2")]
    assert started == ["high", "high_mnt0", "middle", "middle_mnt0", "low", "low_mnt0"]


async def test_moves_to_such_a_host_follow_one_another(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(
        groups=[group("a", "h1", ["h2"]), group("b", "h1", ["h2"])],
        host_options={"h1": {"max_starts": 1}},
        flags=QUICK_MONITORS,
    )
    await cluster.start()
    away = "Running (Failed Over) on h2"
    await ask(cluster, "deactivate", "h1")
    await cluster.until(a=away, b=away)
    for name in "ab":
        cluster.fault(name, "start-slow 1", host="h1")
    await ask(cluster, "activate", "h1")
    await ask(cluster, "failback", "--onto", "h1")
    await cluster.until(a="Running on h1", b="Running on h1")
    moved = [line for line in story(cluster) if "_mnt0" not in line][-4:]
    first = moved[0].split()[1]
    second = "b" if first == "a" else "a"
    assert moved == [
        f"stop {first} on h2",
        f"start {first} on h1",
        f"stop {second} on h2",
        f"start {second} on h1",
    ]


async def test_a_group_gives_way_to_one_of_a_higher_priority(make_cluster: MakeCluster) -> None:
    """h2 is fenced, because small can go to h1. high lacks only room there then."""
    cluster = make_cluster(
        groups=[
            group("low", "h1", needs={"memory_gb": 60}, priority=10),
            group("small", "h2", ["h1"], needs={"memory_gb": 10}),
            group("high", "h2", ["h1"], needs={"memory_gb": 60}, priority=20, preempt=True),
        ],
        host_options=ROOM,
        flags=QUICK_MONITORS,
    )
    await cluster.start()
    await cluster.until(low="Running on h1", small="Running on h2", high="Running on h2")
    cluster.kill("h2")
    await cluster.until(high="Running (Failed Over) on h1", small="Running (Failed Over) on h1")
    told = await until_says(cluster, "low", "it gave way to high, which has priority 20")
    assert "h1 has 30 of 100 memory_gb free, and low needs 60" in told
    waiting = (await cluster.group("low"))["waiting"]
    assert waiting["reason"] == "HostCapacity"
    assert waiting["data"]["groups"] == {"high": "low gave way to it"}
    why = (await cluster.halo("why", "low")).stdout
    assert "it gave way to high, which has priority 20" in why
    why = (await cluster.halo("why", "high")).stdout
    assert "(priority 20); groups of a lower priority give way to it" in why

    await ask(cluster, "stop", "high")
    await cluster.until(low="Running on h1", high="Stopped")
