"""The section `managers`: the ids of managers that share a journal, and the hosts they run on."""

from __future__ import annotations

from halo.config.values import is_plain_component
from halo.config.yaml.document import MistakeList, Section, found, text_of
from halo.config.yaml.nodes import Node
from halo.core.model import NODE_ID_LIMIT, ConfiguredManager

_KEYS = ("id", "host")


class Managers:
    """All managers of a config, in its order."""

    def __init__(self, mistakes: MistakeList) -> None:
        self.found: list[ConfiguredManager] = []
        self._mistakes = mistakes

    def read(self, node: Node) -> None:
        """Read one entry."""
        section = Section(node, "manager", _KEYS, self._mistakes)
        at_id = section.require("id", "the id of a manager, such as 1")
        at_host = section.require("host", "the name of the host that it runs on")
        identity = None if at_id is None else self._id(at_id)
        host = None if at_host is None else text_of(at_host, "host", self._mistakes)
        if identity is not None and host is not None:
            self.found.append(ConfiguredManager(identity, host))

    def _id(self, node: Node) -> str | None:
        text = text_of(node, "id", self._mistakes, expected="the id of a manager")
        if text is None:
            return None
        if not is_plain_component(text) or len(text) > NODE_ID_LIMIT:
            self._mistakes.add(
                node,
                f"id: expected at most {NODE_ID_LIMIT} letters, digits, dots, dashes and "
                f"underscores, found {found(node)}",
            )
            return None
        if any(manager.id == text for manager in self.found):
            self._mistakes.add(node, f"id: two managers have the id {found(node)}")
            return None
        return text
