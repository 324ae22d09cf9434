"""What the body of an API request may hold: strict, with the nearest right key in the refusal."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

from halo.core.errors import BadRequest

TEXT_LIMIT = 4096
"""Longest text value, in characters."""

_UNPRINTABLE = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")
_KINDS: Mapping[str, type] = {"text": str, "flag": bool}
_KIND_WORDS = {"text": "a text", "flag": "true or false"}


@dataclass(frozen=True, slots=True)
class Field:
    """One key of a body. A field with `choices` is required; an optional one may be null."""

    name: str
    kind: Literal["text", "flag"]
    required: bool = False
    choices: tuple[str, ...] = ()


def checked_body(
    raw: bytes,
    fields: Sequence[Field],
    *,
    may_be_empty: bool = False,
    ignore_unknown: bool = False,
) -> dict[str, Any]:
    """The body's values by key, None for the absent ones; raises BadRequest, naming the key.

    `ignore_unknown`: as HALO (Rust) does, instead of refusing keys that are not among `fields`.

    Texts come back on one line: runs of white space and control characters become one space, so
    that what an operator typed cannot forge lines of an event list. Empty ones become None.
    """
    content = {} if may_be_empty and not raw.strip() else _parsed(raw)
    if not isinstance(content, dict):
        raise BadRequest(f"The body must be a JSON object, not {_described(content)}.")
    known = {field.name: field for field in fields}
    for key in content:
        if key not in known and not ignore_unknown:
            raise BadRequest(
                f"Unknown key {_quoted(key)} in the body{nearest(key, known)}"
                + (f" The keys are {', '.join(known)}." if known else " It needs no key.")
            )
    return {field.name: _checked(field, content.get(field.name)) for field in fields}


def nearest(word: str, known: Iterable[str]) -> str:
    """`: did you mean "x"?`, or `.` where nothing known is like `word`."""
    close = get_close_matches(word[:100], list(known), n=1)
    return f': did you mean "{close[0]}"?' if close else "."


def _parsed(raw: bytes) -> Any:
    if not raw.strip():
        raise BadRequest("The body is empty: a JSON object is needed.")
    try:
        return json.loads(raw, object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except BadRequest:
        raise
    except json.JSONDecodeError as error:
        raise BadRequest(
            f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    except (ValueError, RecursionError):  # not text, a number too long, nested too deep
        raise BadRequest("The body cannot be read as JSON.") from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise BadRequest(f"The key {_quoted(key)} occurs twice in the body.")
        content[key] = value
    return content


def _no_constant(name: str) -> Any:
    raise BadRequest(f"The body is not JSON: it holds {name}.")


def _checked(field: Field, value: Any) -> Any:
    if value is None:
        if field.required or field.choices:
            expected = _choices(field) if field.choices else _KIND_WORDS[field.kind]
            raise BadRequest(f'The body lacks the key "{field.name}": {expected}.')
        return None
    if not isinstance(value, _KINDS[field.kind]):
        raise BadRequest(
            f'The key "{field.name}" must be {_KIND_WORDS[field.kind]}, not {_described(value)}.'
        )
    if not isinstance(value, str):
        return value
    if field.choices and value not in field.choices:
        raise BadRequest(
            f"Unknown {field.name} {_quoted(value)}{nearest(value, field.choices)}"
            f" It must be {_choices(field)}."
        )
    return _checked_text(field, value)


def _checked_text(field: Field, value: str) -> str | None:
    if len(value) > TEXT_LIMIT:
        raise BadRequest(f'The key "{field.name}" is longer than {TEXT_LIMIT} characters.')
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON may spell half a surrogate pair; the journal cannot hold it
        raise BadRequest(f'The key "{field.name}" holds text that is not Unicode.') from None
    return _UNPRINTABLE.sub(" ", value).strip() or None


def _choices(field: Field) -> str:
    return "one of " + ", ".join(field.choices)


def _quoted(text: str) -> str:
    """`text` as JSON, shortened: fit for an answer whatever it holds."""
    return json.dumps(text if len(text) <= 60 else text[:60] + "...")


def _described(value: Any) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return "true" if value else "false"
    return (
        "null"
        if value is None
        else f"the {'text' if isinstance(value, str) else 'number'} "
        + (_quoted(value) if isinstance(value, str) else str(value)[:20])
    )
