"""The fence devices of a host: `fence_agent` with `fence_parameters`, or `fence_levels`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from halo.config.programs import BUNDLED_AGENTS, find_fence_program, installed_fence_agents
from halo.config.values import normal_address
from halo.config.yaml.document import (
    Entry,
    MistakeList,
    Section,
    entries_of,
    found,
    is_null,
    items_of,
    nearest,
    place,
    text_of,
)
from halo.config.yaml.nodes import MappingNode, Node, SequenceNode
from halo.core.model import FenceDevice

DEVICE_KEYS = ("fence_agent", "fence_parameters")

_MAX_VALUE_BYTES = 8192

Parameters = dict[str, str]
DeviceKey = tuple[str, ...]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_RESERVED = frozenset(("action", "option", "o"))
_AGENT_EXPECTED = "null, powerman, redfish, ipmi, fence_test, a fence_* program or an absolute path"

# Each with its old and short names in the fence-agent API.
_ADDRESS = ("ip", "ipaddr", "a")
_PLUG = ("port", "plug", "n")
_IP_PORT = ("ipport", "u")
_USERNAME = ("username", "login", "l")
_PASSWORD = ("password", "passwd", "p")
_REQUIRED: Mapping[str, tuple[tuple[str, ...], ...]] = {
    # A client certificate may replace both.
    "redfish": ((*_USERNAME, "tls_cert"), (*_PASSWORD, "tls_cert")),
    "ipmi": (_USERNAME, _PASSWORD),
    "fence_test": (("target",), ("test_id",)),
}
# Agents that talk to the host's own management controller: one address, one host.
_CONTROLLERS = re.compile(r"redfish|ipmi|fence_(?:redfish|ipmilan|idrac|imm|ilo\d.*)")
# Parameters that say how to talk to a device. They do not identify the device or the plug.
_MANNER = re.compile(
    r"username|login|pass.*|.*script|.*timeout|.*wait|.*delay|.*retr.*|.*attempts|verbose.*|debug.*"
    r"|quiet|ssl.*|tls.*|notls|.*cert.*|.*ca_?(?:file|path)?|.*key.*|lanplus|cipher|method|auth"
    r"|privlvl|login_eol.*|.*_path|power_.*|secure|ssh.*|identity_file|cmd_prompt|.*_options"
)


@dataclass(frozen=True, slots=True)
class PlacedDevice:
    """A fence device, with its place in the config."""

    device: FenceDevice
    node: Node


@dataclass(frozen=True, slots=True)
class Fencing:
    """The fencing of one host entry. `levels` holds the levels that could be read."""

    levels: tuple[tuple[PlacedDevice, ...], ...] = ()

    @property
    def devices(self) -> tuple[tuple[FenceDevice, ...], ...]:
        """The levels in the form of the model."""
        return tuple(tuple(placed.device for placed in level) for level in self.levels)


class FencingReader:
    """Reads the fencing of all hosts of one config, and remembers the devices read so far."""

    def __init__(self, mistakes: MistakeList) -> None:
        self._mistakes = mistakes
        self._programs: dict[str, Path | None] = {}
        self._owners: dict[DeviceKey, tuple[str, int]] = {}

    def read(self, host: Section, hostname: str | None) -> Fencing:
        """The fencing of one host entry. `hostname` is the default address of the devices."""
        if host.has("fence_levels") and host.get("fence_levels") is not None:
            for key in DEVICE_KEYS:
                if host.get(key) is not None:
                    self._mistakes.add(
                        host.key_node(key),
                        f"{key}: fence_levels of this host replaces {key}; remove {key}",
                    )
            return Fencing(self._levels(host, hostname))
        if host.get("fence_agent") is None:
            # An explicit null may switch fencing off, and keep the parameters for later.
            if host.get("fence_parameters") is not None and not host.has("fence_agent"):
                self._mistakes.add(
                    host.key_node("fence_parameters"),
                    f"fence_parameters without fence_agent; expected {_AGENT_EXPECTED}",
                )
            return Fencing()
        device = self._device(host, hostname)
        return Fencing(((device,),)) if device else Fencing()

    def claim(self, host_id: str, fencing: Fencing) -> None:
        """Note the devices of a host. It is a mistake if another host has the same device, or if a
        level has a device twice: then the intended outlet would stay on."""
        for level in fencing.levels:
            in_step: dict[DeviceKey, int] = {}
            for placed in level:
                key = _device_key(placed.device)
                line, _ = place(placed.node)
                if key in in_step:
                    self._mistakes.add(
                        placed.node,
                        f'host "{host_id}" has the same fence device and plug twice in one level'
                        f" (line {in_step[key]}): its other outlet would never be switched off",
                    )
                in_step.setdefault(key, line)
                owner, first = self._owners.setdefault(key, (host_id, line))
                if owner != host_id:
                    self._mistakes.add(
                        placed.node,
                        f'host "{host_id}" has the same fence device and plug as host "{owner}"'
                        f" (line {first}): fencing one would power off the other",
                    )

    def _levels(self, host: Section, hostname: str | None) -> tuple[tuple[PlacedDevice, ...], ...]:
        steps = host.items("fence_levels")
        node = host.get("fence_levels")
        if node is not None and isinstance(node, SequenceNode) and not steps:
            self._mistakes.add(
                node,
                "fence_levels: expected at least one level; for a host without fencing write"
                " fence_agent: null",
            )
        levels = (self._level(step, hostname) for step in steps)
        return tuple(level for level in levels if level)

    def _level(self, step: Node, hostname: str | None) -> tuple[PlacedDevice, ...]:
        if not isinstance(step, (MappingNode, SequenceNode)):
            self._mistakes.add(
                step,
                "fence_levels: expected a level {fence_agent, fence_parameters} or a list of them,"
                f" found {found(step, secret=True)}",
            )
            return ()
        nodes: list[Node] = [step]
        if isinstance(step, SequenceNode):
            nodes = items_of(step, "fence_levels", self._mistakes) or []
            if not nodes:
                self._mistakes.add(step, "fence_levels: expected at least one device in a level")
        devices = (
            self._device(Section(node, "fence_levels", DEVICE_KEYS, self._mistakes), hostname)
            for node in nodes
        )
        return tuple(device for device in devices if device)

    def _device(self, section: Section, hostname: str | None) -> PlacedDevice | None:
        node = section.require("fence_agent", _AGENT_EXPECTED)
        parameters = self._parameters(section)
        if node is None:
            return None
        agent = text_of(node, "fence_agent", self._mistakes, expected=_AGENT_EXPECTED)
        if agent is None:
            return None
        program = self._program(agent, node)
        self._check_required(agent, parameters, section)
        if hostname is not None:
            parameters = with_default_address(agent, parameters, hostname)
        return PlacedDevice(FenceDevice(agent, str(program or ""), parameters), node)

    def _program(self, agent: str, node: Node) -> Path | None:
        if agent not in self._programs:
            self._programs[agent] = find_fence_program(agent)
        program = self._programs[agent]
        if program is None:
            self._mistakes.add(node, _why_no_program(agent))
        return program

    def _check_required(self, agent: str, parameters: Parameters, section: Section) -> None:
        missing = [
            alternatives[0]
            for alternatives in _REQUIRED.get(agent, ())
            if not any(name in parameters for name in alternatives)
        ]
        if missing:
            self._mistakes.add(
                section.key_node("fence_parameters")
                if section.has("fence_parameters")
                else section.key_node("fence_agent"),
                f"fence_agent {agent} needs the fence_parameters {' and '.join(missing)}",
            )

    def _parameters(self, section: Section) -> Parameters:
        node = section.get("fence_parameters")
        if node is None:
            return {}
        entries = entries_of(node, "fence_parameters", self._mistakes) or {}
        parameters: Parameters = {}
        for name, entry in entries.items():
            value = self._parameter(name, entry)
            if value is not None:
                parameters[name] = value
        return parameters

    def _parameter(self, name: str, entry: Entry) -> str | None:
        if is_null(entry.value):
            # Without its name: in `{admin, secret}`, intended values have become keys.
            problem = 'a parameter without a value; write NAME: VALUE ("" for an empty value)'
        elif not _NAME.fullmatch(name) or name in _RESERVED:
            reason = "HALO sets it itself" if name in _RESERVED else "not usable as a name"
            self._mistakes.add(entry.key, f'fence_parameters: "{name[:60]}": {reason}')
            return None
        else:
            value = text_of(entry.value, f"fence_parameters: {name}", self._mistakes, secret=True)
            if value is None:
                return None
            if not (reason := _value_problem(value)):
                return value
            problem = f"{name}: {reason}"
        self._mistakes.add(entry.value, f"fence_parameters: {problem}")
        return None


def with_default_address(agent: str, parameters: Mapping[str, str], hostname: str) -> Parameters:
    """The parameters of a bundled agent. If they name no address, the default one is added.

    For `redfish` and `ipmi`, this is the hostname, which reaches the host's own controller. For
    `powerman`, it is the daemon on localhost, with the hostname as plug.
    """
    completed = dict(parameters)
    if agent in ("redfish", "ipmi") and not _first(parameters, _ADDRESS):
        completed["ip"] = hostname
    if agent == "powerman":
        if not _first(parameters, _ADDRESS):
            completed["ip"] = "localhost"
        if not _first(parameters, _PLUG):
            completed["port"] = hostname
    return completed


def _value_problem(value: str) -> str:
    """Why a value cannot be given to a fence program, or nothing. Never repeats the value."""
    if any(c in value for c in "\n\r\0"):
        return "expected a value of one line (fence programs read one line per parameter)"
    if len(value.encode(errors="replace")) > _MAX_VALUE_BYTES:
        return f"expected a value of at most {_MAX_VALUE_BYTES} bytes"
    if value.startswith("file:") and not value.startswith("file:/"):
        return "file: expects an absolute path (file:/etc/halo/bmc.password)"
    if value.startswith("env:") and not _VARIABLE.fullmatch(value[4:]):
        return "env: expects the name of an environment variable (env:BMC_PASSWORD)"
    return ""


def _why_no_program(agent: str) -> str:
    if agent.startswith("/"):
        return f'fence_agent: there is no executable file "{agent}"; install it or correct the path'
    if agent in BUNDLED_AGENTS:
        return f'fence_agent: the bundled agent "{agent}" is missing; install HALO again'
    if agent.startswith("fence_") and "/" not in agent:
        # Half of every name is the same "fence_". So propose only a very similar name.
        meant = nearest(agent, installed_fence_agents(), likeness=0.8)
        return (
            f'fence_agent: no program "{agent}" on PATH, in /usr/sbin, /sbin or /usr/local/sbin'
            f"{meant or '; install the package that holds it'}"
        )
    return f'fence_agent: expected {_AGENT_EXPECTED}, found "{agent[:60]}"' + nearest(
        agent, BUNDLED_AGENTS
    )


def _first(parameters: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((parameters[name] for name in names if parameters.get(name)), "")


def _device_key(device: FenceDevice) -> DeviceKey:
    """A key that is equal for two devices exactly if they switch the same outlet."""
    parameters = {name.replace("-", "_"): value for name, value in device.parameters.items()}
    address = normal_address(_first(parameters, _ADDRESS))
    ip_port = _first(parameters, _IP_PORT)
    plug = _first(parameters, _PLUG)
    if address and _CONTROLLERS.fullmatch(device.agent):
        return ("controller", address, ip_port, parameters.get("systems_uri", ""), plug)
    if device.agent in ("powerman", "fence_powerman"):
        return ("powerman", address, ip_port, plug)
    if device.agent == "fence_test":
        return ("fence_test", parameters.get("target", ""), parameters.get("test_id", ""))
    known = ((name, value) for name, value in parameters.items() if not _MANNER.fullmatch(name))
    return (device.program, *(f"{name}={value}" for name, value in sorted(known)))
