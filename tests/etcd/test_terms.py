"""The term of a leadership: it rises whatever happens to etcd; an operator can raise its base."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from halo.adapters.etcd.client import EtcdClient
from halo.adapters.etcd.leadership import Leadership
from halo.adapters.etcd.location import Store
from halo.adapters.etcd.medium import EtcdMedium
from halo.adapters.etcd.terms import BASE_LIMIT, SomebodyLeads, raise_base
from halo.adapters.etcd.values import Json
from halo.core.errors import StateError
from halo.core.journal.records import Event, Record
from halo.core.peers.bounds import TERM_LIMIT
from tests.etcd.members import Members
from tests.etcd.one_member import OneMember
from tests.etcd.stand_ins import Wire, gateway
from tests.etcd.test_store_command import halo


async def lead_once(store: Store, writes: int = 0) -> int:
    """The term of a leadership that is given back."""
    medium = EtcdMedium.open(store)
    for number in range(writes):
        await medium.append([Record(1.0, Event.STOP, f"g{number}", term=medium.term).to_json()])
    await medium.close()
    return medium.term


async def test_each_leadership_has_a_higher_term(tmp_path: Path) -> None:
    members = Members(tmp_path, 1, fsync=True)
    try:
        members.start()
        store = members.store()
        terms = [await lead_once(store, writes=3), await lead_once(store)]
        header = members.ask(0, "/v3/kv/range", {"key": "AA=="})["header"]
        assert isinstance(header, dict)
        members.etcdctl("compact", header["revision"])
        members.etcdctl("defrag")
        terms.append(await lead_once(store))
        members.kill(0)
        members.start_one(0)
        members.wait_until_healthy()
        terms += [await lead_once(store), await lead_once(store)]
    finally:
        members.close()
    assert terms == sorted(set(terms))
    assert terms[0] > 0


async def test_a_base_that_could_not_be_read_again_is_not_written(store: Store) -> None:
    """`halo store import` takes the term from the records."""
    client = EtcdClient(store)
    with pytest.raises(StateError, match="is too high"):
        await raise_base(client, store, BASE_LIMIT + 1, "for a test", at=1.0)
    await raise_base(client, store, BASE_LIMIT, "for a test", at=1.0)
    await client.close()
    assert await lead_once(store) > BASE_LIMIT


async def test_the_term_is_the_revision_of_the_key_plus_the_base(store: Store) -> None:
    medium = EtcdMedium.open(store)
    client = EtcdClient(store)
    found = await client.range(store.key("leader"))
    assert medium.term == found.keys[0].create_revision
    await medium.close()
    raised = await raise_base(client, store, 10**9, "a test", at=1.0)
    assert (raised.before, raised.after) == (0, 10**9)
    medium = EtcdMedium.open(store)
    found = await client.range(store.key("leader"))
    assert medium.term == found.keys[0].create_revision + 10**9
    await medium.close()
    await client.close()


@pytest.mark.parametrize("attempt_s", [0.3, 6.0])
async def test_a_lost_answer_does_not_change_the_term(store: Store, attempt_s: float) -> None:
    """The try after it finds our key, which was created by the try before."""
    wire = Wire(store.members[0])
    wire.loses_answer_to = b"kv/txn"
    async with wire as address:
        client = EtcdClient(Store((address,), store.prefix), attempt_s=attempt_s)
        leadership = Leadership(client, store.key("leader"), lease_s=60)
        if attempt_s > 1:
            with pytest.raises(Exception, match="no answer"):
                await leadership.take()
            elsewhere = Store(store.members, store.prefix + "/elsewhere")
            await raise_base(client, elsewhere, 1, "etcd counts on", at=1.0)
        assert await leadership.take() is None
        found = await client.range(store.key("leader"))
        assert leadership.term == found.keys[0].create_revision > 0
        await leadership.release()
        await client.close()


async def test_the_base_is_raised_only_while_nobody_leads_and_never_lowered(store: Store) -> None:
    client = EtcdClient(store)
    medium = EtcdMedium.open(store)
    with pytest.raises(SomebodyLeads):
        await raise_base(client, store, 500, "too early", at=1.0)
    await medium.close()
    assert (await raise_base(client, store, 500, "now", at=1.0)).after == 500
    assert (await raise_base(client, store, 400, "lower", at=1.0)).after == 500
    medium = EtcdMedium.open(store)
    assert medium.term > 500
    await medium.close()
    found = await client.range(store.key("term-base"))
    assert json.loads(found.value or b"")["base"] == 500
    await client.close()


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"5",
        b"[]",
        b'{"base": -1}',
        b'{"base": "5"}',
        b'{"base": 9007199254740991}',
        b"[" * 9999,
    ],
)
async def test_a_base_that_no_command_wrote_stops_the_start(value: bytes) -> None:
    member = OneMember()
    member.write("/x/term-base", value)
    async with gateway(member.answer) as address:
        client = EtcdClient(Store((address,), "/x"))
        with pytest.raises(StateError, match="holds no base of terms"):
            await Leadership(client, "/x/leader").take()
        await client.close()


async def test_a_term_that_agents_would_refuse_is_no_leadership() -> None:
    member = OneMember()
    member.revision = TERM_LIMIT
    async with gateway(member.answer) as address:
        client = EtcdClient(Store((address,), "/x"))
        with pytest.raises(StateError, match="but a term is from 1 to"):
            await Leadership(client, "/x/leader").take()
        await client.close()


async def test_an_answer_without_the_base_is_no_term() -> None:
    """A base that was left out must not be taken for none."""
    member = OneMember()

    def without_base(path: str, body: Json, token: str | None) -> object:
        answer = member.answer(path, body, token)
        if path.endswith("kv/txn") and isinstance(answer, dict):
            answer["responses"] = answer["responses"][:1]
        return answer

    async with gateway(without_base) as address:  # type: ignore[arg-type]  # answers badly
        client = EtcdClient(Store((address,), "/x"))
        with pytest.raises(Exception, match="left out"):
            await Leadership(client, "/x/leader").take()
        await client.close()


async def test_the_command_says_the_base_before_and_after(store: Store) -> None:
    done = halo("store", "raise-term", str(store), "--above", "7000", "--reason", "built anew")
    assert (done.returncode, done.stderr) == (0, "")
    assert "was 0 and is 7000 now" in done.stdout
    first = await lead_once(store)
    assert first > 7000
    done = halo("store", "raise-term", str(store), "--above", "60", "--reason", "again")
    assert "Nothing was changed" in done.stdout
    medium = EtcdMedium.open(store)
    higher = first + 10_000
    done = halo("store", "raise-term", str(store), "--above", str(higher), "--reason", "too early")
    await medium.close()
    assert done.returncode == 1
    assert "is led by pid" in done.stderr
    done = halo("store", "raise-term", str(store), "--above", str(BASE_LIMIT + 1), "--reason", "x")
    assert done.returncode == 1
    assert "--forget-term" in done.stderr
    assert await lead_once(store) < higher


async def test_an_import_leads_to_a_term_above_those_of_its_records(
    store: Store, tmp_path: Path
) -> None:
    other = Store(store.members, store.prefix + "/other")
    await raise_base(client := EtcdClient(store), store, 10**6, "a long life", at=1.0)
    await client.close()
    term = await lead_once(store, writes=2)
    copy = tmp_path / "copy"
    halo("store", "export", str(store), copy)
    done = halo("store", "import", copy, str(other))
    assert done.returncode == 0, done.stderr
    assert f"was 0 and is {term} now" in done.stdout
    assert await lead_once(other) > term
