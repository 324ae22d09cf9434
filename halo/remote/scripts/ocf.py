"""OCF resource agents: where a script is, its environment, and the timeouts that it advertises.

Source: the OCF resource agent API 1.1 (environment, actions, meta-data), and Pacemaker's
`OCF_RESKEY_CRM_meta_timeout`, which many scripts read.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from halo.core.errors import HaloError
from halo.core.model import Operation
from halo.core.peers.calls import META_PREFIX, Request

_COMPONENT = re.compile(r"[A-Za-z0-9._-]{1,128}")
_PARAMETER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,127}")
_NOT_IN_INSTANCE = re.compile(r"[^A-Za-z0-9._:-]")
_DURATION = re.compile(r"\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*(ms|msec|s|sec|m|min|h|hr)?\s*")
_UNIT_S = {"ms": 0.001, "msec": 0.001, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "hr": 3600}

DEFAULT_TIMEOUT_S = {
    Operation.MONITOR: 60.0,
    Operation.START: 300.0,
    Operation.STOP: 300.0,
    Operation.VALIDATE: 20.0,
}
"""Timeouts if neither the call nor the script names one. Mounting a large file system after a crash
takes minutes. A monitor that takes a minute has hung. The API proposes 20 s for `validate-all`, and
other operations of the resource wait for it."""

ADVERTISED_LIMIT_S = 24 * 3600.0
"""The longest timeout that a script may advertise. A larger number is taken as a mistake."""


class ScriptError(HaloError):
    """A script cannot be run. The text is one sentence that says why."""


@dataclass(frozen=True)
class Script:
    """An OCF script: `kind` is `provider/type`."""

    kind: str
    path: Path

    @property
    def provider(self) -> str:
        return self.kind.partition("/")[0]

    @property
    def type(self) -> str:
        return self.kind.partition("/")[2]


def locate(ocf_root: Path, request: Request) -> Script:
    """The script of a request, if its names are valid. Raises ScriptError.

    `kind` is two names below `resource.d`, and cannot lead out of it. The file of that name is the
    administrator's choice. Distributions install some scripts as symbolic links to other places, so
    a link is followed, wherever it leads. Only root can create one there.
    """
    components = request.kind.split("/")
    if len(components) != 2 or not all(
        _COMPONENT.fullmatch(part) and part not in (".", "..") for part in components
    ):
        raise ScriptError(
            f"{request.kind[:200]!r} is not the name of a resource agent: "
            "it must be PROVIDER/TYPE; both may hold letters, digits, '.', '_' and '-'"
        )
    for name, value in request.parameters.items():
        if not _PARAMETER_NAME.fullmatch(name):
            raise ScriptError(
                f"{name[:200]!r} is not a parameter name: "
                "it may hold letters, digits, '_' and '-', and must not begin with a digit"
            )
        if "\0" in value:
            raise ScriptError(f"the value of parameter {name} holds a zero byte")
    return Script(request.kind, ocf_root / "resource.d" / components[0] / components[1])


def environment(
    script: Script,
    request: Request,
    timeout_s: float,
    *,
    ocf_root: Path,
    test_id: str,
    inherited: Mapping[str, str],
) -> dict[str, str]:
    """The environment of a script: the agent's own environment and the OCF variables.

    Scripts use the instance name as a file name. So it is changed to fit, since a resource id may
    hold a slash.
    """
    kept = {name: value for name, value in inherited.items() if not name.startswith("OCF_RESKEY_")}
    reskeys = {f"OCF_RESKEY_{name}": value for name, value in request.parameters.items()}
    return {
        **kept,
        **reskeys,
        f"OCF_RESKEY_{META_PREFIX}timeout": str(round(timeout_s * 1000)),
        "OCF_ROOT": str(ocf_root),
        "OCF_RA_VERSION_MAJOR": "1",
        "OCF_RA_VERSION_MINOR": "1",
        "OCF_RESOURCE_INSTANCE": _NOT_IN_INSTANCE.sub("_", request.instance) or script.type,
        "OCF_RESOURCE_TYPE": script.type,
        "OCF_RESOURCE_PROVIDER": script.provider,
        "HALO_TEST_ID": test_id,
    }


def parse_timeouts(metadata: bytes) -> dict[Operation, float]:
    """The timeouts in seconds that a script's meta-data advertises. None if it is malformed.

    If there are several monitors (by depth or role), the longest timeout counts.
    """
    # Entities can grow without limit, and no real script has them. In UTF-16, with its zero bytes,
    # this check would not find them.
    if b"<!ENTITY" in metadata or b"\0" in metadata:
        return {}
    try:
        root = ElementTree.fromstring(metadata)
    except (ElementTree.ParseError, ValueError, LookupError):
        return {}
    timeouts: dict[Operation, float] = {}
    for action in root.iterfind("actions/action"):
        name = action.get("name", "")
        timeout_s = _duration_s(action.get("timeout", ""))
        if name in list(Operation) and timeout_s:
            operation = Operation(name)
            timeouts[operation] = max(timeout_s, timeouts.get(operation, 0.0))
    return timeouts


def _duration_s(text: str) -> float | None:
    match = _DURATION.fullmatch(text)
    if match is None:
        return None
    return min(float(match[1]) * _UNIT_S[match[2] or "s"], ADVERTISED_LIMIT_S)
