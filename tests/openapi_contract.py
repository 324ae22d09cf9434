"""Holds answers of the API against its OpenAPI document, key by key.

The document says that fields may be added. Here they may not: what is added has to be documented.
"""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.protocols import Validator

from halo.manager.api.openapi import document


def closed(schema: Any) -> Any:
    """The same schema, in which no object may have a key that it does not name."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: closed(value) for key, value in schema.items()}
    if found.get("type") == "object" and isinstance(found.get("properties"), dict):
        found.setdefault("additionalProperties", False)
    return found


_document = cache(document)


@cache
def _validator(name: str) -> Validator:
    components = {"schemas": closed(deepcopy(_document()["components"]["schemas"]))}
    schema = {"$ref": f"#/components/schemas/{name}", "components": components}
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def faults(name: str, content: Any) -> list[str]:
    """Where content differs from the schema of that name, a sentence each."""
    return [f"{e.json_path}: {e.message[:300]}" for e in _validator(name).iter_errors(content)]


def answer_faults(method: str, path: str, status: int, content: Any) -> list[str]:
    """Where the answer to a request differs from what the document says of its route."""
    if status != 200:
        return faults("Error", content)
    for template, operations in _document()["paths"].items():
        begins, is_open, _ = template.partition("{id}")
        operation = operations.get(method.lower())
        matches = path.startswith(begins) if is_open else path == template
        if operation is not None and matches:
            schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
            return faults(schema["$ref"].rpartition("/")[2], content)
    return [f"{method} {path} is not documented, and is answered"]
