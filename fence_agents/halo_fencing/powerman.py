"""powerman: an outlet behind a powermand daemon, by its line protocol.

Every answer is lines that start with a number (1xx and 3xx good, 2xx an error) and ends with the
prompt. `status NODE` lists the node behind `on:`, `off:` or `unknown:`; see powermand's client.c.
"""

from __future__ import annotations

import contextlib
import socket

from .common import (
    COMMON_PARAMETERS,
    Agent,
    AgentError,
    Device,
    NoAnswer,
    Parameter,
    Parameters,
    explain,
    main,
    port_number,
    seconds,
)

_PROMPT = b"powerman> "
_MAX_ANSWER = 1 << 20
_DEFAULT_PORT = 10101


class Powerman(Device):
    """One node of a powermand."""

    def __init__(self, parameters: Parameters) -> None:
        ip = parameters.get("ip") or "localhost"
        port = port_number(parameters, _DEFAULT_PORT)
        self._node = parameters["port"]
        if not self._node.isprintable() or set(self._node) & set(" ,[]"):
            raise AgentError(f"port: {self._node!r} must name a single powerman node")
        self._where = f"powermand at {ip}:{port}"
        try:
            self._socket = socket.create_connection(
                (ip, port), timeout=seconds(parameters, "login_timeout", 5.0)
            )
            self._socket.settimeout(seconds(parameters, "shell_timeout", 20.0))
            self._read()  # the greeting
        except OSError as error:
            raise NoAnswer(explain(error, self._where)) from None

    def is_on(self) -> bool:
        for line in self._ask(f"status {self._node}"):
            # "302 on:      n1"; with the range expansion of some sites "303 n1: on"
            name, separator, value = line[4:].partition(":")
            if not separator:
                continue
            if name.strip() in ("on", "off", "unknown") and value.strip() == self._node:
                state = name.strip()
            elif name.strip() == self._node and value.strip() in ("on", "off", "unknown"):
                state = value.strip()
            else:
                continue
            if state == "unknown":
                raise AgentError(f"{self._where} does not know the state of {self._node}")
            return state == "on"
        raise AgentError(f"{self._where} told no state of {self._node}")

    def switch(self, on: bool) -> None:
        self._ask(f"{'on' if on else 'off'} {self._node}")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.sendall(b"quit\r\n")
        self._socket.close()

    def _ask(self, command: str) -> list[str]:
        try:
            self._socket.sendall(command.encode() + b"\r\n")
            lines = self._read()
        except OSError as error:
            raise NoAnswer(explain(error, self._where)) from None
        for line in lines:
            if line.startswith("2"):
                raise AgentError(f"{self._where} refused: {line[4:].strip()}")
        return lines

    def _read(self) -> list[str]:
        data = b""
        while not data.endswith(_PROMPT):
            more = self._socket.recv(4096)
            if not more:
                raise AgentError(f"{self._where} closed the connection")
            data += more
            if len(data) > _MAX_ANSWER:
                raise AgentError(f"{self._where} does not speak powerman's protocol")
        return data.decode(errors="replace").splitlines()[:-1]


AGENT = Agent(
    "powerman",
    "Power control through powermand",
    "Switches an outlet through the powerman daemon, which drives many kinds of power devices.",
    [
        *COMMON_PARAMETERS,
        Parameter("ip", "Host of powermand", default="localhost", obsoletes="ipaddr"),
        Parameter("ipport", "Port of powermand", kind="integer", default=str(_DEFAULT_PORT)),
        Parameter("port", "Node as powerman names it", required=True, obsoletes="plug"),
        Parameter("login_timeout", "Seconds to connect", kind="second", default="5"),
        Parameter("shell_timeout", "Seconds to wait for an answer", kind="second", default="20"),
    ],
    Powerman,
)


def run() -> None:
    """Entry point of the program `powerman`."""
    main(AGENT)
