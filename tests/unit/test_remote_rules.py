"""The agent's plain rules: names, timeouts, whom it serves, queues."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from halo.core.model import Operation
from halo.core.peers.bounds import TERM_LIMIT
from halo.core.peers.calls import BadTerm, Busy, OtherTerm, Request, SameTerm, StaleTerm
from halo.remote.arbiter import SILENCE_S, Arbiter
from halo.remote.scripts.ocf import ScriptError, locate, parse_timeouts
from halo.remote.scripts.queues import QUEUE_LIMIT, QueueFull, ResourceQueues
from halo.remote.terms import CLUSTERS, Seen

ROOT = Path("/usr/lib/ocf")


def request(kind: str = "heartbeat/Dummy", **parameters: str) -> Request:
    return Request(kind, Operation.MONITOR, parameters)


class TestNames:
    @pytest.mark.parametrize("kind", ["heartbeat/ZFS", "lustre/Lustre", "a.b-c_d/1", "..a/b.."])
    def test_two_plain_names_are_a_script(self, kind: str) -> None:
        assert locate(ROOT, request(kind)).path == ROOT / "resource.d" / kind

    @pytest.mark.parametrize("kind", ["..", "../..", "a/../b", "a/b\0", "ä/b", "a//b", "/a/b"])
    def test_anything_else_is_refused(self, kind: str) -> None:
        with pytest.raises(ScriptError, match="PROVIDER/TYPE"):
            locate(ROOT, request(kind))

    def test_a_value_with_a_zero_byte_is_refused_without_showing_it(self) -> None:
        with pytest.raises(ScriptError, match="password") as caught:
            locate(ROOT, request(password="hunter2\0"))
        assert "hunter2" not in str(caught.value)

    def test_a_request_shows_no_parameters(self) -> None:
        assert "hunter2" not in repr(request(password="hunter2"))

    def test_the_key_is_of_kind_and_parameters_alone(self) -> None:
        key = request(a="1", b="2").resource_key
        assert request(b="2", a="1", CRM_meta_timeout="9").resource_key == key
        assert request(a="1", b="3").resource_key != key
        assert request("heartbeat/Other", a="1", b="2").resource_key != key
        assert request(a="1b", c="2").resource_key != request(a="1", bc="2").resource_key


class TestMetadata:
    def test_timeouts_are_read_with_their_units(self) -> None:
        text = b"""<?xml version="1.0"?>
        <!DOCTYPE resource-agent SYSTEM "ra-api-1.dtd">
        <resource-agent name="x"><actions>
        <action name="start" timeout="2m"/><action name="stop" timeout="1500 ms"/>
        <action name="monitor" depth="0" timeout="20"/><action name="monitor" timeout="30s"/>
        <action name="validate-all" timeout="5s"/>
        </actions></resource-agent>"""
        assert parse_timeouts(text) == {
            Operation.START: 120.0,
            Operation.STOP: 1.5,
            Operation.MONITOR: 30.0,
            Operation.VALIDATE: 5.0,
        }

    @pytest.mark.parametrize(
        "text",
        [
            b"",
            b"not xml",
            b"<resource-agent/>",
            b"<a><actions><action name='start' timeout='soon'/></actions></a>",
            b"<a><actions><action name='start' timeout='0'/></actions></a>",
            b"<!DOCTYPE a [<!ENTITY x 'y'>]><a><actions>"
            b"<action name='start' timeout='5'/></actions></a>",
            b"\xff\xfe\x00",
            b"<?xml version='1.0' encoding='nonsense'?><a/>",
            "<!DOCTYPE a [<!ENTITY x 'y'>]><a><actions><action name='start' timeout='5'/>"
            "</actions></a>".encode("utf-16"),
            b"<a><actions><action name='start' timeout='" + b"9" * 400 + b"'/></actions></a>",
            "<a><actions><action name='start' timeout='\u0665'/></actions></a>".encode(),
        ],
    )
    def test_malformed_meta_data_advertises_nothing(self, text: bytes) -> None:
        assert parse_timeouts(text) == {}

    def test_no_timeout_is_longer_than_a_day(self) -> None:
        text = b"<a><actions><action name='start' timeout='999999999h'/></actions></a>"
        assert parse_timeouts(text) == {Operation.START: 86400.0}


class TestArbiter:
    def test_one_manager_at_a_time(self) -> None:
        arbiter: Arbiter[str] = Arbiter()
        assert arbiter.claim("s1", "one", "c", 0, 0.0) is None
        assert arbiter.claim("s2", "two", "c", 0, SILENCE_S - 0.1) == Busy("one")
        assert arbiter.is_served("s1")
        assert not arbiter.is_served("s2")

    def test_a_newer_connection_of_the_same_manager_replaces_the_older(self) -> None:
        arbiter: Arbiter[str] = Arbiter()
        arbiter.claim("s1", "one", "c", 0, 0.0)
        assert arbiter.claim("s2", "one", "c", 0, 0.1) == "s1"
        assert arbiter.is_served("s2")
        assert not arbiter.call("s1", 0.2)
        arbiter.forget("s1")
        assert arbiter.is_served("s2")

    def test_a_repeated_greeting_replaces_nothing(self) -> None:
        arbiter: Arbiter[str] = Arbiter()
        arbiter.claim("s1", "one", "c", 0, 0.0)
        assert arbiter.claim("s1", "one", "c", 0, 0.1) is None

    def test_a_manager_silent_for_ten_seconds_gives_way(self) -> None:
        arbiter: Arbiter[str] = Arbiter()
        arbiter.claim("s1", "one", "c", 0, 0.0)
        arbiter.call("s1", 5.0)
        assert arbiter.claim("s2", "two", "c", 0, 14.9) == Busy("one")
        assert arbiter.claim("s2", "two", "c", 0, 15.0) == "s1"
        assert arbiter.manager == "two"

    def test_a_manager_that_waits_for_an_answer_and_sends_no_heartbeats_is_not_silent(self) -> None:
        arbiter: Arbiter[str] = Arbiter()
        arbiter.claim("s1", "old", "c", 0, 0.0)
        arbiter.hold("s1", 1, 0.0)
        assert arbiter.claim("s2", "two", "c", 0, 60.0) == Busy("old")
        arbiter.hold("s1", -1, 61.0)
        assert arbiter.claim("s2", "two", "c", 0, 70.0) == Busy("old")
        assert arbiter.claim("s2", "two", "c", 0, 71.0) == "s1"

    def test_an_ended_connection_frees_the_agent(self) -> None:
        arbiter: Arbiter[str] = Arbiter()
        arbiter.claim("s1", "one", "c", 0, 0.0)
        arbiter.forget("s1")
        assert arbiter.claim("s2", "two", "c", 0, 0.1) is None

    def test_two_managers_with_one_term_are_never_both_obeyed(self) -> None:
        """A store that was restored gives a term twice. One of the two does not lead."""
        arbiter: Arbiter[str] = Arbiter({"c": Seen(7, "one")})
        assert arbiter.claim("s2", "two", "c", 7, 0.0) == SameTerm(7, "one")
        assert arbiter.claim("s1", "one", "c", 7, 0.1) is None
        arbiter.forget("s1")
        assert arbiter.claim("s2", "two", "c", 7, 0.2) == SameTerm(7, "one")
        assert arbiter.claim("s2", "two", "c", 8, 0.3) is None
        assert arbiter.claim("s3", "three", "other", 0, 60.0) == "s2"

    def test_a_term_below_the_highest_seen_is_refused(self) -> None:
        arbiter: Arbiter[str] = Arbiter()
        assert arbiter.claim("s1", "one", "c", 4, 0.0) is None
        assert arbiter.check_term("s1", 4) is None
        assert arbiter.check_term("s1", 3) == StaleTerm(4, "one")
        arbiter.forget("s1")
        assert arbiter.claim("s2", "two", "c", 3, 1.0) == StaleTerm(4, "one")
        assert arbiter.claim("s2", "one", "c", 4, 1.0) is None

    def test_a_term_counts_within_its_cluster(self) -> None:
        arbiter: Arbiter[str] = Arbiter()
        arbiter.claim("s1", "rogue", "theirs", TERM_LIMIT, 0.0)
        arbiter.forget("s1")
        assert arbiter.claim("s2", "one", "ours", 3, 1.0) is None
        assert arbiter.check_term("s2", 2) == StaleTerm(3, "one")

    def test_a_term_that_no_leader_has_is_refused_and_not_remembered(self) -> None:
        arbiter: Arbiter[str] = Arbiter()
        assert arbiter.claim("s1", "one", "c", TERM_LIMIT + 1, 0.0) == BadTerm(TERM_LIMIT + 1)
        assert arbiter.claim("s1", "one", "c", 1, 0.0) is None
        assert arbiter.check_term("s1", 2**64 - 1) == BadTerm(2**64 - 1)
        assert arbiter.check_term("s1", 1) is None

    def test_the_terms_of_the_clusters_served_last_are_remembered(self) -> None:
        arbiter: Arbiter[str] = Arbiter()
        for number in range(CLUSTERS + 1):
            arbiter.claim("s", "one", f"c{number}", 5, 0.0)
        assert arbiter.claim("s", "one", "c1", 4, 0.0) == StaleTerm(5, "one")
        assert arbiter.claim("s", "one", "c0", 4, 0.0) is None

    def test_a_call_has_the_term_of_its_greeting(self) -> None:
        """Only a greeting waits until its term is on record."""
        arbiter: Arbiter[str] = Arbiter()
        arbiter.claim("s", "one", "c", 3, 0.0)
        assert arbiter.check_term("s", 4) == OtherTerm(4)
        assert arbiter.check_term("s", 3) is None

    def test_a_term_that_is_noted_refuses_lower_ones_before_it_is_served(self) -> None:
        arbiter: Arbiter[str] = Arbiter()
        arbiter.claim("s1", "one", "c", 3, 0.0)
        assert arbiter.note("two", "c", 4, 0.1) is None
        assert arbiter.check_term("s1", 3) == StaleTerm(4, "two")
        assert arbiter.is_served("s1")

    def test_a_leader_with_a_higher_term_succeeds_at_once(self) -> None:
        """The one before it may stand still, with a connection that is not silent yet."""
        arbiter: Arbiter[str] = Arbiter()
        arbiter.claim("s1", "one", "c", 3, 0.0)
        assert arbiter.claim("s2", "two", "c", 3, 0.1) == Busy("one")
        assert arbiter.claim("s2", "two", "other", 9, 0.1) == Busy("one")
        assert arbiter.claim("s2", "two", "c", 4, 0.1) == "s1"
        assert arbiter.manager == "two"

    def test_a_single_manager_is_not_pushed_out_by_a_term(self) -> None:
        arbiter: Arbiter[str] = Arbiter()
        arbiter.claim("s1", "one", "c", 0, 0.0)
        assert arbiter.claim("s2", "two", "c", 4, 0.1) == Busy("one")
        assert arbiter.note("two", "c", 4, 0.1) == Busy("one")
        assert arbiter.claim("s1", "one", "c", 0, 0.2) is None, "a refused term is not noted"

    def test_a_single_manager_is_refused_where_a_leader_was_served(self) -> None:
        arbiter: Arbiter[str] = Arbiter({"c": Seen(7, "one")})
        assert arbiter.claim("s1", "file", "c", 0, 0.0) == StaleTerm(7, "one")
        assert arbiter.claim("s1", "file", "other", 0, 0.0) is None


class TestResourceQueues:
    async def test_turns_come_in_order_and_the_cancelled_are_passed_over(self) -> None:
        queues = ResourceQueues()
        order: list[str] = []

        async def use(name: str) -> None:
            await queues.enter("k")
            order.append(name)
            await asyncio.sleep(0)
            queues.leave("k")

        await queues.enter("k")
        tasks = {name: asyncio.create_task(use(name)) for name in "abc"}
        await asyncio.sleep(0)
        tasks["a"].cancel()
        await asyncio.sleep(0)
        queues.leave("k")
        await asyncio.wait(tasks.values())
        assert order == ["b", "c"]
        assert queues.busy == 0

    async def test_a_turn_that_comes_as_its_holder_is_cancelled_is_passed_on(self) -> None:
        queues = ResourceQueues()
        await queues.enter("k")
        first, second = (asyncio.create_task(queues.enter("k")) for _ in "ab")
        await asyncio.sleep(0)
        queues.leave("k")  # the turn of the first is set, but it has not run yet
        first.cancel()
        await asyncio.wait_for(second, 1)
        assert first.cancelled()
        queues.leave("k")
        assert queues.busy == 0

    async def test_who_is_cancelled_as_the_lane_is_left_is_passed_over(self) -> None:
        queues = ResourceQueues()
        await queues.enter("k")
        first, second = (asyncio.create_task(queues.enter("k")) for _ in "ab")
        await asyncio.sleep(0)
        first.cancel()
        queues.leave("k")  # before the first has noticed
        await asyncio.wait_for(second, 1)
        with pytest.raises(asyncio.CancelledError):
            await first
        queues.leave("k")
        assert queues.busy == 0

    async def test_lanes_do_not_wait_for_each_other(self) -> None:
        queues = ResourceQueues()
        await queues.enter("k")
        await asyncio.wait_for(queues.enter("other"), 1)
        assert queues.busy == 2

    async def test_a_queue_has_an_end(self) -> None:
        queues = ResourceQueues()
        await queues.enter("k")
        waiting = [asyncio.create_task(queues.enter("k")) for _ in range(QUEUE_LIMIT)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await queues.enter("k")
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
