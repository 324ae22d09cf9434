"""What every bundled fence program owes the fence-agent API."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from halo.adapters.fence.programs import command_line
from tests.debian import require
from tests.fence_helpers import bundled

AGENTS = ("ipmi", "redfish", "powerman", "fence_test")
SCHEMA = Path("/usr/share/cluster/relaxng/metadata.rng")
MINIMAL = {
    "ipmi": "ip=bmc1\n",
    "redfish": "ip=bmc1\n",
    "powerman": "port=n1\n",
    "fence_test": "target=a\ntest_id=/tmp\n",
}


def run(agent: str, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command_line(bundled(agent).program), *arguments],
        input=text,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("agent", AGENTS)
def test_metadata_names_the_actions_and_what_is_required(agent: str) -> None:
    root = ElementTree.fromstring(run(agent, "action=metadata\n").stdout)
    actions = {action.get("name") for action in root.iter("action")}
    assert actions >= {"on", "off", "reboot", "status", "monitor", "metadata", "validate-all"}
    required = {p.get("name") for p in root.iter("parameter") if p.get("required") == "1"}
    assert required == {"action"} | {line.split("=")[0] for line in MINIMAL[agent].split()}


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("words", ["", "acton=status\n", "Action=status\n"])
def test_without_an_action_nothing_is_done(agent: str, words: str) -> None:
    done = run(agent, MINIMAL[agent] + words)
    assert done.returncode == 1
    assert "no action is given; nothing was done" in done.stderr


@pytest.mark.parametrize("agent", AGENTS)
def test_metadata_follows_the_schema_of_fence_agents(agent: str, tmp_path: Path) -> None:
    require("fence-agents", "libxml2-utils")
    (tmp_path / "metadata.xml").write_text(run(agent, "", "-o", "metadata").stdout)
    done = subprocess.run(
        ["xmllint", "--noout", "--relaxng", str(SCHEMA), str(tmp_path / "metadata.xml")],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("agent", AGENTS)
def test_validate_all_asks_no_device(agent: str) -> None:
    assert run(agent, f"action=validate-all\n{MINIMAL[agent]}").returncode == 0
    missing = run(agent, "action=validate-all\n")
    assert missing.returncode == 1
    assert "is missing" in missing.stderr
    wrong = run(agent, f"action=validate-all\npower_timeout=soon\n{MINIMAL[agent]}")
    assert '"soon" is not a number of seconds' in wrong.stderr


@pytest.mark.parametrize("agent", AGENTS)
def test_an_unknown_action_is_a_failure(agent: str) -> None:
    done = run(agent, f"action=explode\n{MINIMAL[agent]}")
    assert done.returncode == 1
    assert 'unknown action "explode"' in done.stderr


@pytest.mark.parametrize("agent", AGENTS)
def test_it_is_executable_by_itself_and_blank_lines_and_comments_pass(agent: str) -> None:
    program = bundled(agent).program
    assert os.access(program, os.X_OK)
    done = subprocess.run(
        [program],
        input="# by a cluster manager\n\naction=metadata\n",
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("<?xml")
