"""Certificates for tests: of any usage, of any authority, as files."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from halo.adapters.tls.files import TlsFiles
from halo.cli.tls.authority import Pair, issue, load_key, make_ca

SERVE = (ExtendedKeyUsageOID.SERVER_AUTH,)
CALL = (ExtendedKeyUsageOID.CLIENT_AUTH,)
BOTH = (*SERVE, *CALL)
ANYTHING: tuple[x509.ObjectIdentifier, ...] = ()
"""No extendedKeyUsage at all."""


class Authority:
    """A CA and what it issued, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.ca = make_ca("HALO test CA", 3650, datetime.now(UTC))
        self.certificate = folder / "ca.crt"
        self.certificate.write_bytes(self.ca.certificate)

    def issue(
        self,
        file: str,
        *names: str,
        usages: Sequence[x509.ObjectIdentifier],
        days: int = 730,
        late: timedelta = timedelta(0),
    ) -> TlsFiles:
        """Make `file`.crt and `file`.key, or replace them. `late` is how far the clock of the
        authority is behind."""
        made = issue(self.ca, names, usages, days, datetime.now(UTC) - late)
        return self._write(file, made)

    def without_names(
        self, file: str, common_name: str, usages: Sequence[x509.ObjectIdentifier]
    ) -> TlsFiles:
        """A certificate of the old kind: a name in its subject, and none in subjectAltName."""
        whole = issue(self.ca, [common_name], usages, 300, datetime.now(UTC))
        pattern = x509.load_pem_x509_certificate(whole.certificate)
        builder = x509.CertificateBuilder(
            pattern.issuer,
            pattern.subject,
            pattern.public_key(),
            pattern.serial_number,
            pattern.not_valid_before_utc,
            pattern.not_valid_after_utc,
        )
        for extension in pattern.extensions:
            if not isinstance(extension.value, x509.SubjectAlternativeName):
                builder = builder.add_extension(extension.value, extension.critical)
        signed = builder.sign(load_key(self.ca.key), hashes.SHA256())
        return self._write(file, Pair(signed.public_bytes(serialization.Encoding.PEM), whole.key))

    def with_unreadable_name(
        self, file: str, *names: str, usages: Sequence[x509.ObjectIdentifier]
    ) -> TlsFiles:
        """A certificate with a further name that is no text: a URI of bytes that are not UTF-8."""
        whole = issue(self.ca, [*names, "zzzzz"], usages, 300, datetime.now(UTC))
        to_sign = x509.load_pem_x509_certificate(whole.certificate).tbs_certificate_bytes
        # 0x86 is the tag of a URI where a DNS name has 0x82.
        to_sign = to_sign.replace(b"\x82\x05zzzzz", b"\x86\x05\xff\xfe\xff\xfe\xff")
        key = load_key(self.ca.key)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        signature = b"\0" + key.sign(to_sign, ec.ECDSA(hashes.SHA256()))
        ecdsa_with_sha256 = bytes.fromhex("300a06082a8648ce3d040302")
        parts = to_sign + ecdsa_with_sha256 + bytes([3, len(signature)]) + signature
        der = b"\x30\x82" + len(parts).to_bytes(2, "big") + parts
        return self._write(file, Pair(ssl.DER_cert_to_PEM_cert(der).encode(), whole.key))

    def _write(self, file: str, made: Pair) -> TlsFiles:
        files = TlsFiles(self.folder / f"{file}.crt", self.folder / f"{file}.key", self.certificate)
        files.key.touch(mode=0o600)
        files.key.write_bytes(made.key)
        files.certificate.write_bytes(made.certificate)
        return files

    def host(self, file: str, *names: str) -> TlsFiles:
        """A certificate of a host."""
        return self.issue(file, *names, usages=SERVE)

    def manager(self, file: str, *names: str) -> TlsFiles:
        """A certificate of a manager."""
        return self.issue(file, *names, usages=CALL)


def of_agent(files: TlsFiles) -> dict[str, str]:
    """The variables that name an agent's files."""
    return _variables("SERVER", files)


def of_manager(files: TlsFiles) -> dict[str, str]:
    """The variables that name a manager's files."""
    return _variables("CLIENT", files)


def _variables(side: str, files: TlsFiles) -> dict[str, str]:
    return {
        f"HALO_{side}_CERT": str(files.certificate),
        f"HALO_{side}_KEY": str(files.key),
        "HALO_CA_CERT": str(files.ca),
    }
