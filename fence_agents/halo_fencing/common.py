"""The ClusterLabs fence-agent API for HALO's own fence programs.

A program describes its device in an :class:`Agent` and calls :func:`main`. Input is either
`key=value` lines on standard input or long options on the command line (the latter for use by hand;
a password on a command line is seen by everyone on the machine).
https://github.com/ClusterLabs/fence-agents/blob/main/doc/FenceAgentAPI.md

Kept free of argparse, re and the like on purpose: start-up time is failover time.
"""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_OFF = 2

_SCRIPT_TIMEOUT_S = 10.0

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import NoReturn, TypeAlias

Parameters: TypeAlias = "Mapping[str, str]"

_ALIASES = {
    "option": "action",
    "o": "action",
    "ipaddr": "ip",
    "a": "ip",
    "login": "username",
    "l": "username",
    "passwd": "password",
    "passwd_script": "password_script",
    "p": "password",
    "u": "ipport",
    "plug": "port",
    "n": "port",
    "h": "help",
}
_FLAGS = {"help", "verbose", "quiet", "lanplus", "ssl", "ssl_secure", "ssl_insecure"}
_TRUE = {"1", "yes", "true", "on"}


class AgentError(Exception):
    """The device did not do it; the text says why in one line."""


class NoAnswer(AgentError):
    """The device said nothing in its time; to ask it more would only take as long again."""


class Parameter:
    """One parameter as the metadata shows it."""

    def __init__(
        self,
        name: str,
        text: str,
        *,
        kind: str = "string",
        default: str | None = None,
        required: bool = False,
        obsoletes: str | None = None,
    ) -> None:
        self.name = name
        self.text = text
        self.kind = kind
        self.default = default
        self.required = required
        self.obsoletes = obsoletes


class Device(ABC):
    """One outlet. Methods raise AgentError."""

    @abstractmethod
    def is_on(self) -> bool:
        """True on, False off; anything else raises."""

    @abstractmethod
    def switch(self, on: bool) -> None:
        """Tell the device; whether it did it is asked afterwards."""

    def shows(self, on: bool) -> bool:
        """True when the device shows the wanted state."""
        return self.is_on() == on

    def close(self) -> None:  # noqa: B027  # most devices have nothing to leave
        """Leave the device (end a session); never raises."""


class Agent:
    """What one fence program is: its name, its parameters, and how to reach its device."""

    def __init__(
        self,
        name: str,
        summary: str,
        description: str,
        parameters: list[Parameter],
        connect: Callable[[Parameters], Device],
    ) -> None:
        self.name = name
        self.summary = summary
        self.description = description
        self.parameters = parameters
        self.connect = connect


COMMON_PARAMETERS = [
    Parameter("action", "on, off, reboot, status, monitor, metadata, validate-all", required=True),
    Parameter(
        "power_timeout", "Seconds within which the new state must show", kind="second", default="20"
    ),
    Parameter(
        "power_wait",
        "Seconds to wait after switching, before asking",
        kind="second",
        default="0",
    ),
    Parameter("delay", "Seconds to wait before switching off", kind="second", default="0"),
]


def main(agent: Agent) -> NoReturn:
    """Do what the input asks and exit as the API says."""
    try:
        sys.exit(_run(agent))
    except AgentError as error:
        sys.stderr.write(f"{agent.name}: {error}\n")
        sys.exit(EXIT_FAILED)
    except KeyboardInterrupt:
        sys.exit(EXIT_FAILED)


