"""Names of members: found, not found, and name servers that give no answer."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

import pytest

from halo.adapters.etcd.client import EtcdClient
from halo.adapters.etcd.errors import NoAnswer
from halo.adapters.etcd.location import Store
from halo.adapters.etcd.resolver import Resolver
from tests.etcd.stand_ins import gateway, header


async def test_a_name_is_found() -> None:
    found = await Resolver().resolve("localhost", 99)
    assert ("127.0.0.1", 99) in [(each["host"], each["port"]) for each in found]


async def test_a_member_may_be_named() -> None:
    async with gateway(lambda *_: {"header": header()}) as address:
        client = EtcdClient(Store((address.replace("127.0.0.1", "localhost"),), "/x"))
        await client.range("a")
        await client.close()


async def test_a_name_that_nobody_knows_has_certainly_done_nothing() -> None:
    def unknown(*_: object, **__: object) -> list[tuple[object, ...]]:
        raise socket.gaierror(-2, "Name or service not known")

    with pytest.raises(OSError, match=r"h1 was not found: .*Name or service not known"):
        await Resolver(unknown).resolve("h1")
    client = EtcdClient(Store(("name.invalid:1",), "/x"))
    with pytest.raises(NoAnswer, match="no connection") as raised:
        await client.range("a", deadline_s=5.0)
    assert not raised.value.unknown
    await client.close()


def test_a_name_server_without_answer_does_not_keep_the_process() -> None:
    code = """
import asyncio, time
from halo.adapters.etcd.resolver import Resolver
async def main():
    resolver = Resolver(lambda *_, **__: time.sleep(60))
    try:
        await asyncio.wait_for(resolver.resolve("h1"), 0.2)
    except TimeoutError:
        print("gave up")
asyncio.run(main())
"""
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=True
    )
    assert done.stdout == "gave up\n"
    assert time.monotonic() - begun < 45
