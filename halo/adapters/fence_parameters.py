"""Parameters of fence devices: secrets read when used, and kept out of every message."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shlex
from collections.abc import Iterable, Mapping
from urllib.parse import quote, quote_plus

from halo.core.errors import FenceError
from halo.core.secrets import is_secret_name

FILE_PREFIX = "file:"
ENV_PREFIX = "env:"

_MAX_SECRET_FILE = 65536
_READ_TIMEOUT_S = 5.0
_MAX_INPUT = 32768  # well below the capacity of a pipe, so that writing it never blocks


def is_secret(key: str, value: str) -> bool:
    """True where a parameter's value may never be shown."""
    return is_secret_name(key) or value.startswith((FILE_PREFIX, ENV_PREFIX))


async def resolve(parameters: Mapping[str, str]) -> dict[str, str]:
    """The parameters with `file:/path` and `env:NAME` replaced by what they name.

    Files are read in a worker thread, within a deadline: they may lie on a network that is gone.
    Raises FenceError that names the parameter, never its value.
    """
    if not any(value.startswith(FILE_PREFIX) for value in parameters.values()):
        return {key: _resolve_one(key, value) for key, value in parameters.items()}
    try:
        return await asyncio.wait_for(
            asyncio.to_thread(lambda: {k: _resolve_one(k, v) for k, v in parameters.items()}),
            _READ_TIMEOUT_S,
        )
    except TimeoutError:
        raise FenceError(
            f"the files that hold fence parameters could not be read within {_READ_TIMEOUT_S:g} s: "
            "keep them on a local disk"
        ) from None


def _resolve_one(key: str, value: str) -> str:
    if value.startswith(FILE_PREFIX):
        return _from_file(key, value.removeprefix(FILE_PREFIX))
    if value.startswith(ENV_PREFIX):
        name = value.removeprefix(ENV_PREFIX)
        if name not in os.environ:
            raise FenceError(
                f'fence parameter "{key}": the environment variable {name} is not set; '
                "set it for the manager (EnvironmentFile= in its unit)"
            )
        return os.environ[name].rstrip("\r\n")
    return value


def _from_file(key: str, path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(_MAX_SECRET_FILE + 1)
    except OSError as error:
        raise FenceError(f'fence parameter "{key}": cannot read {path}: {error.strerror}') from None
    except ValueError:
        raise FenceError(f'fence parameter "{key}": {path} is not UTF-8 text') from None
    if len(text) > _MAX_SECRET_FILE:
        raise FenceError(f'fence parameter "{key}": {path} is too long for a secret')
    return text.rstrip("\r\n")


def environment_names(parameters: Mapping[str, str]) -> set[str]:
    """The environment variables that hold secrets of these parameters."""
    return {
        value.removeprefix(ENV_PREFIX)
        for value in parameters.values()
        if value.startswith(ENV_PREFIX)
    }


def as_input(action: str, parameters: Mapping[str, str]) -> bytes:
    """What a fence program reads on its standard input (fence-agent API: `key=value` lines).

    Raises FenceError where a key or value could smuggle in another line.
    """
    lines = [f"action={action}\n"]
    for key, value in parameters.items():
        if key == "action":
            continue  # ours alone to decide
        if not key or re.search(r"[=\s\0]", key):
            raise FenceError(f"fence parameter {key!r}: a name holds no blanks and no =")
        if re.search(r"[\r\n\0]", value):
            raise FenceError(f'fence parameter "{key}": its value must be a single line')
        lines.append(f"{key}={value}\n")
    data = "".join(lines).encode()
    if len(data) > _MAX_INPUT:
        raise FenceError(f"the fence parameters are longer than {_MAX_INPUT} bytes together")
    return data


class Redactor:
    """Takes secrets out of what a program wrote.

    Beside the plain value it knows the forms in which programs tend to print it: quoted for a
    shell, a URL, JSON or Python, and inside an HTTP basic authorization.
    """

    def __init__(self, declared: Mapping[str, str], resolved: Mapping[str, str]) -> None:
        secrets = {
            resolved[key]
            for key, value in declared.items()
            if is_secret(key, value) and resolved.get(key)
        }
        users = [resolved[key] for key in ("username", "login") if resolved.get(key)]
        forms = {form for secret in secrets for form in _forms(secret, users)}
        self._forms = sorted(forms, key=len, reverse=True)

    @property
    def longest(self) -> int:
        """Length in bytes of the longest form: how much of a cut text may be a part of one."""
        return max((len(form.encode()) for form in self._forms), default=0)

    def __call__(self, text: str) -> str:
        """The text with every secret replaced by `***`."""
        for form in self._forms:
            text = text.replace(form, "***")
        return text


def _forms(secret: str, users: Iterable[str]) -> Iterable[str]:
    yield secret
    yield quote(secret, safe="")
    yield quote(secret)
    yield quote_plus(secret)
    yield shlex.quote(secret)
    yield json.dumps(secret)[1:-1]
    yield repr(secret)[1:-1]
    yield base64.b64encode(secret.encode()).decode()
    for user in users:
        yield base64.b64encode(f"{user}:{secret}".encode()).decode()
