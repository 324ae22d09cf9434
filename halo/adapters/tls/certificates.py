"""Reads the names, usages and expiry of an X.509 certificate.

The standard library shows a peer's names, but not the usages of its certificate. `cryptography`
would show them, but it would cost every agent 10 MB and 70 ms; only `halo tls` uses it. So this
module reads the few DER structures of RFC 5280, section 4. TLS has checked their signature.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from halo.core.peers.certificates import Certificate

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)

_SEQUENCE, _OBJECT_ID, _OCTETS = 0x30, 0x06, 0x04
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_EXTENSIONS = 0xA3
_DNS_NAME, _ADDRESS = 0x82, 0x87
_SUBJECT_ALT_NAME = bytes.fromhex("551d11")
_EXTENDED_KEY_USAGE = bytes.fromhex("551d25")


class _Element(NamedTuple):
    tag: int
    content: bytes


def normal_name(text: str) -> str:
    """A name in the form in which names are compared: lower case, addresses in one spelling."""
    text = text.strip().rstrip(".").lower()
    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        return text


def read_certificate(der: bytes) -> Certificate:
    """One certificate. Raises ValueError if it is not one."""
    try:
        return _read(der)
    except (ValueError, IndexError, StopIteration, OverflowError) as error:
        raise ValueError("the certificate is malformed") from error


def ders_in(path: Path) -> list[bytes]:
    """The certificates of a PEM file, at least one. Raises OSError and ValueError."""
    found = [
        ssl.PEM_cert_to_DER_cert(block.decode("ascii", "replace"))
        for block in _PEM.findall(path.read_bytes())
    ]
    if not found:
        raise ValueError("the file holds no certificate")
    return found


def _read(der: bytes) -> Certificate:
    (whole,) = _elements(der)
    to_be_signed = next(_elements(whole.content))
    fields = [e for e in _elements(to_be_signed.content) if e.tag in (_SEQUENCE, _EXTENSIONS)]
    # signature, issuer, validity, subject, key; then the extensions
    _, expires = _elements(fields[2].content)
    extensions = _extensions(fields[-1]) if fields[-1].tag == _EXTENSIONS else {}
    usages = extensions.get(_EXTENDED_KEY_USAGE)
    return Certificate(
        names=frozenset(_names(extensions.get(_SUBJECT_ALT_NAME))),
        usages=None if usages is None else frozenset(_usages(usages)),
        expires_at=_time(expires),
    )


def _elements(data: bytes) -> Iterator[_Element]:
    """The elements of `data`, one after the other."""
    position = 0
    while position < len(data):
        tag, length = data[position], data[position + 1]
        position += 2
        if length >= 0x80:
            size = length & 0x7F
            if not 1 <= size <= 4:
                raise ValueError(f"a length in {size} bytes")
            length = int.from_bytes(data[position : position + size], "big")
            position += size
        if position + length > len(data):
            raise ValueError("cut off")
        yield _Element(tag, data[position : position + length])
        position += length


def _extensions(field: _Element) -> dict[bytes, bytes]:
    (listed,) = _elements(field.content)
    found: dict[bytes, bytes] = {}
    for extension in _elements(listed.content):
        parts = list(_elements(extension.content))
        name, value = parts[0], parts[-1]
        if name.tag != _OBJECT_ID or value.tag != _OCTETS or name.content in found:
            raise ValueError("no extension, or one that is there twice")
        found[name.content] = value.content
    return found


def _names(extension: bytes | None) -> Iterator[str]:
    """The names. An invalid name is left out, as TLS does."""
    if extension is None:
        return
    (listed,) = _elements(extension)
    for name in _elements(listed.content):
        with contextlib.suppress(ValueError):
            if name.tag == _DNS_NAME:
                yield normal_name(name.content.decode("ascii"))
            elif name.tag == _ADDRESS:
                yield str(ipaddress.ip_address(name.content))


def _usages(extension: bytes) -> Iterator[str]:
    (listed,) = _elements(extension)
    for usage in _elements(listed.content):
        yield _dotted(usage.content)


def _dotted(content: bytes) -> str:
    """An object identifier in its usual form (X.690, section 8.19)."""
    arcs: list[int] = []
    value = 0
    for byte in content:
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            arcs.append(value)
            value = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(str(arc) for arc in (first, arcs[0] - 40 * first, *arcs[1:]))


def _time(element: _Element) -> float:
    text = element.content.decode("ascii")
    if element.tag == _UTC_TIME:  # two digits of the year: 1950 to 2049
        text = ("19" if text[:2] >= "50" else "20") + text
    elif element.tag != _GENERALIZED_TIME:
        raise ValueError(f"a time with the tag {element.tag}")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
