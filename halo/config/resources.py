"""The section `resources`: what can run, and what depends on what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields

from halo.config.values import duration, flag, kind, name, ocf_parameter_name
from halo.config.yaml.document import MistakeList, Section, place, shortened, text_of
from halo.config.yaml.nodes import Node, ScalarNode
from halo.core.model import Resource, ResourceId
from halo.core.peers.bounds import PARAMETER_LIMIT, PARAMETERS_LIMIT_BYTES

DURATION_FIELDS = {
    field.name.removesuffix("_s"): field.name
    for field in fields(Resource)
    if field.name.endswith("_s")
}
"""Every key that is a duration, with the field of Resource that it sets."""

RESOURCE_KEYS = ("name", "kind", "parameters", "dependents", "shared", *DURATION_FIELDS)


@dataclass(slots=True)
class ResourceEntry:
    """One resource of the config. `dependents` holds only known resources. `durations` holds each
    field of Resource that is a duration.

    `shared` is None if the key is missing. `shared_by_place` is determined when all groups were
    read."""

    id: ResourceId
    node: Node
    kind: str
    parameters: dict[str, str]
    shared: bool | None
    durations: dict[str, float | None]
    dependent_nodes: list[tuple[ResourceId, Node]]
    dependents: list[ResourceId] = field(default_factory=list)
    parents: list[ResourceId] = field(default_factory=list)
    shared_by_place: bool = False

    def finished(self) -> Resource:
        """The resource in the form of the model."""
        return Resource(
            id=self.id,
            kind=self.kind,
            parameters=self.parameters,
            dependents=tuple(self.dependents),
            parents=tuple(self.parents),
            shared=bool(self.shared) or self.shared_by_place,
            shared_by_place=self.shared_by_place,
            **self.durations,
        )


class Resources:
    """All resources of a config, and the edges between them."""

    def __init__(self, mistakes: MistakeList) -> None:
        self.by_id: dict[ResourceId, ResourceEntry] = {}
        self.in_circle: set[ResourceId] = set()
        self._mistakes = mistakes

    def read(self, node: Node) -> None:
        """Read one entry. A resource with a mistake stays known, so that references to it are not
        reported, too."""
        section = Section(node, "resource", RESOURCE_KEYS, self._mistakes)
        name_node = section.require("name", "a name")
        kind_node = section.require("kind", "PROVIDER/SCRIPT")
        entry = ResourceEntry(
            id=(name(name_node, "name", self._mistakes) if name_node else None) or "",
            node=name_node or node,
            kind=(kind(kind_node, self._mistakes) if kind_node else None) or "",
            parameters=self._parameters(section),
            shared=self._shared(section),
            durations={name: self._duration(section, key) for key, name in DURATION_FIELDS.items()},
            dependent_nodes=list(self._dependents(section)),
        )
        if not entry.id:
            # It stays known by its written name, because references to it are right.
            if not isinstance(name_node, ScalarNode):
                return
            entry.id = str(name_node.value)
        if entry.id in self.by_id:
            line, _ = place(self.by_id[entry.id].node)
            self._mistakes.add(
                entry.node,
                f'resource "{shortened(entry.id)}" is defined twice (first in line {line})',
            )
            return
        self.by_id[entry.id] = entry

    def connect(self) -> None:
        """Resolve the dependents of all resources, and look for circles. Call it at the end."""
        for entry in self.by_id.values():
            seen: set[ResourceId] = set()
            for dependent, node in entry.dependent_nodes:
                other = self.by_id.get(dependent)
                if other is None:
                    hint = self._mistakes.nearest(dependent, self.by_id)
                    self._mistakes.add(
                        node, f'dependents: unknown resource "{shortened(dependent)}"{hint}'
                    )
                elif dependent in seen:
                    self._mistakes.add(node, f'dependents: "{shortened(dependent)}" appears twice')
                else:
                    seen.add(dependent)
                    entry.dependents.append(dependent)
                    other.parents.append(entry.id)
        self._find_circles()

    def start_order(self, root: ResourceId, members: set[ResourceId]) -> list[ResourceId]:
        """The root and everything below it: parents before dependents, siblings as written.

        The caller makes sure that there is no circle.
        """
        waiting = {m: sum(p in members for p in self.by_id[m].parents) for m in members}
        ready = [root]
        order: list[ResourceId] = []
        while ready:
            current = ready.pop()
            order.append(current)
            for dependent in reversed(self.by_id[current].dependents):
                waiting[dependent] -= 1
                if not waiting[dependent]:
                    ready.append(dependent)
        return order

    def below(self, root: ResourceId) -> set[ResourceId]:
        """A resource and everything that depends on it, directly or not."""
        members = {root}
        pending = [root]
        while pending:
            for dependent in self.by_id[pending.pop()].dependents:
                if dependent not in members:
                    members.add(dependent)
                    pending.append(dependent)
        return members

    def _find_circles(self) -> None:
        """Note each circle once, at the dependent that closes it. The search is depth first, but
        without recursion, because a chain of resources may be longer than Python's stack."""
        finished: set[ResourceId] = set()
        for start in self.by_id:
            if start in finished:
                continue
            path: dict[ResourceId, Iterator[ResourceId]] = {
                start: iter(self.by_id[start].dependents)
            }
            while path:
                current = next(reversed(path))
                dependent = next(path[current], None)
                if dependent is None:
                    finished.add(current)
                    del path[current]
                elif dependent in path:
                    self._report_circle(list(path), dependent)
                elif dependent not in finished:
                    path[dependent] = iter(self.by_id[dependent].dependents)

    def _report_circle(self, path: list[ResourceId], closing: ResourceId) -> None:
        circle = [*path[path.index(closing) :], closing]
        self.in_circle.update(circle)
        nodes = (node for name, node in self.by_id[path[-1]].dependent_nodes if name == closing)
        shown = circle if len(circle) <= 8 else [*circle[:4], "...", *circle[-3:]]
        self._mistakes.add(
            next(nodes, None), f"dependents: resources form a circle: {' -> '.join(shown)}"
        )

    def _parameters(self, section: Section) -> dict[str, str]:
        parameters: dict[str, str] = {}
        for key, entry in section.entries("parameters").items():
            if not ocf_parameter_name(key, entry.key, self._mistakes):
                continue
            value = text_of(
                entry.value,
                f"parameters: {key}",
                self._mistakes,
                expected='text ("" for an empty value)',
            )
            if value is None:
                continue
            if "\0" in value:
                self._mistakes.add(entry.value, f"parameters: {key}: expected text without NUL")
                continue
            parameters[key] = value
        self._check_size(section, parameters)
        return parameters

    def _check_size(self, section: Section, parameters: dict[str, str]) -> None:
        """Note parameters that are too many or too long: an agent would refuse them."""
        count, node = len(parameters), section.get("parameters")
        if count > PARAMETER_LIMIT:
            self._mistakes.add(
                node, f"parameters: expected at most {PARAMETER_LIMIT}, found {count}"
            )
        size = sum(len(f"{k}{v}".encode(errors="replace")) for k, v in parameters.items())
        if size > PARAMETERS_LIMIT_BYTES:
            self._mistakes.add(
                node,
                "parameters: expected names and values of at most"
                f" {PARAMETERS_LIMIT_BYTES} bytes together, found {size}",
            )

    def _dependents(self, section: Section) -> Iterator[tuple[ResourceId, Node]]:
        for node in section.items("dependents"):
            text = text_of(node, "dependents", self._mistakes, expected="the name of a resource")
            if text is not None:
                yield text, node

    def _shared(self, section: Section) -> bool | None:
        node = section.get("shared")
        return None if node is None else flag(node, "shared", self._mistakes)

    def _duration(self, section: Section, key: str) -> float | None:
        node = section.get(key)
        return None if node is None else duration(node, key, self._mistakes)
