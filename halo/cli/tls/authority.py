"""Makes certificates: bytes in, bytes out. No files; the time is an argument.

The algorithm is ECDSA on P-256 with SHA-256, which OpenSSL and the TLS library of existing HALO
sites accept. FIPS builds of OpenSSL before 3.0 refuse Ed25519. Profiles follow RFC 5280. A host's
certificate serves, and a manager's calls. Only that between managers does both.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CLOCK_SKEW = timedelta(days=1)
"""Certificates begin this much earlier, so that a host with a late clock accepts a new one."""

PrivateKey: TypeAlias = (
    ec.EllipticCurvePrivateKey
    | rsa.RSAPrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
)
"""Keys that can sign certificates. A CA from elsewhere may have another kind than ours."""

_CN_LENGTH = 64  # ub-common-name of RFC 5280


class Role(Enum):
    """What a certificate is for. The value names its files."""

    HOST = "server"
    MANAGER = "client"
    PEER = "peer"

    @property
    def usages(self) -> list[x509.ObjectIdentifier]:
        """The extended key usages of the role. Only managers call each other and answer."""
        serves = [ExtendedKeyUsageOID.SERVER_AUTH] if self is not Role.MANAGER else []
        calls = [ExtendedKeyUsageOID.CLIENT_AUTH] if self is not Role.HOST else []
        return serves + calls


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, both as PEM. The key is not encrypted."""

    certificate: bytes
    key: bytes

    @property
    def expires_at(self) -> datetime:
        return x509.load_pem_x509_certificate(self.certificate).not_valid_after_utc


def make_ca(name: str, days: int, now: datetime) -> Pair:
    """A CA of this name. Raises ValueError."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        _begun(subject, subject, key, now, now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
    )
    return _signed(builder, key, key)


def renew_ca(earlier: Pair, days: int, now: datetime) -> Pair:
    """The same CA with a later expiry. Its key, name and extensions stay the same. So certificates
    that it signed stay valid, and hosts that know only its earlier certificate still work.

    Raises ValueError, for example if another CA signed it: with its own signature, it would be a
    different CA, which no host trusts."""
    before = x509.load_pem_x509_certificate(earlier.certificate)
    if before.issuer != before.subject:
        raise ValueError(f"only {before.issuer.rfc4514_string()}, which signed it, can renew it")
    key = _key_of(earlier)
    builder = _begun(before.subject, before.subject, key, now, now + timedelta(days=days))
    for extension in before.extensions:
        # An identifier by issuer may hold the serial number of the earlier certificate.
        if not isinstance(extension.value, x509.AuthorityKeyIdentifier):
            builder = builder.add_extension(extension.value, extension.critical)
    if not any(isinstance(e.value, x509.BasicConstraints) for e in before.extensions):
        # Version 1 has no extensions. In version 3, which this is, a CA is not valid without them.
        builder = builder.add_extension(x509.BasicConstraints(True, None), critical=True)
    return _signed(builder, key, key)


def issue(
    ca: Pair,
    names: Sequence[str],
    usages: Sequence[x509.ObjectIdentifier],
    days: int,
    now: datetime,
) -> Pair:
    """A certificate with a new key for these DNS names and addresses. It expires with the CA at the
    latest. It has no extended key usage if `usages` is empty. Raises ValueError."""
    authority = x509.load_pem_x509_certificate(ca.certificate)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:_CN_LENGTH])])
    ends_at = min(now + timedelta(days=days), authority.not_valid_after_utc)
    if ends_at <= now:
        raise ValueError(f"the CA expired on {authority.not_valid_after_utc:%Y-%m-%d}")
    listed = x509.SubjectAlternativeName([general_name(name) for name in names])
    builder = (
        _begun(subject, authority.subject, key, now, ends_at)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(listed, critical=False)
        .add_extension(_issuer_key_identifier(authority), critical=False)
    )
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    return _signed(builder, key, _key_of(ca))


def general_name(name: str) -> x509.GeneralName:
    """A name in the form of subjectAltName: an address or a DNS name."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name.lower())


def belong_together(certificate: bytes, key: bytes) -> bool:
    """Is this the key of this certificate? Raises ValueError if one cannot be read."""
    shown = x509.load_pem_x509_certificate(certificate).public_key()
    return _public_bytes(shown) == _public_bytes(load_key(key).public_key())


def load_key(key: bytes) -> PrivateKey:
    """A private key from PEM. Raises ValueError if it is encrypted, or is not a signing key."""
    try:
        loaded = serialization.load_pem_private_key(key, password=None)
    except TypeError as error:
        raise ValueError("the key is encrypted") from error
    if not isinstance(loaded, PrivateKey):
        raise ValueError(
            "keys of this kind cannot sign certificates; use an ECDSA, RSA, Ed25519 or Ed448 key"
        )
    return loaded


def _key_of(pair: Pair) -> PrivateKey:
    return load_key(pair.key)


def _begun(
    subject: x509.Name,
    issuer: x509.Name,
    key: PrivateKey,
    now: datetime,
    ends_at: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(ends_at)
    )


def _signed(
    builder: x509.CertificateBuilder,
    key: PrivateKey,
    signer: PrivateKey,
) -> Pair:
    is_edwards = isinstance(signer, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    certificate = builder.sign(signer, None if is_edwards else hashes.SHA256())
    return Pair(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _issuer_key_identifier(authority: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """The CA's own identifier of its key. A CA from elsewhere may use another one than ours."""
    try:
        named = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        digest = x509.SubjectKeyIdentifier.from_public_key(authority.public_key())
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(digest)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(named.value)


def _public_bytes(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
