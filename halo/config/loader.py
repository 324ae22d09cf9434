"""From a config file to a :class:`halo.core.model.Cluster`, or to every mistake in it."""

from __future__ import annotations

from pathlib import Path

from halo.config.groups import Groups
from halo.config.hosts import Hosts
from halo.config.managers import Managers
from halo.config.resources import Resources
from halo.config.settings import read_settings
from halo.config.values import is_plain_component
from halo.config.yaml.document import (
    MistakeList,
    Section,
    compose,
    found,
    garbage_collection_paused,
    text_of,
)
from halo.config.yaml.nodes import Node, SequenceNode
from halo.core.errors import ConfigError, Mistake
from halo.core.model import Cluster
from halo.core.peers.bounds import NAME_LIMIT
from halo.error_words import words_of

TOP_KEYS = ("name", "settings", "hosts", "resources", "resource_groups", "managers")
IGNORED_PREFIX = "x-"
"""Top-level keys with this prefix are skipped: a place for YAML anchors."""

MAX_BYTES = 64 << 20
DEFAULT_NAME = "halo"


def load(
    path: str | Path,
    *,
    monitor_interval_s: float | None = None,
    fence_on_connection_close: bool = False,
    default_port: int = 8000,
) -> Cluster:
    """Read and check a config file.

    `monitor_interval_s` overrides the setting in the file. `default_port` is the agents' port if a
    hostname names none. This looks for the fence programs on this machine, and changes nothing. It
    reads files, so do not call it in the event loop. Raises ConfigError with all mistakes.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = words_of(error)
        if isinstance(error, FileNotFoundError):
            reason += "; give the config with --config or HALO_CONFIG"
        raise ConfigError(str(path), [Mistake(0, 0, f"cannot be read: {reason}")]) from error
    if len(data) > MAX_BYTES:
        raise ConfigError(str(path), [Mistake(0, 0, f"is longer than {MAX_BYTES} bytes")])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        mistake = Mistake(line, column, "not valid UTF-8 text")
        raise ConfigError(str(path), [mistake]) from None
    return load_text(
        text,
        str(path),
        monitor_interval_s=monitor_interval_s,
        fence_on_connection_close=fence_on_connection_close,
        default_port=default_port,
    )


def load_text(
    text: str,
    source: str,
    *,
    monitor_interval_s: float | None = None,
    fence_on_connection_close: bool = False,
    default_port: int = 8000,
) -> Cluster:
    """Like :func:`load`, but for the text of a config. `source` is its name in messages."""
    with garbage_collection_paused():
        return _read(
            text,
            source,
            default_port,
            monitor_interval_s=monitor_interval_s,
            fence_on_connection_close=fence_on_connection_close,
        )


def _read(
    text: str,
    source: str,
    default_port: int,
    *,
    monitor_interval_s: float | None,
    fence_on_connection_close: bool,
) -> Cluster:
    mistakes = MistakeList()
    root = compose(text, mistakes)
    if root is None:
        mistakes.raise_if_any(source)
        raise AssertionError("a document without a root leaves a mistake")
    top = Section(root, "config", TOP_KEYS, mistakes, ignored_prefix=IGNORED_PREFIX)
    hosts = Hosts(mistakes)
    for node in _required_items(top, "hosts", mistakes):
        hosts.read(node, default_port)
    resources = Resources(mistakes)
    for node in top.items("resources"):
        resources.read(node)
    resources.connect()
    groups = Groups(hosts, resources, mistakes)
    for node in top.items("resource_groups"):
        groups.read(node)
    finished_groups = groups.finish()
    settings = read_settings(
        top.get("settings"),
        mistakes,
        monitor_interval_s=monitor_interval_s,
        fence_on_connection_close=fence_on_connection_close,
    )
    managers = Managers(mistakes)
    for node in top.items("managers"):
        managers.read(node)
    name = _cluster_name(top, mistakes)
    mistakes.raise_if_any(source)
    return Cluster(name, hosts.by_id, finished_groups, settings, tuple(managers.found))


def _required_items(top: Section, key: str, mistakes: MistakeList) -> list[Node]:
    node = top.require(key, "a list of hosts")
    if node is None:
        return []
    items = top.items(key)
    if not items and isinstance(node, SequenceNode) and not node.value:
        mistakes.add(node, f"{key}: expected at least one host, found an empty list")
    return items


def _cluster_name(top: Section, mistakes: MistakeList) -> str:
    node = top.get("name")
    if node is None:
        return DEFAULT_NAME
    text = text_of(node, "name", mistakes, expected="the name of the cluster")
    if text is not None and not is_plain_component(text):
        mistakes.add(
            node,
            f"name: expected letters, digits, dots, dashes and underscores, found {found(node)}",
        )
    elif text is not None and len(text) > NAME_LIMIT:
        mistakes.add(node, f"name: expected at most {NAME_LIMIT} characters, found {len(text)}")
    return text or DEFAULT_NAME
