"""What a certificate may do between manager and agents: roles, and expiry.

A certificate has a role. If it may serve as a TLS server, it is a host's certificate. Otherwise it
is a manager's. If an agent was told its manager's name, that name decides instead. So a host's
certificate, which is only as safe as that host, commands no agent.

Rejected: the common name (CN) as a name. For years, clients have used only the names in
subjectAltName (RFC 6125, section 6.4.4). A name that only one of two ends reads is a trap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from halo.core.outcomes import AgentIdentity

ROLES = "roles"
"""The feature of agents that serve only the managers that were named to them."""

SERVER_AUTH = "1.3.6.1.5.5.7.3.1"
CLIENT_AUTH = "1.3.6.1.5.5.7.3.2"
ANY_USAGE = "2.5.29.37.0"

WARN_BEFORE_S = 30 * 86400.0

_OF_EVERY_MACHINE = frozenset(["localhost", "localhost.localdomain", "127.0.0.1", "::1"])
_SHOWN = 5
_SHOWN_LENGTH = 100


@dataclass(frozen=True)
class Certificate:
    """The relevant content of a certificate. `names` are its DNS names, in lower case, and its
    addresses. `usages` are the extended key usages by number; None: it may be used for anything.
    Times are seconds since the epoch."""

    names: frozenset[str]
    usages: frozenset[str] | None
    expires_at: float

    @property
    def may_serve(self) -> bool:
        """Can it prove who a server is?"""
        return self.usages is None or not self.usages.isdisjoint((SERVER_AUTH, ANY_USAGE))

    @property
    def may_call(self) -> bool:
        """Can it prove who a client is?"""
        return self.usages is None or not self.usages.isdisjoint((CLIENT_AUTH, ANY_USAGE))


def refusal_of_manager(
    shown: Certificate, managers: frozenset[str], own: frozenset[str]
) -> str | None:
    """Why an agent does not serve the peer that showed this certificate, or None.

    `managers` are the names that the administrator gave (none: roles are not set), `own` the names
    of the agent and its host. The text continues "its certificate is refused: ". It must say the
    remedy, because the manager is told it, too.
    """
    if not shown.names.isdisjoint(managers):
        return None
    if managers:
        return (
            f"it holds {_names(shown.names)}, but none of the managers' names {_names(managers)} "
            "that HALO_MANAGER_NAME gives on this host"
        )
    if clash := shown.names & own:
        return (
            f"it holds {_names(clash)}, the agent's own name; {_remedy(shown.names - own)} "
            "(docs/security.md)"
        )
    if shown.may_serve:
        why = "has no extendedKeyUsage" if shown.usages is None else "is for servers, too"
        return f"it {why}, so it could be a host's; {_remedy(shown.names)} (docs/security.md)"
    return None


def refusal_of_agent(shown: Certificate, own: Certificate, expected: str) -> str | None:
    """Why an agent's certificate could be a manager's, so that the manager refuses it; or None.

    `own` is this manager's certificate. If all hosts share the name `expected`, another manager's
    certificate may hold that name, too, and may be good for a server. But it also holds the
    manager's name. A certificate for servers only is never a manager's, whatever its names."""
    clash = (shown.names & own.names) - _OF_EVERY_MACHINE - {expected}
    if not clash or not shown.may_call:
        return None
    return (
        f"it holds {_names(clash)}, as this manager's does, and is for clients, too, so it could "
        "be a manager's; give the host a certificate for servers only (`halo tls host HOST`)"
    )


def refusal_of_ended(shown: Certificate, wall_now: float) -> str | None:
    """Why an expired certificate is refused; None if it has not expired."""
    if shown.expires_at > wall_now:
        return None
    return f"it {_ends(shown.expires_at, wall_now)}; renew it (docs/security.md)"


def refusal_of_peer(
    shown: Certificate, managers: frozenset[str], hosts: frozenset[str]
) -> str | None:
    """Why a manager neither answers nor asks the one that showed this certificate; or None.

    `managers` are the names of the machines of managers, and `hosts` those of all other cluster
    hosts. A certificate of `halo tls host` only serves, and one of `halo tls manager` only calls.
    So the certificate of a host commands no manager, whatever its names. One with both usages,
    which sites of HALO (Rust) may have, is refused by its names. The text continues "its
    certificate is refused: ", and says the remedy, because the refused manager is told it, too."""
    machines = shown.names & managers
    if not _is_for_both(shown):
        return (
            f"it holds {_names(shown.names)}, but is not for servers and clients, so it is no "
            f"manager's peer certificate; make one with {_peer_command(machines)}"
        )
    if clash := shown.names & hosts:
        return (
            f"it holds {_names(clash)}, the name of a cluster host, so it could be that host's; "
            f"if it is a manager's, make one without this name: {_peer_command(machines)}"
        )
    if machines:
        return None
    holds = f"it holds {_names(shown.names)}, but none of the names of managers' machines"
    if not managers:
        return f"{holds} (none is known); name them in `managers` of the config"
    one: Iterable[str] = managers if len(managers) == 1 else ()
    return (
        f"{holds} ({_names(managers)}); if it is the certificate of one of them, make it with the "
        f"name of that machine: {_peer_command(one, shown.names)}"
    )


