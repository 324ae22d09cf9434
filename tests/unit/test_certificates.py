"""Reading certificates: the same as a full X.509 library finds, and nothing else can hurt."""

from __future__ import annotations

import contextlib
import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from halo.adapters.tls.certificates import ders_in, normal_name, read_certificate
from tests.certificates import ANYTHING, Authority

KEY = ec.generate_private_key(ec.SECP256R1())

dns_names = st.from_regex(r"[a-z0-9_*][a-z0-9.-]{0,60}[a-z0-9]", fullmatch=True)
addresses = st.ip_addresses()
object_ids = st.lists(st.integers(0, 2**40), min_size=1, max_size=6).map(
    lambda arcs: x509.ObjectIdentifier(".".join(map(str, (2, 5, *arcs))))
)
ends = st.datetimes(datetime(2001, 1, 1), datetime(2120, 1, 1)).map(
    lambda t: t.replace(microsecond=0, tzinfo=UTC)
)


def certificate(
    names: list[str],
    found: list[ipaddress.IPv4Address | ipaddress.IPv6Address],
    usages: list[x509.ObjectIdentifier] | None,
    end: datetime,
) -> bytes:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "not.a.name")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(KEY.public_key())
        .serial_number(7)
        .not_valid_before(end - timedelta(days=1))
        .not_valid_after(end)
    )
    listed = [
        x509.RFC822Name("someone@example.org"),
        *map(x509.DNSName, names),
        *map(x509.IPAddress, found),
        x509.UniformResourceIdentifier("https://example.org/"),
    ]
    if names or found:
        builder = builder.add_extension(x509.SubjectAlternativeName(listed), critical=False)
    if usages is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=True)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


@settings(max_examples=100, deadline=None)
@given(
    names=st.lists(dns_names, max_size=4),
    found=st.lists(addresses, max_size=3),
    usages=st.none() | st.lists(object_ids, min_size=1, max_size=4, unique=True),
    end=ends,
)
def test_it_finds_what_a_full_library_put_in(
    names: list[str],
    found: list[ipaddress.IPv4Address | ipaddress.IPv6Address],
    usages: list[x509.ObjectIdentifier] | None,
    end: datetime,
) -> None:
    read = read_certificate(certificate(names, found, usages, end))
    assert read.names == {normal_name(name) for name in names} | {str(a) for a in found}
    assert read.usages == (None if usages is None else {u.dotted_string for u in usages})
    assert read.expires_at == end.timestamp()


GOOD = certificate(["mgmt"], [], None, datetime(2030, 1, 1, tzinfo=UTC))
PLACES = st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255))


@settings(max_examples=1000, deadline=None)
@given(
    changes=st.lists(PLACES, min_size=1, max_size=4),
    cut=st.integers(0, len(GOOD)),
    noise=st.binary(max_size=200),
)
def test_bytes_that_are_no_certificate_are_an_error_and_nothing_worse(
    changes: list[tuple[int, int]], cut: int, noise: bytes
) -> None:
    bad = bytearray(GOOD)
    for place, byte in changes:
        bad[place] = byte
    with contextlib.suppress(ValueError):  # it may be another good one
        read_certificate(bytes(bad))
    for wrong in (GOOD[:cut], noise):
        if wrong != GOOD:
            with pytest.raises(ValueError, match="the certificate is malformed"):
                read_certificate(wrong)


def test_a_name_that_can_be_none_hides_no_other() -> None:
    """TLS goes by the others, and a host must not be lost over it."""
    end = datetime(2030, 1, 1, tzinfo=UTC)
    listed = x509.UnrecognizedExtension(
        x509.SubjectAlternativeName.oid,
        bytes.fromhex("3016") + b"\x82\x06m\xfcnchn" + b"\x87\x03\x0a\x00\x01" + b"\x82\x07mgmt.ex",
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(KEY.public_key())
        .serial_number(7)
        .not_valid_before(end - timedelta(days=1))
        .not_valid_after(end)
        .add_extension(listed, critical=False)
    )
    der = builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    assert read_certificate(der).names == {"mgmt.ex"}


def test_a_file_without_a_certificate_is_an_error(tmp_path: Path) -> None:
    files = Authority(tmp_path / "ca").issue("c", "a", usages=ANYTHING)
    with pytest.raises(ValueError, match="no certificate"):
        ders_in(files.key)
    (der,) = ders_in(files.certificate)
    assert read_certificate(der).names == {"a"}
    assert read_certificate(der).usages is None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("MGMT.Example.", "mgmt.example"),
        (" 10.0.0.1 ", "10.0.0.1"),
        ("[2001:DB8:0::1]", "2001:db8::1"),
        ("2001:db8:0:0:0:0:0:1", "2001:db8::1"),
    ],
)
def test_names_are_compared_in_one_form(text: str, name: str) -> None:
    assert normal_name(text) == name
