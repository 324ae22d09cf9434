"""`halo tls`: what it makes, what it leaves alone, and what it says of files."""

from __future__ import annotations

import re
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from halo.adapters.peers.identity import PeerIdentity
from halo.adapters.tls.files import TlsFiles
from halo.cli.main import cli
from halo.cli.tls.authority import Role, make_ca
from tests.certificates import ANYTHING, BOTH, CALL, SERVE, Authority

CONFIG = """
hosts:
- {hostname: mds00, fence_agent: null}
- {hostname: "10.0.0.7:8001", fence_agent: null}
resources: []
resource_groups: []
"""


def run(*arguments: object, **environment: str) -> Result:
    return CliRunner().invoke(
        cli, ["tls", *map(str, arguments)], env={"HALO_TLS_DIR": None, **environment}
    )


def ok(*arguments: object, **environment: str) -> str:
    result = run(*arguments, **environment)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    folder = tmp_path / "ca"
    ok("init", folder, "--name", "our CA")
    return folder


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def names_in(path: Path) -> list[str]:
    found = certificate(path).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in found]


def usages_in(path: Path) -> list[x509.ObjectIdentifier]:
    return list(certificate(path).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def is_good(ca: Path, path: Path, role: Role) -> bool:
    """As strictly as the Web's rules have it, which the TLS library of existing sites enforces."""
    store = verification.Store([certificate(ca / "ca.crt")])
    rules = verification.PolicyBuilder().store(store)
    try:
        if role is Role.HOST:
            name = x509.DNSName(names_in(path)[0])
            rules.build_server_verifier(name).verify(certificate(path), [])
        else:
            rules.build_client_verifier().verify(certificate(path), [])
    except verification.VerificationError:
        return False
    return True


def test_a_ca_is_made_with_its_key_for_root_alone(ca: Path) -> None:
    made = certificate(ca / "ca.crt")
    assert made.subject.rfc4514_string() == "CN=our CA"
    assert (ca / "ca.key").stat().st_mode & 0o777 == 0o600
    assert ca.stat().st_mode & 0o777 == 0o700
    days = (made.not_valid_after_utc - datetime.now(UTC)).days
    assert days == pytest.approx(3650, abs=1)
    assert sorted(files_below(ca)) == ["ca.crt", "ca.key"]  # and no draft


def test_hosts_and_managers_get_one_usage_each(ca: Path) -> None:
    ok("host", "--dir", ca, "oss[00-01]", "10.0.0.7", "--also", "storage")
    ok("manager", "--dir", ca, "mgmt", "--also", "10.0.0.1")
    oss00 = ca / "hosts" / "oss00" / "server.crt"
    assert names_in(oss00) == ["oss00", "storage"]
    assert names_in(ca / "hosts" / "10.0.0.7" / "server.crt") == ["storage", "10.0.0.7"][::-1]
    assert usages_in(oss00) == [ExtendedKeyUsageOID.SERVER_AUTH]
    manager = ca / "managers" / "mgmt" / "client.crt"
    assert names_in(manager) == ["mgmt", "10.0.0.1"]
    assert usages_in(manager) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    for role in (Role.HOST, Role.MANAGER):
        assert is_good(ca, oss00, role) == (role is Role.HOST)
        assert is_good(ca, manager, role) == (role is Role.MANAGER)
    for folder in (oss00.parent, manager.parent):
        assert (folder / "ca.crt").read_bytes() == (ca / "ca.crt").read_bytes()
        (key,) = folder.glob("*.key")
        assert key.stat().st_mode & 0o777 == 0o600
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(key.with_suffix(".crt"), key)


def test_managers_among_themselves_get_both_usages(ca: Path) -> None:
    told = ok("peer", "--dir", ca, "mgmt[1-3]", "--also", "10.0.0.1")
    assert "--peer-listen" in told
    for name in ("mgmt1", "mgmt2", "mgmt3"):
        made = ca / "peers" / name / "peer.crt"
        assert names_in(made) == [name, "10.0.0.1"]
        assert usages_in(made) == [
            ExtendedKeyUsageOID.SERVER_AUTH,
            ExtendedKeyUsageOID.CLIENT_AUTH,
        ]
        assert (made.parent / "peer.key").stat().st_mode & 0o777 == 0o600
        files = TlsFiles(made, made.with_suffix(".key"), made.parent / "ca.crt")
        identity = PeerIdentity(files, frozenset(["oss00"]))
        identity.managers = lambda: frozenset(["mgmt1.site", "mgmt2", "mgmt3"])
        der = ssl.PEM_cert_to_DER_cert(made.read_text())
        assert identity.refusal_of(der) is None
        identity.managers = lambda: frozenset(["mgmt9"])
        assert identity.refusal_of(der) is not None
    assert "  peer     mgmt1" in ok("list", "--dir", ca)
    assert "ask and answer managers" in ok("show", made.parent)
    before = made.read_bytes()
    ok("renew", "--dir", ca, "mgmt3")
    assert made.read_bytes() != before
    assert usages_in(made) == [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]


def test_the_hosts_of_the_config_and_the_expected_name(ca: Path, tmp_path: Path) -> None:
    config = tmp_path / "halo.conf"
    config.write_text(CONFIG)
    ok(
        *("host", "--dir", ca, "--from-config", "--config", config),
        HALO_SERVER_DOMAIN_NAME="agents.example",
    )
    assert names_in(ca / "hosts" / "mds00" / "server.crt") == ["mds00", "agents.example"]
    assert sorted(p.name for p in (ca / "hosts").iterdir()) == ["10.0.0.7", "mds00"]


def test_nothing_is_replaced_that_was_not_meant_to_be(ca: Path) -> None:
    ok("host", "--dir", ca, "oss00")
    ok("manager", "--dir", ca, "mgmt")
    before = files_below(ca)
    for again in (
        ("init", ca),
        ("host", "--dir", ca, "oss[00-09]"),  # and none of the others is made
        ("manager", "--dir", ca, "mgmt"),
    ):
        result = run(*again)
        assert result.exit_code == 1
        assert "would be replaced; nothing was made. Give --force" in result.output
        assert files_below(ca) == before
    ok("host", "--dir", ca, "oss00", "--force")
    assert files_below(ca) != before


def test_a_lost_half_of_a_ca_is_not_made_anew(ca: Path) -> None:
    (ca / "ca.crt").unlink()
    result = run("init", ca)
    assert result.exit_code == 1
    assert str(ca / "ca.key") in result.output


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "..", "-x", "x" * 300, "a..b"])
def test_names_that_cannot_be_are_refused_before_anything_is_made(ca: Path, name: str) -> None:
    before = files_below(ca)
    assert run("host", "--dir", ca, "--", "oss00", name).exit_code != 0
    assert run("host", "--dir", ca, "oss00", "--also", name).exit_code != 0
    assert run("manager", "--dir", ca, "--", name).exit_code != 0
    assert files_below(ca) == before


