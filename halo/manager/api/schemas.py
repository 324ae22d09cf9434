"""The schemas of the OpenAPI document: every answer, key by key."""

from __future__ import annotations

from dataclasses import fields

from halo.core.cluster.host_state import FencePhase
from halo.core.cluster.knowledge import Presence
from halo.core.journal.remembered import ErrorKind, Lifecycle
from halo.core.model import Company
from halo.core.reasons import Kind
from halo.core.status import words
from halo.manager.api.managers import store_schemas
from halo.manager.api.schema_words import (
    Schema,
    by_name,
    count,
    flag,
    list_of,
    null_or,
    number,
    object_of,
    one_of,
    or_null,
    ref,
    text,
)

BARE_STATUSES = (words.RUNNING, words.STOPPED, words.ERROR, words.UNKNOWN)
STATUSES = (words.RUNNING, words.FAILED_OVER, words.STOPPED, words.ERROR, words.UNKNOWN)
HOST_STATES = (
    *("connected", "suspect", "disconnected", "lost", "fenced"),
    *(phase.value for phase in FencePhase if phase is not FencePhase.IDLE),
)
_COMPANY = tuple(field.name for field in fields(Company))
OUTCOMES = ("ok", "failed", "timed out", "not run")


_ID = text(minLength=1)
_COMMENT = or_null(text("Why, in words."))


def schemas() -> dict[str, Schema]:
    return {
        "Status": object_of(
            "Everything there is to know.",
            {
                "resources": list_of(ref("Resource"), "Each tree as it is walked, parents first."),
                "groups": list_of(ref("Group")),
                "hosts": list_of(ref("Host")),
                "events": list_of(ref("Event"), "Oldest first."),
                "manager": ref("Manager"),
            },
        ),
        "Resource": _resource(),
        "Candidate": object_of(
            "A resource on one host.", {"status": one_of(BARE_STATUSES), "comment": _COMMENT}
        ),
        "Group": _group(),
        "Waiting": _waiting(),
        **_why(),
        "Host": _host(),
        "Lifecycle": object_of(
            "The last transition of a host that was written down.",
            {
                "state": one_of(Lifecycle),
                "since": or_null(number("Seconds since the epoch.")),
                "reason": _COMMENT,
            },
        ),
        "Event": object_of(
            "Something that happened.",
            {
                "timestamp": text("Local time."),
                "event": text(minLength=1),
                "obj_id": text("The host or group it is about."),
                "comment": text(),
            },
        ),
        "Manager": _manager(),
        "Survival": _survival(),
        "Message": object_of(
            "What was done and what still runs, in one sentence.", {"message": text(minLength=1)}
        ),
        "Error": _error(),
        "Version": object_of("The manager's version.", {"version": text(minLength=1)}),
        "Document": {
            "type": "object",
            "description": "An OpenAPI document.",
            "required": ["openapi", "info", "paths", "components"],
        },
        **_known(),
        **_managers(),
        **store_schemas(),
        **_debug(),
        **_validation(),
    }


def _resource() -> Schema:
    return object_of(
        "One OCF resource.",
        {
            "id": _ID,
            "group": text("The group it belongs to; of a shared one, the first."),
            "groups": list_of(_ID, "All groups it belongs to."),
            "kind": text("PROVIDER/SCRIPT."),
            "parameters": {
                "type": "object",
                "description": "Secrets are shown as ***.",
                "additionalProperties": text(),
            },
            "dependents": list_of(_ID, "What starts after it and stops before it."),
            "status": one_of(STATUSES, "The first of these that holds."),
            "comment": _COMMENT,
            "managed": flag(),
            "host": or_null(text("Where it runs, if on one host.")),
            "hosts": list_of(_ID, "All hosts it is seen to run on."),
            "home_host": _ID,
            "failover_host": or_null(text("The first of `failover_hosts`.")),
            "failover_hosts": list_of(_ID),
            "shared": flag("It may run on several hosts at once."),
            "candidates": by_name(ref("Candidate"), "By host that may run it."),
        },
    )


