"""Parameters of fence devices. Secrets are read only when used, and no message shows them."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shlex
from collections.abc import Iterable, Mapping
from urllib.parse import quote, quote_plus

from halo.adapters.slow_files import PatientFiles
from halo.core.errors import FenceError
from halo.core.secrets import is_secret_name
from halo.error_words import words_of

FILE_PREFIX = "file:"
ENV_PREFIX = "env:"

_MAX_SECRET_FILE = 65536
_READ_TIMEOUT_S = 5.0
_MAX_INPUT = 32768  # far below the capacity of a pipe, so that a write never blocks


def is_secret(key: str, value: str) -> bool:
    """True if a parameter's value may never be shown."""
    return is_secret_name(key) or value.startswith((FILE_PREFIX, ENV_PREFIX))


async def resolve(parameters: Mapping[str, str], files: PatientFiles) -> dict[str, str]:
    """The parameters, with `file:/path` and `env:NAME` replaced by their values.

    Files are read within a deadline, because they may lie on a network that has failed. Raises
    FenceError, which names the parameter, but never its value.
    """
    values = await asyncio.gather(
        *(_resolve_one(key, value, files) for key, value in parameters.items())
    )
    return dict(zip(parameters, values, strict=True))


async def _resolve_one(key: str, value: str, files: PatientFiles) -> str:
    if value.startswith(FILE_PREFIX):
        return await _from_file(key, value.removeprefix(FILE_PREFIX), files)
    if value.startswith(ENV_PREFIX):
        name = value.removeprefix(ENV_PREFIX)
        if name not in os.environ:
            raise FenceError(
                f'fence parameter "{key}": the environment variable {name} is not set; '
                "set it for the manager (EnvironmentFile= in its unit)"
            )
        return os.environ[name].rstrip("\r\n")
    return value


async def _from_file(key: str, path: str, files: PatientFiles) -> str:
    try:
        data = await files.read(path, _MAX_SECRET_FILE + 1, _READ_TIMEOUT_S)
    except TimeoutError:
        raise FenceError(
            f'fence parameter "{key}": {path} could not be read within {_READ_TIMEOUT_S:g} s; '
            "keep it on a local disk"
        ) from None
    except OSError as error:
        raise FenceError(
            f'fence parameter "{key}": cannot read {path}: {words_of(error)}'
        ) from None
    if len(data) > _MAX_SECRET_FILE:
        raise FenceError(f'fence parameter "{key}": {path} is too long for a secret')
    try:
        text = data.decode()
    except ValueError:
        raise FenceError(f'fence parameter "{key}": {path} is not UTF-8 text') from None
    return text.rstrip("\r\n")


def environment_names(parameters: Mapping[str, str]) -> set[str]:
    """The environment variables that hold secrets of these parameters."""
    return {
        value.removeprefix(ENV_PREFIX)
        for value in parameters.values()
        if value.startswith(ENV_PREFIX)
    }


def as_input(action: str, parameters: Mapping[str, str]) -> bytes:
    """The standard input of a fence program (fence-agent API: `key=value` lines).

    Raises FenceError if a key or value could add another line.
    """
    lines = [f"action={action}\n"]
    for key, value in parameters.items():
        if key == "action":
            continue  # only HALO decides on this
        if not key or re.search(r"[=\s\0]", key):
            raise FenceError(f"fence parameter {key!r}: the name must not hold blanks or =")
        if re.search(r"[\r\n\0]", value):
            raise FenceError(f'fence parameter "{key}": its value must be a single line')
        lines.append(f"{key}={value}\n")
    data = "".join(lines).encode()
    if len(data) > _MAX_INPUT:
        raise FenceError(f"together, the fence parameters are longer than {_MAX_INPUT} bytes")
    return data


class Redactor:
    """Removes secrets from a program's output.

    It knows the plain value, and the forms in which programs often print it: quoted for a shell, a
    URL, JSON or Python, and inside an HTTP basic authorization.
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
        """Length in bytes of the longest form. So many bytes of a cut text may be part of one."""
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
