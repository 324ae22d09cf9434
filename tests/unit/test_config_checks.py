"""Warnings, the summary, and where programs are found."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from halo.config import bundled_folder, check_warnings, find_fence_program, load, summary
from halo.core.errors import ConfigError
from halo.core.model import Cluster

REPOSITORY = Path(__file__).resolve().parents[2]
SAFE_PAIR = """
    hosts:
    - {hostname: a, fence_agent: powerman}
    - {hostname: b, fence_agent: powerman}
    resources: [{name: r, kind: x/y}]
    resource_groups: [{root: r, home_host: a, failover_hosts: [b]}]
"""


def written(tmp_path: Path, text: str, mode: int = 0o644) -> tuple[Cluster, Path]:
    path = tmp_path / "halo.conf"
    path.write_text(dedent(text))
    path.chmod(mode)
    return load(path), path


def warnings_of(tmp_path: Path, text: str, mode: int = 0o644) -> list[str]:
    return check_warnings(*written(tmp_path, text, mode))


def ipmi_host(password: str) -> str:
    return f"""
        hosts:
        - hostname: a
          fence_agent: ipmi
          fence_parameters: {{username: u, password: "{password}"}}
        """


def test_a_sound_config_has_no_warnings(tmp_path: Path) -> None:
    assert warnings_of(tmp_path, SAFE_PAIR) == []


def test_a_password_in_a_file_that_others_can_read(tmp_path: Path) -> None:
    (warning,) = warnings_of(tmp_path, ipmi_host("s3cret"))
    assert "run chmod o-r" in warning
    assert "(a)" in warning
    assert "s3cret" not in warning


@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_a_password_in_a_file_kept_from_others(tmp_path: Path, mode: int) -> None:
    assert warnings_of(tmp_path, ipmi_host("s3cret"), mode) == []


def test_a_password_read_from_the_environment_may_stand_in_an_open_file(tmp_path: Path) -> None:
    assert warnings_of(tmp_path, ipmi_host("env:BMC_PASSWORD")) == []


def test_a_password_file_is_looked_at(tmp_path: Path) -> None:
    secret = tmp_path / "bmc.password"
    (missing,) = warnings_of(tmp_path, ipmi_host(f"file:{secret}"))
    assert "is missing or cannot be read" in missing
    secret.write_text("s3cret")
    secret.chmod(0o644)
    (readable,) = warnings_of(tmp_path, ipmi_host(f"file:{secret}"))
    assert f"chmod o-r {secret}" in readable
    secret.chmod(0o600)
    assert warnings_of(tmp_path, ipmi_host(f"file:{secret}")) == []


@pytest.mark.parametrize(
    ("tls", "warns"),
    [
        ("", True),
        (", tls_server_name: bmc", True),
        (", tls_ca: /etc/ca.crt", False),
        (", tls_fingerprint: aa", False),
        (", ssl-secure: 1", False),
        (", ssl_insecure: 1", False),
    ],
)
def test_a_redfish_controller_without_verification(tmp_path: Path, tls: str, warns: bool) -> None:
    text = f"""
        hosts:
        - hostname: oss01
          fence_agent: redfish
          fence_parameters: {{username: u, password: "env:P"{tls}}}
        """
    found = warnings_of(tmp_path, text)
    assert [("oss01" in w and "are not verified" in w) for w in found] == [True] * warns


def test_hosts_that_cannot_be_fenced_are_named_together(tmp_path: Path) -> None:
    (warning,) = warnings_of(
        tmp_path,
        """
        hosts: [{hostname: oss01}, {hostname: oss02}, {hostname: idle}]
        resources: [{name: r, kind: x/y}]
        resource_groups: [{root: r, home_host: oss01, failover_hosts: [oss02]}]
        """,
    )
    assert warning.startswith("oss[01-02] cannot be fenced")


def test_a_group_without_failover(tmp_path: Path) -> None:
    (warning,) = warnings_of(tmp_path, SAFE_PAIR.replace(", failover_hosts: [b]", ""))
    assert warning == "without failover_hosts, and so without failover: r"


A_FULL_PAIR = """
    hosts:
    - {{hostname: a, fence_agent: powerman, capacity: {{gb: 100}}}}
    - {{hostname: b, fence_agent: powerman, capacity: {{gb: {gb}}}}}
    resources: [{{name: r, kind: x/y}}, {{name: s, kind: x/y}}]
    resource_groups:
    - {{root: r, home_host: a, failover_hosts: [b], needs: {{gb: 60}}}}
    - {{root: s, home_host: b, failover_hosts: [a], needs: {{gb: 30}}, priority: 1}}
