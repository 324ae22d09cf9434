"""Which address of this machine the agent binds to."""

from __future__ import annotations

import errno
import ipaddress
import socket
from typing import TypeAlias

from halo.core.errors import AdministratorError
from halo.error_words import words_of

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_LOOPBACK = ipaddress.IPv4Network("127.0.0.0/8")
_LOCALHOST = ipaddress.IPv4Address("127.0.0.1")


class ListenError(AdministratorError):
    """The agent cannot listen where it was told to."""


def parse_network(text: str) -> Network:
    """A network in CIDR form. A single address is a network of one. Raises ListenError."""
    try:
        return ipaddress.ip_network(text.strip(), strict=False)
    except ValueError as error:
        raise ListenError(
            f'--network "{text}" is not a network: {error}; write it like 192.168.1.0/24'
        ) from error


def choose_address(network: Network, given: str = "") -> Address:
    """An address of this machine within the network. If there is none, raises ListenError, which
    names the network as it was `given`.

    All of 127.0.0.0/8 belongs to this machine, although its interface shows only 127.0.0.1. A
    single address of it (/32) is accepted. A larger network of it without 127.0.0.1 is taken as a
    mistake, as in HALO (Rust).
    """
    if isinstance(network, ipaddress.IPv4Network) and network.subnet_of(_LOOPBACK):
        if _LOCALHOST in network:
            return _LOCALHOST
        if network.num_addresses == 1:
            return network.network_address
    for address in _own_addresses():
        if address in network:
            return address
    named = str(network) if given.strip() in ("", str(network)) else f"{given} (that is, {network})"
    raise ListenError(
        f"this machine has no address in the network {named}; "
        "name the management network with --network or HALO_NET"
    )


def bind(network: Network, port: int, given: str = "") -> socket.socket:
    """A socket bound within the network, not yet listening. Raises ListenError."""
    address = choose_address(network, given)
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((str(address), port))
    except OSError as error:
        sock.close()
        raise ListenError(why_not(str(address), port, error)) from error
    return sock


def why_not(address: str, port: int, error: OSError) -> str:
    """What to tell the administrator when bind or listen failed."""
    where = f"{address} port {port}"
    if error.errno == errno.EADDRINUSE:
        return f"cannot listen on {where}: another program does; stop it, or use another --port"
    if error.errno == errno.EACCES:
        return f"cannot listen on {where}: ports below 1024 need root; use another --port"
    return f"cannot listen on {where}: {words_of(error)}"


def _own_addresses() -> list[Address]:
    import ifaddr  # its import runs `ldconfig`, which loopback does not need

    found: list[Address] = []
    for adapter in ifaddr.get_adapters():
        for entry in adapter.ips:
            text = entry.ip if isinstance(entry.ip, str) else entry.ip[0]
            found.append(ipaddress.ip_address(text.partition("%")[0]))
    return found
