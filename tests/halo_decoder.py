"""A status as programs written for HALO (Rust) decode it: strictly, key by key and kind by kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[Any], bool]


def text(value: Any) -> bool:
    return isinstance(value, str)


def flag(value: Any) -> bool:
    return isinstance(value, bool)


def option(inner: Check) -> Check:
    return lambda value: value is None or inner(value)


def list_of(inner: Check) -> Check:
    return lambda value: isinstance(value, list) and all(inner(item) for item in value)


def map_of(inner: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(inner(item) for item in value.values())


def struct(**fields: Check) -> Check:
    """Exactly these keys. Their decoder would let others pass; we promised none."""

    def check(value: Any) -> bool:
        assert isinstance(value, dict), value
        assert value.keys() == fields.keys(), value.keys() ^ fields.keys()
        for key, inner in fields.items():
            assert inner(value[key]), f"{key} is {value[key]!r}"
        return True

    return check


WORDS = ("Running", "Stopped", "Unknown", "Error")

on_host = struct(status=lambda value: value in WORDS, comment=option(text))
resource = struct(
    id=text,
    kind=text,
    parameters=map_of(text),
    status=map_of(on_host),
    managed=flag,
    home_host=text,
    failover_host=option(text),
    dependents=list_of(text),
    exclusive=flag,
)
host = struct(id=text, active=flag, connected=flag, fenced=flag)
happened = struct(timestamp=text, event=text, obj_id=text, comment=option(text))
_cluster = struct(resources=list_of(resource), hosts=list_of(host), events=list_of(happened))


def decodes(status: Any) -> bool:
    """True of a status that they can read; raises AssertionError with the key that they cannot."""
    assert _cluster(status)
    ids = {row["id"] for row in status["resources"]}
    for row in status["resources"]:
        needed = {row["home_host"], row["failover_host"]} - {None}
        assert needed <= set(row["status"]), f"{row['id']}: their `halo status` would panic"
        assert set(row["dependents"]) <= ids, f"{row['id']}: their `halo status` would panic"
    return True


def one_host_status(row: Mapping[str, Any]) -> str:
    """The word that their `halo status` shows of an exclusive resource."""
    at_home = row["status"][row["home_host"]]
    elsewhere = row["status"][row["failover_host"]] if row["failover_host"] is not None else None
    if at_home["status"] == "Running":
        return "Running"
    if elsewhere is not None and elsewhere["status"] == "Running":
        return "Running (Failed Over)"
    if all(found["status"] == "Stopped" for found in row["status"].values()):
        return "Stopped"
    for word in ("Error", "Unknown"):
        if word in (at_home["status"], elsewhere["status"] if elsewhere else None):
            return word
    return "Unexpected"
