"""The section `hosts`, and the names by which the rest of a config may refer to a host."""

from __future__ import annotations

from halo.config.fencing import DEVICE_KEYS, Fencing, FencingReader
from halo.config.nodesets.nodeset import expand, is_nodeset
from halo.config.placing.amounts import read_amounts
from halo.config.values import (
    address,
    choice,
    is_plain_component,
    normal_address,
    split_port,
    whole_number,
)
from halo.config.yaml.document import MistakeList, Section, found, place, shortened, text_of
from halo.config.yaml.nodes import Node, ScalarNode
from halo.core.model import Host, HostId, LossPolicy

HOST_KEYS = ("hostname", *DEVICE_KEYS, "fence_levels", "on_loss", "capacity", "max_starts")


class Hosts:
    """All hosts of a config, and the ways to name them."""

    def __init__(self, mistakes: MistakeList) -> None:
        self.by_id: dict[HostId, Host] = {}
        self._mistakes = mistakes
        self._fencing = FencingReader(mistakes)
        self._lines: dict[HostId, int] = {}
        self._endpoints: dict[tuple[str, int], int] = {}
        self._broken: set[str] = set()
        self._by_name: dict[str, dict[HostId, None]] = {}

    def read(self, node: Node, default_port: int) -> None:
        """Read one entry. A host with a mistake stays known, so that references to it are not
        reported, too."""
        section = Section(node, "host", HOST_KEYS, self._mistakes)
        hostname = section.require("hostname", "a name or address with an optional :port")
        written = str(hostname.value) if isinstance(hostname, ScalarNode) else ""
        endpoint = address(hostname, default_port, self._mistakes) if hostname else None
        fencing = self._fencing.read(section, endpoint[0] if endpoint else None)
        on_loss = self._on_loss(section)
        capacity = read_amounts(section, "capacity", self._mistakes)
        max_starts = self._max_starts(section)
        if endpoint is None or hostname is None:
            self._broken.update((written, split_port(written)[0]))
            return
        host_id = self._id(fencing, written, endpoint[0], hostname)
        if self._is_new(host_id, endpoint, hostname):
            self._fencing.claim(host_id, fencing)
            self.by_id[host_id] = Host(
                host_id, *endpoint, fencing.devices, on_loss, capacity, max_starts
            )
            for name in (written, endpoint[0]):
                self._by_name.setdefault(name, {})[host_id] = None

    def find(self, node: Node, what: str) -> HostId | None:
        """The one host that a reference names: by id, by hostname as written, or by address."""
        text = text_of(node, what, self._mistakes, expected="the name of a host")
        return None if text is None else self._resolve(text, node, what)

    def find_several(self, node: Node, what: str) -> list[HostId]:
        """The hosts that one item of a list names. The item may be a nodeset."""
        text = text_of(node, what, self._mistakes, expected="the name of a host")
        if text is None:
            return []
        if not is_nodeset(text) or text in self.by_id or text in self._by_name:
            host = self._resolve(text, node, what)
            return [] if host is None else [host]
        try:
            names = expand(text)
        except ValueError as error:
            self._mistakes.add(node, f"{what}: {error}")
            return []
        if len(names) > len(self._lines) + len(self._broken):
            self._mistakes.add(
                node,
                f"{what}: {found(node)} stands for {len(names)} names, but there are fewer hosts",
            )
            return []
        resolved = (self._resolve(name, node, what) for name in names)
        return [host for host in resolved if host is not None]

    def _resolve(self, text: str, node: Node, what: str) -> HostId | None:
        if text in self.by_id:
            return text
        # `[::1]` names the address ::1. With a port, only the exact spelling of the host counts.
        bare, port = split_port(text)
        candidates = self._by_name.get(text) or ({} if port else self._by_name.get(bare, {}))
        if len(candidates) == 1:
            return next(iter(candidates))
        if candidates:
            ids = ", ".join(list(candidates)[:5])
            self._mistakes.add(
                node, f'{what}: "{text}" fits several hosts ({ids}); give the host\'s id'
            )
        elif text not in self._broken:
            hint = self._mistakes.nearest(text, (*self.by_id, *self._by_name))
            self._mistakes.add(node, f'{what}: unknown host "{shortened(text)}"{hint}')
        return None

    def _id(self, fencing: Fencing, written: str, host_address: str, node: Node) -> HostId:
        """The hostname without its port. For the test fence agent it is the agent's target, because
        test hosts share one address."""
        for level in fencing.devices:
            for device in level:
                if device.agent == "fence_test":
                    target = device.parameters.get("target", written)
                    if "target" in device.parameters and not is_plain_component(target):
                        self._mistakes.add(
                            node,
                            "fence_parameters: target becomes the id of this host; expected"
                            " letters, digits, dots, dashes and underscores",
                        )
                    return target
        return host_address

    def _is_new(self, host_id: HostId, endpoint: tuple[str, int], node: Node) -> bool:
        line, _ = place(node)
        if host_id in self._lines:
            self._mistakes.add(
                node, f'host "{host_id}" is defined twice (first in line {self._lines[host_id]})'
            )
            return False
        self._lines[host_id] = line
        normal = (normal_address(endpoint[0]), endpoint[1])
        first = self._endpoints.setdefault(normal, line)
        if first != line:
            self._mistakes.add(
                node,
                f"hostname: {found(node)} has the same address and port as the host in line"
                f" {first}",
            )
        return True

    def _max_starts(self, section: Section) -> int | None:
        node = section.get("max_starts")
        return None if node is None else whole_number(node, "max_starts", 1, self._mistakes)

    def _on_loss(self, section: Section) -> LossPolicy:
        node = section.get("on_loss")
        if node is None:
            return LossPolicy.FENCE
        policy = choice(node, "on_loss", LossPolicy, self._mistakes)
        if policy is LossPolicy.REBOOT and not any(
            section.get(key) is not None for key in ("fence_agent", "fence_levels")
        ):
            self._mistakes.add(node, "on_loss: reboot needs a fence_agent")
        return policy or LossPolicy.FENCE
