"""The OpenAPI document of our half. Its routes come from the table; its schemas are written here.

It is the reference for programs. `docs/http_api.md` is the reference for people. Tests compare the
real answers with it, key by key. OpenAPI 3.1, whose schemas are JSON Schema 2020-12.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import halo
from halo.core.cluster.host_state import FencePhase
from halo.core.cluster.knowledge import Presence
from halo.core.journal.remembered import ErrorKind, Lifecycle
from halo.core.status import ours
from halo.manager.api.body import TEXT_LIMIT, Field
from halo.manager.api.routes import ROUTES, Route

Schema: TypeAlias = dict[str, Any]

BARE_STATUSES = (ours.RUNNING, ours.STOPPED, ours.ERROR, ours.UNKNOWN)
STATUSES = (ours.RUNNING, ours.FAILED_OVER, ours.STOPPED, ours.ERROR, ours.UNKNOWN)
HOST_STATES = (
    *("connected", "suspect", "disconnected", "lost", "fenced"),
    *(phase.value for phase in FencePhase if phase is not FencePhase.IDLE),
)
OUTCOMES = ("ok", "failed", "timed out", "not run")


def document() -> dict[str, Any]:
    """The whole document, fit for JSON."""
    paths: dict[str, Any] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "HALO manager",
            "version": halo.__version__,
            "description": "What a HALO manager answers on its Unix socket below /v1/. Fields may"
            " be added: ignore those you do not know.",
        },
        "servers": [{"url": "http://localhost"}],
        "paths": paths,
        "components": {"schemas": _schemas()},
    }


# --- routes ---------------------------------------------------------------------------------------

_REFUSALS = {
    "400": "The request is malformed: the sentence names the key.",
    "404": "There is no such host or group.",
    "408": "The body did not arrive in time.",
    "409": "Not possible now: nothing was changed.",
    "413": "The body is too large.",
    "500": "It was tried and failed, or the manager has a defect.",
    "503": "No answer within the bound, too many commands at once, or the manager is stopping.",
}


def _operation(route: Route) -> dict[str, Any]:
    answered = {
        "description": "The requested state holds and is recorded on disk."
        if route.body
        else "The answer."
    }
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "responses": {
            "200": {**answered, "content": _json(_ref(route.answer))},
            "default": {"description": "Refused.", "content": _json(_ref("Error"))},
        },
    }
    if "{id}" in route.path:
        operation["parameters"] = [
            {
                "name": "id",
                "in": "path",
                "required": True,
                "description": "The id of a host or group, quoted as usual in URLs.",
                "schema": {"type": "string", "minLength": 1},
            }
        ]
    if route.body is None:
        return operation
    for code, why in _REFUSALS.items():
        operation["responses"][code] = {"description": why, "content": _json(_ref("Error"))}
    operation["requestBody"] = {
        "required": not route.body_may_be_empty,
        "content": _json(_body(route)),
    }
    return operation


def _json(schema: Schema) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _body(route: Route) -> Schema:
    fields = route.body or ()
    schema: Schema = {
        "type": "object",
        "properties": {field.name: _field(field) for field in fields},
        "required": [field.name for field in fields if field.required or field.choices],
        "additionalProperties": False,
    }
    if route.name == "group":
        schema |= {
            "if": {"properties": {"command": {"const": "move"}}, "required": ["command"]},
            "then": {"properties": {"to": {"type": "string"}}, "required": ["to"]},
            "else": {"properties": {"to": {"type": "null"}}},
            "allOf": [
                {
                    "if": {"properties": {"command": {"const": "cleanup"}}},
                    "else": {"properties": {"stopped_on": {"type": "null"}}},
                }
            ],
        }
    return schema


def _field(field: Field) -> Schema:
    if field.choices:
        return _one_of(field.choices)
    kind: Schema = {"type": "boolean"} if field.kind == "flag" else _text(maxLength=TEXT_LIMIT)
    return kind if field.required else _or_null(kind)


# --- schemas --------------------------------------------------------------------------------------


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _text(about: str = "", **more: Any) -> Schema:
    return {"type": "string", **more, **({"description": about} if about else {})}


def _one_of(values: Iterable[str], about: str = "") -> Schema:
    return _text(about, enum=list(values))


def _flag(about: str = "") -> Schema:
    return {"type": "boolean", **({"description": about} if about else {})}


def _number(about: str = "") -> Schema:
    return {"type": "number", **({"description": about} if about else {})}


def _or_null(schema: Schema) -> Schema:
    more = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return {**schema, "type": [schema["type"], "null"], **more}


def _list(items: Schema, about: str = "") -> Schema:
    return {"type": "array", "items": items, **({"description": about} if about else {})}


def _by_host(values: Schema, about: str) -> Schema:
    return {"type": "object", "additionalProperties": values, "description": about}


def _object(about: str, properties: Mapping[str, Schema]) -> Schema:
    """All keys are always there."""
    return {
        "type": "object",
        "description": about,
        "properties": dict(properties),
        "required": list(properties),
    }


_ID = _text(minLength=1)
_COMMENT = _or_null(_text("Why, in words."))


def _schemas() -> dict[str, Schema]:
    return {
        "Status": _object(
            "Everything there is to know.",
            {
                "resources": _list(_ref("Resource"), "Each tree as it is walked, parents first."),
                "groups": _list(_ref("Group")),
                "hosts": _list(_ref("Host")),
                "events": _list(_ref("Event"), "Oldest first."),
                "manager": _ref("Manager"),
            },
        ),
        "Resource": _resource(),
        "Candidate": _object(
            "A resource on one host.", {"status": _one_of(BARE_STATUSES), "comment": _COMMENT}
        ),
        "Group": _group(),
        "Host": _host(),
        "Lifecycle": _object(
            "The last transition of a host that was written down.",
            {
                "state": _one_of(Lifecycle),
                "since": _or_null(_number("Seconds since the epoch.")),
                "reason": _COMMENT,
            },
        ),
        "Event": _object(
            "Something that happened.",
            {
                "timestamp": _text("Local time."),
                "event": _text(minLength=1),
                "obj_id": _text("The host or group it is about."),
                "comment": _text(),
            },
        ),
        "Manager": _manager(),
        "Message": _object(
            "What was done and what still runs, in one sentence.", {"message": _text(minLength=1)}
        ),
        "Error": _object(
            "Why it was refused, or what failed, in one sentence.", {"error": _text(minLength=1)}
        ),
        "Version": _object("The manager's version.", {"version": _text(minLength=1)}),
        "Document": {
            "type": "object",
            "description": "An OpenAPI document.",
            "required": ["openapi", "info", "paths", "components"],
        },
        **_debug(),
        **_validation(),
    }


def _resource() -> Schema:
    return _object(
        "One OCF resource.",
        {
            "id": _ID,
            "group": _text("The group it belongs to; of a shared one, the first."),
            "groups": _list(_ID, "All groups it belongs to."),
            "kind": _text("PROVIDER/SCRIPT."),
            "parameters": {
                "type": "object",
                "description": "Secrets are shown as ***.",
                "additionalProperties": _text(),
            },
            "dependents": _list(_ID, "What starts after it and stops before it."),
            "status": _one_of(STATUSES, "The first of these that holds."),
            "comment": _COMMENT,
            "managed": _flag(),
            "host": _or_null(_text("Where it runs, if on one host.")),
            "hosts": _list(_ID, "All hosts it is seen to run on."),
            "home_host": _ID,
            "failover_host": _or_null(_text("The first of `failover_hosts`.")),
            "failover_hosts": _list(_ID),
            "shared": _flag("It may run on several hosts at once."),
            "candidates": _by_host(_ref("Candidate"), "By host that may run it."),
        },
    )


def _group() -> Schema:
    return _object(
        "A tree of resources that runs on one host.",
        {
            "id": _ID,
            "status": _one_of(STATUSES),
            "host": _or_null(_text("Where it runs, or is held.")),
            "comment": _COMMENT,
            "managed": _flag(),
            "wanted": _one_of(("started", "stopped")),
            "move_target": _or_null(_text("The target of a move that has not finished.")),
            "error": _or_null(_text("Why it waits for `cleanup`.")),
            "error_kind": _or_null(_one_of(ErrorKind)),
            "start_failures": _by_host(_text(), "Why its start failed there."),
            "under_way": _list(_text(), "The starts and stops that run now."),
            "cannot_take": _by_host(_text(), "Why a candidate in sight could not take it over."),
            "token": _text("The part of the manager that may act on it just now."),
            "home_host": _ID,
            "failover_hosts": _list(_ID),
            "candidates": _by_host(_one_of(Presence), "By host that may run it."),
            "former_hosts": _by_host(
                _one_of(Presence), "By host that is no candidate any more, and where it may run."
            ),
        },
    )


def _host() -> Schema:
    return _object(
        "A host of the cluster.",
        {
            "id": _ID,
            "address": _text(),
            "port": {"type": "integer", "minimum": 1, "maximum": 65535},
            "active": _flag("It may run groups."),
            "connected": _flag("Its agent is connected."),
            "fenced": _flag("It was fenced, and not reset since."),
            "state": _one_of(HOST_STATES),
            "lifecycle": _ref("Lifecycle"),
            "comment": _COMMENT,
            "version": _or_null(_text("Its agent's.")),
            "legacy": _flag("The agent is HALO (Rust)."),
            "since": _number("When it connected or disconnected last: seconds since the epoch."),
            "certificate_expires": _or_null(
                _number("When the agent's certificate expires, in seconds since the epoch.")
            ),
            "fence_trusted": _flag("Its fence device is believed."),
            "fence_held": _or_null(_text("Why it is not fenced by itself just now.")),
            "fence_agents": _list(_text()),
        },
    )


def _manager() -> Schema:
    return _object(
        "What the manager says of itself.",
        {
            "version": _text(minLength=1),
            "cluster": _text(minLength=1),
            "mode": _one_of(("manage", "observe")),
            "frozen": _flag(),
            "frozen_comment": _or_null(_text()),
            "journal": _text("`ok`, or what is wrong."),
            "removed_groups": {
                "type": "object",
                "description": "Groups and resources that are gone from the config, and not known "
                "to be stopped: where each may run.",
                "additionalProperties": _list(_ID),
            },
            "notices": _list(_text(), "What an operator should read."),
        },
    )


def _debug() -> dict[str, Schema]:
    milliseconds = {name: _number() for name in ("p50_ms", "p99_ms", "max_ms")}
    count = {"type": "integer", "minimum": 0}
    return {
        "Debug": _object(
            "How the manager itself fares.",
            {
                "loop_lag": _ref("Lag"),
                "loop_lag_5s": _ref("Lag"),
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
                "message": _text(minLength=1),
                "results": _list(_ref("ValidationResult")),
            },
        ),
        "ValidationResult": _object(
            "`validate-all` of one resource.",
            {
                "resource": _ID,
                "group": _ID,
                "kind": _text(),
                "host": _ID,
                "outcome": _one_of(OUTCOMES),
                "code": _or_null({"type": "integer"}),
                "ocf_name": _or_null(_text()),
                "message": _or_null(_text()),
            },
        ),
    }
