"""`halo power`, run as an operator does, against test agents and other fence programs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from tests.fence_helpers import HALO, is_alive, make_program, wait_until

SWITCH = """
action= name= password= user=
while IFS='=' read -r key value; do
  case $key in action) action=$value;; name) name=$value;; password) password=$value;;
  username) user=$value;; ip) : "${{name:=$value}}";; esac
done
echo "$action $name $user $password" >> {folder}/calls
[ -e {folder}/$name.broken ] && {{ echo "cannot reach $name" >&2; exit 1; }}
case $action in
on) echo on > {folder}/$name;;
off) [ -e {folder}/$name.stuck ] || echo off > {folder}/$name;;
status) [ "$(cat {folder}/$name)" = on ] || exit 2;;
esac
"""


@dataclass
class Site:
    """A config whose hosts are files: `<name>` holds `on` or `off`."""

    folder: Path
    program: str
    hosts: list[dict[str, object]] = field(default_factory=list)

    def add(self, host: str, *levels: list[str]) -> None:
        """A host with fence levels, each of some switches."""
        for level in levels:
            for switch in level:
                (self.folder / switch).write_text("on\n")
        steps = [[self._device(switch) for switch in level] for level in levels]
        self.hosts.append({"hostname": host, "fence_levels": steps})

    def _device(self, switch: str) -> dict[str, object]:
        return {
            "fence_agent": self.program,
            "fence_parameters": {"name": switch, "username": "admin", "password": "s3cret"},
        }

    def halo(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        config = self.folder / "halo.conf"
        config.write_text(yaml.safe_dump({"hosts": self.hosts}))
        return subprocess.run(
            [*HALO, "--config", str(config), "power", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, **environment},
        )

    def state(self, switch: str) -> str:
        return (self.folder / switch).read_text().strip()

    def break_switch(self, switch: str, how: str = "broken") -> None:
        (self.folder / f"{switch}.{how}").touch()

    @property
    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path, make_program(tmp_path / "fence_file", SWITCH.format(folder=tmp_path)))
    for name in ("oss00", "oss01", "mds00"):
        made.add(name, [f"{name}-bmc"])
    return made


def test_status_without_hosts_tells_of_all_in_the_order_of_the_config(site: Site) -> None:
    (site.folder / "oss01-bmc").write_text("off\n")
    done = site.halo("status")
    assert (done.returncode, done.stdout) == (0, "oss00 is on\noss01 is off\nmds00 is on\n")


def test_a_status_that_cannot_be_told_fails_the_command(site: Site) -> None:
    site.break_switch("oss01-bmc")
    done = site.halo("status", "oss[00-01]")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0] == "oss00 is on"
    assert lines[1].startswith("Could not determine power status for oss01, ")
    assert "cannot reach oss01-bmc" in lines[1]


def test_off_takes_nodesets_and_is_seen_off(site: Site) -> None:
    done = site.halo("off", "oss[00-01]")
    assert done.returncode == 0
    assert sorted(done.stderr.splitlines()) == ["oss00 Fence: Success", "oss01 Fence: Success"]
    assert done.stdout == "power off: 2 done, 0 failed\n"
    assert [site.state(f"{name}-bmc") for name in ("oss00", "oss01", "mds00")] == [
        "off",
        "off",
        "on",
    ]


def test_off_that_the_device_acknowledges_and_does_not_do_is_a_failure(site: Site) -> None:
    site.break_switch("oss00-bmc", "stuck")
    done = site.halo("off", "oss00", "oss01")
    assert done.returncode == 1
    assert (
        "oss00 Fence result: Failure: said that it was done, but then: fence_file status: on"
        in (done.stderr)
    )
    assert done.stdout == "power off: 1 done, 1 failed: oss00\n"


def test_cycle_ends_on_and_went_through_off(site: Site) -> None:
    assert site.halo("cycle", "mds00").returncode == 0
    assert [call.split()[0] for call in site.calls] == ["off", "status", "on"]
    assert site.state("mds00-bmc") == "on"


@pytest.mark.parametrize("action", ["off", "on", "cycle"])
def test_switching_without_hosts_is_refused_unless_all_are_meant(site: Site, action: str) -> None:
    done = site.halo(action)
    assert done.returncode == 1
    assert f'Must specify host names to perform action "{action}"' in done.stderr
    assert not (site.folder / "calls").exists()
    assert site.halo(action, "--all").returncode == 0
    assert len({call.split()[1] for call in site.calls}) == 3


def test_the_next_level_is_used_where_the_first_fails_and_needs_all_its_devices(
    site: Site,
) -> None:
    site.add("nfs00", ["nfs00-bmc"], ["nfs00-psu1", "nfs00-psu2"])
    site.break_switch("nfs00-bmc")
    assert site.halo("off", "nfs00").returncode == 0
    assert (site.state("nfs00-psu1"), site.state("nfs00-psu2")) == ("off", "off")
    assert site.halo("status", "nfs00").stdout == "nfs00 is off\n"
    site.break_switch("nfs00-psu2", "stuck")
    (site.folder / "nfs00-psu2").write_text("on\n")
    done = site.halo("off", "nfs00")
    assert done.returncode == 1
    assert "cannot reach nfs00-bmc" in done.stderr


def test_a_first_level_that_works_leaves_the_second_alone(site: Site) -> None:
    site.add("nfs00", ["nfs00-bmc"], ["nfs00-psu1"])
    assert site.halo("off", "nfs00").returncode == 0
    assert (site.state("nfs00-bmc"), site.state("nfs00-psu1")) == ("off", "on")


def test_an_unknown_host_stops_all_before_anything_is_switched(site: Site) -> None:
    done = site.halo("off", "oss00", "oss99")
    assert done.returncode == 1
    assert "oss99; nothing was switched" in done.stderr
    assert not (site.folder / "calls").exists()


def test_a_wrong_config_exits_64(site: Site) -> None:
    site.hosts.append({"hostname": "oss00", "fence_agnet": "x"})
    assert site.halo("status").returncode == 64


def test_credentials_given_override_those_of_the_config(site: Site) -> None:
    done = site.halo("status", "oss00", "-l", "root", "-p", "env:BMC", BMC="0ther")
    assert done.returncode == 0
    assert site.calls == ["status oss00-bmc root 0ther"]
    assert "warning" not in done.stderr


def test_a_password_in_plain_is_taken_and_warned_about(site: Site) -> None:
    done = site.halo("status", "oss00", "-p", "0ther")
    assert done.returncode == 0
    assert site.calls == ["status oss00-bmc admin 0ther"]
    assert "everyone on this machine can read a password on the command line" in done.stderr
    assert "0ther" not in done.stdout + done.stderr


def test_an_agent_given_needs_no_config(site: Site) -> None:
    (site.folder / "strange00").write_text("off\n")
    done = subprocess.run(
        [*HALO, "--config", "/no/config", "power", "status", "-f", site.program, "strange00"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "strange00 is off\n")
    assert site.halo("status", "-f", "fence_which_is_not_there", "x").returncode == 64
    assert site.halo("status", "-f", "redfish", "x").returncode == 2


def test_hosts_without_a_fence_agent_are_a_failure_only_when_named(site: Site) -> None:
    site.hosts.append({"hostname": "login00", "fence_agent": None})
    told = "Could not determine power status for login00, it has no fence_agent in the config"
    done = site.halo("status")
    assert done.returncode == 0
    assert told in done.stdout
    assert site.halo("status", "login00").returncode == 1


def test_a_hung_device_ends_at_the_timeout(site: Site) -> None:
    hung = make_program(site.folder / "fence_hung", "exec sleep 600")
    done = site.halo("off", "-f", hung, "x[0-9]", "--timeout", "1")
    assert done.returncode == 1
    assert done.stderr.count("not finished within 1 s, killed") == 10


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """A process that passes for a test agent."""
    program = make_program(tmp_path / "halo_remote", "while :; do sleep 600; done")
    process = subprocess.Popen(
        [program, "--test-id", "fence_mds01"],
        env={**os.environ, "HALO_TEST_DIRECTORY": str(tmp_path)},
        start_new_session=True,
    )
    (tmp_path / "fence_mds01.pid").write_text(f"{process.pid}\n")
    yield tmp_path, process
    process.kill()
    process.wait()


def test_the_guides_example_with_test_agents(
    site: Site, agent: tuple[Path, subprocess.Popen[bytes]]
) -> None:
    folder, process = agent
    site.hosts[:] = [
        {
            "hostname": f"127.0.0.1:{port}",
            "fence_agent": "fence_test",
            "fence_parameters": {"target": target, "test_id": str(folder)},
        }
        for port, target in ((8005, "fence_mds00"), (8006, "fence_mds01"))
    ]
    assert site.halo("status").stdout == "fence_mds00 is off\nfence_mds01 is on\n"
    assert site.halo("off", "fence_mds01").stderr == "fence_mds01 Fence: Success\n"
    wait_until(lambda: not is_alive(process.pid), "the agent's end")
    assert site.halo("status", "fence_mds01").stdout == "fence_mds01 is off\n"
