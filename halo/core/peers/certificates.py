"""What a certificate may do between manager and agents: roles, and when it ends.

A certificate has a role. One that may serve as a TLS server is a host's, one that may not is a
manager's; and where an agent was told its manager's name, that name decides. So the certificate of
a host, which is as safe as that host, commands no agent.

Rejected: the common name (CN) as a name. Clients have taken names from subjectAltName alone for
years (RFC 6125, section 6.4.4), and a name that only one of two ends reads is a trap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from halo.core.outcomes import AgentIdentity

ROLES = "roles"
"""The feature of agents that serve none but the managers named to them."""

SERVER_AUTH = "1.3.6.1.5.5.7.3.1"
CLIENT_AUTH = "1.3.6.1.5.5.7.3.2"
ANY_USAGE = "2.5.29.37.0"

WARN_BEFORE_S = 30 * 86400.0

_OF_EVERY_MACHINE = frozenset(["localhost", "localhost.localdomain", "127.0.0.1", "::1"])
_SHOWN = 5
_SHOWN_LENGTH = 100


@dataclass(frozen=True)
class Certificate:
    """What counts of a certificate. `names` are its DNS names in lower case and its addresses;
    `usages` the extended key usages by number, None where it may be used for anything. Times are
    seconds since the epoch."""

    names: frozenset[str]
    usages: frozenset[str] | None
    expires_at: float

    @property
    def may_serve(self) -> bool:
        """Could it also prove who a server is?"""
        return self.usages is None or not self.usages.isdisjoint((SERVER_AUTH, ANY_USAGE))

    @property
    def may_call(self) -> bool:
        """Could it prove who a client is?"""
        return self.usages is None or not self.usages.isdisjoint((CLIENT_AUTH, ANY_USAGE))


def refusal_of_manager(
    shown: Certificate, managers: frozenset[str], own: frozenset[str]
) -> str | None:
    """Why an agent does not serve whoever showed this certificate, or None.

    `managers` are the names that the administrator gave (none: roles are not set), `own` the names
    of the agent and its host. Continues "its certificate is refused: " and must say the remedy:
    the manager is told it, too.
    """
    if not shown.names.isdisjoint(managers):
        return None
    if managers:
        return (
            f"it holds {_names(shown.names)}, and none of the managers' names {_names(managers)} "
            "that HALO_MANAGER_NAME gives on this host"
        )
    if clash := shown.names & own:
        return (
            f"it holds {_names(clash)}, the agent's own name; {_remedy(shown.names - own)} "
            "(docs/security.md)"
        )
    if shown.may_serve:
        why = "has no extendedKeyUsage" if shown.usages is None else "is for servers, too"
        return f"it {why}, so that it might be a host's; {_remedy(shown.names)} (docs/security.md)"
    return None


def refusal_of_agent(shown: Certificate, own: Certificate, expected: str) -> str | None:
    """Why a manager takes what an agent showed for a manager's certificate, or None.

    `own` is this manager's. Another one's may hold the name that is `expected` of hosts, too, where
    all have one name, and be good for a server; it holds the manager's name besides. A certificate
    for servers alone is no manager's, whatever its names."""
    clash = (shown.names & own.names) - _OF_EVERY_MACHINE - {expected}
    if not clash or not shown.may_call:
        return None
    return (
        f"it holds {_names(clash)}, as this manager's does, and is for clients, too, so that it "
        "might be a manager's; give the host one for servers alone (`halo tls host`)"
    )


def refusal_of_ended(shown: Certificate, wall_now: float) -> str | None:
    """Why a certificate is not served any more on account of its end, or None."""
    if shown.expires_at > wall_now:
        return None
    return f"it {_ends(shown.expires_at, wall_now)}; renew it (docs/security.md)"


def _remedy(usable: frozenset[str]) -> str:
    """What to do where it is the manager that was refused, and nobody who took a host's key."""
    another = "give it one for clients alone (`halo tls manager`)"
    if not usable:
        return f"if it is the manager's, {another}"
    return (
        f"if it is the manager's, set HALO_MANAGER_NAME on every host to a name in it "
        f"({_names(usable)}), or {another}"
    )


def mistake_of_agent(own: Certificate, managers: frozenset[str]) -> str | None:
    """Why an agent may not use its own certificate beside these managers' names, or None."""
    if not own.may_serve:
        return (
            "its extendedKeyUsage lacks serverAuth, so that no manager would take it for a host's"
        )
    if clash := own.names & managers:
        return (
            f"it holds {_names(clash)}, which HALO_MANAGER_NAME calls the manager: whoever took it "
            "from this host could command all others; give the manager a name of its own"
        )
    return None


def mistake_of_manager(own: Certificate) -> str | None:
    """Why a manager may not use its own certificate, or None."""
    if not own.may_call:
        return (
            "its extendedKeyUsage lacks clientAuth, so that no agent would take it for a manager's"
        )
    return None


@dataclass
class OwnCertificates:
    """What a manager knows of its own files: when each ends, by a phrase that names it, and what
    is wrong with renewed ones that it could not take up."""

    ends: dict[str, float] = field(default_factory=dict)
    trouble: str | None = None


def notices(
    own: OwnCertificates, agents: Mapping[str, AgentIdentity], wall_now: float
) -> list[str]:
    """What an operator has to mend before it hurts. `agents` are the connected ones, by host."""
    found = []
    if own.trouble is not None:
        found.append(f"renewed certificates are not taken up: {own.trouble}")
    found += [
        f"{what} {_ends(at, wall_now)}; renew it (docs/security.md)"
        for what, at in own.ends.items()
        if at - wall_now < WARN_BEFORE_S
    ]
    ending = ending_soon(agents, wall_now)
    if ending:
        first = min(ending, key=lambda host: ending[host])
        found.append(
            f"certificates of agents end soon: {_names(ending)}; that of {first} "
            f"{_ends(ending[first], wall_now)}; renew them (docs/security.md)"
        )
    open_to_all = [host for host, identity in agents.items() if _has_no_roles(identity)]
    if open_to_all:
        found.append(
            "roles are not set: any certificate for clients of the CA commands the agents of "
            f"{_names(open_to_all)}; set HALO_MANAGER_NAME there (docs/security.md)"
        )
    return found


def ending_soon(agents: Mapping[str, AgentIdentity], wall_now: float) -> dict[str, float]:
    """When the certificates of these agents end, where that is soon."""
    ends = {host: identity.certificate_expires_at for host, identity in agents.items()}
    return {
        host: at for host, at in ends.items() if at is not None and at - wall_now < WARN_BEFORE_S
    }


def _has_no_roles(agent: AgentIdentity) -> bool:
    """Of agents with mutual TLS. One that knows `operation` alone has none to set."""
    uses_tls = agent.certificate_expires_at is not None
    return uses_tls and not agent.legacy and ROLES not in agent.features


def _ends(at: float, now: float) -> str:
    day = datetime.fromtimestamp(at).strftime("%Y-%m-%d")
    if at <= now:
        return f"ended on {day}"
    days = int((at - now) // 86400)
    return f"ends on {day}, in {days} {'day' if days == 1 else 'days'}"


def _names(names: Iterable[str]) -> str:
    """Names for people: a bounded number of them, each bounded, without control characters."""
    ordered = sorted(names)
    shown = [
        "".join(c if c.isprintable() else "?" for c in name[:_SHOWN_LENGTH])
        for name in ordered[:_SHOWN]
    ]
    if len(ordered) > len(shown):
        shown.append(f"{len(ordered) - len(shown)} more")
    return ", ".join(shown) or "no name (subjectAltName)"
