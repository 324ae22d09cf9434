"""ipmi: a baseboard management controller over IPMI 2.0, by way of ipmitool.

pyghmi was the other candidate: it takes 0.2 s to start, and needs packages outside the standard
library. The password goes to ipmitool through its standard input: its argv and environment can be
read in /proc.
"""

from __future__ import annotations

import socket
import subprocess

from .common import (
    COMMON_PARAMETERS,
    Agent,
    AgentError,
    Device,
    NoAnswer,
    Parameter,
    Parameters,
    explain,
    is_true,
    main,
    port_number,
    seconds,
)

_DEFAULT_PORT = 623
_PING = bytes((6, 0, 255, 6, 0, 0, 17, 190, 128, 0, 0, 0))  # RMCP/ASF presence ping
_MEANINGS = (
    ("rakp 2 hmac is invalid", "bad credentials: the password is wrong"),
    ("unauthorized name", "bad credentials: no such user, or not with this privilege level"),
    ("unauthorized role or privilege", "bad credentials: the user lacks this privilege level"),
    ("insufficient privilege", "bad credentials: the user may not switch power"),
    ("rakp 4 message has invalid", "bad credentials: the key (Kg) is wrong"),
    (
        "invalid authentication algorithm",
        "the device refuses this cipher suite; set cipher=3 or 17",
    ),
    ("no matching cipher suite", "the device refuses this cipher suite; set cipher=3 or 17"),
    ("address lookup for", "the name is not known"),
)


class Ipmi(Device):
    """One BMC."""

    def __init__(self, parameters: Parameters) -> None:
        self._ip = parameters["ip"]
        self._port = port_number(parameters, _DEFAULT_PORT)
        self._where = f"BMC at {self._ip}:{self._port}"
        self._password = parameters.get("password", "")
        self._timeout_s = seconds(parameters, "timeout", 10.0)
        user = parameters.get("username", "")
        for value in (self._ip, user, parameters.get("cipher", ""), parameters.get("privlvl", "")):
            if value.startswith("-"):
                raise AgentError(f'"{value}" looks like an option of ipmitool')
        lanplus = "lanplus" not in parameters or is_true(parameters, "lanplus")
        self._command = [
            parameters.get("ipmitool_path") or "ipmitool",
            *("-v", "-I", "lanplus" if lanplus else "lan"),
            *("-H", self._ip, "-p", str(self._port), "-U", user, "-f", "/dev/stdin"),
            *("-L", (parameters.get("privlvl") or "administrator").upper()),
            # A lost packet is sent again after a second, up to the deadline set here.
            *("-N", "1", "-R", str(max(1, int(self._timeout_s) // 3))),
        ]
        if lanplus:
            self._command += ["-C", parameters.get("cipher") or "3"]

    def is_on(self) -> bool:
        answer = self._ask("status").lower()
        if "power is on" in answer:
            return True
        if "power is off" in answer:
            return False
        raise AgentError(f"{self._where} told no power state")

    def switch(self, on: bool) -> None:
        self._ask("on" if on else "off")

    def _ask(self, command: str) -> str:
        try:
            done = subprocess.run(
                [*self._command, "chassis", "power", command],
                input=self._password + "\n",
                capture_output=True,
                timeout=self._timeout_s,
                encoding="utf-8",
                errors="replace",
                check=False,
            )
        except FileNotFoundError:
            raise AgentError("there is no program ipmitool; install it") from None
        except subprocess.TimeoutExpired:
            raise NoAnswer(
                f"{self._where}: timed out, no answer within {self._timeout_s:g} s"
            ) from None
        if done.returncode != 0:
            kind = NoAnswer if "unable to establish" in done.stderr.lower() else AgentError
            raise kind(f"{self._where}: {self._reason(done.stderr)}")
        return done.stdout

    def _reason(self, complaint: str) -> str:
        text = complaint.lower()
        for sign, meaning in _MEANINGS:
            if sign in text:
                return meaning
        if "unable to establish" in text:
            return self._probe()
        last = [line for line in complaint.splitlines() if line.strip()][-1:]
        return f"refused: {last[0].strip()}" if last else "refused without a reason"

    def _probe(self) -> str:
        """Why no session: ipmitool says the same for silence, a closed port and no route."""
        try:
            address = socket.getaddrinfo(self._ip, self._port, type=socket.SOCK_DGRAM)[0]
            with socket.socket(address[0], socket.SOCK_DGRAM) as probe:
                probe.settimeout(1.0)
                probe.connect(address[4])
                probe.send(_PING)
                probe.recv(512)
        except OSError as error:
            return explain(error, "no IPMI session").removeprefix("no IPMI session: ")
        return "it answers, but makes no IPMI session: it is busy, or its lanplus setting is wrong"


AGENT = Agent(
    "ipmi",
    "Power control through IPMI",
    "Switches a host through its baseboard management controller with IPMI 2.0 (ipmitool).",
    [
        *COMMON_PARAMETERS,
        Parameter("ip", "Address of the BMC", required=True, obsoletes="ipaddr"),
        Parameter("ipport", "UDP port of the BMC", kind="integer", default=str(_DEFAULT_PORT)),
        Parameter("username", "Name of the user", obsoletes="login"),
        Parameter("password", "Password of the user", obsoletes="passwd"),
        Parameter("password_script", "Program that prints the password, instead"),
        Parameter("cipher", "Cipher suite; some new devices accept 17 alone", default="3"),
        Parameter("privlvl", "Privilege level: operator is enough", default="administrator"),
        Parameter("lanplus", "IPMI 2.0; 0 for 1.5", kind="boolean", default="1"),
        Parameter("timeout", "Seconds for each question", kind="second", default="10"),
        Parameter("ipmitool_path", "The program ipmitool", default="ipmitool"),
    ],
    Ipmi,
)


def run() -> None:
    """Entry point of the program `ipmi`."""
    main(AGENT)
