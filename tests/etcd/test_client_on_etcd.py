"""The client on real members of etcd."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from halo.adapters.etcd.client import EtcdClient
from halo.adapters.etcd.errors import LeaseGone, NoAnswer, NoGateway, NotAllowed, Refused, TooOld
from halo.adapters.etcd.location import Store, store_at
from halo.adapters.etcd.values import delete_range, get, is_absent, put, transaction, value_is
from halo.adapters.store_files import StoreFiles
from halo.adapters.tls.files import TlsFiles
from halo.cli.tls.authority import load_key
from tests.certificates import BOTH, CALL, Authority
from tests.etcd.members import Members
from tests.etcd.stand_ins import Wire


@asynccontextmanager
async def client_of(store: Store, attempt_s: float = 1.5) -> AsyncIterator[EtcdClient]:
    client = EtcdClient(store, attempt_s=attempt_s)
    try:
        yield client
    finally:
        await client.close()


async def test_keys_are_written_under_conditions_and_read(store: Store) -> None:
    key = store.key("a")
    async with client_of(store) as client:
        assert (await client.range(key)).value is None
        first = transaction([is_absent(key)], [put(key, b"1\0\xff")], [get(key)])
        assert (await client.txn(first)).succeeded
        again = await client.txn(first)
        assert not again.succeeded
        assert again.found[0].value == b"1\0\xff"
        wrong = transaction([value_is(key, b"other")], [put(key, b"2")], [get(key)])
        assert not (await client.txn(wrong)).succeeded
        right = transaction([value_is(key, b"1\0\xff")], [put(key, b"")], [get(key)])
        done = await client.txn(right)
        assert done.succeeded
        assert (await client.range(key)).value == b""
        old = await client.range(key, revision=done.revision - 1)
        assert old.value == b"1\0\xff"
        assert (await client.txn(transaction([], [delete_range(key, key + "0")]))).succeeded
        assert (await client.range(key)).value is None


async def test_a_range_is_read_in_pages_and_in_order(store: Store) -> None:
    async with client_of(store) as client:
        puts = [put(store.key(f"k{n}"), b"x") for n in range(7)]
        await client.txn(transaction([], puts))
        found = await client.range(store.key("k"), store.key("l"), limit=3)
        assert [key.key[-1] for key in found.keys] == ["0", "1", "2"]
        assert found.more
        rest = await client.range(store.key("k3"), store.key("l"), limit=4)
        assert [key.key[-1] for key in rest.keys] == ["3", "4", "5", "6"]
        assert not rest.more


async def test_a_revision_that_was_compacted_is_named(store: Store, members: Members) -> None:
    async with client_of(store) as client:
        before = (await client.range("x")).revision
        done = await client.txn(transaction([], [put(store.key("a"), b"1")]))
        members.ask(0, "/v3/kv/compaction", {"revision": str(done.revision)})
        with pytest.raises(TooOld):
            await client.range("x", revision=max(before - 1, 1))


async def test_a_lease_holds_a_key_until_it_is_revoked(store: Store) -> None:
    key = store.key("leader")
    async with client_of(store) as client:
        lease, ttl = await client.grant(30)
        assert ttl == 30
        assert lease > 2**53  # what JSON numbers would have garbled
        await client.txn(transaction([], [put(key, b"me", lease)]))
        found = await client.range(key)
        assert found.keys[0].lease == lease
        assert (await client.keep_alive(lease))[0] == 30
        await client.revoke(lease)
        assert (await client.range(key)).value is None
        with pytest.raises(LeaseGone):
            await client.keep_alive(lease)
        with pytest.raises(LeaseGone):
            await client.txn(transaction([], [put(key, b"me", lease)]))


async def test_lines_longer_than_any_reader_of_lines_takes(store: Store) -> None:
    """aiohttp's `readline` ends at 64 KiB, and gives an error."""
    key, large = store.key("large"), b"\xff" * 300_000
    async with client_of(store) as client:
        revision = (await client.range(key)).revision
        await client.txn(transaction([], [put(key, large)]))
        assert (await client.range(key)).value == large
        begun = time.monotonic()
        await client.wait_for_change(key, revision, 10)  # one line of 400 kB
        assert time.monotonic() - begun < 5