"""


def test_a_cluster_that_could_not_lose_a_host_even_with_all_hosts_up(tmp_path: Path) -> None:
    (warning,) = warnings_of(tmp_path, A_FULL_PAIR.format(gb=80))
    assert warning == (
        "even with all hosts up, the loss of a would leave 1 group down: r (b would have 50 of 80 "
        "gb free, and r needs 60)"
    )
    assert warnings_of(tmp_path, A_FULL_PAIR.format(gb=90)) == []


def test_a_cluster_without_a_place_for_all_its_groups(tmp_path: Path) -> None:
    text = A_FULL_PAIR.format(gb=80).replace("home_host: a, failover_hosts: [b]", "home_host: b")
    (warning,) = (w for w in warnings_of(tmp_path, text) if "without failover" not in w)
    assert warning == (
        "even with all hosts up, HALO would leave 1 group down: r (b would have 50 of 80 gb free, "
        "and r needs 60)"
    )


def test_company_is_honoured_when_a_config_is_looked_ahead(tmp_path: Path) -> None:
    text = A_FULL_PAIR.format(gb=100).replace("priority: 1", "apart_from: [r]")
    (warning,) = warnings_of(tmp_path, text)
    assert "r (s would be on b, and r has to be apart from it)" in warning
    assert warning.endswith("; the loss of 1 other host would leave groups down, too")


PREEMPTS = """
    hosts:
    - {hostname: a, fence_agent: powerman, capacity: {gb: 1}}
    - {hostname: b, fence_agent: powerman, capacity: {cores: 1}}
    resources: [{name: r, kind: x/y}, {name: s, kind: x/y}]
    resource_groups:
    - {root: r, home_host: a, failover_hosts: [b], preempt: true, MORE}
    - {root: s, home_host: a, failover_hosts: [b], needs: {gb: 1}, priority: 1}
