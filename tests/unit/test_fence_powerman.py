"""The fence program `powerman`, against a real powermand with its virtual power controller."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from halo.adapters.fence.programs import FencePrograms
from halo.core.model import FenceDevice
from halo.core.outcomes import FenceAction, PowerState
from tests.debian import require, require_program
from tests.fence_helpers import bundled, free_port, wait_until

OFF, ON, STATUS = FenceAction.OFF, FenceAction.ON, FenceAction.STATUS

CONFIG = """
include "/etc/powerman/vpc.dev"
listen "127.0.0.1:{port}"
tcpwrappers no
device "vpc0" "vpc" "/usr/sbin/vpcd |&"
node "n[0-15]" "vpc0"
"""


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    require("powerman")
    folder = tmp_path_factory.mktemp("powerman")
    number = free_port()
    (folder / "powerman.conf").write_text(CONFIG.format(port=number))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [require_program("powermand"), "-f", "-c", str(folder / "powerman.conf")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        wait_until(lambda: _listens(number), "powermand")
        yield number
        process.terminate()
        process.wait(20)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest_asyncio.fixture
async def programs() -> AsyncIterator[FencePrograms]:
    made = FencePrograms()
    yield made
    await made.close()


def outlet(port: int, plug: str = "n1", **more: str) -> FenceDevice:
    return bundled("powerman", ip="127.0.0.1", ipport=str(port), port=plug, **more)


async def test_off_and_on_are_done_and_seen_on_that_outlet_alone(
    port: int, programs: FencePrograms
) -> None:
    assert (await programs.run(outlet(port, "n10"), ON, 20)).succeeded
    for action, power in ((ON, PowerState.ON), (OFF, PowerState.OFF)):
        result = await programs.run(outlet(port), action, 20)
        assert result.succeeded, result.message
        assert (await programs.run(outlet(port), STATUS, 20)).power is power
    assert (await programs.run(outlet(port, "n10"), STATUS, 20)).power is PowerState.ON


async def test_the_old_names_of_parameters_still_work(port: int, programs: FencePrograms) -> None:
    old = bundled("powerman", ipaddr="localhost", ipport=str(port), plug="n2")
    assert (await programs.run(old, ON, 20)).succeeded
    assert (await programs.run(outlet(port, "n2"), STATUS, 20)).power is PowerState.ON


async def test_a_node_that_is_unknown_is_told(port: int, programs: FencePrograms) -> None:
    for action in (OFF, STATUS):
        result = await programs.run(outlet(port, "nope"), action, 20)
        assert not result.succeeded
        assert "No such nodes: nope" in result.message


@pytest.mark.parametrize("plug", ["n[1-4]", "n1,n2", "n1 n2"])
async def test_a_name_that_means_several_nodes_is_refused(
    port: int, programs: FencePrograms, plug: str
) -> None:
    result = await programs.run(outlet(port, plug), OFF, 20)
    assert "must name a single powerman node" in result.message


async def test_a_daemon_that_is_away_is_told_apart(programs: FencePrograms) -> None:
    refused = await programs.run(outlet(free_port()), OFF, 20)
    assert "connection refused" in refused.message
    with socket.socket() as hung:
        hung.bind(("127.0.0.1", 0))
        hung.listen()
        device = outlet(hung.getsockname()[1], shell_timeout="0.3")
        assert "timed out" in (await programs.run(device, OFF, 20)).message


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("302 on:      \r\n302 off:     \r\n302 unknown: n1\r\n", "does not know the state of n1"),
        ("302 on:      \r\n302 off:     n12\r\n302 unknown: \r\n", "told no state of n1"),
        ("211 Device error\r\n", "refused: Device error"),
    ],
)
async def test_an_answer_that_is_no_state_is_unknown(
    programs: FencePrograms, answer: str, words: str
) -> None:
    """A recorded daemon: the virtual controller never fails."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"001 2.3.27\r\npowerman> ")
                connection.recv(100)
                connection.sendall(answer.encode() + b"powerman> ")
                connection.recv(100)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        result = await programs.run(outlet(listener.getsockname()[1]), STATUS, 20)
        thread.join(20)
    assert (result.succeeded, result.power) == (False, PowerState.UNKNOWN)
    assert words in result.message
