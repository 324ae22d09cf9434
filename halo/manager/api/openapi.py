"""The OpenAPI document of our half. Its routes come from the table, its schemas from `schemas`.

It is the reference for programs. `docs/http_api.md` is the reference for people. Tests compare the
real answers with it, key by key. OpenAPI 3.1, whose schemas are JSON Schema 2020-12.
"""

from __future__ import annotations

from typing import Any

import halo
from halo.manager.api.body import TEXT_LIMIT, Field
from halo.manager.api.routes import ROUTES, Route
from halo.manager.api.schema_words import Schema, one_of, or_null, ref, text
from halo.manager.api.schemas import schemas


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
        "components": {"schemas": schemas()},
    }


# --- routes ---------------------------------------------------------------------------------------

_REFUSALS = {
    "400": "The request is malformed: the sentence names the key.",
    "404": "There is no such host or group.",
    "408": "The body did not arrive in time.",
    "409": "Not possible now: nothing was changed.",
    "413": "The body is too large.",
    "500": "It was tried and failed, or the manager has a defect.",
    "503": "No answer within the bound, too many commands at once, no leader could be asked, or"
    " the manager is stopping.",
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
            "200": {**answered, "content": _json(ref(route.answer))},
            "default": {"description": "Refused.", "content": _json(ref("Error"))},
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
        operation["responses"][code] = {"description": why, "content": _json(ref("Error"))}
    operation["requestBody"] = {
        "required": not route.body_may_be_empty,
        "content": _json(_body(route)),
    }
    return operation


def _json(schema: Schema) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


_NOTHING: Schema = or_null(text(pattern=r"^[\s\x00-\x1f\x7f-\x9f]*$"))
"""A text without visible characters counts as null (:func:`halo.manager.api.body.checked_body`)."""


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
            "else": {"properties": {"to": _NOTHING}},
            "allOf": [
                {
                    "if": {"properties": {"command": {"const": "cleanup"}}},
                    "else": {"properties": {"stopped_on": _NOTHING}},
                }
            ],
        }
    return schema


def _field(field: Field) -> Schema:
    if field.choices:
        return one_of(field.choices)
    kind: Schema = {"type": "boolean"} if field.kind == "flag" else text(maxLength=TEXT_LIMIT)
    return kind if field.required else or_null(kind)
