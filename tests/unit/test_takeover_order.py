"""After a restart or a takeover: a group that is down is started before all that run are managed,
and all of them are managed in the end."""

from __future__ import annotations

import asyncio

from halo.core.model import Cluster, Host, Settings
from halo.manager.manager import Manager
from tests.core.builders import make_group
from tests.fakes.memory_medium import MemoryDisk, MemoryMedium

from .fake_agents import FakeAgent, FakeConnector
from .fake_devices import FakeDevices
from .fence_bench import Clock, virtual
from .virtual_time import loop_now

HOSTS, GROUPS = 20, 30
DOWN = "g0-0"


class Site:
    """Pairs of hosts. Each is home to some groups, which all run there, except one."""

    def __init__(self) -> None:
        names = [f"h{number}" for number in range(HOSTS)]
        homes = {f"g{n}-{g}": (names[n], names[n ^ 1]) for n in range(HOSTS) for g in range(GROUPS)}
        self.agents = {name: FakeAgent() for name in names}
        for group, (home, _) in homes.items():
            if group != DOWN:
                self.agents[home].up.add(group)
        self.manager = Manager(
            Cluster(
                "test",
                {name: Host(name, "192.0.2.1", 8000, ()) for name in names},
                {group: make_group(group, hosts) for group, hosts in homes.items()},
                Settings(),
            ),
            FakeConnector(self.agents),
            FakeDevices({}),
            MemoryMedium.open(MemoryDisk()),
            Clock(),
        )
        self.work = asyncio.create_task(self.manager.run())

    @property
    def managed(self) -> int:
        groups = self.manager.state.groups.values()
        return sum(group.managed_on is not None for group in groups)


@virtual
async def test_the_group_that_is_down_does_not_wait_for_those_that_run() -> None:
    site, managed_then = Site(), list[int]()
    site.agents["h0"].on_start = lambda name: managed_then.append(site.managed)
    deadline = loop_now().time() + 60.0
    while site.managed < HOSTS * GROUPS:
        assert loop_now().time() < deadline, f"only {site.managed} groups are managed"
        assert not site.work.done(), site.work
        await asyncio.sleep(0.01)
    [managed] = managed_then
    assert managed < HOSTS * GROUPS / 2
    assert DOWN in site.agents["h0"].up
