"""The section `settings`: timings and limits of the manager."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from halo.config.values import duration, flag, fraction, whole_number
from halo.config.yaml.document import MistakeList, Section
from halo.config.yaml.nodes import Node
from halo.core.hosts.losing_sight import HEARTBEATS_PER_BUDGET
from halo.core.model import Settings

_NOT_IN_FILE = "fence_on_connection_close"  # only on the command line, for test environments

SETTING_FIELDS = {
    field.name.removesuffix("_s"): field.name
    for field in fields(Settings)
    if field.name != _NOT_IN_FILE
}
"""Every key of the section, with the field of Settings that it sets."""

_MINIMUM = {"fence_limit": 1}  # others may be 0


def read_settings(
    node: Node | None,
    mistakes: MistakeList,
    *,
    monitor_interval_s: float | None,
    fence_on_connection_close: bool,
) -> Settings:
    """The settings of a config. `monitor_interval_s`, if given, overrides the one in the file."""
    given: dict[str, Any] = {}
    section = None
    if node is not None:
        section = Section(node, "settings", SETTING_FIELDS, mistakes)
        for key, field_name in SETTING_FIELDS.items():
            value = _value(section, key, field_name, mistakes)
            if value is not None:
                given[field_name] = value
    if monitor_interval_s is not None:
        given["monitor_interval_s"] = monitor_interval_s
    if "heartbeat_interval_s" not in given and "loss_budget_s" in given:
        # One lost heartbeat must not lead to a verdict, whatever the budget.
        given["heartbeat_interval_s"] = min(
            Settings.heartbeat_interval_s, given["loss_budget_s"] / HEARTBEATS_PER_BUDGET
        )
    settings = Settings(**given, fence_on_connection_close=fence_on_connection_close)
    if section is not None:
        _check(section, settings, mistakes)
    return settings


def _value(
    section: Section, key: str, field_name: str, mistakes: MistakeList
) -> float | int | None:
    node = section.get(key)
    if node is None:
        return None
    if field_name.endswith("_s"):
        return duration(node, key, mistakes)
    default = getattr(Settings, field_name)
    if isinstance(default, bool):
        return flag(node, key, mistakes)
    if isinstance(default, int):
        return whole_number(node, key, _MINIMUM.get(key, 0), mistakes)
    return fraction(node, key, mistakes)


def _check(section: Section, settings: Settings, mistakes: MistakeList) -> None:
    most_s = settings.loss_budget_s / HEARTBEATS_PER_BUDGET
    if settings.heartbeat_interval_s > most_s:
        mistakes.add(
            section.get("heartbeat_interval") or section.node,
            f"heartbeat_interval: expected at most a third of loss_budget ({most_s:g} s), found"
            f" {settings.heartbeat_interval_s:g} s; a host counts as lost only after at least two"
            " unanswered heartbeats",
        )
    if settings.fence_retry_min_s > settings.fence_retry_max_s:
        mistakes.add(
            section.get("fence_retry_min") or section.get("fence_retry_max") or section.node,
            f"fence_retry_min ({settings.fence_retry_min_s:g} s) is more than fence_retry_max"
            f" ({settings.fence_retry_max_s:g} s)",
        )