"""


@pytest.mark.parametrize(
    ("more", "warns"),
    [
        ("priority: 2", True),  # it needs nothing
        ("needs: {gb: 1}", True),  # its priority is lower
        ("needs: {gb: 1}, priority: 1", True),  # and equal
        ("needs: {cores: 1}, priority: 2", True),  # the other one needs something else
        ("needs: {gb: 1}, priority: 2", False),
    ],
)
def test_a_group_to_which_no_other_can_give_way(tmp_path: Path, more: str, warns: bool) -> None:
    found = warnings_of(tmp_path, PREEMPTS.replace("MORE", more))
    assert warns is any("preempt: true, but no group can give way to it: r;" in w for w in found)


def test_a_group_that_preempts_is_shown_so_in_the_summary(tmp_path: Path) -> None:
    text = PREEMPTS.replace("MORE", "needs: {gb: 1}, priority: 2")
    assert ", needs 1 gb, priority 2, preempt\n" in summary(written(tmp_path, text)[0])


def test_the_summary_shows_the_cluster_and_no_secret(tmp_path: Path) -> None:
    cluster, _ = written(
        tmp_path,
        """
        name: pair
        hosts:
        - hostname: "a:8005"
          on_loss: wait
          fence_agent: ipmi
          fence_parameters: {ip: bmc-a, username: us3r, password: s3cret}
        - hostname: "::1"
        resources:
        - {name: r, kind: x/y, dependents: [r/1, r/2], start_timeout: 2min}
        - {name: r/1, kind: x/y, dependents: [r/3]}
        - {name: r/2, kind: x/y, dependents: [r/3], shared: true}
        - {name: r/3, kind: x/y}
        - {name: q, kind: x/y}
        resource_groups:
        - {root: r, home_host: a, failover_hosts: ["::1"], second_copy: stop, after: [q]}
        - {root: q, home_host: a}
        settings: {loss_budget: 500ms, heartbeat_interval: 100ms, fence_limit: 3}
        """,
    )
    assert summary(cluster) == dedent("""\
        Cluster pair: 2 hosts, 2 resource groups

        Hosts:
          a (a:8005, on_loss wait)
            fencing: ipmi (ip bmc-a)
          ::1 ([::1]:8000)
            fencing: none

        Resource groups:
          r: home a, failover ::1, second_copy stop, after q
            r (x/y, start_timeout 120s)
              r/1 (x/y)
                r/3 (x/y)
              r/2 (x/y, shared)
                r/3 (x/y) (see above)
          q: home a, failover none
            q (x/y)

        Settings:
          heartbeat_interval: 0.1s
          loss_budget: 0.5s
          fence_limit: 3""")


@pytest.mark.parametrize("agent", ["powerman", "redfish", "ipmi", "fence_test"])
def test_bundled_agents_are_found(agent: str) -> None:
    assert find_fence_program(agent) == REPOSITORY / "fence_agents" / agent


def test_a_fence_program_on_path_comes_before_a_bundled_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "fence_test"
    program.write_text("#!/bin/sh\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_fence_program("fence_test") != program  # not executable yet
    assert find_fence_program(str(program)) is None
    program.chmod(0o755)
    assert find_fence_program("fence_test") == program
    assert find_fence_program(str(program)) == program


def test_a_fence_program_misspelt_is_told_the_one_that_was_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, mode in (("fence_switchyard", 0o755), ("fence_railyard", 0o644)):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(mode)
    monkeypatch.setenv("PATH", f"{tmp_path / 'absent'}:{tmp_path}")
    told = []
    for agent in ("fence_swichyard", "fence_tset", "fence_railyrad", "fence_unheard"):
        with pytest.raises(ConfigError) as caught:
            written(tmp_path, SAFE_PAIR.replace("powerman", agent, 1))
        told.append(caught.value.mistakes[0].message)
    assert told[0].endswith('; did you mean "fence_switchyard"?')
    assert told[1].endswith('; did you mean "fence_test"?')
    assert told[2].endswith("; install the package that holds it")  # that one is not executable
    assert told[3].endswith("; install the package that holds it")


@pytest.mark.parametrize(
    "agent", ["", ".", "..", "sh", "fence_", "fence_/../sh", "./redfish", "/", "/no/such", "/a\0b"]
)
def test_anything_else_names_no_program(agent: str) -> None:
    assert find_fence_program(agent) is None


@pytest.mark.parametrize("name", ["fence_agents", "ocf_agents", "halo.capnp"])
def test_what_a_wheel_packs_is_what_stands_at_the_top_level(name: str) -> None:
    assert (REPOSITORY / "halo" / "share" / name).resolve() == REPOSITORY / name


def test_a_folder_that_does_not_come_with_halo_is_refused() -> None:
    assert bundled_folder("fence_agents") == REPOSITORY / "fence_agents"
    with pytest.raises(
        FileNotFoundError, match="the folder nothing of this HALO installation is missing"
    ):
        bundled_folder("nothing")


def test_what_is_shared_without_saying_so_is_warned_of_each_by_itself(tmp_path: Path) -> None:
    text = """
        hosts:
        - {{hostname: a, fence_agent: powerman}}
        - {{hostname: b, fence_agent: powerman}}
        resources:
        - {{name: one, kind: x/y, dependents: [common, pool]}}
        - {{name: two, kind: x/y, dependents: [common, pool]}}
        - {{name: common, kind: x/y{key}}}
        - {{name: pool, kind: x/y{key}}}
        resource_groups:
        - {{root: one, home_host: a, failover_hosts: [b]}}
        - {{root: two, home_host: b, failover_hosts: [a]}}
        """
    common, pool = warnings_of(tmp_path, text.format(key=""))
    assert common.startswith("common is in the groups one, two without the key shared")
    assert "may run on several hosts at once" in common
    assert pool.startswith("pool is in the groups")
    assert warnings_of(tmp_path, text.format(key=", shared: true")) == []
