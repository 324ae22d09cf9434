"""What a valid config means."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from textwrap import dedent

import pytest

from halo.config.groups import GROUP_KEYS
from halo.config.hosts import HOST_KEYS
from halo.config.loader import TOP_KEYS, load, load_text
from halo.config.resources import RESOURCE_KEYS
from halo.config.settings import SETTING_FIELDS
from halo.config.values import parse_duration
from halo.core.errors import ConfigError
from halo.core.model import (
    Cluster,
    Company,
    Host,
    LossPolicy,
    SecondCopyPolicy,
    Settings,
    StartFailurePolicy,
)

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((REPOSITORY / "examples").glob("*.yaml"))


def cluster_of(text: str, **options: float | bool | int) -> Cluster:
    return load_text(dedent(text), "halo.conf", **options)  # type: ignore[arg-type]  # checked there


def host_of(text: str) -> Host:
    (host,) = cluster_of(text).hosts.values()
    return host


TEST_HOSTS = """
    hosts:
    - hostname: 127.0.0.1:8005
      fence_agent: fence_test
      fence_parameters: {target: fence_mds00, test_id: failover}
    - hostname: 127.0.0.1:8006
      fence_agent: fence_test
      fence_parameters: {target: fence_mds01, test_id: failover}
    resources:
    - {name: pool, kind: heartbeat/ZFS, parameters: {pool: p}, dependents: [pool/a, pool/b]}
    - {name: pool/a, kind: lustre/Lustre, dependents: [pool/c]}
    - {name: pool/b, kind: lustre/Lustre, dependents: [pool/c]}
    - {name: pool/c, kind: lustre/Lustre, dependents: []}
