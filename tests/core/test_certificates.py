"""Roles: which certificate commands an agent, and what the operator is told of certificates."""

from __future__ import annotations

import pytest

from halo.core.outcomes import AgentIdentity
from halo.core.peers.certificates import (
    ANY_USAGE,
    CLIENT_AUTH,
    ROLES,
    SERVER_AUTH,
    Certificate,
    OwnCertificates,
    mistake_of_agent,
    mistake_of_manager,
    notices,
    refusal_of_manager,
    refusal_of_name,
    refusal_of_peer,
)

DAY = 86400.0
NOW = 1_800_000_000.0

CALLS = frozenset([CLIENT_AUTH])
SERVES = frozenset([SERVER_AUTH])
BOTH = CALLS | SERVES
ANYTHING = None

OWN = frozenset(["oss00", "10.0.0.7"])
UNSET: frozenset[str] = frozenset()
MGMT = frozenset(["mgmt"])
TWO = frozenset(["mgmt", "10.0.0.1"])


def certificate(names: str, usages: frozenset[str] | None) -> Certificate:
    return Certificate(frozenset(names.split()), usages, NOW + 365 * DAY)


@pytest.mark.parametrize(
    ("names", "usages", "managers", "refused"),
    [
        # Roles are not set: what could be a host's is refused.
        ("mgmt", CALLS, UNSET, None),
        ("", CALLS, UNSET, None),
        ("mgmt", BOTH, UNSET, "is for servers, too"),
        ("mgmt", SERVES, UNSET, "is for servers, too"),
        ("mgmt", CALLS | {ANY_USAGE}, UNSET, "is for servers, too"),
        ("mgmt", ANYTHING, UNSET, "has no extendedKeyUsage"),
        ("oss00", CALLS, UNSET, "the agent's own name"),
        ("mgmt 10.0.0.7", CALLS, UNSET, "it holds 10.0.0.7, the agent's own name"),
        ("oss01", BOTH, UNSET, "is for servers, too"),
        # They are set: the name decides.
        ("mgmt", CALLS, MGMT, None),
        ("mgmt", BOTH, MGMT, None),
        ("mgmt", ANYTHING, MGMT, None),
        ("10.0.0.1 console", CALLS, TWO, None),
        ("oss00", CALLS, MGMT, "it holds oss00, but none of the managers' names mgmt"),
        ("oss01", BOTH, MGMT, "none of the managers' names"),
        ("mgmt.example", CALLS, MGMT, "none of the managers' names"),
        ("*", CALLS, MGMT, "none of the managers' names"),
        ("", CALLS, MGMT, "it holds no name (subjectAltName)"),
    ],
)
def test_who_commands_an_agent(
    names: str, usages: frozenset[str] | None, managers: frozenset[str], refused: str | None
) -> None:
    reason = refusal_of_manager(certificate(names, usages), managers, OWN)
    assert (reason is None) == (refused is None), reason
    assert refused is None or refused in str(reason)


def test_a_refusal_names_the_way_out() -> None:
    reason = refusal_of_manager(certificate("mgmt", BOTH), UNSET, OWN)
    assert reason is not None
    assert (
        "if it is the manager's, set HALO_MANAGER_NAME on every host to a name in it (mgmt)"
        in reason
    )
    assert "halo tls manager" in reason
    nameless = refusal_of_manager(certificate("", ANYTHING), UNSET, OWN)
    assert nameless is not None
    assert "HALO_MANAGER_NAME" not in nameless
    shared = refusal_of_manager(certificate("oss00", ANYTHING), UNSET, OWN)
    assert shared is not None
    assert "HALO_MANAGER_NAME" not in shared


def test_an_agent_may_not_hold_the_managers_name() -> None:
    assert mistake_of_agent(certificate("oss00", SERVES), MGMT) is None
    assert "it holds mgmt" in str(mistake_of_agent(certificate("oss00 mgmt", SERVES), MGMT))
    assert mistake_of_agent(certificate("oss00 mgmt", SERVES), UNSET) is None


@pytest.mark.parametrize(
    ("usages", "serves", "calls"),
    [
        (SERVES, True, False),
        (CALLS, False, True),
        (BOTH, True, True),
        (ANYTHING, True, True),
        (frozenset([ANY_USAGE]), True, True),
        (frozenset(["1.3.6.1.5.5.7.3.3"]), False, False),
    ],
)
def test_files_that_were_swapped_are_a_mistake(
    usages: frozenset[str] | None, serves: bool, calls: bool
) -> None:
    of_agent = mistake_of_agent(certificate("oss00", usages), MGMT)
    assert (of_agent is None) == serves
    assert serves or "lacks serverAuth" in str(of_agent)
    of_manager = mistake_of_manager(certificate("mgmt", usages))
    assert (of_manager is None) == calls
    assert calls or "lacks clientAuth" in str(of_manager)


