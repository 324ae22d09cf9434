"""The manifests for Kubernetes: valid, and each of their parts fits the others and the programs."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
import sys
from dataclasses import astuple
from pathlib import Path
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml

import halo
from halo.adapters.etcd.location import store_at
from halo.adapters.tls.files import TlsFiles
from halo.config import load
from halo.core.model import DEFAULT_AGENT_PORT
from halo.manager.leadership.identity import node_id
from halo.manager.main import main as halo_manager
from tests.packaging.manifests import (
    FOLDERS,
    KUBERNETES,
    ROOT,
    Manifest,
    applied,
    container,
    environment,
    everything,
    kustomization,
    one,
    peer_labels,
    pod,
    pod_names,
    reaches_address,
    stateful_sets,
)

VERSIONS = ("1.31", "1.34")
NAMES = ("halo", "etcd")
REDFISH = 443


def named(manifest: Manifest) -> str:
    return f"{manifest['kind']}-{manifest['metadata']['name']}"


def problem_of(manifest: Manifest, version: str) -> str | None:
    try:
        kubernetes_validate.validate(manifest, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return str(error.message)
    return None


# Kubernetes takes them ------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("manifest", everything(), ids=named)
def test_kubernetes_knows_every_key(manifest: Manifest, version: str) -> None:
    assert problem_of(manifest, version) is None


def test_a_misspelt_key_and_a_wrong_type_would_be_found() -> None:
    for path, value in (("maxUnavailabel", 1), ("selector", "halo")):
        wrong = copy.deepcopy(one("PodDisruptionBudget", "halo"))
        wrong["spec"][path] = value
        assert problem_of(wrong, VERSIONS[0]) is not None


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_kustomize_makes_the_same_of_them(folder: Path) -> None:
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed")
    done = subprocess.run(
        ["kubectl", "kustomize", folder], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    made = list(yaml.safe_load_all(done.stdout))
    assert all(problem_of(manifest, VERSIONS[0]) is None for manifest in made)
    assert all(m["metadata"].get("namespace") == "halo" for m in made if m["kind"] != "Namespace")
    # The checksum at the end of a ConfigMap's name is what restarts the managers.
    names = {re.sub(r"-[a-z0-9]{10}$", "", named(manifest)) for manifest in made}
    assert names == {named(manifest) for manifest in applied(folder)}
    for name in (m["metadata"]["name"] for m in made if m["kind"] == "ConfigMap"):
        assert f"name: {name}\n" in done.stdout.partition("kind: StatefulSet")[2]


# Their parts fit each other -------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_what_selects_pods_selects_these(name: str) -> None:
    pods = one("StatefulSet", name)
    labels = pods["spec"]["template"]["metadata"]["labels"]
    assert pods["spec"]["selector"]["matchLabels"] == labels
    assert one("Service", name)["spec"]["selector"] == labels
    assert one("PodDisruptionBudget", name)["spec"]["selector"]["matchLabels"] == labels
    assert one("NetworkPolicy", name)["spec"]["podSelector"]["matchLabels"] == labels
    (rule,) = pod(pods)["affinity"]["podAntiAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]
    assert rule["labelSelector"]["matchLabels"] == labels
    assert rule["topologyKey"] == "kubernetes.io/hostname"
    assert pods["spec"]["serviceName"] == one("Service", name)["metadata"]["name"]


@pytest.mark.parametrize("name", NAMES)
def test_three_of_them_of_which_one_may_be_away(name: str) -> None:
    pods = one("StatefulSet", name)
    assert pods["spec"]["replicas"] == 3
    assert one("PodDisruptionBudget", name)["spec"]["maxUnavailable"] == 1
    # One that waits for the others must not keep them from being made.
    assert pods["spec"]["podManagementPolicy"] == "Parallel"
    service = one("Service", name)["spec"]
    assert (service["clusterIP"], service["publishNotReadyAddresses"]) == ("None", True)


@pytest.mark.parametrize("name", NAMES)
def test_the_ports_of_container_and_service_are_the_same(name: str) -> None:
    open_ports = {
        p["name"]: p["containerPort"] for p in container(one("StatefulSet", name))["ports"]
    }
    for port in one("Service", name)["spec"]["ports"]:
        assert port["port"] == open_ports[port["targetPort"]]


def test_managers_reach_each_other_where_they_listen() -> None:
    managers, policy = one("StatefulSet", "halo"), one("NetworkPolicy", "halo")
    (port,) = container(managers)["ports"]
    labels = managers["spec"]["template"]["metadata"]["labels"]
    for direction in ("ingress", "egress"):
        assert peer_labels(policy, direction, port["containerPort"]) == [labels]
    service = managers["spec"]["serviceName"]
    for name in pod_names(managers):
        variables = environment(managers, name, "here")
        assert variables["HALO_PEER_LISTEN"] == f"0.0.0.0:{port['containerPort']}"
        url = urlsplit(variables["HALO_PEER_URL"])
        assert (url.scheme, url.port) == ("https", port["containerPort"])
        assert url.hostname == f"{name}.{service}.here.svc"


def test_managers_reach_the_members_of_etcd() -> None:
    managers, members = one("StatefulSet", "halo"), one("StatefulSet", "etcd")
    settings = environment(members, "etcd-0")
    text = environment(managers, "halo-1")["HALO_STORE"]
    service = members["spec"]["serviceName"]
    port = urlsplit(settings["ETCD_LISTEN_CLIENT_URLS"]).port
    assert port is not None
    found = store_at(text, environment={})
    assert list(found.members) == [f"{n}.{service}.halo.svc:{port}" for n in pod_names(members)]
    labels = members["spec"]["template"]["metadata"]["labels"]
    assert peer_labels(one("NetworkPolicy", "halo"), "egress", port) == [labels]
    own = managers["spec"]["template"]["metadata"]["labels"]
    assert own in peer_labels(one("NetworkPolicy", "etcd"), "ingress", port)


def test_members_of_etcd_reach_each_other() -> None:
    members = one("StatefulSet", "etcd")
    names = pod_names(members)
    each = [environment(members, name) for name in names]
    peers = [f"{v['ETCD_NAME']}={v['ETCD_INITIAL_ADVERTISE_PEER_URLS']}" for v in each]
    assert {v["ETCD_INITIAL_CLUSTER"] for v in each} == {",".join(peers)}
    port = urlsplit(each[0]["ETCD_LISTEN_PEER_URLS"]).port
    labels = members["spec"]["template"]["metadata"]["labels"]
    assert port is not None
    assert all(peer.endswith(f".etcd.halo.svc:{port}") for peer in peers)
    assert peer_labels(one("NetworkPolicy", "etcd"), "ingress", port) == [labels]


def test_the_config_is_accepted_and_what_it_names_can_be_reached() -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-c", "from halo.cli.entry import main; main()"),
            *("--config", KUBERNETES / "halo.conf", "validate"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = kustomization()["configMapGenerator"]
    managers = one("StatefulSet", "halo")
    path = Path(environment(managers, "halo-1")["HALO_CONFIG"])
    (volume,) = (v for v in pod(managers)["volumes"] if "configMap" in v)
    assert volume["configMap"]["name"] == made["name"]
    assert made["files"] == [path.name]
    assert mounted(managers)[str(path.parent)] == volume["name"]
    policy = one("NetworkPolicy", "halo")
    cluster = load(KUBERNETES / "halo.conf", default_port=DEFAULT_AGENT_PORT)
    for host in cluster.hosts.values():
        assert reaches_address(policy, host.address, host.port)
    devices = re.findall(r"\n    ip: (\S+)", (KUBERNETES / "halo.conf").read_text())
    assert len(devices) == len(cluster.hosts)
    assert all(reaches_address(policy, device, REDFISH) for device in devices)


# They fit the programs ------------------------------------------------------------------------


def mounted(stateful_set: Manifest) -> dict[str, str]:
    """The volumes by where they are mounted."""
    return {m["mountPath"]: m["name"] for m in container(stateful_set)["volumeMounts"]}


def test_the_manager_knows_its_options_and_variables() -> None:
    flags = {flag for p in halo_manager.params for flag in p.opts}
    arguments = container(one("StatefulSet", "halo"))["args"]
    assert {a for a in arguments if a.startswith("-")} <= flags
    known = {p.envvar for p in halo_manager.params if p.envvar}
    known |= {
        f"HALO_{name}"
        for side in (TlsFiles.of_manager, TlsFiles.of_peer)
        for name in ("CLIENT_CERT", "CLIENT_KEY", "CA_CERT", "PEER_CERT", "PEER_KEY", "PEER_CA")
        if Path("/x") in astuple(side({f"HALO_{name}": "/x"}))
    }
    variables = environment(one("StatefulSet", "halo"), "halo-1")
    assert {v for v in variables if v.startswith("HALO_")} <= known


def test_the_config_names_the_pods_and_their_certificates_open_the_port() -> None:
    cluster = load(KUBERNETES / "halo.conf", default_port=DEFAULT_AGENT_PORT)
    managers = one("StatefulSet", "halo")
    names = pod_names(managers)
    assert [manager.host for manager in cluster.managers] == names
    assert [node_id(None, cluster.managers, name) for name in names] == ["1", "2", "3"]


def test_every_file_is_below_a_volume_and_every_volume_is_used() -> None:
    for stateful_set in stateful_sets():
        mounts = mounted(stateful_set)
        names = [v["name"] for v in pod(stateful_set)["volumes"]]
        names += [
            c["metadata"]["name"] for c in stateful_set["spec"].get("volumeClaimTemplates", ())
        ]
        assert sorted(mounts.values()) == sorted(names)
        used = {
            str(Path(value).parent)
            for value in environment(stateful_set, "halo-1").values()
            if value.startswith("/")
        }
        used |= {str(Path(p).parent) for p in re.findall(r"/etc/halo/fencing/\S+", config())}
        assert {folder for folder in used if not folder.startswith("/etc/halo/fencing")} <= set(
            mounts
        )
        if stateful_set["metadata"]["name"] == "halo":
            assert used | {"/tmp"} == set(mounts)


def config() -> str:
    return (KUBERNETES / "halo.conf").read_text()


@pytest.mark.parametrize("stateful_set", stateful_sets(), ids=named)
def test_secrets_can_be_read_by_the_user_who_needs_them_and_by_nobody_else(
    stateful_set: Manifest,
) -> None:
    secrets = [v["secret"] for v in pod(stateful_set)["volumes"] if "secret" in v]
    assert secrets
    # Kubernetes gives the files to root and to the group fsGroup.
    assert all(secret["defaultMode"] == 0o440 for secret in secrets)
    context = pod(stateful_set)["securityContext"]
    assert context["fsGroup"] == context["runAsGroup"] == context["runAsUser"] != 0


@pytest.mark.parametrize("stateful_set", stateful_sets(), ids=named)
def test_no_pod_has_more_rights_than_it_needs(stateful_set: Manifest) -> None:
    """The namespace enforces `restricted`: a pod that asks for more would not start."""
    assert pod(stateful_set)["automountServiceAccountToken"] is False
    context = pod(stateful_set)["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(stateful_set)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    for trouble in ("hostNetwork", "hostPID", "hostIPC"):
        assert trouble not in pod(stateful_set)
    assert not [v for v in pod(stateful_set)["volumes"] if "hostPath" in v]
    labels = one("Namespace", "halo")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_ids_are_three_different_numbers_above_zero() -> None:
    numbers = [re.search(r"(\d+)$", name) for name in pod_names(one("StatefulSet", "halo"))]
    assert [int(found[1]) for found in numbers if found] == [1, 2, 3]


def test_a_manager_has_the_time_to_end() -> None:
    unit = (ROOT / "packaging" / "systemd" / "halo.service").read_text()
    (needed,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.M)
    assert pod(one("StatefulSet", "halo"))["terminationGracePeriodSeconds"] >= int(needed)


# The image ------------------------------------------------------------------------------------


def instructions(word: str) -> list[str]:
    text = (KUBERNETES / "Containerfile").read_text().replace("\\\n", " ")
    return re.findall(rf"^{word} (.+)$", text, re.M)


def test_the_image_is_the_one_of_the_manifests() -> None:
    (image,) = kustomization()["images"]
    assert image["newTag"] == halo.__version__
    assert container(one("StatefulSet", "halo"))["image"] == f"{image['name']}:{halo.__version__}"
    context = pod(one("StatefulSet", "halo"))["securityContext"]
    assert instructions("USER") == [f"{context['runAsUser']}:{context['runAsGroup']}"]
    text = (KUBERNETES / "Containerfile").read_text()
    assert f"--uid {context['runAsUser']} " in text
    assert f"-t {image['newName']}:{image['newTag']} " in text


def test_the_image_is_built_from_what_is_there() -> None:
    copies = [line.split() for line in instructions("COPY") if not line.startswith("--from")]
    sources = [source for *names, _ in copies for source in names]
    assert [source for source in sources if not (ROOT / source).exists()] == []
    # What the build of the package reads, as the test of `make install` has it.
    package = {"halo", "fence_agents", "ocf_agents", "pyproject.toml", "halo.capnp"}
    assert package <= set(sources)
    (entry,) = instructions("ENTRYPOINT")
    assert entry == '["/opt/halo/bin/run-manager"]'
    assert "packaging/kubernetes/run-manager" in sources


def test_both_samples_of_etcd_have_the_same_settings() -> None:
    """Only names, addresses and paths differ."""
    text = (ROOT / "packaging/systemd/replicated/etcd.default").read_text()
    under_systemd = dict(re.findall(r"^(ETCD_\w+)=(.*)$", text, re.M))
    here = environment(one("StatefulSet", "etcd"), "etcd-0")
    ours = {name for name in here if name.startswith("ETCD_")}
    assert ours - set(under_systemd) == {"ETCD_LISTEN_METRICS_URLS"}
    assert set(under_systemd) <= ours
    different = {name for name, value in under_systemd.items() if here[name] != value}
    assert all(
        name == "ETCD_NAME" or re.search("URLS|FILE|DIR|_CLUSTER$", name) for name in different
    )