def _group() -> Schema:
    return object_of(
        "A tree of resources that runs on one host.",
        {
            "id": _ID,
            "status": one_of(STATUSES),
            "host": or_null(text("Where it runs, or is held.")),
            "comment": _COMMENT,
            "waiting": null_or("Waiting", "Null: it runs, is being started, or should not run."),
            "managed": flag(),
            "wanted": one_of(("started", "stopped")),
            "move_target": or_null(text("The target of a move that has not finished.")),
            "error": or_null(text("Why it waits for `cleanup`.")),
            "error_kind": or_null(one_of(ErrorKind)),
            "start_failures": by_name(text(), "Why its start failed there."),
            "under_way": list_of(text(), "The starts and stops that run now."),
            "cannot_take": by_name(text(), "Why a candidate in sight could not take it over."),
            "token": text("The part of the manager that may act on it just now."),
            "home_host": _ID,
            "failover_hosts": list_of(_ID),
            "after": list_of(_ID, "The groups that have to run before it is started."),
            "company": by_name(list_of(_ID), f"Other groups, by key: {', '.join(_COMPANY)}."),
            "needs": by_name(number(), "What it takes of the capacity of its host."),
            "priority": count("The higher one starts, if there is no room for both."),
            "preempt": flag("Groups of a lower priority give way to it."),
            "gives_way_to": or_null(text("The group that just now needs the room that it leaves.")),
            "candidates": by_name(one_of(Presence), "By host that may run it."),
            "former_hosts": by_name(
                one_of(Presence), "By host that is no candidate any more, and where it may run."
            ),
        },
    )


def _waiting() -> Schema:
    return object_of(
        "The one reason why a group that should run is not started.",
        {
            "reason": one_of(Kind),
            "since": or_null(number("Seconds since the epoch; null: not known.")),
            "text": text("The reason, in words.", minLength=1),
            "ends_when": text("What ends the wait.", minLength=1),
            "data": object_of(
                "What the reason is about.",
                {
                    "hosts": by_name(text(minLength=1), "What is wrong on each of these hosts."),
                    "groups": by_name(text(minLength=1), "And with each of these groups."),
                },
            ),
        },
    )


def _why() -> dict[str, Schema]:
    return {
        "Why": object_of(
            "Why a group or host is as it is.",
            {
                "kind": one_of(("group", "host")),
                "id": _ID,
                "text": text("The answer in one sentence.", minLength=1),
                "waiting": null_or("Waiting", "As in the status. Null for a host."),
                "facts": list_of(ref("Fact"), "What the answer is based on."),
                "halo_does": list_of(text(minLength=1), "What HALO does by itself, in this order."),
                "you_can": list_of(text(minLength=1), "What the operator can do."),
            },
        ),
        "Fact": object_of(
            "One thing that is known.",
            {
                "about": text("The host or group that it is about.", minLength=1),
                "text": text(minLength=1),
                "how": text("How it was learnt.", minLength=1),
                "at": or_null(number("When: seconds since the epoch; null: not known.")),
            },
        ),
    }


def _host() -> Schema:
    return object_of(
        "A host of the cluster.",
        {
            "id": _ID,
            "address": text(),
            "port": {"type": "integer", "minimum": 1, "maximum": 65535},
            "active": flag("It may run groups."),
            "connected": flag("Its agent is connected."),
            "fenced": flag("It was fenced, and not reset since."),
            "state": one_of(HOST_STATES),
            "lifecycle": ref("Lifecycle"),
            "comment": _COMMENT,
            "version": or_null(text("Its agent's.")),
            "legacy": flag("The agent is HALO (Rust)."),
            "since": number("When it connected or disconnected last: seconds since the epoch."),
            "certificate_expires": or_null(
                number("When the agent's certificate expires, in seconds since the epoch.")
            ),
            "fence_trusted": flag("Its fence device is believed."),
            "fence_held": or_null(text("Why it is not fenced by itself just now.")),
            "capacity": by_name(
                object_of("One amount.", {"total": number(), "used": number()}),
                "What the host has, and what the groups that may be there need of it.",
            ),
            "max_starts": or_null({"type": "integer", "minimum": 1}),
            "fence_agents": list_of(text()),
        },
    )


def _manager() -> Schema:
    return object_of(
        "What the manager says of itself.",
        {
            "version": text(minLength=1),
            "cluster": text(minLength=1),
            "mode": one_of(("manage", "observe")),
            "frozen": flag(),
            "frozen_comment": or_null(text()),
            "journal": text("`ok`, or what is wrong."),
            "removed_groups": {
                "type": "object",
                "description": "Groups and resources that are gone from the config, and not known "
                "to be stopped: where each may run.",
                "additionalProperties": list_of(_ID),
            },
            "survival": null_or(
                "Survival", "Null: no group needs room or has a wish about its company."
            ),
            "notices": list_of(text(), "What an operator should read."),
        },
    )