def test_names_of_a_peer_are_bounded_and_printable() -> None:
    many = " ".join(f"n{number}" for number in range(1000))
    reason = refusal_of_manager(certificate(f"{many} {'x' * 5000} a\x1b[31m", CALLS), MGMT, OWN)
    assert reason is not None
    assert len(reason) < 1000
    assert "\x1b" not in reason
    assert "997 more" in reason


def agent(expires_in_days: float | None, *features: str, legacy: bool = False) -> AgentIdentity:
    expires = None if expires_in_days is None else NOW + expires_in_days * DAY
    return AgentIdentity(
        legacy=legacy, features=frozenset(features), certificate_expires_at=expires
    )


def test_roles_that_are_not_set_are_said_of_agents_with_mutual_tls_alone() -> None:
    agents = {
        "a": agent(300, ROLES),
        "b": agent(300),
        "c": agent(None),  # without TLS
        "d": agent(300, legacy=True),  # has none to set
        "e": agent(300, "heartbeat"),
    }
    (notice,) = notices(OwnCertificates(), agents, NOW)
    assert notice.startswith("roles are not set")
    assert "command the agents of b, e; set HALO_MANAGER_NAME there" in notice
    assert notices(OwnCertificates(), {"a": agents["a"], "c": agents["c"]}, NOW) == []


@pytest.mark.parametrize(
    ("days", "words"),
    [
        (30.01, None),
        (29.99, "in 29 days"),
        (1.5, "in 1 day"),
        (0.5, "in 0 days"),
        (-2.0, "ended on"),
    ],
)
def test_an_end_is_announced_thirty_days_before(days: float, words: str | None) -> None:
    own = OwnCertificates({"the certificate /c.crt": NOW + days * DAY, "the CA": NOW + 999 * DAY})
    of_ours = notices(own, {}, NOW)
    of_agents = notices(OwnCertificates(), {"a": agent(days, ROLES), "b": agent(99, ROLES)}, NOW)
    if words is None:
        assert of_ours == of_agents == []
    else:
        (ours,), (theirs,) = of_ours, of_agents
        assert ours.startswith("the certificate /c.crt end")
        assert words in ours
        assert theirs.startswith("certificates of agents end soon: a; that of a end")
        assert words in theirs


def test_renewed_files_that_cannot_be_used_are_told() -> None:
    own = OwnCertificates(trouble="the key does not fit")
    assert notices(own, {}, NOW) == ["renewed certificates are not taken up: the key does not fit"]


HOSTS = frozenset(["oss00"])
THREE = frozenset(["mgmt1.example", "mgmt1", "mgmt2", "mgmt3"])


@pytest.mark.parametrize(
    ("names", "usages", "managers", "words"),
    [
        ("mgmt2", BOTH, THREE, None),
        (
            "mgmt2",
            CALLS,
            THREE,
            "it holds mgmt2, but is not for servers and clients, so it is no manager's peer "
            "certificate; make one with `halo tls peer mgmt2 --force`",
        ),
        (
            "oss00",
            BOTH,
            THREE,
            "it holds oss00, the name of a cluster host, so it could be that host's; if it is a "
            "manager's, make one without this name: `halo tls peer NAME --force`",
        ),
        (
            "web1",
            BOTH,
            THREE,
            "it holds web1, but none of the names of managers' machines (mgmt1, mgmt1.example, "
            "mgmt2, mgmt3); if it is the certificate of one of them, make it with the name of that "
            "machine: `halo tls peer NAME --also web1 --force`",
        ),
        (
            "web1",
            BOTH,
            UNSET,
            "it holds web1, but none of the names of managers' machines (none is known); name them "
            "in `managers` of the config",
        ),
    ],
)
def test_a_manager_that_is_refused_is_told_its_names_and_the_command(
    names: str, usages: frozenset[str] | None, managers: frozenset[str], words: str | None
) -> None:
    assert refusal_of_peer(certificate(names, usages), managers, HOSTS) == words


@pytest.mark.parametrize(
    ("shown", "asked", "words", "command"),
    [
        # The certificate of another machine was copied there.
        ("mgmt1", "mgmt2", "it holds mgmt1, but not mgmt2,", "`halo tls peer mgmt2 --force`"),
        # It is that of the machine, which is asked at an address.
        (
            "mgmt1.example mgmt1",
            "10.0.0.1",
            "it holds mgmt1, mgmt1.example, but not 10.0.0.1,",
            "`halo tls peer mgmt1 --also 10.0.0.1 --force`",
        ),
        ("web1", "10.0.0.1", "it holds web1,", "`halo tls peer NAME --also 10.0.0.1 --force`"),
        (None, "mgmt2", "it does not hold mgmt2,", "`halo tls peer mgmt2 --force`"),
    ],
)
def test_a_certificate_of_another_name_is_told_with_both_names_and_the_command(
    shown: str | None, asked: str, words: str, command: str
) -> None:
    names = None if shown is None else frozenset(shown.split())
    said = refusal_of_name(names, asked, THREE)
    assert said.startswith(words)
    assert said.endswith(f"at which this manager asks; make it with this name: {command}")
