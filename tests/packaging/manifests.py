"""The manifests of `packaging/kubernetes`, as Kubernetes would see them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import yaml

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "packaging" / "kubernetes"
FOLDERS = (KUBERNETES, KUBERNETES / "etcd")
KUSTOMIZATION = "kustomization.yaml"

Manifest: TypeAlias = dict[str, Any]


def kustomization(folder: Path = KUBERNETES) -> Manifest:
    """What is applied together."""
    found = yaml.safe_load((folder / KUSTOMIZATION).read_text())
    assert isinstance(found, dict)
    return found


@cache
def applied(folder: Path = KUBERNETES) -> list[Manifest]:
    """All objects that a kustomization applies, with the ConfigMaps that it makes. Change none."""
    wanted = kustomization(folder)
    found = [
        manifest
        for file in wanted["resources"]
        for manifest in yaml.safe_load_all((folder / file).read_text())
    ]
    for generated in wanted.get("configMapGenerator", ()):
        data = {file: (folder / file).read_text() for file in generated["files"]}
        metadata = {"name": generated["name"]}
        found.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    return found


def everything() -> list[Manifest]:
    """The objects of all folders."""
    return [manifest for folder in FOLDERS for manifest in applied(folder)]


def one(kind: str, name: str) -> Manifest:
    """The only object of that kind and name."""
    (found,) = (
        manifest
        for manifest in everything()
        if (manifest["kind"], manifest["metadata"]["name"]) == (kind, name)
    )
    return found


def stateful_sets() -> list[Manifest]:
    """The managers, and the members of etcd."""
    return [manifest for manifest in everything() if manifest["kind"] == "StatefulSet"]


def pod(stateful_set: Manifest) -> Manifest:
    """What each pod of it is."""
    found = stateful_set["spec"]["template"]["spec"]
    assert isinstance(found, dict)
    return found


def container(stateful_set: Manifest) -> Manifest:
    """The only container of each pod."""
    (found,) = pod(stateful_set)["containers"]
    assert isinstance(found, dict)
    return found


def pod_names(stateful_set: Manifest) -> list[str]:
    """The names of its pods, which are their host names."""
    first = stateful_set["spec"].get("ordinals", {}).get("start", 0)
    name = stateful_set["metadata"]["name"]
    return [f"{name}-{first + n}" for n in range(stateful_set["spec"]["replicas"])]


def environment(stateful_set: Manifest, pod_name: str, namespace: str = "halo") -> dict[str, str]:
    """The variables of one pod, with what Kubernetes puts in."""
    fields = {"metadata.name": pod_name, "metadata.namespace": namespace}
    found: dict[str, str] = {}
    for variable in container(stateful_set)["env"]:
        value = variable.get("value")
        if value is None:
            value = fields[variable["valueFrom"]["fieldRef"]["fieldPath"]]
        for known, put_in in found.items():  # only earlier variables count
            value = value.replace(f"$({known})", put_in)
        found[variable["name"]] = value
    return found


def allowed(policy: Manifest, direction: str) -> Iterator[tuple[Manifest, int, str]]:
    """Each peer of a NetworkPolicy with a port and its protocol."""
    side = {"ingress": "from", "egress": "to"}[direction]
    for rule in policy["spec"].get(direction, ()):
        for peer in rule[side]:
            for port in rule["ports"]:
                yield peer, port["port"], port["protocol"]


def reaches_address(policy: Manifest, address: str, port: int, protocol: str = "TCP") -> bool:
    """May the pods of this policy send to that address and port?"""
    return any(
        (known_port, known_protocol) == (port, protocol)
        and "ipBlock" in peer
        and ipaddress.ip_address(address) in ipaddress.ip_network(peer["ipBlock"]["cidr"])
        for peer, known_port, known_protocol in allowed(policy, "egress")
    )


def peer_labels(policy: Manifest, direction: str, port: int) -> list[Manifest]:
    """The labels of the pods that this policy connects through that port."""
    return [
        peer["podSelector"]["matchLabels"]
        for peer, known, _ in allowed(policy, direction)
        if known == port and "podSelector" in peer
    ]