async def test_a_request_over_the_limit_of_etcd_is_refused(store: Store) -> None:
    async with client_of(store) as client:
        with pytest.raises(Refused, match="too large"):
            await client.txn(transaction([], [put(store.key("a"), b"x" * 1_700_000)]))


async def test_a_change_ends_the_wait_for_it(store: Store) -> None:
    key = store.key("a")
    async with client_of(store) as client:
        revision = (await client.range(key)).revision
        waiting = asyncio.ensure_future(client.wait_for_change(key, revision, 20))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        begun = time.monotonic()
        await client.txn(transaction([], [put(key, b"1")]))
        await waiting
        assert time.monotonic() - begun < 5
        await client.wait_for_change(key, revision, 20)  # what happened before counts, too
        begun = time.monotonic()
        await client.wait_for_change(key, revision + 1000, 0.3)
        assert 0.25 < time.monotonic() - begun < 2


# An unknown outcome ---------------------------------------------------------------------------


async def test_a_lost_answer_leaves_the_outcome_open_and_a_second_try_is_harmless(
    store: Store,
) -> None:
    key = store.key("a")
    append = transaction([is_absent(key)], [put(key, b"id-1")], [get(key)])
    wire = Wire(store.members[0])
    async with wire as address, client_of(Store((address,), store.prefix), 0.3) as client:
        wire.swallows_answers = True
        with pytest.raises(NoAnswer) as raised:
            await client.txn(append, deadline_s=0.3)
        assert raised.value.unknown
        wire.swallows_answers = False
        again = await client.txn(append)
        assert not again.succeeded  # the first try took effect, and is recognized
        assert again.found[0].value == b"id-1"


# Members that stop -----------------------------------------------------------------------------


async def test_a_watch_on_a_member_that_stands_still_is_silent_and_ends(fragile: Members) -> None:
    store = fragile.store()
    key = store.key("a")
    async with client_of(store, 0.5) as client:
        revision = (await client.range(key)).revision  # of the first member
        fragile.signal(0, signal.SIGSTOP)
        try:
            begun = time.monotonic()
            waiting = asyncio.ensure_future(client.wait_for_change(key, revision, 1.0))
            async with client_of(Store(store.members[1:], store.prefix)) as other:
                await other.txn(transaction([], [put(key, b"1")]), deadline_s=10)
            await waiting  # nothing came, although the key has changed
            assert 0.9 < time.monotonic() - begun < 12
            assert (await client.range(key, deadline_s=10)).value == b"1"
            begun = time.monotonic()
            await client.wait_for_change(key, revision, 5.0)  # at another member
            assert time.monotonic() - begun < 2
        finally:
            fragile.signal(0, signal.SIGCONT)


async def test_the_loss_of_the_leading_member_is_survived(fragile: Members) -> None:
    store = fragile.store()
    async with client_of(store, 0.5) as client:
        await client.txn(transaction([], [put(store.key("a"), b"1")]))
        fragile.kill(fragile.leader())
        await client.txn(transaction([], [put(store.key("a"), b"2")]), deadline_s=15)
        assert (await client.range(store.key("a"))).value == b"2"


# Gateways and users ----------------------------------------------------------------------------


async def test_a_real_member_without_gateway_is_named(tmp_path: Path) -> None:
    members = Members(tmp_path, 1, flags=["--enable-grpc-gateway=false"])
    try:
        members.start_one(0)
        until_listening(members)
        async with client_of(members.store()) as client:
            with pytest.raises(NoGateway, match="enable-grpc-gateway=true"):
                await client.range("a", deadline_s=15)
    finally:
        members.close()


def until_listening(members: Members) -> None:
    ends = time.monotonic() + 20
    log = members.folder / "etcd0.log"
    while "ready to serve client requests" not in log.read_text():
        assert time.monotonic() < ends
        time.sleep(0.05)


def enable_users(members: Members, *flags: str) -> None:
    """A user `halo` for one prefix alone, and root."""
    for words in (
        "user add root:rootpw",
        "user add halo:hunter2",
        "role add halo",
        "role grant-permission halo --prefix=true readwrite /halo/",
        "user grant-role halo halo",
        "user grant-role root root",
        "auth enable",
    ):
        members.etcdctl(*flags, *words.split())


