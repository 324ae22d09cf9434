"""Certificates for test clusters with mutual TLS."""

from __future__ import annotations

from tests.certificates import Authority, of_agent, of_manager

NAME = "halo-test"
MANAGER = "halo-manager"


def write_certificates(authority: Authority) -> dict[str, str]:
    """Write the agents' certificate and the manager's; the environment that names them, with
    roles set."""
    return {
        **of_agent(authority.host("server", NAME, "127.0.0.1")),
        **of_manager(authority.manager("client", MANAGER)),
        "HALO_SERVER_DOMAIN_NAME": NAME,
        "HALO_MANAGER_NAME": MANAGER,
    }
