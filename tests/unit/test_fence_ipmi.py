"""The fence program `ipmi`, against the simulated BMC of OpenIPMI."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from halo.adapters.fence.programs import FencePrograms
from halo.core.model import FenceDevice
from halo.core.outcomes import FenceAction, FenceResult, PowerState
from tests.debian import require, require_program
from tests.fence_helpers import bundled, free_port, make_program, wait_until

OFF, ON, STATUS = FenceAction.OFF, FenceAction.ON, FenceAction.STATUS
USER, PASSWORD = "admin", "s3cret"
PING = bytes((6, 0, 255, 6, 0, 0, 17, 190, 128, 0, 0, 0))

LAN = """
name "bmc1"
set_working_mc 0x20
  startlan 1
    addr 127.0.0.1 {port}
    priv_limit admin
    allowed_auths_callback none md2 md5 straight
    allowed_auths_user none md2 md5 straight
    allowed_auths_operator none md2 md5 straight
    allowed_auths_admin none md2 md5 straight
    guid a123456789abcdefa123456789abcdef
  endlan
  chassis_control "{hook} {state}"
  startnow false
  user 1 true "" "" user 10 none md2 md5 straight
  user 2 true "{user}" "{password}" admin 10 none md2 md5 straight
"""
COMMANDS = """
mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
mc_enable 0x20
"""
# A file `stuck` beside the state: the BMC acknowledges, and the power stays as it is.
HOOK = """
state=$1
case "$2 $3" in
"get power") echo "power:$(cat "$state")" ;;
"set power") [ -e "$state.stuck" ] || echo "$4" > "$state" ;;
esac
"""


class Bmc:
    """One running simulator."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port(socket.SOCK_DGRAM)
        self.state = folder / "power"
        self.stuck = folder / "power.stuck"
        self.state.write_text("1\n")
        (folder / "sim").mkdir()
        hook = make_program(folder / "hook", HOOK)
        (folder / "lan.conf").write_text(
            LAN.format(port=self.port, hook=hook, state=self.state, user=USER, password=PASSWORD)
        )
        (folder / "cmd.conf").write_text(COMMANDS)
        command = ["ipmi_sim", "-n", "-c", "lan.conf", "-f", "cmd.conf", "-s", str(folder / "sim")]
        self._log = (folder / "log").open("wb")
        self.process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log
        )
        wait_until(self._answers, "the simulated BMC")

    def _answers(self) -> bool:
        assert self.process.poll() is None, Path(self._log.name).read_text()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.settimeout(0.2)
            try:
                probe.connect(("127.0.0.1", self.port))
                probe.send(PING)
                return bool(probe.recv(512))
            except OSError:
                return False

    def device(self, **more: str) -> FenceDevice:
        parameters = {
            "ip": "127.0.0.1",
            "ipport": str(self.port),
            "username": USER,
            "password": PASSWORD,
        }
        return bundled("ipmi", **{**parameters, **more})

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._log.close()


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bmc]:
    require("openipmi", "ipmitool")
    made = Bmc(tmp_path_factory.mktemp("ipmi"))
    yield made
    made.close()


@pytest.fixture
def bmc(simulator: Bmc) -> Bmc:
    simulator.state.write_text("1\n")
    simulator.stuck.unlink(missing_ok=True)
    return simulator


@pytest_asyncio.fixture
async def programs() -> AsyncIterator[FencePrograms]:
    made = FencePrograms()
    yield made
    await made.close()


async def run(programs: FencePrograms, device: FenceDevice, action: FenceAction) -> FenceResult:
    return await programs.run(device, action, 40)


async def test_off_and_on_are_done_and_seen(bmc: Bmc, programs: FencePrograms) -> None:
    for action, power in ((OFF, PowerState.OFF), (ON, PowerState.ON)):
        result = await run(programs, bmc.device(), action)
        assert result.succeeded, result.message
        assert bmc.state.read_text() == ("1\n" if power is PowerState.ON else "0\n")
        assert (await run(programs, bmc.device(), STATUS)).power is power


async def test_the_old_names_of_parameters_still_work(bmc: Bmc, programs: FencePrograms) -> None:
    old = bundled("ipmi", ipaddr="127.0.0.1", login=USER, passwd=PASSWORD, ipport=str(bmc.port))
    assert (await run(programs, old, STATUS)).power is PowerState.ON


