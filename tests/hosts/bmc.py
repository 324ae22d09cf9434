"""Simulated BMCs and power controllers that switch the hosts of a world, and their faults."""

from __future__ import annotations

import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import bcrypt
import trustme

from tests.debian import require, require_program
from tests.hosts.world import BMCS, PDU, World

USER, PASSWORD = "admin", "s3cret"
SWITCH = Path(__file__).with_name("switch.py")

_LAN = """
name "{outlet}"
set_working_mc 0x20
  startlan 1
    addr {address} 623
    priv_limit admin
    allowed_auths_callback none md2 md5 straight
    allowed_auths_user none md2 md5 straight
    allowed_auths_operator none md2 md5 straight
    allowed_auths_admin none md2 md5 straight
    guid a123456789abcdefa123456789abcdef
  endlan
  chassis_control "{control}"
  startnow false
  user 1 true "" "" user 10 none md2 md5 straight
  user 2 true "{user}" "{password}" admin 10 none md2 md5 straight
"""
_COMMANDS = """
mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
mc_enable 0x20
"""
_POWERMAN = """
include "/etc/powerman/vpc.dev"
listen "{address}:10101"
tcpwrappers no
device "pdu" "vpc" "{coprocess} |&"
node "h[1-9]" "pdu" "[1-9]"
"""
UUID = "a0000000-0000-4000-8000-0000000000{number:02}"


class Simulator(ABC):
    """One simulator at work in the BMCs' node. `name` is also that of its log."""

    def __init__(self, world: World, name: str, address: str) -> None:
        self.world = world
        self.name = name
        self.address = address
        self.folder = world.ground / name
        self.folder.mkdir()
        # In a file, so that it can be wrong for a while without a new config.
        self.password = self.folder / "password"
        self.set_password(PASSWORD)

    @abstractmethod
    def command(self) -> list[str]:
        """The program that is run."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it is ready."""

    @abstractmethod
    def device(self) -> dict[str, Any]:
        """The config of a host that HALO's own agent fences by this."""

    @abstractmethod
    def foreign_device(self) -> dict[str, Any]:
        """The same by the distribution's fence agent."""

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.boot()
        self.world.wait(self.answers, f"{self.name} answers")

    def boot(self) -> None:
        """Start it, and do not wait."""
        self.world.spawn(self.name, BMCS, *self.command(), cwd=self.folder)

    def kill(self) -> None:
        """It is dead, and its port closed."""
        self.world.kill(self.name)

    def hang(self) -> None:
        """It accepts, and answers nothing."""
        self.world.signal(self.name, signal.SIGSTOP)

    def wake(self) -> None:
        """It goes on after a hang."""
        self.world.signal(self.name, signal.SIGCONT)

    def set_password(self, password: str) -> None:
        """The password that HALO uses."""
        self.password.write_text(f"{password}\n")
        self.password.chmod(0o600)

    def _login(self) -> dict[str, str]:
        return {"username": USER, "password": f"file:{self.password}"}

    def _is_listening(self, port: int) -> bool:
        script = f"import socket; socket.create_connection(('{self.address}', {port}), 1)"
        return self.world.run(BMCS, sys.executable, "-S", "-c", script).code == 0


class IpmiBmc(Simulator):
    """OpenIPMI's `ipmi_sim` for one host."""

    def __init__(self, world: World, host: str) -> None:
        super().__init__(world, f"ipmi_{host}", world.bmc_address(host))
        self.host = host
        mains = world.ground / "mains"
        control = f"{sys.executable} -S {SWITCH} ipmi {mains} {host}"
        (self.folder / "lan.conf").write_text(
            _LAN.format(
                outlet=host, address=self.address, control=control, user=USER, password=PASSWORD
            )
        )
        (self.folder / "cmd.conf").write_text(_COMMANDS)
        (self.folder / "sim").mkdir()

    def command(self) -> list[str]:
        return [
            "ipmi_sim",
            "-n",
            "-c",
            "lan.conf",
            "-f",
            "cmd.conf",
            "-s",
            str(self.folder / "sim"),
        ]

    def answers(self) -> bool:
        script = (
            "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.settimeout(0.3); "
            f"s.connect(('{self.address}', 623)); "
            "s.send(bytes((6, 0, 255, 6, 0, 0, 17, 190, 128, 0, 0, 0))); s.recv(512)"
        )
        return self.world.run(BMCS, sys.executable, "-S", "-c", script).code == 0

    def device(self) -> dict[str, Any]:
        parameters = {"ip": self.address, "timeout": "3", "power_timeout": "2", **self._login()}
        return {"fence_agent": "ipmi", "fence_parameters": parameters}

    def foreign_device(self) -> dict[str, Any]:
        parameters = {"ip": self.address, **self._login()}
        parameters |= {"lanplus": "1", "cipher": "3", "power_wait": "0"}
        return {"fence_agent": "fence_ipmilan", "fence_parameters": parameters}


