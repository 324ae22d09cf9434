"""The schemas of the OpenAPI document: every answer, key by key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from halo.core.cluster.host_state import FencePhase
from halo.core.cluster.knowledge import Presence
from halo.core.journal.remembered import ErrorKind, Lifecycle
from halo.core.reasons import Kind
from halo.core.status import words

Schema: TypeAlias = dict[str, Any]

BARE_STATUSES = (words.RUNNING, words.STOPPED, words.ERROR, words.UNKNOWN)
STATUSES = (words.RUNNING, words.FAILED_OVER, words.STOPPED, words.ERROR, words.UNKNOWN)
HOST_STATES = (
    *("connected", "suspect", "disconnected", "lost", "fenced"),
    *(phase.value for phase in FencePhase if phase is not FencePhase.IDLE),
)
OUTCOMES = ("ok", "failed", "timed out", "not run")


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def text(about: str = "", **more: Any) -> Schema:
    return {"type": "string", **more, **({"description": about} if about else {})}


def one_of(values: Iterable[str], about: str = "") -> Schema:
    return text(about, enum=list(values))


def _flag(about: str = "") -> Schema:
    return {"type": "boolean", **({"description": about} if about else {})}


def _number(about: str = "") -> Schema:
    return {"type": "number", **({"description": about} if about else {})}


def or_null(schema: Schema) -> Schema:
    more = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return {**schema, "type": [schema["type"], "null"], **more}


def _null_or(name: str, about: str) -> Schema:
    return {"anyOf": [ref(name), {"type": "null"}], "description": about}


def _count(about: str = "") -> Schema:
    return {"type": "integer", "minimum": 0, **({"description": about} if about else {})}


def _list(items: Schema, about: str = "") -> Schema:
    return {"type": "array", "items": items, **({"description": about} if about else {})}


def _by_name(values: Schema, about: str) -> Schema:
    return {"type": "object", "additionalProperties": values, "description": about}


def _object(about: str, properties: Mapping[str, Schema]) -> Schema:
    """All keys are always there."""
    return {
        "type": "object",
        "description": about,
        "properties": dict(properties),
        "required": list(properties),
    }


_ID = text(minLength=1)
_COMMENT = or_null(text("Why, in words."))


def schemas() -> dict[str, Schema]:
    return {
        "Status": _object(
            "Everything there is to know.",
            {
                "resources": _list(ref("Resource"), "Each tree as it is walked, parents first."),
                "groups": _list(ref("Group")),
                "hosts": _list(ref("Host")),
                "events": _list(ref("Event"), "Oldest first."),
                "manager": ref("Manager"),
            },
        ),
        "Resource": _resource(),
        "Candidate": _object(
            "A resource on one host.", {"status": one_of(BARE_STATUSES), "comment": _COMMENT}
        ),
        "Group": _group(),
        "Waiting": _waiting(),
        **_why(),
        "Host": _host(),
        "Lifecycle": _object(
            "The last transition of a host that was written down.",
            {
                "state": one_of(Lifecycle),
                "since": or_null(_number("Seconds since the epoch.")),
                "reason": _COMMENT,
            },
        ),
        "Event": _object(
            "Something that happened.",
            {
                "timestamp": text("Local time."),
                "event": text(minLength=1),
                "obj_id": text("The host or group it is about."),
                "comment": text(),
            },
        ),
        "Manager": _manager(),
        "Message": _object(
            "What was done and what still runs, in one sentence.", {"message": text(minLength=1)}
        ),
        "Error": _error(),
        "Version": _object("The manager's version.", {"version": text(minLength=1)}),
        "Document": {
            "type": "object",
            "description": "An OpenAPI document.",
            "required": ["openapi", "info", "paths", "components"],
        },
        **_known(),
        **_managers(),
        **_debug(),
        **_validation(),
    }


def _resource() -> Schema:
    return _object(
        "One OCF resource.",
        {
            "id": _ID,
            "group": text("The group it belongs to; of a shared one, the first."),
            "groups": _list(_ID, "All groups it belongs to."),
            "kind": text("PROVIDER/SCRIPT."),
            "parameters": {
                "type": "object",
                "description": "Secrets are shown as ***.",
                "additionalProperties": text(),
            },
            "dependents": _list(_ID, "What starts after it and stops before it."),
            "status": one_of(STATUSES, "The first of these that holds."),
            "comment": _COMMENT,
            "managed": _flag(),
            "host": or_null(text("Where it runs, if on one host.")),
            "hosts": _list(_ID, "All hosts it is seen to run on."),
            "home_host": _ID,
            "failover_host": or_null(text("The first of `failover_hosts`.")),
            "failover_hosts": _list(_ID),
            "shared": _flag("It may run on several hosts at once."),
            "candidates": _by_name(ref("Candidate"), "By host that may run it."),
        },
    )


def _group() -> Schema:
    return _object(
        "A tree of resources that runs on one host.",
        {
            "id": _ID,
            "status": one_of(STATUSES),
            "host": or_null(text("Where it runs, or is held.")),
            "comment": _COMMENT,
            "waiting": _null_or("Waiting", "Null: it runs, is being started, or should not run."),
            "managed": _flag(),
            "wanted": one_of(("started", "stopped")),
            "move_target": or_null(text("The target of a move that has not finished.")),
            "error": or_null(text("Why it waits for `cleanup`.")),
            "error_kind": or_null(one_of(ErrorKind)),
            "start_failures": _by_name(text(), "Why its start failed there."),
            "under_way": _list(text(), "The starts and stops that run now."),
            "cannot_take": _by_name(text(), "Why a candidate in sight could not take it over."),
            "token": text("The part of the manager that may act on it just now."),
            "home_host": _ID,
            "failover_hosts": _list(_ID),
            "after": _list(_ID, "The groups that have to run before it is started."),
            "candidates": _by_name(one_of(Presence), "By host that may run it."),
            "former_hosts": _by_name(
                one_of(Presence), "By host that is no candidate any more, and where it may run."
            ),
        },
    )


def _waiting() -> Schema:
    return _object(
        "The one reason why a group that should run is not started.",
        {
            "reason": one_of(Kind),
            "since": or_null(_number("Seconds since the epoch; null: not known.")),
            "text": text("The reason, in words.", minLength=1),
            "ends_when": text("What ends the wait.", minLength=1),
            "data": _object(
                "What the reason is about.",
                {
                    "hosts": _by_name(text(minLength=1), "What is wrong on each of these hosts."),
                    "groups": _by_name(text(minLength=1), "And with each of these groups."),
                },
            ),
        },
    )


def _why() -> dict[str, Schema]:
    return {
        "Why": _object(
            "Why a group or host is as it is.",
            {
                "kind": one_of(("group", "host")),
                "id": _ID,
                "text": text("The answer in one sentence.", minLength=1),
                "waiting": _null_or("Waiting", "As in the status. Null for a host."),
                "facts": _list(ref("Fact"), "What the answer is based on."),
                "halo_does": _list(text(minLength=1), "What HALO does by itself, in this order."),
                "you_can": _list(text(minLength=1), "What the operator can do."),
            },
        ),
        "Fact": _object(
            "One thing that is known.",
            {
                "about": text("The host or group that it is about.", minLength=1),
                "text": text(minLength=1),
                "how": text("How it was learnt.", minLength=1),
                "at": or_null(_number("When: seconds since the epoch; null: not known.")),
            },
        ),
    }


def _host() -> Schema:
    return _object(
        "A host of the cluster.",
        {
            "id": _ID,
            "address": text(),
            "port": {"type": "integer", "minimum": 1, "maximum": 65535},
            "active": _flag("It may run groups."),
            "connected": _flag("Its agent is connected."),
            "fenced": _flag("It was fenced, and not reset since."),
            "state": one_of(HOST_STATES),
            "lifecycle": ref("Lifecycle"),
            "comment": _COMMENT,
            "version": or_null(text("Its agent's.")),
            "legacy": _flag("The agent is HALO (Rust)."),
            "since": _number("When it connected or disconnected last: seconds since the epoch."),
            "certificate_expires": or_null(
                _number("When the agent's certificate expires, in seconds since the epoch.")
            ),
            "fence_trusted": _flag("Its fence device is believed."),
            "fence_held": or_null(text("Why it is not fenced by itself just now.")),
            "fence_agents": _list(text()),
        },
    )


def _manager() -> Schema:
    return _object(
        "What the manager says of itself.",
        {
            "version": text(minLength=1),
            "cluster": text(minLength=1),
            "mode": one_of(("manage", "observe")),
            "frozen": _flag(),
            "frozen_comment": or_null(text()),
            "journal": text("`ok`, or what is wrong."),
            "removed_groups": {
                "type": "object",
                "description": "Groups and resources that are gone from the config, and not known "
                "to be stopped: where each may run.",
                "additionalProperties": _list(_ID),
            },
            "notices": _list(text(), "What an operator should read."),
        },
    )


def _error() -> Schema:
    schema = _object(
        "Why it was refused, or what failed, in one sentence.", {"error": text(minLength=1)}
    )
    schema["properties"]["known"] = ref("Known")  # only if no leader gave the answer
    return schema


def _known() -> dict[str, Schema]:
    return {
        "Known": _object(
            "What a manager that stands by knows from the journal alone. It is old, and says"
            " nothing of what runs now.",
            {
                "as_of": _number("When the journal was read last: seconds since the epoch."),
                "entries": _count("How many entries were read."),
                "groups": _by_name(
                    _object("Its orders.", {"wanted": _flag("It should run."), "managed": _flag()}),
                    "By group.",
                ),
                "hosts": _by_name(
                    _object("Its orders.", {"active": _flag(), "fenced": _flag()}), "By host."
                ),
                "events": _list(ref("Event"), "The last ones, oldest first."),
            },
        )
    }


def _managers() -> dict[str, Schema]:
    row = {
        "id": _ID,
        "host": text(),
        "pid": _count(),
        "url": or_null(text("Where other managers reach it; null: nowhere.")),
        "version": text(),
        "since": _number("Seconds since the epoch."),
        "entries": _count("How many entries of the journal it has read."),
        "lag": _count("How many fewer these are than those of the manager that has read most."),
        "leads": _flag(),
    }
    return {
        "Managers": _object(
            "The managers, as the one that was asked sees them.",
            {
                "journal": one_of(("etcd", "file"), "With a file, one manager runs."),
                "own_id": or_null(text("The manager that was asked.")),
                "leader": or_null(text("The manager that leads, if one is known.")),
                "term": _count("The term of the leader; 0 if it is not known."),
                "managers": _list(_object("One manager.", row), "Those that are registered now."),
                "missing": _list(
                    _object("A manager that only the config names.", {"id": _ID, "host": text()})
                ),
                "trouble": or_null(text("What is wrong with the store.")),
                "notices": _list(text(), "What an operator should read."),
            },
        )
    }


def _debug() -> dict[str, Schema]:
    milliseconds = {name: _number() for name in ("p50_ms", "p99_ms", "max_ms")}
    count = _count()
    return {
        "Debug": _object(
            "How the manager itself fares.",
            {
                "loop_lag": ref("Lag"),
                "loop_lag_5s": ref("Lag"),
                "collector": _object(
                    "Python's garbage collector, by generation.",
                    {"passes": _list(count), "longest_ms": _list(_number())},
                ),
                "tasks": count,
            },
        ),
        "Lag": _object(
            "How late the event loop ran timers.", {**milliseconds, "samples": dict(count)}
        ),
    }


def _validation() -> dict[str, Schema]:
    return {
        "Validation": _object(
            "What the scripts of a host say of their parameters.",
            {
                "host": _ID,
                "message": text(minLength=1),
                "results": _list(ref("ValidationResult")),
            },
        ),
        "ValidationResult": _object(
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
