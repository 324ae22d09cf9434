"""The section `resource_groups`: which tree of resources may run on which hosts."""

from __future__ import annotations

from dataclasses import dataclass

from halo.config.hosts import Hosts
from halo.config.placing.amounts import check_needs, read_amounts
from halo.config.placing.company import COMPANY_KEYS, NamedCompany, company_of, read_company
from halo.config.placing.names import KnownNames, Named, read_names
from halo.config.placing.order import check_circles, order_of
from halo.config.resources import ResourceEntry, Resources
from halo.config.values import choice, flag, whole_number
from halo.config.yaml.document import MistakeList, Section, place, shortened, text_of
from halo.config.yaml.nodes import Node, ScalarNode, SequenceNode
from halo.core.model import (
    Amounts,
    GroupId,
    HostId,
    Resource,
    ResourceGroup,
    ResourceId,
    SecondCopyPolicy,
    StartFailurePolicy,
)

GROUP_KEYS = (
    "root", "home_host", "failover_hosts", "on_start_failure", "second_copy",
    "after", *COMPANY_KEYS, "needs", "priority", "preempt",
)  # fmt: skip
MAX_PRIORITY = 1_000_000


@dataclass(frozen=True, slots=True)
class _Group:
    """One entry as read. `home_host` is empty if it could not be read."""

    root: ResourceId
    root_node: Node
    home_host: HostId
    failover_hosts: tuple[HostId, ...]
    on_start_failure: StartFailurePolicy
    second_copy: SecondCopyPolicy
    after: Named
    company: NamedCompany
    needs: Amounts
    needs_node: Node | None
    priority: int
    preempt: bool

    @property
    def candidates(self) -> tuple[HostId, ...]:
        """Every host that may run the group."""
        return (self.home_host, *self.failover_hosts)