class RedfishBmc(Simulator):
    """sushy-tools' Redfish emulator for one host, with TLS and authentication."""

    def __init__(self, world: World, host: str) -> None:
        super().__init__(world, f"redfish_{host}", world.bmc_address(host))
        self.host = host
        self._authority = trustme.CA()
        self._ca = self.folder / "ca.pem"
        self.fit_certificate()
        issued = self._authority.issue_cert(self.address)
        certificate, key = self.folder / "server.pem", self.folder / "server.key"
        issued.cert_chain_pems[0].write_to_path(certificate)
        issued.private_key_pem.write_to_path(key)
        hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
        (self.folder / "htpasswd").write_text(f"{USER}:{hashed}\n")
        system = {"uuid": self._uuid(), "name": host, "power_state": "On", "nics": []}
        settings = {
            "SUSHY_EMULATOR_LISTEN_IP": self.address,
            "SUSHY_EMULATOR_LISTEN_PORT": 443,
            "SUSHY_EMULATOR_SSL_CERT": str(certificate),
            "SUSHY_EMULATOR_SSL_KEY": str(key),
            "SUSHY_EMULATOR_AUTH_FILE": str(self.folder / "htpasswd"),
            "SUSHY_EMULATOR_FAKE_DRIVER": True,
            "SUSHY_EMULATOR_STATE_DIR": str(self.folder),
            "SUSHY_EMULATOR_FEATURE_SET": "minimum",
            "SUSHY_EMULATOR_FAKE_SYSTEMS": [system],
        }
        text = "\n".join(f"{key} = {value!r}" for key, value in settings.items())
        (self.folder / "emulator.conf").write_text(text)

    def _uuid(self) -> str:
        return UUID.format(number=int(self.host.removeprefix("h")))

    def fit_certificate(self) -> None:
        """HALO verifies it with the authority that signed it."""
        self._authority.cert_pem.write_to_path(self._ca)

    def misfit_certificate(self) -> None:
        """HALO verifies it with another authority."""
        trustme.CA().cert_pem.write_to_path(self._ca)

    def command(self) -> list[str]:
        words = ["-m", "tests.hosts.redfish_bmc", "--config", str(self.folder / "emulator.conf")]
        return [sys.executable, *words, str(self.world.ground / "mains"), self.host]

    def answers(self) -> bool:
        return self._is_listening(443)

    def device(self) -> dict[str, Any]:
        parameters = {"ip": self.address, "tls_ca": str(self._ca), **self._login()}
        parameters |= {"timeout": "3", "power_timeout": "2"}
        return {"fence_agent": "redfish", "fence_parameters": parameters}

    def foreign_device(self) -> dict[str, Any]:
        parameters = {"ip": self.address, "ipport": "443", **self._login()}
        parameters |= {"ssl_insecure": "1", "systems_uri": f"/redfish/v1/Systems/{self._uuid()}"}
        return {"fence_agent": "fence_redfish", "fence_parameters": parameters}


class Powermand(Simulator):
    """One powermand in front of all hosts; make one object a host, on the same daemon."""

    def __init__(self, world: World, host: str, shared: Powermand | None = None) -> None:
        self.host = host
        self._shared = shared
        if shared is not None:
            self.world, self.name, self.address = world, shared.name, shared.address
            return
        super().__init__(world, "powermand", PDU)
        coprocess = f"{sys.executable} -S {SWITCH} powerman {world.ground / 'mains'}"
        text = _POWERMAN.format(address=self.address, coprocess=coprocess)
        (self.folder / "powerman.conf").write_text(text)

    def boot(self) -> None:
        if self._shared is None:
            super().boot()

    def command(self) -> list[str]:
        conf = str(self.folder / "powerman.conf")
        return [require_program("powermand"), "-f", "-c", conf]

    def answers(self) -> bool:
        return self._is_listening(10101)

    def device(self) -> dict[str, Any]:
        parameters = {"ip": self.address, "port": self.host, "login_timeout": "2"}
        parameters |= {"shell_timeout": "3", "power_timeout": "2"}
        return {"fence_agent": "powerman", "fence_parameters": parameters}

    def foreign_device(self) -> dict[str, Any]:
        parameters = {"ip": self.address, "ipport": "10101", "port": self.host}
        parameters |= {"delay": "0", "power_wait": "0"}
        return {"fence_agent": "fence_powerman", "fence_parameters": parameters}


Bmcs = Mapping[str, Simulator]


def make_bmcs(kind: str, world: World, hosts: Sequence[str]) -> dict[str, Simulator]:
    """A BMC for each host, not started yet; `kind` is `ipmi`, `redfish` or `powerman`."""
    match kind:
        case "ipmi":
            require("openipmi", "ipmitool", "fence-agents")
            return {host: IpmiBmc(world, host) for host in hosts}
        case "redfish":
            require("fence-agents")
            return {host: RedfishBmc(world, host) for host in hosts}
        case "powerman":
            require("powerman", "fence-agents")
            first = Powermand(world, hosts[0])
            return {hosts[0]: first, **{h: Powermand(world, h, first) for h in hosts[1:]}}
    raise ValueError(kind)
