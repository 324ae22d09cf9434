"""What a set of PEM files may do, and what is wrong with it, in lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

from halo.adapters.tls.certificates import read_certificate
from halo.adapters.tls.files import TlsFiles
from halo.cli.errors import CliError
from halo.cli.tls.authority import belong_together, load_key
from halo.core.peers.certificates import WARN_BEFORE_S, mistake_of_peer
from halo.error_words import words_of

_SUFFIXES = (".crt", ".pem", ".key")
_LARGEST = 1 << 20


@dataclass
class Report:
    """Lines to print. Lines that begin with `  !` are problems."""

    lines: list[str] = field(default_factory=list)
    has_problems: bool = False

    def say(self, label: str, words: str) -> None:
        self.lines.append(f"  {label and label + ':':<8} {words}")

    def complain(self, words: str) -> None:
        self.has_problems = True
        self.lines.append(f"  ! {words}")


@dataclass(frozen=True)
class _File:
    path: Path
    certificates: tuple[x509.Certificate, ...] = ()
    key: bytes | None = None
    trouble: str | None = None


def inspect(paths: Sequence[Path], now: datetime) -> Report:
    """Check these files together. Without files, check those that this machine uses."""
    report = Report()
    files = [_read(path) for path in _expanded(paths or _of_this_machine())]
    if not files:
        raise CliError("There are no certificates or keys there.")
    authorities = [c for f in files for c in f.certificates if _is_ca(c)]
    for file in files:
        report.lines.append(str(file.path))
        if file.trouble is not None:
            report.complain(file.trouble)
        if file.certificates:
            _tell_certificate(report, file, files, authorities, now)
        if file.key is not None:
            _tell_key(report, file)
    return report


def names_of(certificate: bytes) -> list[str]:
    """The names of a PEM certificate, in its order."""
    return _names(x509.load_pem_x509_certificate(certificate))


def _of_this_machine() -> list[Path]:
    sides = (TlsFiles.of_agent(), TlsFiles.of_manager(), TlsFiles.of_peer())
    listed = (path for files in sides for path in (files.ca, files.certificate, files.key))
    wanted = tuple(dict.fromkeys(listed))
    found = [path for path in wanted if path.exists()]
    if not found:
        raise CliError(
            f"This machine has none of {', '.join(map(str, wanted))}; give the names of files, or "
            "see `halo tls --help`."
        )
    return found


def _expanded(paths: Sequence[Path]) -> list[Path]:
    found: dict[Path, None] = {}
    for path in paths:
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
        if path.is_dir():
            inside = [p for p in inside if p.suffix in _SUFFIXES and p.is_file()]
        found.update(dict.fromkeys(inside))
    return list(found)


def _read(path: Path) -> _File:
    try:
        with path.open("rb") as opened:
            content = opened.read(_LARGEST)
    except OSError as error:
        return _File(path, trouble=f"cannot be read: {words_of(error)}")
    try:
        certificates = (
            x509.load_pem_x509_certificates(content) if b"BEGIN CERTIFICATE" in content else []
        )
        key = content if b"PRIVATE KEY-----" in content else None
        if key is not None:
            load_key(key)
    except ValueError as error:
        return _File(path, trouble=f"cannot be used: {error}")
    if not certificates and key is None:
        return _File(path, trouble="holds no certificate and no private key in PEM format")
    return _File(path, tuple(certificates), key)


def _tell_certificate(
    report: Report,
    file: _File,
    files: Sequence[_File],
    authorities: Sequence[x509.Certificate],
    now: datetime,
) -> None:
    shown = file.certificates[0]
    if _is_ca(shown):
        for ca in file.certificates:
            report.say("CA", ca.subject.rfc4514_string())
            _tell_end(report, ca, now)
        return
    for problem in _tell_role(report, shown):
        report.complain(problem)
    _tell_end(report, shown, now)
    _tell_issuer(report, shown, [*file.certificates[1:], *authorities])
    _tell_key_of(report, file, files)


def _tell_role(report: Report, shown: x509.Certificate) -> Iterator[str]:
    facts = read_certificate(shown.public_bytes(serialization.Encoding.DER))
    names = ", ".join(_names(shown)) or "no name"
    if facts.may_serve and facts.may_call:
        is_peer = mistake_of_peer(facts) is None
        report.say("role", "host or manager" + (", or a manager among others" if is_peer else ""))
        report.say("may", f"serve as the agent of {names}")
        report.say("", f"command only agents whose HALO_MANAGER_NAME is one of {names}")
        if is_peer:
            report.say("", f"ask and answer managers, if {names} is the machine of a manager")
    elif facts.may_serve:
        report.say("role", "host")
        report.say("may", f"serve as the agent of {names}; command no agent")
    elif facts.may_call:
        report.say("role", "manager")
        report.say("may", f"command agents whose HALO_MANAGER_NAME is one of {names}")
        report.say(
            "", "command agents without HALO_MANAGER_NAME, except the agents with these names"
        )
    else:
        yield "its extendedKeyUsage allows neither servers nor clients, so HALO cannot use it"
    if not facts.names:
        yield "it holds no name (subjectAltName), by which managers and hosts are recognised"


def _tell_end(report: Report, shown: x509.Certificate, now: datetime) -> None:
    end, begin = shown.not_valid_after_utc, shown.not_valid_before_utc
    left = end - now
    days = f" ({left.days} days)" if left.days >= 0 else ""
    report.say("expires", f"{end:%Y-%m-%d}{days}")
    if end <= now:
        report.complain(f"it expired on {end:%Y-%m-%d}")
    elif left.total_seconds() < WARN_BEFORE_S:
        report.complain(f"it expires in {left.days} days")
    if begin > now:
        report.complain(f"it is not valid before {begin:%Y-%m-%d}")


def _tell_issuer(
    report: Report, shown: x509.Certificate, known: Sequence[x509.Certificate]
) -> None:
    issuer = shown.issuer.rfc4514_string()
    chain = shown
    while not (_is_ca(chain) and _is_signed_by(chain, chain)):
        above = next((c for c in known if _is_ca(c) and _is_signed_by(chain, c)), None)
        if above is None:
            break
        known = [c for c in known if c is not above]
        chain = above
    if chain is not shown:
        report.say("issuer", f"{issuer}, whose certificate is among these files")
    elif any(_is_ca(c) for c in known):
        report.complain(f"none of the CA certificates here signed it; its issuer is {issuer}")
    else:
        report.say("issuer", f"{issuer}; not verified, its certificate is not among these files")


def _tell_key_of(report: Report, file: _File, files: Sequence[_File]) -> None:
    certificate = file.certificates[0].public_bytes(serialization.Encoding.PEM)
    keys = [f for f in files if f.key is not None]
    fitting = [f for f in keys if f.key is not None and belong_together(certificate, f.key)]
    beside = [f for f in keys if f.path.with_suffix("") == file.path.with_suffix("")]
    if fitting:
        report.say("key", ", ".join(str(f.path) for f in fitting))
    elif beside:
        report.complain(f"{beside[0].path} is not its key")
    else:
        report.say("key", "not among these files")


def _tell_key(report: Report, file: _File) -> None:
    if not file.certificates:
        report.say("key", "private, not encrypted")
    mode = file.path.stat().st_mode & 0o777
    if mode & 0o077:
        report.complain(f"its mode is {mode:04o}, so others can access it: chmod 600 {file.path}")


def _names(shown: x509.Certificate) -> list[str]:
    try:
        found = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [
        *found.get_values_for_type(x509.DNSName),
        *map(str, found.get_values_for_type(x509.IPAddress)),
    ]


def _is_ca(shown: x509.Certificate) -> bool:
    try:
        return shown.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _is_signed_by(shown: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        shown.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