def test_a_dot_at_the_end_is_no_part_of_a_name(ca: Path) -> None:
    """As in DNS, from where it may have been copied; a certificate with it would fit nothing."""
    ok("host", "--dir", ca, "MDS00.Example.", "--also", "mds00-ib.")
    path = ca / "hosts" / "mds00.example" / "server.crt"
    assert names_in(path) == ["mds00.example", "mds00-ib"]
    assert str(path) in ok("renew", "--dir", ca, "mds00.example.")


def test_without_a_ca_it_says_how_to_begin(tmp_path: Path) -> None:
    none = tmp_path / "none"
    for command in (("host", "a"), ("manager", "m"), ("peer", "m"), ("renew",), ("list",)):
        result = run(*command, "--dir", none)
        assert result.exit_code == 1
        assert f"There is no CA in {none}: make one with `halo tls init {none}`" in result.output
        assert "with --dir or HALO_TLS_DIR" in result.output


def test_all_commands_take_the_folder_from_the_same_places(tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    usual = {"HALO_TLS_DIR": str(first)}
    told = ok("init", **usual)
    assert "Next: halo tls host --from-config, and halo tls manager NAME\n" in told
    for command in (("manager", "mgmt"), ("host", "oss00"), ("peer", "mgmt1"), ("renew",)):
        ok(*command, **usual)
    assert {"managers/mgmt/client.crt", "hosts/oss00/server.crt", "peers/mgmt1/peer.crt"} <= set(
        files_below(first)
    )
    assert str(first / "ca.crt") in ok("list", **usual)
    # What the command line says counts more than the variable.
    assert f"halo tls manager --dir {second} NAME" in ok("init", "--dir", second, **usual)
    assert f"halo tls manager --dir {third} NAME" in ok("init", third, **usual)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["first", "second", "third"]


def test_a_new_ca_has_one_folder(tmp_path: Path) -> None:
    result = run("init", tmp_path / "a", "--dir", tmp_path / "b")
    assert result.exit_code == 2
    assert "Give the folder once" in result.output
    assert list(tmp_path.iterdir()) == []


def test_what_ends_soon_is_renewed_and_nothing_else(ca: Path) -> None:
    ok("host", "--dir", ca, "oss00", "--days", 40, "--also", "10.0.0.7")
    ok("host", "--dir", ca, "oss01", "--days", 400)
    before = files_below(ca)
    told = ok("renew", "--dir", ca)
    assert "hosts/oss00/server.crt" in told
    assert "oss01" not in told
    after = files_below(ca)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"hosts/oss00/server.crt", "hosts/oss00/server.key"}
    path = ca / "hosts" / "oss00" / "server.crt"
    assert names_in(path) == ["oss00", "10.0.0.7"]
    assert usages_in(path) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert (certificate(path).not_valid_after_utc - datetime.now(UTC)).days > 700
    assert "No certificate expires within 60 days; the first expires on" in ok("renew", "--dir", ca)
    assert "oss01" in ok("renew", "--dir", ca, "oss01")
    assert "no certificate to renew for oss07" in run("renew", "--dir", ca, "oss[01,07]").output