async def test_a_user_with_a_password(tmp_path: Path) -> None:
    members = Members(tmp_path, 1)
    (tmp_path / "good").write_text("hunter2\n")
    (tmp_path / "bad").write_text("wrong\n")
    try:
        members.start()
        enable_users(members)
        at = f"etcd://{members.addresses[0]}/halo/test"
        good = store_at(at, StoreFiles(user="halo", password_file=tmp_path / "good"), {})
        async with client_of(good) as client:
            await client.txn(transaction([], [put(good.key("a"), b"1")]))
            lease, _ = await client.grant(30)
            assert (await client.keep_alive(lease))[0] == 30
            # A member forgets its tokens when it starts again.
            members.kill(0)
            members.start_one(0)
            assert (await client.range(good.key("a"), deadline_s=20)).value == b"1"
            with pytest.raises(NotAllowed, match=r"permission denied.*role"):
                await client.range("/other")
        bad = store_at(at, StoreFiles(user="halo", password_file=tmp_path / "bad"), {})
        async with client_of(bad) as client:
            with pytest.raises(NotAllowed, match="'halo', its password"):
                await client.range(bad.key("a"))
        async with client_of(store_at(at, StoreFiles(), {})) as client:
            with pytest.raises(NotAllowed, match="give --store-user"):
                await client.range(good.key("a"))
    finally:
        members.close()


def without_common_name(authority: Authority, file: str) -> TlsFiles:
    """A client's certificate with an empty subject, as the gateway wants it."""
    pattern = authority.issue(file, "halo", usages=CALL)
    found = x509.load_pem_x509_certificate(pattern.certificate.read_bytes())
    builder = x509.CertificateBuilder(
        found.issuer,
        x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "HALO")]),
        found.public_key(),
        found.serial_number,
        found.not_valid_before_utc,
        found.not_valid_after_utc,
    )
    for extension in found.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    signed = builder.sign(load_key(authority.ca.key), hashes.SHA256())
    pattern.certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    return pattern


async def test_client_certificates_with_and_without_a_user(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    # The gateway calls its own member with the member's certificate: both usages.
    served = authority.issue("member", "127.0.0.1", usages=BOTH)
    own = without_common_name(authority, "own")
    named = authority.manager("named", "halo")
    (tmp_path / "password").write_text("hunter2\n")
    members = Members(tmp_path, 1, tls=served, client_certificates=True)
    at = f"etcd://{members.addresses[0]}/halo/test"

    def store(mine: TlsFiles | None, user: bool = False) -> Store:
        certificate, key = (mine.certificate, mine.key) if mine else (None, None)
        who = ("halo", tmp_path / "password") if user else (None, None)
        return store_at(at, StoreFiles(authority.certificate, certificate, key, *who), {})

    try:
        members.start()
        async with client_of(store(own)) as client:
            await client.txn(transaction([], [put("/halo/test/a", b"1")]))
        async with client_of(store(None)) as client:
            with pytest.raises(NoAnswer):
                await client.range("/halo/test/a", deadline_s=1)
        plain = store_at(at, StoreFiles(), {})
        async with client_of(plain) as client:
            with pytest.raises((NoAnswer, NoGateway)):
                await client.range("/halo/test/a", deadline_s=1)
        enable_users(
            members,
            *("--cacert", str(authority.certificate)),
            *("--cert", str(own.certificate), "--key", str(own.key)),
        )
        async with client_of(store(own, user=True)) as client:
            assert (await client.range("/halo/test/a")).value == b"1"
        # The gateway does not take the name of the certificate for a user.
        async with client_of(store(own)) as client:
            with pytest.raises(NotAllowed, match="by name and password only"):
                await client.range("/halo/test/a")
        for user in (False, True):
            async with client_of(store(named, user)) as client:
                with pytest.raises(NotAllowed, match="empty CN to --store-cert"):
                    await client.range("/halo/test/a")
    finally:
        members.close()


async def test_a_member_of_another_authority_is_not_believed(tmp_path: Path) -> None:
    served = Authority(tmp_path / "theirs").issue("member", "127.0.0.1", usages=BOTH)
    mine = Authority(tmp_path / "mine").certificate
    members = Members(tmp_path, 1, tls=served)
    try:
        members.start()
        found = store_at(f"etcd://{members.addresses[0]}/x", StoreFiles(ca=mine), {})
        async with client_of(found) as client:
            with pytest.raises(NoAnswer, match=r"TLS failed.*certificate") as raised:
                await client.range("a", deadline_s=1)
            assert not raised.value.unknown
    finally:
        members.close()