async def test_the_password_may_come_from_a_script(
    bmc: Bmc, programs: FencePrograms, tmp_path: Path
) -> None:
    script = make_program(tmp_path / "password", f"echo {PASSWORD}")
    device = bmc.device(password_script=script)
    parameters = {key: value for key, value in device.parameters.items() if key != "password"}
    result = await run(programs, bundled("ipmi", **parameters), STATUS)
    assert result.power is PowerState.ON, result.message


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"password": "wr0ng"}, "bad credentials: the password is wrong"),
        ({"username": "nobody"}, "bad credentials: no such user"),
        ({"cipher": "17"}, "refuses this cipher suite"),
        ({"ip": "bmc.invalid"}, "the name is not known"),
        ({"ipport": "0"}, "is not a port number"),
        ({"username": "-E"}, "looks like an option"),
    ],
)
async def test_what_is_wrong_is_told(
    bmc: Bmc, programs: FencePrograms, wrong: dict[str, str], words: str
) -> None:
    result = await run(programs, bmc.device(**wrong), OFF)
    assert not result.succeeded
    assert words in result.message
    assert "wr0ng" not in result.message
    assert bmc.state.read_text() == "1\n"


async def test_a_device_that_is_away_is_told_apart(programs: FencePrograms) -> None:
    require("ipmitool")
    port = str(free_port(socket.SOCK_DGRAM))
    gone = bundled("ipmi", ip="127.0.0.1", ipport=port, username=USER, timeout="5")
    assert "connection refused" in (await run(programs, gone, OFF)).message
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hung:
        hung.bind(("127.0.0.1", 0))
        port = str(hung.getsockname()[1])
        silent = bundled("ipmi", ip="127.0.0.1", ipport=port, username=USER, timeout="1.5")
        assert "timed out" in (await run(programs, silent, OFF)).message


async def test_a_device_that_accepts_and_does_nothing_is_not_believed(
    bmc: Bmc, programs: FencePrograms
) -> None:
    bmc.stuck.touch()
    result = await run(programs, bmc.device(power_timeout="0.4"), OFF)
    assert not result.succeeded
    assert "still on 0.4 s after" in result.message


async def test_the_password_stands_in_no_argv_and_no_environment(
    programs: FencePrograms, tmp_path: Path
) -> None:
    # A stand-in for ipmitool that shows all that other users, or /proc, could see of it.
    tool = make_program(
        tmp_path / "ipmitool",
        f'tr "\\0" "\\n" < /proc/$$/cmdline > {tmp_path}/argv; env > {tmp_path}/env\n'
        f"cat > {tmp_path}/input; echo Chassis Power is on",
    )
    device = bundled("ipmi", ip="bmc1", username=USER, password=PASSWORD, ipmitool_path=tool)
    assert (await run(programs, device, STATUS)).power is PowerState.ON
    assert (tmp_path / "input").read_text() == PASSWORD + "\n"
    assert PASSWORD not in (tmp_path / "argv").read_text() + (tmp_path / "env").read_text()


async def test_a_bmc_that_hangs_dies_with_its_ipmitool_at_the_deadline(
    programs: FencePrograms,
) -> None:
    require("ipmitool")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hung:
        hung.bind(("127.0.0.1", 0))
        hung.settimeout(10)
        got: list[bytes] = []
        reader = threading.Thread(target=lambda: got.append(hung.recv(512)), daemon=True)
        reader.start()
        port = str(hung.getsockname()[1])
        device = bundled("ipmi", ip="127.0.0.1", ipport=port, username=USER, timeout="30")
        started = time.monotonic()
        result = await programs.run(device, OFF, 1.0)
        assert time.monotonic() - started < 5
        reader.join(10)
    assert "not finished within 1 s, killed" in result.message
    assert got  # ipmitool really was at work


async def test_the_distribution_fence_ipmilan_works_through_the_adapter(
    bmc: Bmc, programs: FencePrograms
) -> None:
    require("fence-agents")
    device = bmc.device(lanplus="1", cipher="3", power_wait="0")
    program = require_program("fence_ipmilan")
    foreign = FenceDevice("fence_ipmilan", program, device.parameters)
    assert (await run(programs, foreign, OFF)).succeeded
    assert (await run(programs, foreign, STATUS)).power is PowerState.OFF
    assert bmc.state.read_text() == "0\n"
    assert (await run(programs, foreign, ON)).succeeded
    assert (await run(programs, foreign, STATUS)).power is PowerState.ON


@pytest.mark.parametrize("state", ["on", "off"])
async def test_an_off_that_fails_counts_where_the_power_is_off_all_the_same(
    programs: FencePrograms, tmp_path: Path, state: str
) -> None:
    # Some devices refuse to switch off what is off; a busy one does it and answers too late.
    tool = make_program(
        tmp_path / "ipmitool",
        'for word; do :; done\n[ "$word" = status ] || { echo "no answer" >&2; exit 1; }\n'
        f"echo Chassis Power is {state}",
    )
    device = bundled("ipmi", ip="bmc1", username=USER, password=PASSWORD, ipmitool_path=tool)
    result = await run(programs, device, OFF)
    assert result.succeeded is (state == "off"), result.message
    assert result.succeeded or "refused: no answer" in result.message
