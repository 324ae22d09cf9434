"""Where a group may still run after a change of the config: what the journal remembers of it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from halo.core.journal.fold import apply
from halo.core.journal.places import config_change, places, services_of, with_former_hosts
from halo.core.journal.records import Event, Record
from halo.core.journal.remembered import Remembered
from halo.core.model import Cluster, Resource, ResourceGroup

from .builders import make_cluster, make_group


def config(
    *groups: ResourceGroup, hosts: tuple[str, ...] = ("h1", "h2", "h3", "h4"), **disks: str
) -> Cluster:
    """A config in which each resource has a disk of its own: by its own name, or as given."""
    return make_cluster(
        *(
            replace(
                group,
                resources=tuple(
                    replace(r, parameters={"disk": disks.get(r.id, r.id)}) for r in group.resources
                ),
            )
            for group in groups
        ),
        hosts=hosts,
    )


def record(remembered: Remembered, event: Event, name: str = "c", **data: Any) -> None:
    """One record, and a restart that reads it through a snapshot."""
    apply(remembered, Record(1.0, event, name, "", data))
    snapshot = json.loads(json.dumps(remembered.snapshot(2.0).to_json()))
    apply(remembered, Record.from_json(snapshot))


def start(remembered: Remembered, cluster: Cluster) -> dict[str, Any]:
    """A manager starts with this config. The next one finds nothing to record."""
    change = config_change(remembered, cluster) or {}
    if change:
        record(remembered, Event.CONFIG, **change)
    assert config_change(remembered, cluster) is None
    return change


def started(*configs: Cluster) -> Remembered:
    remembered = Remembered()
    for cluster in configs:
        start(remembered, cluster)
    return remembered


def seen_stopped(remembered: Remembered, group: str, *hosts: str) -> None:
    record(remembered, Event.SEEN_STOPPED, on={group: list(hosts)})


ALL = make_group("g", ("h1", "h2", "h3"))
TWO = make_group("g", ("h1", "h2"))


def test_a_candidate_that_is_taken_out_is_a_former_host() -> None:
    assert started(config(ALL), config(TWO)).group("g").former == {"h3": "g"}


def test_not_if_the_group_was_seen_stopped_there_and_nothing_was_started_since() -> None:
    remembered = started(config(ALL))
    seen_stopped(remembered, "g", "h2", "h3")
    start(remembered, config(TWO))
    assert remembered.group("g").former == {}
    assert remembered.group("g").stopped_on == ["h2"]


def test_a_start_there_since_counts() -> None:
    remembered = started(config(ALL))
    seen_stopped(remembered, "g", "h2", "h3")
    record(remembered, Event.MAY_RUN, on={"g": ["h3"]})
    start(remembered, config(TWO))
    assert remembered.group("g").former == {"h3": "g"}


def test_a_move_there_counts_from_its_order_on() -> None:
    remembered = started(config(ALL))
    seen_stopped(remembered, "g", "h2", "h3")
    record(remembered, Event.MOVE, "g", to="h3")
    start(remembered, config(TWO))
    assert remembered.group("g").former == {"h3": "g"}


def test_a_group_that_was_started_before_its_rest_was_recorded_keeps_its_former_hosts() -> None:
    """It may run there, on a host that the config does not name any more (S1)."""
    remembered = started(config(ALL))
    record(remembered, Event.STOP, "g")
    record(remembered, Event.START, "g")
    record(remembered, Event.AT_REST, "g", known=True)
    start(remembered, config(TWO))
    assert remembered.group("g").former == {"h3": "g"}


def test_a_group_at_rest_has_no_former_hosts() -> None:
    remembered = started(config(ALL))
    record(remembered, Event.STOP, "g")
    record(remembered, Event.AT_REST, "g", known=True)
    start(remembered, config(TWO))
    assert remembered.group("g").former == {}


@pytest.mark.parametrize(
    ("event", "name", "data", "left"),
    [
        (Event.SEEN_STOPPED, "c", {"on": {"g": ["h3"]}}, {}),
        (Event.CONFIRM_STOPPED, "g", {"host": "h3"}, {}),
        (Event.SEEN_STOPPED, "c", {"on": {"g": ["h2"]}}, {"h3": "g"}),
        (Event.CLEANUP, "g", {}, {"h3": "g"}),
        (Event.STOP, "g", {}, {"h3": "g"}),
        (Event.AT_REST, "g", {"known": True}, {"h3": "g"}),
    ],
)
def test_only_proof_and_the_administrators_word_end_it(
    event: Event, name: str, data: dict[str, Any], left: dict[str, str]
) -> None:
    remembered = started(config(ALL), config(TWO))
    record(remembered, event, name, **data)
    assert remembered.group("g").former == left


def test_it_outlives_further_changes_of_the_config() -> None:
    one = make_group("g", ("h1",))
    other = config(make_group("k", ("h4",)), one)
    remembered = started(config(ALL), config(TWO), other)
    assert remembered.group("g").former == {"h3": "g", "h2": "g"}


def test_it_ends_where_the_host_is_a_candidate_again_and_comes_back_after_that() -> None:
    remembered = started(config(ALL), config(TWO), config(ALL))
    assert (remembered.group("g").former, remembered.group("g").stopped_on) == ({}, [])
    start(remembered, config(TWO))
    assert remembered.group("g").former == {"h3": "g"}


def test_a_candidate_that_is_added_and_taken_out_again_was_no_place() -> None:
    remembered = started(config(TWO), config(ALL))
    assert remembered.group("g").stopped_on == ["h3"]
    start(remembered, config(TWO))
    assert remembered.group("g").former == {}


def test_a_config_that_the_disk_did_not_take_is_found_again() -> None:
    remembered = started(config(ALL))
    config_change(remembered, config(TWO))  # and the manager ends before the disk has it
    start(remembered, config(make_group("g", ("h2", "h4"))))
    assert remembered.group("g").former == {"h1": "g", "h3": "g"}


# --- services under other names -------------------------------------------------------------------

PAIR = {"g": ["g/fs"], "g/fs": []}


def test_a_group_that_is_renamed_inherits_the_places_of_the_old_name() -> None:
    renamed = config(make_group("new", ("h3", "h4")), new="g")
    remembered = started(config(TWO), renamed)
    assert remembered.group("new").former == {"h1": "g", "h2": "g"}
    assert remembered.removed == {}  # HALO monitors its disk under the new name


def test_a_group_that_is_renamed_later_does_too() -> None:
    nothing = config(make_group("k", ("h4",)))
    remembered = started(config(TWO), nothing)
    assert remembered.removed == {"g": ("h1", "h2")}
    renamed = config(make_group("k", ("h4",)), make_group("new", ("h2", "h3")), new="g")
    start(remembered, renamed)
    assert remembered.group("new").former == {"h1": "g", "h2": "g"}
    assert remembered.removed == {}


def test_a_resource_that_goes_to_another_group_takes_its_places_along() -> None:
    before = config(make_group("g", ("h1", "h2"), PAIR), make_group("k", ("h3", "h4")))
    after = config(
        make_group("g", ("h1", "h2")), make_group("k", ("h3", "h4"), {"k": ["g/fs"], "g/fs": []})
    )
    remembered = started(before)
    seen_stopped(remembered, "g", "h2")
    start(remembered, after)
    assert remembered.group("k").former == {"h1": "g"}
    assert remembered.group("g").former == {}


def test_what_a_group_gains_may_run_where_the_group_was_seen_stopped() -> None:
    pairs = ("h1", "h2")
    before = config(make_group("g", pairs, PAIR), make_group("k", pairs))
    after = config(make_group("g", pairs), make_group("k", pairs, {"k": ["g/fs"], "g/fs": []}))
    remembered = started(before)
    seen_stopped(remembered, "k", "h1")
    start(remembered, after)
    assert remembered.group("k").stopped_on == []
    assert remembered.group("k").former == {"h1": "g", "h2": "g"}
    assert with_former_hosts(after, remembered).groups["k"].hosts == pairs  # both are candidates
    seen_stopped(remembered, "k", "h2")
    assert (remembered.group("k").former, remembered.group("k").stopped_on) == ({"h1": "g"}, ["h2"])


def test_a_service_is_known_by_its_id_too_when_its_parameters_change() -> None:
    before = config(make_group("g", ("h1", "h2"), PAIR), make_group("k", ("h3", "h4")))
    moved = make_group("k", ("h3", "h4"), {"k": ["g/fs"], "g/fs": []})
    after = config(
        make_group("g", ("h1", "h2")), moved, hosts=("h1", "h2", "h3", "h4"), **{"g/fs": "another"}
    )
    assert started(before, after).group("k").former == {"h1": "g", "h2": "g"}


def test_a_service_of_another_group_may_run_where_the_group_itself_may_run_too() -> None:
    """The origin says that a service was gained, so that the group is not completed in place."""
    before = config(make_group("g", ("h1", "h2"), PAIR), make_group("k", ("h3", "h2")))
    moved = make_group("k", ("h3", "h4"), {"k": ["g/fs"], "g/fs": []})
    remembered = started(before, config(make_group("g", ("h1", "h2")), moved))
    assert remembered.group("k").former == {"h1": "g", "h2": "g"}


def test_a_group_that_was_taken_over_in_part_leaves_the_rest_under_its_name() -> None:
    """And a second change of its name still finds the disk."""
    other = make_group("k", ("h4",))
    before = config(make_group("g", ("h1", "h2"), PAIR), other)
    renamed = config(make_group("new", ("h1", "h2")), other, new="g")
    again = config(make_group("newer", ("h3", "h4")), other, newer="g")
    remembered = started(before, renamed)
    assert remembered.removed == {"g": ("h1", "h2")}  # its leaf is in no group
    assert list(remembered.services["g"]) == ["g/fs"]
    start(remembered, again)
    assert set(remembered.group("newer").former) == {"h1", "h2"}
    back = config(make_group("k", ("h4",), {"k": ["g/fs"], "g/fs": []}))
    start(remembered, back)
    assert set(remembered.group("k").former) == {"h1", "h2"}
    assert "g" not in remembered.removed


def test_a_service_that_left_a_removed_group_leaves_the_next_group_too() -> None:
    pair = {"k": ["g/fs"], "g/fs": []}
    before = config(make_group("g", ("h1", "h2"), PAIR), make_group("k", ("h1", "h2")))
    gone = config(make_group("k", ("h1", "h2"), pair), make_group("m", ("h3", "h4")))
    given = config(
        make_group("k", ("h1", "h2")), make_group("m", ("h3", "h4"), {"m": ["g/fs"], "g/fs": []})
    )
    assert set(started(before, gone, given).group("m").former) == {"h1", "h2"}


SINGLE = config(make_group("g", ("h1", "h2")), make_group("k", ("h3", "h4")))
PAIRED = config(make_group("g", ("h1", "h2"), PAIR), make_group("k", ("h3", "h4")))
GIVEN = config(
    make_group("g", ("h1", "h2")), make_group("k", ("h3", "h4"), {"k": ["g/fs"], "g/fs": []})
)


def test_a_service_that_goes_to_another_group_in_two_steps_takes_its_places_along() -> None:
    remembered = started(PAIRED)
    seen_stopped(remembered, "g", "h2")
    start(remembered, SINGLE)
    assert remembered.removed == {"g/fs": ("h1",)}
    record(remembered, Event.MOVE, "g", to="h2")
    seen_stopped(remembered, "g", "h1")  # the group left, and nobody stopped what it lost
    start(remembered, GIVEN)
    assert (remembered.group("k").former, remembered.removed) == ({"h1": "g/fs"}, {})


def test_the_same_if_it_comes_back_to_the_group_that_lost_it() -> None:
    remembered = started(PAIRED)
    seen_stopped(remembered, "g", "h2")
    start(remembered, SINGLE)
    seen_stopped(remembered, "g", "h1")
    start(remembered, PAIRED)
    assert (remembered.group("g").former, remembered.removed) == ({"h1": "g/fs"}, {})


def test_a_service_that_was_dropped_is_forgotten_when_the_administrator_says_so() -> None:
    remembered = started(PAIRED, SINGLE)
    assert remembered.removed == {"g/fs": ("h1", "h2")}
    record(remembered, Event.CLEANUP, "g/fs")
    start(remembered, GIVEN)
    assert (remembered.group("k").former, remembered.removed) == ({}, {})


def test_a_service_that_was_stopped_with_its_group_is_forgotten_when_it_is_dropped() -> None:
    remembered = started(PAIRED)
    record(remembered, Event.STOP, "g")
    record(remembered, Event.AT_REST, "g", known=True)
    start(remembered, SINGLE)
    assert (remembered.removed, sorted(remembered.services)) == ({}, ["g", "k"])


def test_a_service_that_is_shared_now_was_not_dropped() -> None:
    shared = config(
        make_group("g", ("h1", "h2"), PAIR, shared=["g/fs"]), make_group("k", ("h3", "h4"))
    )
    assert started(PAIRED, shared).removed == {}


def test_a_group_that_was_at_rest_is_not_when_it_gained_something_that_may_run() -> None:
    before = config(make_group("g", ("h1", "h2"), PAIR), make_group("k", ("h1", "h2")))
    after = config(
        make_group("g", ("h1", "h2")), make_group("k", ("h1", "h2"), {"k": ["g/fs"], "g/fs": []})
    )
    remembered = started(before)
    record(remembered, Event.STOP, "k")
    record(remembered, Event.AT_REST, "k", known=True)
    start(remembered, after)
    assert not remembered.group("k").at_rest


def test_resources_that_look_alike_inherit_nothing() -> None:
    """Without parameters, two resources have the same digest: it names neither."""
    before = make_cluster(make_group("g", ("h1", "h2")), make_group("k", ("h3", "h4")))
    after = make_cluster(make_group("g", ("h1",)), make_group("k", ("h3", "h4")), hosts=["h2"])
    remembered = started(before, after)
    assert (remembered.group("g").former, remembered.group("k").former) == ({"h2": "g"}, {})


def test_a_service_is_named_without_its_parameters_and_a_secret_changes_nothing() -> None:
    def group(**parameters: str) -> ResourceGroup:
        return ResourceGroup("g", (Resource("g", "kind", parameters),), "h1")

    before = services_of(group(disk="/dev/sda", password="one"))
    assert before == services_of(group(disk="/dev/sda", password="two"))
    assert before != services_of(group(disk="/dev/sdb", password="one"))
    assert "sda" not in json.dumps(before)


def test_shared_resources_are_left_out() -> None:
    group = make_group("g", ("h1",), {"g": ["s"], "s": []}, shared=["s"])
    assert list(services_of(group)) == ["g"]


# --- journals of earlier releases -----------------------------------------------------------------


def old(cluster: Cluster) -> Remembered:
    """What a release remembered that recorded the candidates alone."""
    remembered = Remembered()
    groups = {group.id: list(group.candidates) for group in cluster.groups.values()}
    record(remembered, Event.CONFIG, groups=groups, gone=[])
    return remembered


def test_a_site_that_is_upgraded_holds_nothing() -> None:
    remembered = old(config(ALL))
    record(remembered, Event.STOP, "g")
    record(remembered, Event.AT_REST, "g", known=True)
    start(remembered, config(ALL))
    memory = remembered.group("g")
    assert (memory.former, memory.stopped_on, memory.at_rest) == ({}, [], True)


def test_a_site_without_any_record_of_its_config_holds_nothing() -> None:
    remembered = started(config(TWO))
    assert (remembered.group("g").former, remembered.removed) == ({}, {})


def test_an_upgrade_together_with_a_change_asks_the_host_that_was_taken_out() -> None:
    remembered = old(config(ALL))
    start(remembered, config(TWO))
    assert remembered.group("g").former == {"h3": "g"}


# --- removed groups -------------------------------------------------------------------------------


def test_a_removed_group_may_run_only_where_it_is_not_known_to_be_stopped() -> None:
    remembered = started(config(ALL), config(TWO))
    seen_stopped(remembered, "g", "h2")
    start(remembered, config(make_group("k", ("h4",))))
    assert remembered.removed == {"g": ("h1", "h3")}
    assert set(places(remembered, "g")) == {"h1", "h3"}


def test_one_that_is_known_to_be_stopped_everywhere_is_forgotten() -> None:
    remembered = started(config(TWO))
    seen_stopped(remembered, "g", "h1", "h2")
    start(remembered, config(make_group("k", ("h4",))))
    assert (remembered.removed, list(remembered.services)) == ({}, ["k"])


def test_the_model_names_the_former_hosts_that_the_config_still_has() -> None:
    after = config(make_group("g", ("h1",)), hosts=("h1", "h3"))
    remembered = started(config(ALL), after)
    assert set(remembered.group("g").former) == {"h2", "h3"}
    group = with_former_hosts(after, remembered).groups["g"]
    assert (group.candidates, group.hosts) == (("h1",), ("h1", "h3"))
    assert with_former_hosts(after, Remembered()) is after


# --- orders under a new name ----------------------------------------------------------------------


def test_an_unmanaged_group_that_gets_another_name_stays_unmanaged() -> None:
    remembered = started(config(TWO))
    apply(remembered, Record(1.0, Event.UNMANAGE, "g", "by hand"))
    start(remembered, config(make_group("k", ("h1", "h2")), k="g"))
    memory = remembered.group("k")
    assert (memory.managed, memory.comment, memory.wanted) == (False, "by hand", True)


def test_a_group_that_was_stopped_stays_stopped_under_another_name() -> None:
    remembered = started(config(TWO))
    apply(remembered, Record(1.0, Event.STOP, "g"))
    start(remembered, config(make_group("k", ("h1", "h2")), k="g"))
    assert (remembered.group("k").managed, remembered.group("k").wanted) == (True, False)


def test_two_copies_stay_an_error_under_another_name() -> None:
    remembered = started(config(TWO))
    data = {"kind": "second-copy", "hosts": ["h1", "h2"]}
    apply(remembered, Record(1.0, Event.ERROR, "g", "on h1 and h2 at once", data))
    kind = remembered.group("g").error_kind
    start(remembered, config(make_group("k", ("h1", "h2")), k="g"))
    memory = remembered.group("k")
    assert (memory.error, memory.error_kind) == ("on h1 and h2 at once", kind)


def test_a_group_with_nothing_of_another_has_no_orders_of_it() -> None:
    remembered = started(config(TWO))
    apply(remembered, Record(1.0, Event.UNMANAGE, "g"))
    start(remembered, config(TWO, make_group("k", ("h1", "h2"))))
    assert (remembered.group("k").managed, remembered.group("g").managed) == (True, False)
