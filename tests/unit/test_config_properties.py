"""Random configs: valid ones load to what was meant, damaged ones give a ConfigError alone."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from halo.config.groups import GROUP_KEYS
from halo.config.hosts import HOST_KEYS
from halo.config.loader import load_text
from halo.config.resources import RESOURCE_KEYS
from halo.core.errors import ConfigError
from halo.core.model import Cluster

SLOW_MACHINE = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
VALUES = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Co", "Cn")), max_size=12
) | st.sampled_from(
    ["yes", "0755", "1:30", "~", "null", "[x]", "a: b", "<<", "# c", "", "!t", "*a"]
)


@dataclass(frozen=True)
class Meant:
    """A config as plain data, with the facts it must load to."""

    data: dict[str, object]
    parents: dict[str, int | None]
    candidates: dict[str, list[str]]
    parameters: dict[str, dict[str, str]]


@st.composite
def configs(draw: st.DrawFn) -> Meant:
    hosts = [f"oss{n:02}" for n in range(draw(st.integers(1, 5)))]
    resources: list[dict[str, object]] = []
    groups: list[dict[str, object]] = []
    meant = Meant({}, {}, {}, {})
    for g in range(draw(st.integers(1, 4))):
        names = [f"g{g}/r{n}" for n in range(draw(st.integers(1, 6)))]
        dependents: dict[str, list[str]] = {name: [] for name in names}
        for n, name in enumerate(names):
            parent = draw(st.integers(0, n - 1)) if n else None
            meant.parents[name] = parent
            if parent is not None:
                dependents[names[parent]].append(name)
        for name in names:
            keys = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
            parameters = draw(st.dictionaries(keys, VALUES, max_size=3))
            meant.parameters[name] = parameters
            entry = {"name": name, "kind": "heartbeat/Dummy", "parameters": parameters}
            resources.append({**entry, "dependents": dependents[name]})
        candidates = draw(st.lists(st.sampled_from(hosts), min_size=1, unique=True))
        meant.candidates[names[0]] = candidates
        home, *failover = candidates
        groups.append({"root": names[0], "home_host": home, "failover_hosts": failover})
    meant.data["hosts"] = [{"hostname": host} for host in hosts]
    meant.data["resources"] = draw(st.permutations(resources))
    meant.data["resource_groups"] = groups
    return meant


def as_yaml(data: object) -> str:
    text: str = yaml.safe_dump(data, allow_unicode=True, sort_keys=False)
    return text


@SLOW_MACHINE
@given(configs())
def test_a_valid_config_loads_to_what_was_meant(meant: Meant) -> None:
    cluster = load_text(as_yaml(meant.data), "halo.conf")
    assert {g: list(group.candidates) for g, group in cluster.groups.items()} == meant.candidates
    loaded = {r.id: r for group in cluster.groups.values() for r in group.resources}
    assert {name: dict(r.parameters) for name, r in loaded.items()} == meant.parameters
    for name, parent in meant.parents.items():
        expected = () if parent is None else (f"{name.partition('/')[0]}/r{parent}",)
        assert loaded[name].parents == expected
    _check_order(cluster)


def _check_order(cluster: Cluster) -> None:
    for group in cluster.groups.values():
        position = {r.id: n for n, r in enumerate(group.resources)}
        assert position[group.root] == 0
        for resource in group.resources:
            assert all(position[p] < position[resource.id] for p in resource.parents)


def _load_or_refuse(text: str) -> None:
    """Anything but a ConfigError with places that lie in the text escapes and fails the test."""
    try:
        cluster = load_text(text, "halo.conf")
    except ConfigError as error:
        lines = text.count("\n") + text.count("\r") + text.count("\x85") + 2
        lines += text.count("\u2028") + text.count("\u2029")
        problems = [m for m in error.mistakes if not (0 <= m.line <= lines and m.message)]
        if problems or not error.mistakes or "\n" in error.mistakes[0].message:
            pytest.fail(f"{error.mistakes}")
    else:
        _check_order(cluster)


@SLOW_MACHINE
@given(configs(), st.data())
def test_a_damaged_config_is_refused_or_loads(meant: Meant, data: st.DataObject) -> None:
    text = as_yaml(meant.data)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 12)))
        text = (
            text[:start]
            + data.draw(st.text("-:[]{}&*!|>'\"#%@`,? \n\tab0<~\\", max_size=6))
            + text[end:]
        )
    _load_or_refuse(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
HOSTS_KEY = st.sampled_from([*HOST_KEYS, "hostnam"])
RESOURCES_KEY = st.sampled_from([*RESOURCE_KEYS, "extra"])
GROUPS_KEY = st.sampled_from([*GROUP_KEYS, "roots"])
WORDS = st.sampled_from(
    [
        "a",
        "b",
        "a:1",
        "[::1]:2",
        "x/y",
        "fence",
        "redfish",
        "powerman",
        "fence_test",
        "/",
        "b[1-2]",
        "3s",
    ]
)


@SLOW_MACHINE
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "hosts": st.lists(st.dictionaries(HOSTS_KEY, WORDS | JSON), max_size=4) | JSON,
            "resources": st.lists(st.dictionaries(RESOURCES_KEY, WORDS | JSON), max_size=4) | JSON,
            "resource_groups": st.lists(st.dictionaries(GROUPS_KEY, WORDS | JSON), max_size=4)
            | JSON,
            "settings": st.dictionaries(
                st.sampled_from(["loss_budget", "fence_limit"]), WORDS | JSON
            ),
            "name": WORDS | JSON,
        },
    )
)
def test_any_structure_is_refused_or_loads(data: dict[str, object]) -> None:
    _load_or_refuse(as_yaml(data))


@SLOW_MACHINE
@given(st.text() | st.text("-:[]{}&*!|>'\"#%@`,? \n\tab0<~\\", max_size=60))
def test_any_text_is_refused_or_loads(text: str) -> None:
    _load_or_refuse(text)