def _survival() -> Schema:
    return object_of(
        "What the loss of one more host would do.",
        {
            "host": or_null(text("The host whose loss would be the worst. Null: none is bad.")),
            "groups": count("How many groups that loss would leave down."),
            "reasons": by_name(
                text(minLength=1), "Why a group would stay down, by group: at most 20 of them."
            ),
            "further_hosts": count("How many other hosts have the same problem."),
        },
    )


def _error() -> Schema:
    schema = object_of(
        "Why it was refused, or what failed, in one sentence.", {"error": text(minLength=1)}
    )
    schema["properties"]["known"] = ref("Known")  # only if no leader gave the answer
    return schema


def _known() -> dict[str, Schema]:
    return {
        "Known": object_of(
            "What a manager that stands by knows from the journal alone. It is old, and says"
            " nothing of what runs now.",
            {
                "as_of": number("When the journal was read last: seconds since the epoch."),
                "entries": count("How many entries were read."),
                "groups": by_name(
                    object_of("Its orders.", {"wanted": flag("It should run."), "managed": flag()}),
                    "By group.",
                ),
                "hosts": by_name(
                    object_of("Its orders.", {"active": flag(), "fenced": flag()}), "By host."
                ),
                "events": list_of(ref("Event"), "The last ones, oldest first."),
            },
        )
    }


def _managers() -> dict[str, Schema]:
    row = {
        "id": _ID,
        "host": text(),
        "pid": count(),
        "url": or_null(text("Where other managers reach it; null: nowhere.")),
        "version": text(),
        "since": number("Seconds since the epoch."),
        "entries": count("How many entries of the journal it has read."),
        "lag": count("How many fewer these are than those of the manager that has read most."),
        "leads": flag(),
        "observes": flag("It starts, fences and moves nothing, also when it leads."),
    }
    return {
        "Lead": object_of(
            "A leadership. Its times are seconds since the epoch.",
            {
                "id": text("The manager that leads or led."),
                "since": or_null(number("When it began; null: not known.")),
                "silent_since": or_null(
                    number("When its lease was renewed last, if the next renewal is overdue.")
                ),
                "ends_in_s": or_null(
                    number("The longest that the lease of a silent leader still lasts.")
                ),
                "until": or_null(number("When it was seen to have ended; null: it has not.")),
            },
        ),
        "Managers": object_of(
            "The managers, as the one that was asked sees them.",
            {
                "journal": one_of(("etcd", "file"), "With a file, one manager runs."),
                "own_id": or_null(text("The manager that was asked.")),
                "leader": or_null(text("The manager that leads, if one is known.")),
                "term": count("The term of the leader; 0 if it is not known."),
                "lead": null_or("Lead", "The leadership that was seen last."),
                "as_of": or_null(number("When etcd said last who is there: since the epoch.")),
                "old": flag("That is too long ago to be believed."),
                "managers": list_of(
                    object_of("One manager.", row), "Those that are registered now."
                ),
                "missing": list_of(
                    object_of("A manager that only the config names.", {"id": _ID, "host": text()})
                ),
                "waiting": or_null(text("What the asked one waits for before it leads.")),
                "store": null_or("Store", "The members of etcd; null: the journal is in a file."),
                "trouble": or_null(text("What is wrong with the store.")),
                "notices": list_of(text(), "What an operator should read."),
            },
        ),
    }


def _debug() -> dict[str, Schema]:
    times = {name: number() for name in ("p50_ms", "p99_ms", "max_ms")}
    return {
        "Debug": object_of(
            "How the manager itself fares.",
            {
                "loop_lag": ref("Lag"),
                "loop_lag_5s": ref("Lag"),
                "collector": object_of(
                    "Python's garbage collector, by generation.",
                    {"passes": list_of(count()), "longest_ms": list_of(number())},
                ),
                "tasks": count(),
            },
        ),
        "Lag": object_of("How late the event loop ran timers.", {**times, "samples": count()}),
    }


def _validation() -> dict[str, Schema]:
    return {
        "Validation": object_of(
            "What the scripts of a host say of their parameters.",
            {
                "host": _ID,
                "message": text(minLength=1),
                "results": list_of(ref("ValidationResult")),
            },
        ),
        "ValidationResult": object_of(
            "`validate-all` of one resource.",
            {
                "resource": _ID,
                "group": _ID,
                "kind": text(),
                "host": _ID,
                "outcome": one_of(OUTCOMES),
                "code": or_null({"type": "integer"}),
                "ocf_name": or_null(text()),
                "message": or_null(text()),
            },
        ),
    }