class Groups:
    """All resource groups of a config."""

    def __init__(self, hosts: Hosts, resources: Resources, mistakes: MistakeList) -> None:
        self._hosts = hosts
        self._resources = resources
        self._mistakes = mistakes
        self._entries: dict[GroupId, _Group] = {}

    def read(self, node: Node) -> None:
        """Read one entry."""
        section = Section(node, "resource group", GROUP_KEYS, self._mistakes)
        root = self._root(section)
        home_node = section.require("home_host", "the name of a host")
        home = self._hosts.find(home_node, "home_host") if home_node else None
        failover = self._failover_hosts(section, home)
        start = section.get("on_start_failure")
        second = section.get("second_copy")
        start_policy = second_policy = None
        if start is not None:
            start_policy = choice(start, "on_start_failure", StartFailurePolicy, self._mistakes)
        if second is not None:
            second_policy = choice(second, "second_copy", SecondCopyPolicy, self._mistakes)
        if root is None:
            return
        name, root_node = root
        if name in self._entries:
            line, _ = place(self._entries[name].root_node)
            self._mistakes.add(
                root_node, f'root: "{name}" is the root of two groups (first in line {line})'
            )
            return
        self._entries[name] = _Group(
            name,
            root_node,
            home or "",
            failover,
            start_policy or StartFailurePolicy.MOVE,
            second_policy or SecondCopyPolicy.REPORT,
            read_names(section, "after", self._mistakes),
            read_company(section, self._mistakes),
            read_amounts(section, "needs", self._mistakes),
            section.get("needs"),
            self._priority(section),
            self._preempt(section),
        )

    def _priority(self, section: Section) -> int:
        node = section.get("priority")
        number = None if node is None else whole_number(node, "priority", 0, self._mistakes)
        if number is not None and number > MAX_PRIORITY:
            self._mistakes.add(node, f"priority: expected at most {MAX_PRIORITY}")
        return min(number or 0, MAX_PRIORITY)

    def _preempt(self, section: Section) -> bool:
        node = section.get("preempt")
        return node is not None and flag(node, "preempt", self._mistakes) is True

    def finish(self) -> dict[GroupId, ResourceGroup]:
        """All groups with their trees. Call it when everything was read."""
        members = {root: self._resources.below(root) for root in self._entries}
        self._check_membership(members)
        known = KnownNames(members, self._mistakes)
        named = {root: entry.after for root, entry in self._entries.items()}
        after = order_of(named, known)
        company = company_of(
            {root: entry.company for root, entry in self._entries.items()},
            {root: entry.candidates for root, entry in self._entries.items()},
            known,
            self._mistakes,
        )
        awaited = {
            root: (*entry.after, *entry.company.by_key["together_with"])
            for root, entry in self._entries.items()
        }
        check_circles(after, company, awaited, self._mistakes)
        if self._resources.in_circle:
            return {}
        finished: dict[ResourceId, Resource] = {
            entry.id: entry.finished() for entry in self._resources.by_id.values()
        }
        groups = {
            group.root: ResourceGroup(
                id=group.root,
                resources=tuple(
                    finished[r]
                    for r in self._resources.start_order(group.root, members[group.root])
                ),
                home_host=group.home_host,
                failover_hosts=group.failover_hosts,
                on_start_failure=group.on_start_failure,
                second_copy=group.second_copy,
                after=after[group.root],
                company=company[group.root],
                needs=group.needs,
                priority=group.priority,
                preempt=group.preempt,
            )
            for group in self._entries.values()
        }
        for group in groups.values():
            node = self._entries[group.id].needs_node
            check_needs(group, node, self._hosts.by_id, self._mistakes)
        return groups

    def _root(self, section: Section) -> tuple[ResourceId, Node] | None:
        node = section.require("root", "the name of a resource")
        if node is None:
            return None
        name = text_of(node, "root", self._mistakes, expected="the name of a resource")
        if name is None:
            return None
        resource = self._resources.by_id.get(name)
        if resource is None:
            hint = self._mistakes.nearest(name, self._resources.by_id)
            self._mistakes.add(node, f'root: unknown resource "{shortened(name)}"{hint}')
            return None
        self._check_root(name, resource, node)
        return name, node

    def _check_root(self, name: ResourceId, resource: ResourceEntry, node: Node) -> None:
        if resource.parents and name not in self._resources.in_circle:
            self._mistakes.add(
                node,
                f'root: "{name}" is a dependent of "{resource.parents[0]}"; a root depends on'
                " nothing",
            )
        if resource.shared:
            self._mistakes.add(
                node,
                f'root: "{name}" is shared; a group runs on one host, so its root cannot be shared',
            )

    def _failover_hosts(self, section: Section, home: HostId | None) -> tuple[HostId, ...]:
        node = section.get("failover_hosts")
        if isinstance(node, ScalarNode):
            self._mistakes.add(
                node, f'failover_hosts: expected a list; write ["{shortened(node.value)}"]'
            )
            return ()
        found: dict[HostId, None] = {}
        for item in section.items("failover_hosts") if isinstance(node, SequenceNode) else []:
            for host in self._hosts.find_several(item, "failover_hosts"):
                if host == home:
                    self._mistakes.add(
                        item, f'failover_hosts: "{host}" is the home_host already; remove it here'
                    )
                elif host in found:
                    self._mistakes.add(item, f'failover_hosts: "{host}" appears twice')
                else:
                    found[host] = None
        if node is not None and not isinstance(node, SequenceNode):
            section.items("failover_hosts")  # notes the mistake that it is not a list
        return tuple(found)

    def _check_membership(self, members: dict[GroupId, set[ResourceId]]) -> None:
        """Check that every resource is in one group, or is shared. Configs of HALO (Rust) have no
        key `shared`: there, a resource below two roots is shared."""
        groups_of: dict[ResourceId, list[GroupId]] = {}
        for root, resources in members.items():
            for resource in resources:
                groups_of.setdefault(resource, []).append(root)
        for resource, entry in self._resources.by_id.items():
            groups = groups_of.get(resource, [])
            if not groups and resource not in self._resources.in_circle:
                self._mistakes.add(entry.node, self._why_in_no_group(resource, entry))
            elif len(groups) > 1 and resource not in self._entries:
                if entry.shared is None:
                    entry.shared_by_place = True
                elif not entry.shared:
                    self._mistakes.add(entry.node, _two_groups(resource, groups))

    def _why_in_no_group(self, resource: ResourceId, entry: ResourceEntry) -> str:
        parents, way_out = entry.parents, "a dependent of a resource that is in a group"
        alone = f'resource "{shortened(resource)}" is in no group'
        if len(parents) == 1:
            return (
                f"{alone}. Its parent {parents[0]} is in no group either: make {parents[0]} the"
                f" root of a group, or {way_out}"
            )
        if parents:
            return (
                f"{alone}. None of its parents ({', '.join(parents[:5])}) is in a group: make one"
                f" of them the root of a group, or {way_out}"
            )
        return f"{alone}; make it the root of a group, or {way_out}"


def _two_groups(resource: ResourceId, groups: list[GroupId]) -> str:
    shown = ", ".join(groups[:5]) + (", ..." if len(groups) > 5 else "")
    return (
        f'resource "{shortened(resource)}" has "shared: false" but is in the groups {shown};'
        ' write "shared: true" if it may run on several hosts at once, else keep it in one group'
    )
