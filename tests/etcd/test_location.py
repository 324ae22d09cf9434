"""The name of a store, its files and its credentials."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from halo.adapters.etcd.location import Store, StoreError, store_at
from halo.adapters.store_files import StoreFiles
from tests.certificates import Authority


def test_members_and_prefix() -> None:
    store = store_at("etcd://h1:2379,10.0.0.2,[::1]:99/halo/site-1/", environment={})
    assert store.members == ("h1:2379", "10.0.0.2:2379", "[::1]:99")
    assert store.prefix == "/halo/site-1"
    assert store.key("head") == "/halo/site-1/head"
    assert str(store) == "etcd://h1:2379,10.0.0.2:2379,[::1]:99/halo/site-1"
    assert store.tls is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("etcd://h1:2379", "prefix of its own"),
        ("etcd://h1:2379/", "prefix of its own"),
        ("etcd://h1:2379//x", "prefix of its own"),
        ("etcd://h1:2379/a b", "prefix of its own"),
        ("etcd://h1:2379/" + "x" * 300, "prefix of its own"),
        ("etcd:///x", "not a host"),
        ("etcd://h1:0/x", "not a host"),
        ("etcd://h1:70000/x", "not a host"),
        ("etcd://h1,h1:2379/x", "named twice"),
        ("etcd://" + ",".join(f"h{n}" for n in range(17)) + "/x", "more than 16"),
        ("http://h1/x", "must look like"),
    ],
)
def test_a_wrong_name_is_refused(text: str, words: str) -> None:
    with pytest.raises(StoreError, match=words):
        store_at(text, environment={})


def test_a_password_in_the_name_is_refused_and_not_repeated() -> None:
    with pytest.raises(StoreError) as refused:
        store_at("etcd://halo:hunter2@h1/x", environment={})
    assert "hunter2" not in str(refused.value)
    assert "--store-password-file" in str(refused.value)


def test_the_password_of_a_file_is_shown_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("hunter2\n")
    files = StoreFiles(user="halo", password_file=path)
    store = store_at("etcd://h1/x", files, {})
    assert store.password == "hunter2"
    assert "hunter2" not in f"{store} {store!r}"


def test_a_password_of_the_environment_is_taken_out_of_it() -> None:
    environment = {"HALO_STORE_PASSWORD": "hunter2", "PATH": "/bin"}
    store = store_at("etcd://h1/x", StoreFiles(user="halo"), environment)
    assert store.password == "hunter2"
    assert environment == {"PATH": "/bin"}


def test_systemd_credentials_are_used_where_no_flag_names_a_file(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    own = authority.manager("own", "halo")
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "store-password").write_text("of systemd")
    (folder / "store-ca").write_bytes(authority.certificate.read_bytes())
    (folder / "store-cert").write_bytes(own.certificate.read_bytes())
    (folder / "store-key").write_bytes(own.key.read_bytes())
    environment = {"CREDENTIALS_DIRECTORY": str(folder)}
    store = store_at("etcd://h1/x", StoreFiles(user="halo"), environment)
    assert store.password == "of systemd"
    assert store.tls is not None
    other = tmp_path / "other"
    other.write_text("of the flag")
    files = StoreFiles(user="halo", password_file=other)
    assert store_at("etcd://h1/x", files, environment).password == "of the flag"


def test_files_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    own = authority.manager("own", "halo")
    ca = authority.certificate
    empty = tmp_path / "empty"
    empty.write_text("\n")
    long = tmp_path / "long"
    long.write_text("x" * 5000)
    for files, words in (
        (StoreFiles(user="halo"), "a user needs a password"),
        (StoreFiles(password_file=ca), "must hold the password alone|a user needs"),
        (StoreFiles(user="halo", password_file=tmp_path / "none"), "cannot be read"),
        (StoreFiles(user="halo", password_file=empty), "must hold the password alone"),
        (StoreFiles(user="halo", password_file=long), "must hold the password alone"),
        (StoreFiles(ca=own.key), "cannot use the CA"),
        (StoreFiles(ca=ca, certificate=own.certificate), "belong together"),
        (StoreFiles(certificate=own.certificate, key=own.key), "needs TLS"),
        (StoreFiles(ca=ca, certificate=ca, key=own.key), "cannot use the certificate"),
    ):
        with pytest.raises(StoreError, match=words):
            store_at("etcd://h1/x", files, {})


@pytest.mark.parametrize(
    ("members", "shows"),
    [
        (("127.0.0.1:2379", "[::1]:2379", "localhost:2379"), False),
        (("127.0.0.1:2379", "mgmt2:2379"), True),
        (("[fd00::1]:2379",), True),
    ],
)
def test_a_password_without_tls_is_warned_about(members: tuple[str, ...], shows: bool) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    assert Store(members, "/x", "halo", "hunter2").shows_password == shows
    assert not Store(members, "/x").shows_password
    assert not Store(members, "/x", "halo", "hunter2", context).shows_password
