"""Certificates for test clusters with mutual TLS."""

from __future__ import annotations

from pathlib import Path

import trustme

NAME = "halo-test"


def write_certificates(folder: Path) -> dict[str, str]:
    """Write a CA, a server's and a client's certificate; the environment that names them."""
    authority = trustme.CA()
    server = authority.issue_cert(NAME, "127.0.0.1")
    client = authority.issue_cert("halo-manager")
    files = {
        "HALO_CA_CERT": (folder / "ca.pem", authority.cert_pem.bytes()),
        "HALO_SERVER_CERT": (folder / "server.pem", server.cert_chain_pems[0].bytes()),
        "HALO_SERVER_KEY": (folder / "server.key", server.private_key_pem.bytes()),
        "HALO_CLIENT_CERT": (folder / "client.pem", client.cert_chain_pems[0].bytes()),
        "HALO_CLIENT_KEY": (folder / "client.key", client.private_key_pem.bytes()),
    }
    for path, content in files.values():
        path.touch(mode=0o600)
        path.write_bytes(content)
    return {name: str(path) for name, (path, _) in files.items()} | {
        "HALO_SERVER_DOMAIN_NAME": NAME
    }
