"""Single values of a config: durations, numbers, flags, choices, names and addresses."""

from __future__ import annotations

import ipaddress
import math
import re
from enum import StrEnum
from typing import TypeVar

from halo.config.yaml.document import MistakeList, found, nearest, text_of
from halo.config.yaml.nodes import Node
from halo.core.peers.bounds import NAME_LIMIT

MAX_DURATION_S = 31 * 86400.0
"""The longest duration in a config."""

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*(ms|s|min|h)?", re.ASCII)
_UNIT_S = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, None: 1.0}
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?|\.[0-9]+", re.ASCII)
_WHOLE = re.compile(r"[0-9]{1,12}", re.ASCII)
_COMPONENT = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
_OCF_PARAMETER = re.compile(r"[A-Za-z0-9_]+", re.ASCII)
_HOSTNAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?", re.ASCII)
_TRUE = frozenset(("true", "True", "TRUE", "yes", "Yes", "on", "On"))
_FALSE = frozenset(("false", "False", "FALSE", "no", "No", "off", "Off"))

Choice = TypeVar("Choice", bound=StrEnum)


def parse_duration(text: str) -> float:
    """Seconds from `3`, `0.5`, `500ms`, `3s`, `5min` or `1h`.

    Raises ValueError with a sentence for any other text, for zero, and for more than
    MAX_DURATION_S.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f'expected a duration like 500ms, 3s, 5min or 1h, found "{text[:60]}"')
    seconds = float(match[1]) * _UNIT_S[match[2]]
    if not 0.001 <= seconds <= MAX_DURATION_S or not math.isfinite(seconds):
        raise ValueError(f'expected a duration from 1ms to 744h, found "{text[:60]}"')
    return seconds


def duration(node: Node, what: str, mistakes: MistakeList) -> float | None:
    """A duration in seconds."""
    text = text_of(node, what, mistakes, expected="a duration like 500ms, 3s, 5min or 1h")
    if text is None:
        return None
    try:
        return parse_duration(text)
    except ValueError as error:
        mistakes.add(node, f"{what}: {error}")
        return None


def whole_number(node: Node, what: str, minimum: int, mistakes: MistakeList) -> int | None:
    """A whole number of at least `minimum`."""
    expected = f"a whole number of at least {minimum}"
    text = text_of(node, what, mistakes, expected=expected)
    if text is None:
        return None
    if not _WHOLE.fullmatch(text) or int(text) < minimum:
        mistakes.add(node, f"{what}: expected {expected}, found {found(node)}")
        return None
    return int(text)


def fraction(node: Node, what: str, mistakes: MistakeList) -> float | None:
    """A number above 0 and up to 1."""
    expected = "a number above 0 and up to 1"
    text = text_of(node, what, mistakes, expected=expected)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text) or not 0 < float(text) <= 1:
        mistakes.add(node, f"{what}: expected {expected}, found {found(node)}")
        return None
    return float(text)


def flag(node: Node, what: str, mistakes: MistakeList) -> bool | None:
    """True or false."""
    text = text_of(node, what, mistakes, expected="true or false")
    if text is not None and text in _TRUE | _FALSE:
        return text in _TRUE
    if text is not None:
        mistakes.add(node, f"{what}: expected true or false, found {found(node)}")
    return None


def choice(node: Node, what: str, options: type[Choice], mistakes: MistakeList) -> Choice | None:
    """One of the values of an enumeration."""
    names = [str(option) for option in options]
    expected = f"{', '.join(names[:-1])} or {names[-1]}"
    text = text_of(node, what, mistakes, expected=expected)
    if text is None:
        return None
    if text not in names:
        hint = nearest(text, names)
        mistakes.add(node, f"{what}: expected {expected}, found {found(node)}{hint}")
        return None
    return options(text)


def kind(node: Node, mistakes: MistakeList) -> str | None:
    """A resource's script under OCF_ROOT/resource.d, as two plain path components."""
    expected = "PROVIDER/SCRIPT of letters, digits, dots, dashes and underscores (heartbeat/ZFS)"
    text = text_of(node, "kind", mistakes, expected=expected)
    if text is None:
        return None
    parts = text.split("/")
    if len(parts) != 2 or not all(map(is_plain_component, parts)):
        hint = ""
        if text.startswith("ocf:") and text.count(":") == 2:
            hint = f'; write "{"/".join(text.split(":")[1:])}"'
        mistakes.add(node, f"kind: expected {expected}, found {found(node)}{hint}")
        return None
    if len(text) > NAME_LIMIT:
        mistakes.add(node, f"kind: expected at most {NAME_LIMIT} characters, found {len(text)}")
        return None
    return text


