"""Which parameters are never shown."""

from __future__ import annotations

import pytest

from halo.core.secrets import is_secret_name

SECRET = [
    *("password", "passwd", "ipmi_passwd", "PASS", "passphrase", "pwd", "snmp_priv_passwd"),
    *("apikey", "api_key", "api-key", "access_key", "secret_key", "auth_token", "community"),
    *("private_key", "credentials"),
]
PLAIN = ["ip", "plug", "username", "port", "keep", "monkey", "tls_key", "path", "name", "auth"]


@pytest.mark.parametrize("name", SECRET)
def test_a_secret_is_known_by_its_name(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize("name", PLAIN)
def test_what_is_none_is_shown(name: str) -> None:
    assert not is_secret_name(name)
