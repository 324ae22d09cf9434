"""What passes between a manager and an agent, as values: calls and the answers to a greeting."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from halo.core.model import Operation
from halo.core.peers.bounds import TERM_LIMIT

VALIDATE_ALL = "validateAll"
"""The feature of agents that can be asked to run `validate-all`."""

META_PREFIX = "CRM_meta_"
"""Parameters with this prefix say how an operation is run. They do not describe the resource."""


@dataclass(frozen=True)
class Request:
    """A request for one operation. `parameters` may hold secrets, and are never shown. `timeout_s`
    is the script's deadline. None means the timeout that the script advertises."""

    kind: str
    operation: Operation
    parameters: Mapping[str, str] = field(repr=False)
    instance: str = ""
    timeout_s: float | None = None

    @property
    def size(self) -> int:
        """The size of the parameters, in characters."""
        return sum(len(name) + len(value) for name, value in self.parameters.items())

    @property
    def resource_key(self) -> str:
        """A key that is the same for every operation on the resource, and reveals no parameter."""
        parameters = {
            name: value
            for name, value in self.parameters.items()
            if not name.startswith(META_PREFIX)
        }
        text = json.dumps([self.kind, parameters], sort_keys=True)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class WatchRequest:
    """One resource that an agent is to watch: the monitor to run, every `period_s` seconds."""

    request: Request
    period_s: float


@dataclass(frozen=True, slots=True)
class Welcome:
    """The manager is served. `start_id` changes when the agent starts, `boot_id` when its host
    boots."""

    version: str
    boot_id: str
    start_id: str
    features: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Busy:
    """Another manager is served."""

    manager: str

    def __str__(self) -> str:
        return f"this agent serves another manager, {self.manager}; stop that manager first"


@dataclass(frozen=True, slots=True)
class StaleTerm:
    """A leader with this higher term was served: `manager`, if its name is known."""

    term: int
    manager: str = ""

    def __str__(self) -> str:
        return (
            f"this agent served {self.manager or 'a leader'} with the higher term {self.term}; if "
            "there was no such leader, have the agent forget the term: halo_remote --forget-term"
        )


@dataclass(frozen=True, slots=True)
class SameTerm:
    """Another manager, `manager`, had this very term."""

    term: int
    manager: str

    def __str__(self) -> str:
        return (
            f"this agent served {self.manager} with the same term {self.term}, so etcd was "
            "restored or built anew; stop all managers, then use `halo store raise-term STORE "
            f"--above {self.term}`"
        )


@dataclass(frozen=True, slots=True)
class BadTerm:
    """The term is too high for any leader."""

    term: int

    def __str__(self) -> str:
        return f"the term {self.term} is not valid: the highest term is {TERM_LIMIT}"


@dataclass(frozen=True, slots=True)
class OtherTerm:
    """The term of the call is not that of its connection's greeting."""

    term: int

    def __str__(self) -> str:
        return f"the term {self.term} is not that of this connection's greeting; say hello again"


@dataclass(frozen=True, slots=True)
class NotRecorded:
    """The term could not be recorded on the agent's disk."""

    term: int
    why: str

    def __str__(self) -> str:
        return (
            f"this agent cannot record the term {self.term}, and serves nobody before it can "
            f"({self.why}); repair its disk, or free space there"
        )


@dataclass(frozen=True, slots=True)
class NotServed:
    """The agent serves another connection, or none."""

    def __str__(self) -> str:
        return "the agent does not serve this connection; say hello first"