def is_plain_component(text: str) -> bool:
    """True for one path component of letters, digits, dots, dashes and underscores."""
    return text not in (".", "..") and _COMPONENT.fullmatch(text) is not None


def name(node: Node, what: str, mistakes: MistakeList) -> str | None:
    """A name that can stand in status lines, events and URLs: visible characters, no blanks."""
    text = text_of(node, what, mistakes, expected="a name")
    if text is None:
        return None
    if not text.isprintable() or any(c.isspace() or c in '"\\,[]?#%' for c in text):
        mistakes.add(
            node,
            f'{what}: expected a name without blanks and without any of " \\ , [ ] ? # %,'
            f" found {found(node)}",
        )
        return None
    if not 1 <= len(text) <= 200 or text in (".", ".."):
        mistakes.add(node, f"{what}: expected a name of 1 to 200 characters, found {found(node)}")
        return None
    return text


def ocf_parameter_name(text: str, node: Node, mistakes: MistakeList) -> bool:
    """Check a name that becomes OCF_RESKEY_<name>, a variable that shell scripts read."""
    if _OCF_PARAMETER.fullmatch(text) and len(text) <= 128:
        return True
    mistakes.add(
        node,
        f"parameters: expected a name of letters, digits and underscores, found {found(node)};"
        " scripts read it as the shell variable OCF_RESKEY_<name>",
    )
    return False


def address(node: Node, default_port: int, mistakes: MistakeList) -> tuple[str, int] | None:
    """Address and port from `name`, `name:port`, `10.0.0.1:port`, `[::1]:port` or `::1`."""
    text = text_of(node, "hostname", mistakes, expected="a name or address")
    if text is None:
        return None
    host, port_text = split_port(text)
    if not _is_host(host):
        mistakes.add(
            node,
            "hostname: expected a name or an address with an optional :port"
            f" (IPv6 with a port in brackets), found {found(node)}",
        )
        return None
    if port_text is None:
        return host, default_port
    if not _WHOLE.fullmatch(port_text) or not 1 <= int(port_text) <= 65535:
        mistakes.add(node, f"hostname: expected a port from 1 to 65535, found {found(node)}")
        return None
    return host, int(port_text)


def split_port(text: str) -> tuple[str, str | None]:
    """Host and port as written. The brackets of an IPv6 address are removed."""
    if text.startswith("["):
        inner, closed, rest = text[1:].partition("]")
        if closed and ":" in inner:
            if rest == "":
                return inner, None
            if rest.startswith(":"):
                return inner, rest[1:]
        return text, None
    if text.count(":") == 1:
        host, _, port = text.partition(":")
        return host, port
    return text, None


def normal_address(host: str) -> str:
    """A normal spelling, so that equal addresses compare equal."""
    try:
        return ipaddress.ip_address(host).compressed
    except ValueError:
        return host.lower().rstrip(".")


def _is_host(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        # A text like an IPv4 address must be one, since a resolver would not find it as a name.
        last = host.rstrip(".").rpartition(".")[2]
        looks_numeric = "." in host and last.isdigit()
        return not looks_numeric and len(host) <= 253 and _HOSTNAME.fullmatch(host) is not None
    return True