"""


def test_a_failover_pair_of_test_hosts_is_known_by_targets() -> None:
    cluster = cluster_of(
        TEST_HOSTS
        + """
    resource_groups:
    - root: pool
      home_host: 127.0.0.1:8005
      failover_hosts: [127.0.0.1:8006]
    """
    )
    assert list(cluster.hosts) == ["fence_mds00", "fence_mds01"]
    first = cluster.hosts["fence_mds00"]
    assert (first.address, first.port) == ("127.0.0.1", 8005)
    ((device,),) = first.fence_levels
    assert device.agent == "fence_test"
    assert Path(device.program).name == "fence_test"
    assert dict(device.parameters) == {"target": "fence_mds00", "test_id": "failover"}
    group = cluster.groups["pool"]
    assert group.candidates == ("fence_mds00", "fence_mds01")
    assert [resource.id for resource in group.resources] == ["pool", "pool/a", "pool/b", "pool/c"]
    assert group.by_id["pool/c"].parents == ("pool/a", "pool/b")
    assert cluster.name == "halo"
    assert cluster.settings == Settings()


def test_a_parent_stands_before_its_dependents_whatever_the_order_of_the_file() -> None:
    group = cluster_of("""
        hosts: [{hostname: a}]
        resources:
        - {name: last, kind: x/y}
        - {name: middle, kind: x/y, dependents: [last]}
        - {name: root, kind: x/y, dependents: [last, middle]}
        resource_groups: [{root: root, home_host: a}]
        """).groups["root"]
    assert [resource.id for resource in group.resources] == ["root", "middle", "last"]


@pytest.mark.parametrize(
    ("hostname", "host_id", "address", "port"),
    [
        ("oss00", "oss00", "oss00", 9000),
        ("oss00.example.org:81", "oss00.example.org", "oss00.example.org", 81),
        ("10.0.0.1", "10.0.0.1", "10.0.0.1", 9000),
        ("'[fe80::1]:82'", "fe80::1", "fe80::1", 82),
        ("'[fe80::1]'", "fe80::1", "fe80::1", 9000),
        ("'fe80::1'", "fe80::1", "fe80::1", 9000),
    ],
)
def test_a_hostname_gives_id_address_and_port(
    hostname: str, host_id: str, address: str, port: int
) -> None:
    cluster = cluster_of(
        f"""
        hosts: [{{hostname: {hostname}}}]
        resources: [{{name: r, kind: x/y}}]
        resource_groups: [{{root: r, home_host: {hostname}}}]
        """,
        default_port=9000,
    )
    assert cluster.hosts == {host_id: Host(host_id, address, port)}
    assert cluster.groups["r"].home_host == host_id


@pytest.mark.parametrize(
    ("agent", "given", "expected"),
    [
        (
            "redfish",
            "username: u, password: p",
            {"ip": "oss00", "username": "u", "password": "p"},
        ),
        ("ipmi", "login: u, passwd: p", {"ip": "oss00", "login": "u", "passwd": "p"}),
        (
            "ipmi",
            "ip: bmc, username: u, password: p",
            {"ip": "bmc", "username": "u", "password": "p"},
        ),
        ("redfish", "ipaddr: bmc, tls_cert: /c", {"ipaddr": "bmc", "tls_cert": "/c"}),
        ("powerman", "", {"ip": "localhost", "port": "oss00"}),
        ("powerman", "plug: p7", {"ip": "localhost", "plug": "p7"}),
        ("powerman", "ip: pm, ipport: 10102", {"ip": "pm", "ipport": "10102", "port": "oss00"}),
    ],
)
def test_a_device_without_address_gets_the_usual_one(
    agent: str, given: str, expected: dict[str, str]
) -> None:
    host = host_of(f"""
        hosts: [{{hostname: "oss00:8001", fence_agent: {agent}, fence_parameters: {{{given}}}}}]
        """)
    ((device,),) = host.fence_levels
    assert dict(device.parameters) == expected


def test_parameters_stay_as_they_are_written() -> None:
    """YAML 1.1 would turn these into numbers, a boolean, and a sexagesimal."""
    parameters = "mode: 0755, export: yes, time: 1:30, size: 1e3, text: '', note: \"a: b\""
    group = cluster_of(f"""
        hosts: [{{hostname: a}}]
        resources: [{{name: r, kind: x/y, parameters: {{{parameters}}}}}]
        resource_groups: [{{root: r, home_host: a}}]
        """).groups["r"]
    assert dict(group.resources[0].parameters) == {
        "mode": "0755",
        "export": "yes",
        "time": "1:30",
        "size": "1e3",
        "text": "",
        "note": "a: b",
    }


def test_references_to_secrets_are_kept_and_not_read() -> None:
    host = host_of("""
        hosts:
        - hostname: a
          fence_agent: ipmi
          fence_parameters: {username: env:BMC_USER, password: "file:/nowhere/at/all"}
        """)
    ((device,),) = host.fence_levels
    assert device.parameters["username"] == "env:BMC_USER"
    assert device.parameters["password"] == "file:/nowhere/at/all"
    assert "nowhere" not in repr(host)


def test_fence_levels_are_steps_of_one_or_several_devices() -> None:
    host = host_of("""
        hosts:
        - hostname: a
          on_loss: reboot
          fence_levels:
          - {fence_agent: ipmi, fence_parameters: {username: u, password: p}}
          - - {fence_agent: powerman, fence_parameters: {port: a-1}}
            - {fence_agent: powerman, fence_parameters: {port: a-2}}
        """)
    assert [[d.agent for d in level] for level in host.fence_levels] == [
        ["ipmi"],
        ["powerman", "powerman"],
    ]
    assert host.on_loss is LossPolicy.REBOOT


def test_a_null_agent_means_no_fencing_and_may_keep_its_parameters() -> None:
    host = host_of("hosts: [{hostname: a, fence_agent: null, fence_parameters: {username: u}}]")
    assert host.fence_levels == ()


def test_the_same_controller_address_on_other_ports_is_another_device() -> None:
    cluster = cluster_of("""
        hosts:
        - hostname: a
          fence_agent: ipmi
          fence_parameters: {ip: 127.0.0.1, ipport: 1, username: u, password: p}
        - hostname: b
          fence_agent: ipmi
          fence_parameters: {ip: 127.0.0.1, ipport: 2, username: u, password: p}
        """)
    assert len(cluster.hosts) == 2


def test_another_agents_device_is_told_apart_by_its_own_parameters(tmp_path: Path) -> None:
    program = tmp_path / "fence_cloud"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)

    def text(second: str) -> str:
        return f"""
            hosts:
            - hostname: a
              fence_agent: {program}
              fence_parameters: {{ip: cloud, uuid: one, password: p}}
            - hostname: b
              fence_agent: {program}
              fence_parameters: {{ip: cloud, uuid: {second}, password: q}}
            """

    assert len(cluster_of(text("two")).hosts) == 2
    with pytest.raises(ConfigError, match="same fence device and plug"):
        cluster_of(text("one"))


@pytest.mark.parametrize(
    "layout", ["[{one}, {two}]", "\n                - {one}\n                - {two}"]
)
def test_an_outlet_twice_in_one_step_is_a_mistake(layout: str) -> None:
    def text(second: str) -> str:
        devices = {
            name: f"{{fence_agent: powerman, fence_parameters: {{ip: pdu, port: {port}}}}}"
            for name, port in (("one", "a-left"), ("two", second))
        }
        return f"""
            hosts:
            - hostname: a
              fence_levels:
              - {layout.format(**devices)}
            """

    assert len(cluster_of(text("a-right")).hosts) == 1
    with pytest.raises(ConfigError, match="twice in one level"):
        cluster_of(text("a-left"))


def test_a_shared_resource_may_be_in_several_groups() -> None:
    cluster = cluster_of("""
        hosts: [{hostname: a}, {hostname: b}]
        resources:
        - {name: one, kind: x/y, dependents: [common]}
        - {name: two, kind: x/y, dependents: [common]}
        - {name: common, kind: x/y, shared: true}
        resource_groups:
        - {root: one, home_host: a, failover_hosts: [b]}
        - {root: two, home_host: b}
        """)
    assert [g.exclusive[-1].id for g in cluster.groups.values()] == ["one", "two"]
    assert cluster.groups["one"].by_id["common"].shared
    assert cluster.groups["one"].by_id["common"].parents == ("one", "two")


def test_what_stands_below_two_roots_is_shared_with_all_below_it() -> None:
    cluster = cluster_of("""
        hosts: [{hostname: a}, {hostname: b}]
        resources:
        - {name: one, kind: x/y, dependents: [own, common]}
        - {name: two, kind: x/y, dependents: [common]}
        - {name: own, kind: x/y}
        - {name: common, kind: x/y, dependents: [leaf, said]}
        - {name: leaf, kind: x/y}
        - {name: said, kind: x/y, shared: true}
        resource_groups:
        - {root: one, home_host: a, failover_hosts: [b]}
        - {root: two, home_host: b}
        """)
    for group in cluster.groups.values():
        assert {r.id for r in group.resources if r.shared} == {"common", "leaf", "said"}
        assert {r.id for r in group.resources if r.shared_by_place} == {"common", "leaf"}


def test_policies_and_times_of_groups_and_resources() -> None:
    group = cluster_of("""
        hosts:
        - {hostname: a, capacity: {memory_gb: 512, cores: 4}}
        - {hostname: oss03}
        - {hostname: oss01}
        - {hostname: oss02}
        resources:
        - name: r
          kind: x/y
          monitor_interval: 500ms
          monitor_timeout: 3
          start_timeout: 5min
          stop_timeout: 1h
        - {name: mgs, kind: x/y}
        resource_groups:
        - root: r
          home_host: a
          failover_hosts: ["oss[02-03]", oss01]
          on_start_failure: stay
          second_copy: fence
          after: [mgs]
          prefer_together_with: [mgs]
          needs: {memory_gb: 0.5, cores: 4}
          priority: 7
          preempt: true
        - {root: mgs, home_host: a, apart_from: [r]}
        """).groups["r"]
    assert group.failover_hosts == ("oss02", "oss03", "oss01")
    assert group.on_start_failure is StartFailurePolicy.STAY
    assert group.second_copy is SecondCopyPolicy.FENCE
    assert group.after == ("mgs",)
    assert group.company == Company(apart_from=("mgs",), prefer_together_with=("mgs",))
    assert (group.needs, group.priority) == ({"memory_gb": Decimal("0.5"), "cores": 4}, 7)
    assert group.preempt
    (r,) = group.resources
    assert (r.monitor_interval_s, r.monitor_timeout_s) == (0.5, 3.0)
    assert (r.start_timeout_s, r.stop_timeout_s) == (300.0, 3600.0)


def test_a_host_may_limit_how_many_groups_it_starts_at_a_time() -> None:
    hosts = cluster_of("hosts: [{hostname: a, max_starts: 2}, {hostname: b}]").hosts
    assert [host.max_starts for host in hosts.values()] == [2, None]


def test_every_setting_can_be_given_and_arguments_override_the_file() -> None:
    text = "hosts: [{hostname: a}]\nsettings: {monitor_interval: 2s, storm_fraction: 0.5}\n"
    assert cluster_of(text).settings == Settings(monitor_interval_s=2.0, storm_fraction=0.5)
    overridden = cluster_of(text, monitor_interval_s=7.0, fence_on_connection_close=True).settings
    assert overridden.monitor_interval_s == 7.0
    assert overridden.fence_on_connection_close


@pytest.mark.parametrize(
    ("loss_budget", "interval_s"), [("500ms", 0.5 / 3), ("2s", 2 / 3), ("3s", 1.0), ("1min", 1.0)]
)
def test_the_heartbeat_interval_follows_the_loss_budget(
    loss_budget: str, interval_s: float
) -> None:
    text = f"hosts: [{{hostname: a}}]\nsettings: {{loss_budget: {loss_budget}}}\n"
    assert cluster_of(text).settings.heartbeat_interval_s == pytest.approx(interval_s)


def test_anchors_and_merge_keys_share_parameters() -> None:
    cluster = cluster_of("""
        x-bmc: &bmc {username: u, password: p}
        hosts:
        - hostname: a
          fence_agent: ipmi
          fence_parameters: *bmc
        - hostname: b
          fence_agent: ipmi
          fence_parameters:
            <<: *bmc
            username: other
        """)
    users = [host.fence_levels[0][0].parameters["username"] for host in cluster.hosts.values()]
    assert users == ["u", "other"]


def test_a_chain_of_thousands_of_resources_does_not_exhaust_the_stack() -> None:
    lines = ["hosts: [{hostname: a}]", "resources:"]
    lines += [f"- {{name: r{n}, kind: x/y, dependents: [r{n + 1}]}}" for n in range(5000)]
    lines += ["- {name: r5000, kind: x/y}", "resource_groups: [{root: r0, home_host: a}]"]
    group = cluster_of("\n".join(lines)).groups["r0"]
    assert [r.id for r in group.resources] == [f"r{n}" for n in range(5001)]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_loads(path: Path) -> None:
    cluster = load(path)
    assert cluster.groups
    assert all(host.fence_levels for host in cluster.hosts.values())


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 3


def _documented() -> dict[str, str]:
    """The keys in the tables of the reference, with the second column."""
    rows = {}
    for line in (REPOSITORY / "docs" / "config.md").read_text(encoding="utf-8").split("\n"):
        cells = [cell.strip() for cell in line.split(" | ")]
        if line.startswith("| `") and len(cells) > 2:
            rows[cells[0].strip("| `")] = cells[1]
    return rows


def test_the_reference_has_every_key() -> None:
    keys = {*TOP_KEYS, *HOST_KEYS, *RESOURCE_KEYS, *GROUP_KEYS, *SETTING_FIELDS}
    assert sorted(keys - _documented().keys()) == []


def test_the_reference_has_the_defaults_of_all_settings() -> None:
    documented = _documented()
    for key, field in SETTING_FIELDS.items():
        value = documented[key]
        seconds = parse_duration(value) if field.endswith("_s") else float(value)
        assert seconds == pytest.approx(getattr(Settings(), field), abs=0.001), key


GROUPED = TEST_HOSTS + "    resource_groups: [{root: pool, home_host: 127.0.0.1:8005}]\n"


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("{note: " + 33000 * "x" + "}", "bytes together, found 33004"),
        ("{" + ", ".join(f"p{n}: 1" for n in range(257)) + "}", "at most 256, found 257"),
    ],
)
def test_what_an_agent_would_refuse_is_a_mistake(change: str, found: str) -> None:
    text = GROUPED.replace("{pool: p}", change)
    with pytest.raises(ConfigError, match=rf"10:49: parameters: expected .*{found}$"):
        cluster_of(text)


def test_a_kind_and_a_cluster_name_are_no_longer_than_an_agent_takes() -> None:
    long = 257 * "k"
    kind = GROUPED.replace("heartbeat/ZFS", f"a/{long}")
    for text in (kind, f"    name: {long}" + GROUPED):
        with pytest.raises(ConfigError, match="expected at most 256 characters, found 25"):
            cluster_of(text)


def test_the_largest_parameters_are_taken() -> None:
    cluster_of(GROUPED.replace("{pool: p}", "{note: " + (32 * 1024 - 4) * "x" + "}"))