def refusal_of_name(shown: frozenset[str] | None, asked: str, managers: frozenset[str]) -> str:
    """Why a manager does not trust the certificate that another one showed when it was asked at the
    name or address `asked`: it holds only the names `shown` (None: they are not known).

    The text continues "its certificate is refused: "."""
    lacks = "it does not hold" if shown is None else f"it holds {_names(shown)}, but not"
    if asked in managers:
        command = _peer_command([asked])
    else:
        command = _peer_command((shown or frozenset()) & managers, [asked])
    return (
        f"{lacks} {_names([asked])}, at which this manager asks; make it with this name: {command}"
    )


def perhaps_refused(own: frozenset[str]) -> str:
    """What to do if another manager ends the connection without a word. `own` are the names in this
    manager's certificate."""
    return (
        f"it may refuse this manager's certificate, which holds {_names(own)}: see its log; "
        f"another one is made with {_peer_command(own)}"
    )


def _peer_command(machines: Iterable[str], also: Iterable[str] = ()) -> str:
    """The command for the certificate of a manager's machine. Without a name, NAME stands for it.
    It replaces the files of an earlier one."""
    machine = min(
        sorted(machines), key=len, default=""
    )  # a short form is a name of the same machine
    first = sorted(also)[:1]
    further = f" --also {_names(first)}" if first else ""
    return f"`halo tls peer {_names([machine]) if machine else 'NAME'}{further} --force`"


def mistake_of_peer(own: Certificate) -> str | None:
    """Why a manager may not use this certificate towards other managers, or None."""
    if not _is_for_both(own):
        return (
            "its extendedKeyUsage must be serverAuth and clientAuth, because managers call each "
            "other; make it with `halo tls peer NAME`"
        )
    return None


def _is_for_both(shown: Certificate) -> bool:
    """Does it say itself that it is for both ends? One without usages says nothing."""
    return shown.usages is not None and shown.usages >= {SERVER_AUTH, CLIENT_AUTH}


def _remedy(usable: frozenset[str]) -> str:
    """What to do if the manager itself was refused, and not somebody who took a host's key."""
    another = "give the manager a certificate for clients only (`halo tls manager NAME`)"
    if not usable:
        return f"if it is the manager's, {another}"
    return (
        f"if it is the manager's, set HALO_MANAGER_NAME on every host to a name in it "
        f"({_names(usable)}), or {another}"
    )


def mistake_of_agent(own: Certificate, managers: frozenset[str]) -> str | None:
    """Why an agent may not use its own certificate with these managers' names, or None."""
    if not own.may_serve:
        return "its extendedKeyUsage lacks serverAuth, so no manager would accept it as a host's"
    if clash := own.names & managers:
        return (
            f"it holds {_names(clash)}, the manager's name in HALO_MANAGER_NAME: whoever took it "
            "from this host could command all other hosts; give the manager its own name"
        )
    return None


def mistake_of_manager(own: Certificate) -> str | None:
    """Why a manager may not use its own certificate, or None."""
    if not own.may_call:
        return "its extendedKeyUsage lacks clientAuth, so no agent would accept it as a manager's"
    return None


@dataclass
class OwnCertificates:
    """What a manager knows of its own files: when each expires, by a phrase that names the file,
    and what is wrong with renewed files that it cannot use."""

    ends: dict[str, float] = field(default_factory=dict)
    trouble: str | None = None


def notices(
    own: OwnCertificates, agents: Mapping[str, AgentIdentity], wall_now: float
) -> list[str]:
    """What an operator has to correct in time. `agents` are the connected ones, by host."""
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
            "roles are not set: any client certificate of the CA can command the agents of "
            f"{_names(open_to_all)}; set HALO_MANAGER_NAME there (docs/security.md)"
        )
    return found


def ending_soon(agents: Mapping[str, AgentIdentity], wall_now: float) -> dict[str, float]:
    """The expiry times of those agents' certificates that expire soon."""
    ends = {host: identity.certificate_expires_at for host, identity in agents.items()}
    return {
        host: at for host, at in ends.items() if at is not None and at - wall_now < WARN_BEFORE_S
    }


def _has_no_roles(agent: AgentIdentity) -> bool:
    """Does an agent with mutual TLS lack roles? An agent that knows only `operation` cannot have
    any."""
    uses_tls = agent.certificate_expires_at is not None
    return uses_tls and not agent.legacy and ROLES not in agent.features


def _ends(at: float, now: float) -> str:
    day = datetime.fromtimestamp(at).strftime("%Y-%m-%d")
    if at <= now:
        return f"ended on {day}"
    days = int((at - now) // 86400)
    return f"ends on {day}, in {days} {'day' if days == 1 else 'days'}"


def _names(names: Iterable[str]) -> str:
    """Names for people: a limited number, each of limited length, without control characters."""
    ordered = sorted(names)
    shown = [
        "".join(c if c.isprintable() else "?" for c in name[:_SHOWN_LENGTH])
        for name in ordered[:_SHOWN]
    ]
    if len(ordered) > len(shown):
        shown.append(f"{len(ordered) - len(shown)} more")
    return ", ".join(shown) or "no name (subjectAltName)"
