"""What a medium in etcd runs on: its thread, its ways to the members, and its clock.

A simulation has others."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from halo.adapters.etcd.client import EtcdClient
from halo.adapters.etcd.leadership import boot_time
from halo.adapters.etcd.location import Store
from halo.adapters.etcd.standby.members import Members
from halo.adapters.loop_thread import LoopThread

T = TypeVar("T")


class Thread(Protocol):
    """A thread that runs an event loop."""

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine in the thread."""
        ...

    def stop(self) -> None:
        """End the loop and the thread."""
        ...


def _client(store: Store, attempt_s: float) -> EtcdClient:
    return EtcdClient(store, attempt_s=attempt_s)


@dataclass(frozen=True)
class Means:
    """How to make each of them. `client` and `members` are called in the thread. Without `members`,
    nobody watches the members one by one."""

    thread: Callable[[str], Thread] = LoopThread
    client: Callable[[Store, float], EtcdClient] = _client
    clock: Callable[[], float] = boot_time
    members: Callable[[Store], Members] | None = Members


REAL = Means()
