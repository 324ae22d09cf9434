"""The words that the schemas of the OpenAPI document are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

Schema: TypeAlias = dict[str, Any]


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def text(about: str = "", **more: Any) -> Schema:
    return {"type": "string", **more, **({"description": about} if about else {})}


def one_of(values: Iterable[str], about: str = "") -> Schema:
    return text(about, enum=list(values))


def flag(about: str = "") -> Schema:
    return {"type": "boolean", **({"description": about} if about else {})}


def number(about: str = "") -> Schema:
    return {"type": "number", **({"description": about} if about else {})}


def or_null(schema: Schema) -> Schema:
    more = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return {**schema, "type": [schema["type"], "null"], **more}


def null_or(name: str, about: str) -> Schema:
    return {"anyOf": [ref(name), {"type": "null"}], "description": about}


def count(about: str = "") -> Schema:
    return {"type": "integer", "minimum": 0, **({"description": about} if about else {})}


def list_of(items: Schema, about: str = "") -> Schema:
    return {"type": "array", "items": items, **({"description": about} if about else {})}


def by_name(values: Schema, about: str) -> Schema:
    return {"type": "object", "additionalProperties": values, "description": about}


def object_of(about: str, properties: Mapping[str, Schema]) -> Schema:
    """All keys are always there."""
    return {
        "type": "object",
        "description": about,
        "properties": dict(properties),
        "required": list(properties),
    }