def test_a_certificate_without_names_is_not_renewed_but_the_others_are(
    tmp_path: Path,
) -> None:
    authority = Authority(tmp_path / "ca")
    (tmp_path / "ca" / "ca.key").write_bytes(authority.ca.key)
    ok("host", "--dir", authority.folder, "oss00", "oss01", "--days", 40)
    old = authority.without_names("old", "oss00", SERVE)
    for path in (old.certificate, old.key):
        path.replace(authority.folder / "hosts" / "oss00" / f"server{path.suffix}")
    before = files_below(authority.folder)
    result = run("renew", "--dir", authority.folder, "--within", 400)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert "hosts/oss00/server.crt. Make each again" in result.output
    after = files_below(authority.folder)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"hosts/oss01/server.crt", "hosts/oss01/server.key"}


def test_a_renewed_ca_keeps_its_key_so_that_old_and_new_go_together(ca: Path) -> None:
    ok("host", "--dir", ca, "oss00")
    old_ca, key = (ca / "ca.crt").read_bytes(), (ca / "ca.key").read_bytes()
    told = ok("renew", "--dir", ca, "--ca", "--ca-days", 5000)
    assert "Renewed the CA" in told
    assert (ca / "ca.key").read_bytes() == key
    assert (ca / "ca.crt").read_bytes() != old_ca
    host = ca / "hosts" / "oss00"
    assert (host / "ca.crt").read_bytes() == (ca / "ca.crt").read_bytes()
    assert is_good(ca, host / "server.crt", Role.HOST)  # the old one, by the new CA
    ok("renew", "--dir", ca, "oss00")
    (ca / "ca.crt").write_bytes(old_ca)
    assert is_good(ca, host / "server.crt", Role.HOST)  # the new one, by the old CA


def test_nothing_outlives_its_ca(tmp_path: Path) -> None:
    folder = tmp_path / "ca"
    ok("init", folder, "--days", 50)
    ok("host", "--dir", folder, "oss00")
    end = certificate(folder / "ca.crt").not_valid_after_utc
    assert certificate(folder / "hosts" / "oss00" / "server.crt").not_valid_after_utc == end
    assert "The CA itself expires on" in run("renew", "--dir", folder).output