def _run(agent: Agent) -> int:
    parameters = read_parameters()
    action = parameters.get("action", "")
    if action == "metadata":
        sys.stdout.write(metadata(agent))
        return EXIT_OK
    if "help" in parameters:
        sys.stdout.write(_help(agent))
        return EXIT_OK
    if not action:  # the API's default is reboot, so that a misspelt `action` powers a host off
        raise AgentError("no action is given; nothing was done. Give one, such as --action=status")
    _require(agent, parameters)
    if action == "validate-all":
        for name in ("power_timeout", "power_wait", "delay"):
            seconds(parameters, name, 0.0)
        return EXIT_OK
    if action not in ("on", "off", "reboot", "status", "monitor"):
        raise AgentError(f'unknown action "{action}"')
    script = parameters.get("password_script")
    if script and not parameters.get("password"):
        parameters["password"] = _password_from(script)
    device = agent.connect(parameters)
    try:
        return _act(device, action, parameters)
    finally:
        device.close()


def _password_from(script: str) -> str:
    """The first line that a program prints (fence-agent API: `password_script`)."""
    import subprocess

    try:
        done = subprocess.run(
            [script],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SCRIPT_TIMEOUT_S,
            encoding="utf-8",
            check=True,
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise AgentError(f"password_script {script} failed: {type(error).__name__}") from None
    return done.stdout.partition("\n")[0]


def _act(device: Device, action: str, parameters: Parameters) -> int:
    name = parameters.get("port") or parameters.get("target") or parameters.get("ip", "")
    if action == "monitor":
        device.is_on()
        return EXIT_OK
    if action == "status":
        on = device.is_on()
        sys.stdout.write(f"{name} is {'ON' if on else 'OFF'}\n")
        return EXIT_OK if on else EXIT_OFF
    if action in ("off", "reboot"):
        time.sleep(seconds(parameters, "delay", 0.0))
        _switch(device, False, parameters)
        sys.stdout.write(f"{name} is OFF\n")
    if action in ("on", "reboot"):
        _switch(device, True, parameters)
        sys.stdout.write(f"{name} is ON\n")
    return EXIT_OK


def _switch(device: Device, on: bool, parameters: Parameters) -> None:
    """Switch, then ask until the device shows it: an acknowledgement alone proves nothing."""
    limit = seconds(parameters, "power_timeout", 20.0)
    try:
        device.switch(on)
    except NoAnswer:
        raise
    except AgentError:
        # Some devices refuse to switch off what is off, and a busy one does it and answers too
        # late. To look first instead would trust a state that the device may have cached.
        if not _is_so(device, on):
            raise
    time.sleep(seconds(parameters, "power_wait", 0.0))
    end = time.monotonic() + limit
    pause = 0.02
    while not device.shows(on):
        if time.monotonic() > end:
            raise AgentError(
                f"still {'off' if on else 'on'} {limit:g} s after the device accepted the command"
            )
        time.sleep(pause)
        pause = min(pause * 2, 0.5)


def _is_so(device: Device, on: bool) -> bool:
    try:
        return device.shows(on)
    except AgentError:
        return False


def seconds(parameters: Parameters, name: str, default: float) -> float:
    """A parameter in seconds."""
    text = parameters.get(name, "")
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 86400:
        raise AgentError(f'{name}: "{text}" is not a number of seconds')
    return value


def port_number(parameters: Parameters, default: int) -> int:
    """The parameter `ipport`."""
    text = parameters.get("ipport", "")
    if not text:
        return default
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise AgentError(f'ipport: "{text}" is not a port number')
    return int(text)


def is_true(parameters: Parameters, name: str) -> bool:
    """True where a boolean parameter is set."""
    return parameters.get(name, "").lower() in _TRUE


def explain(error: OSError, where: str) -> str:
    """A network error in the operator's words: no route, refused, timed out, name unknown."""
    import errno
    import socket

    if isinstance(error, socket.gaierror):
        return f"{where}: the name is not known ({error.strerror})"
    if isinstance(error, TimeoutError):
        return f"{where}: timed out, no answer"
    if isinstance(error, ConnectionRefusedError):
        return f"{where}: connection refused, nothing listens there"
    if isinstance(error, (ConnectionResetError, BrokenPipeError)):
        return f"{where}: connection reset by the device"
    if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return f"{where}: no route to it ({error.strerror})"
    return f"{where}: {error.strerror or error}"


def read_parameters() -> dict[str, str]:
    """The input as a mapping with today's names; from the command line if anything stands there."""
    pairs = _from_arguments(sys.argv[1:]) if len(sys.argv) > 1 else _from_lines(sys.stdin)
    return {_name(key): value for key, value in pairs}


def _name(key: str) -> str:
    key = key.strip().replace("-", "_")
    return _ALIASES.get(key, key)


def _from_lines(lines: Iterable[str]) -> list[tuple[str, str]]:
    pairs = []
    for line in lines:
        line = line.rstrip("\r\n")
        if line.strip() and not line.lstrip().startswith("#"):
            key, separator, value = line.partition("=")
            if not separator:
                raise AgentError(f'"{key}" is not of the form key=value')
            pairs.append((key, value))
    return pairs


def _from_arguments(arguments: list[str]) -> list[tuple[str, str]]:
    pairs = []
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("-"):
            raise AgentError(f'"{argument}": options are written --name=value')
        key, separator, value = argument.lstrip("-").partition("=")
        if not argument.startswith("--") and len(key) > 1:
            key, separator, value = key[0], "=", argument[2:]
        if not separator:
            value = "1" if _name(key) in _FLAGS else next(rest, "")
        pairs.append((key, value))
    return pairs


def _require(agent: Agent, parameters: Parameters) -> None:
    for parameter in agent.parameters:
        if parameter.required and parameter.name != "action" and not parameters.get(parameter.name):
            raise AgentError(f'the parameter "{parameter.name}" is missing')


def _help(agent: Agent) -> str:
    lines = [f"{agent.name}: {agent.summary}", "", "Parameters, as key=value lines on stdin or"]
    lines.append("as --key=value options:")
    lines += [f"  {p.name:<16} {p.text}" for p in agent.parameters]
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    return (
        text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    )


def metadata(agent: Agent) -> str:
    """The description that cluster tools ask for, valid by fence-agents' RELAX NG schema."""
    lines = [
        '<?xml version="1.0" ?>',
        f'<resource-agent name="{agent.name}" shortdesc="{_escape(agent.summary)}" >',
        f"<longdesc>{_escape(agent.description)}</longdesc>",
        "<vendor-url>https://github.com/lanl/halo</vendor-url>",
        "<parameters>",
    ]
    for parameter in agent.parameters:
        lines += _parameter_lines(parameter)
    lines += ["</parameters>", "<actions>", '\t<action name="on" automatic="0"/>']
    names = ("off", "reboot", "status", "monitor", "metadata", "validate-all")
    lines += [f'\t<action name="{name}" />' for name in names]
    lines += ["</actions>", "</resource-agent>"]
    return "\n".join(lines) + "\n"


def _parameter_lines(parameter: Parameter) -> list[str]:
    default = f' default="{_escape(parameter.default)}"' if parameter.default is not None else ""
    obsoletes = f' obsoletes="{parameter.obsoletes}"' if parameter.obsoletes else ""
    option = "--" + parameter.name.replace("_", "-")
    found = [
        f'\t<parameter name="{parameter.name}" unique="0" '
        f'required="{int(parameter.required)}"{obsoletes}>',
        f'\t\t<getopt mixed="{option}=[{parameter.name}]" />',
        f'\t\t<content type="{parameter.kind}"{default} />',
        f'\t\t<shortdesc lang="en">{_escape(parameter.text)}</shortdesc>',
        "\t</parameter>",
    ]
    if parameter.obsoletes:
        found += [
            f'\t<parameter name="{parameter.obsoletes}" unique="0" required="0" deprecated="1">',
            f'\t\t<getopt mixed="{option}=[{parameter.name}]" />',
            f'\t\t<content type="{parameter.kind}"{default} />',
            f'\t\t<shortdesc lang="en">{_escape(parameter.text)}</shortdesc>',
            "\t</parameter>",
        ]
    return found