def test_an_ended_ca_makes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "ca"
    folder.mkdir()
    ended = make_ca("old", 10, datetime.now(UTC) - timedelta(days=20))
    (folder / "ca.crt").write_bytes(ended.certificate)
    (folder / "ca.key").write_bytes(ended.key)
    result = run("host", "--dir", folder, "oss00")
    assert result.exit_code == 1
    assert "the CA expired on" in result.output


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_a_ca_that_was_made_elsewhere_will_do(tmp_path: Path, kind: str) -> None:
    """With another kind of key, and without the extensions that ours has."""
    made = ca_from_elsewhere(tmp_path / "ca", is_rsa=kind == "rsa")
    folder = tmp_path / "ca"
    ok("host", "--dir", folder, "oss00")
    certificate(folder / "hosts" / "oss00" / "server.crt").verify_directly_issued_by(made)
    assert "issuer:  CN=old CA, whose certificate is" in ok("show", folder / "hosts" / "oss00")


def ca_from_elsewhere(
    folder: Path,
    *extensions: x509.ExtensionType,
    is_rsa: bool = False,
    issuer: str = "old CA",
    says_so: bool = True,
) -> x509.Certificate:
    folder.mkdir()
    key = rsa.generate_private_key(65537, 2048) if is_rsa else ed25519.Ed25519PrivateKey.generate()
    subject, by = (
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        for name in ("old CA", issuer)
    )
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        by, subject, key.public_key(), 1, now, now + timedelta(days=3650)
    )
    if says_so:
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        builder = builder.add_extension(constraints, critical=True)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    made = builder.sign(key, hashes.SHA256() if is_rsa else None)
    (folder / "ca.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "ca.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return made


def test_a_renewed_ca_is_what_it_was(tmp_path: Path) -> None:
    """It may have CAs below it, which a length of 0 would make worthless, and a name for its key
    by which others call it."""
    folder = tmp_path / "ca"
    named, by = x509.SubjectKeyIdentifier(b"our key"), b"our key"
    before = ca_from_elsewhere(folder, named, x509.AuthorityKeyIdentifier(by, None, None))
    ok("renew", "--dir", folder, "--ca")
    after = certificate(folder / "ca.crt")
    assert after.serial_number != before.serial_number
    assert after.subject == before.subject
    assert [(e.value, e.critical) for e in after.extensions] == [
        (x509.BasicConstraints(ca=True, path_length=None), True),
        (named, False),
    ]
    after.verify_directly_issued_by(before)


def test_a_renewed_ca_may_sign_though_it_did_not_say_so(tmp_path: Path) -> None:
    """One of version 1 has no extensions. What takes its place is of version 3, and has to say."""
    folder = tmp_path / "ca"
    ca_from_elsewhere(folder, says_so=False)
    ok("renew", "--dir", folder, "--ca")
    constraints = certificate(folder / "ca.crt").extensions.get_extension_for_class(
        x509.BasicConstraints
    )
    assert constraints.value.ca
    ok("host", "--dir", folder, "oss00")


def test_a_ca_that_another_one_signed_is_not_renewed(tmp_path: Path) -> None:
    folder = tmp_path / "ca"
    ca_from_elsewhere(folder, issuer="the company")
    before = files_below(folder)
    result = run("renew", "--dir", folder, "--ca")
    assert result.exit_code == 1
    assert "only CN=the company, which signed it, can renew it" in result.output
    assert files_below(folder) == before


def test_what_was_made_is_listed_by_its_end(ca: Path) -> None:
    ok("host", "--dir", ca, "oss[00-01]", "--days", 400)
    ok("host", "--dir", ca, "oss01", "--days", 20, "--force")
    ok("manager", "--dir", ca, "mgmt")
    listed = [line.split() for line in ok("list", "--dir", ca).splitlines()]
    assert [(line[-2], line[-1]) for line in listed] == [
        ("host", "oss01"),
        ("host", "oss00"),
        ("manager", "mgmt"),
        ("CA", str(ca / "ca.crt")),
    ]
    assert listed[0][1:4] in (["in", "19", "days"], ["in", "20", "days"])


def test_show_says_what_files_may_do(ca: Path) -> None:
    ok("host", "--dir", ca, "oss00")
    ok("manager", "--dir", ca, "mgmt")
    shown = ok("show", ca / "hosts" / "oss00", ca / "managers" / "mgmt")
    shown = re.sub(r"\d{4}-\d\d-\d\d \(\d+ days\)", "DAY", shown.replace(str(ca), "CA"))
    assert shown == (
        """\
CA/hosts/oss00/ca.crt
  CA:      CN=our CA
  expires: DAY
CA/hosts/oss00/server.crt
  role:    host
  may:     serve as the agent of oss00; command no agent
  expires: DAY
  issuer:  CN=our CA, whose certificate is among these files
  key:     CA/hosts/oss00/server.key
CA/hosts/oss00/server.key
  key:     private, not encrypted
CA/managers/mgmt/ca.crt
  CA:      CN=our CA
  expires: DAY
CA/managers/mgmt/client.crt
  role:    manager
  may:     command agents whose HALO_MANAGER_NAME is one of mgmt
           command agents without HALO_MANAGER_NAME, except the agents with these names
  expires: DAY
  issuer:  CN=our CA, whose certificate is among these files
  key:     CA/managers/mgmt/client.key
CA/managers/mgmt/client.key
  key:     private, not encrypted
"""
    )


def test_show_of_a_certificate_for_both(tmp_path: Path) -> None:
    made = Authority(tmp_path / "ca")
    for usages in (BOTH, ANYTHING):
        files = made.issue("both", "mgmt", usages=usages)
        shown = ok("show", files.certificate)
        assert "role:    host or manager" in shown
        assert "command only agents whose HALO_MANAGER_NAME is one of mgmt" in shown
        assert "not verified" in shown


def test_show_finds_what_is_wrong(tmp_path: Path) -> None:
    made, other = Authority(tmp_path / "ca"), Authority(tmp_path / "other")
    good = made.host("good", "oss00")
    soon = made.issue("soon", "oss00", usages=CALL, days=20)
    ended = made.issue("ended", "oss00", usages=CALL, days=3, late=timedelta(days=10))
    early = made.issue("early", "oss00", usages=CALL, late=timedelta(days=-9))
    nameless = made.without_names("nameless", "oss00", CALL)
    useless = made.issue("useless", "x", usages=[ExtendedKeyUsageOID.CODE_SIGNING])
    stranger = made.folder / "stranger.key"
    stranger.write_bytes(soon.key.read_bytes())
    stranger.chmod(0o600)
    good_copy = good.certificate.with_name("stranger.crt")
    good_copy.write_bytes(good.certificate.read_bytes())
    open_key = made.folder / "open.key"
    open_key.write_bytes(good.key.read_bytes())
    open_key.chmod(0o640)
    nothing = made.folder / "nothing.crt"
    nothing.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    for paths, words in [
        ([soon.certificate], "! it expires in "),
        ([ended.certificate], "! it expired on"),
        ([early.certificate], "! it is not valid before"),
        ([nameless.certificate], "! it holds no name (subjectAltName)"),
        ([useless.certificate], "allows neither servers nor clients"),
        ([good_copy, stranger], "stranger.key is not its key"),
        ([open_key], "its mode is 0640, so others can access it: chmod 600"),
        ([good.certificate, other.certificate], "none of the CA certificates here signed it"),
        ([nothing], "! cannot be used"),
        ([made.folder / "none.crt"], "! cannot be read: No such file"),
    ]:
        result = run("show", *paths)
        assert result.exit_code == 1, result.output
        assert words in result.output
        assert result.output.count("  ! ") == 1, result.output
    assert run("show", good.certificate, good.key, good.ca).exit_code == 0


def test_show_without_files_is_of_this_machine(ca: Path) -> None:
    ok("host", "--dir", ca, "oss00")
    host = ca / "hosts" / "oss00"
    here = {
        "HALO_SERVER_CERT": str(host / "server.crt"),
        "HALO_SERVER_KEY": str(host / "server.key"),
        "HALO_CA_CERT": str(host / "ca.crt"),
        "HALO_CLIENT_CERT": "/none/client.crt",
        "HALO_CLIENT_KEY": "/none/client.key",
    }
    assert "serve as the agent of oss00" in ok("show", **here)
    nothing = run("show", **dict.fromkeys(here, "/none"))
    assert nothing.exit_code == 1
    assert "This machine has none of /none" in nothing.output


def test_neither_the_status_nor_a_daemon_loads_the_library_for_it() -> None:
    """It takes 10 MB and 70 ms, in every agent and at every `halo status`."""
    program = (
        "import sys, halo.cli.entry, halo.cli.commands.status, halo.cli.commands.check, "
        "halo.cli.tls.commands, "
        "halo.remote.main, halo.manager.main; print('cryptography' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
