"""`make install` puts what README's Install section says where it says, and `make uninstall` takes
it all away again.

Everything goes to a DESTDIR; the copy of the checkout is for pip, which builds in the folder that
it is called in, where other tests run. One installation takes half a minute and needs the package
index once: without an index the tests that need it are skipped, or fail where
HALO_TEST_REQUIRE_PARTS is set.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = (
    *("CHANGELOG.md", "Makefile", "README.md", "docs", "examples", "fence_agents", "halo"),
    *("halo.capnp", "ocf_agents", "packaging", "pyproject.toml"),
)
PROGRAMS = ("halo", "halo_manager", "halo_remote")
UNITS = {"halo.service": "halo_manager", "halo-remote.service": "halo_remote"}
OCF_AGENTS = "usr/lib/ocf/resource.d/halo"
SITE = {  # what the Makefile and make itself take from their surroundings
    *("DESTDIR", "PREFIX", "SBINDIR", "UNITDIR", "OCFDIR", "PYTHON", "PYTHONPATH", "VIRTUAL_ENV"),
    *("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "GNUMAKEFLAGS"),
}
INSTALL_DEADLINE_S = 600.0
DEADLINE_S = 60.0

# Four workers on two slow cores, and an index far away.
pytestmark = pytest.mark.timeout(INSTALL_DEADLINE_S + DEADLINE_S)


@dataclass(frozen=True)
class Checkout:
    """A copy of the checkout, and `make` in it with a systemctl that only notes its calls."""

    folder: Path

    def make(
        self, target: str, destination: Path, *variables: str, deadline: float = DEADLINE_S
    ) -> subprocess.CompletedProcess[str]:
        """Run a target with that DESTDIR."""
        assert destination.is_absolute(), "an empty DESTDIR is this machine itself"
        kept = {key: value for key, value in os.environ.items() if key not in SITE}
        path = f"{self.folder / 'bin'}:{kept.get('PATH', os.defpath)}"
        return subprocess.run(
            ["make", target, f"DESTDIR={destination}", f"PYTHON={sys.executable}", *variables],
            cwd=self.folder,
            env={**kept, "PATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=deadline,
            check=False,
        )

    @property
    def systemctl_calls(self) -> str:
        log = self.folder / "bin" / "calls"
        return log.read_text() if log.exists() else ""


@dataclass(frozen=True)
class Installed:
    """The tree that `make install` made, which nobody changes, and what this machine was before."""

    tree: Path
    checkout: Checkout
    machine_before: dict[str, object]

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of the installed programs in its own environment, where it lies for now."""
        prefix = self.tree / "opt" / "halo"
        return subprocess.run(
            [prefix / "bin" / "python", "-I", prefix / "bin" / program, *arguments],
            cwd="/",
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )

    def copy(self, where: Path) -> Path:
        """Another such tree, of hard links."""
        return Path(shutil.copytree(self.tree, where, symlinks=True, copy_function=os.link))


def this_machine() -> dict[str, object]:
    """The places of this machine that an installation without DESTDIR would touch."""
    places = [
        *(Path("/opt/halo"), Path("/etc/halo"), Path("/", OCF_AGENTS)),
        *(Path("/usr/sbin", program) for program in PROGRAMS),
        *(Path("/etc/systemd/system", unit) for unit in UNITS),
    ]
    return {
        str(place): place.lstat().st_mtime_ns if os.path.lexists(place) else None
        for place in places
    }


def without_index(checkout: Checkout) -> bool:
    """Whether pip does not even get what every build needs."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir"]
    probe = subprocess.run(
        [*pip, "--dest", str(checkout.folder / "probe"), "setuptools>=68"],
        capture_output=True,
        timeout=DEADLINE_S,
        check=False,
    )
    return probe.returncode != 0


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    folder = tmp_path_factory.mktemp("checkout")
    no_caches = shutil.ignore_patterns("__pycache__")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=no_caches)
        else:
            shutil.copy(ROOT / name, folder / name)
    systemctl = folder / "bin" / "systemctl"
    systemctl.parent.mkdir()
    systemctl.write_text('#!/bin/sh\necho "$@" >>"${0%/*}/calls"\n')
    systemctl.chmod(0o755)
    return Checkout(folder)


@pytest.fixture(scope="module")
def installed(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    tree = tmp_path_factory.mktemp("destination")
    before = this_machine()
    done = checkout.make("install", tree, "PREFIX=/opt/halo", deadline=INSTALL_DEADLINE_S)
    if done.returncode != 0:
        if without_index(checkout) and not os.environ.get("HALO_TEST_REQUIRE_PARTS"):
            pytest.skip("needs the package index")
        pytest.fail(f"make install failed:\n{done.stdout}{done.stderr}")
    yield Installed(tree, checkout, before)
    shutil.rmtree(tree)  # 75 MB, and pytest keeps the folders of three runs


def leaves(tree: Path) -> set[str]:
    """All files and links of a tree, and its empty folders, which end in a slash."""
    found = set()
    for folder, folders, files in os.walk(tree):
        links = [name for name in folders if Path(folder, name).is_symlink()]
        found |= {str(Path(folder, name).relative_to(tree)) for name in (*files, *links)}
        if not folders and not files:
            found.add(f"{Path(folder).relative_to(tree)}/")
    return found


# What README's table says -------------------------------------------------------------------


def test_the_programs_run_from_an_environment_of_their_own(installed: Installed) -> None:
    prefix = installed.tree / "opt" / "halo"
    project = tomllib.loads((installed.checkout.folder / "pyproject.toml").read_text())["project"]
    for program in PROGRAMS:
        assert (installed.tree / "usr" / "sbin" / program).readlink() == Path(
            "/opt/halo/bin", program
        )
        script = prefix / "bin" / program
        assert script.read_text().splitlines()[0] == "#!/opt/halo/bin/python"
        assert os.access(script, os.X_OK)
        done = installed.run(program, "--version")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.split()[-1] == project["version"]
    assert "include-system-site-packages = false" in (prefix / "pyvenv.cfg").read_text()
    # The HALO that runs is the installed one, and not a link to the checkout.
    (package,) = prefix.glob("lib/python3*/site-packages/halo")
    assert not any(path.is_symlink() for path in (package, *package.rglob("*")))


def test_nothing_that_is_installed_names_the_destination(installed: Installed) -> None:
    named = str(installed.tree).encode()
    assert [
        path
        for path in installed.tree.rglob("*")
        if (path.is_symlink() and named in os.fsencode(path.readlink()))
        or (path.is_file() and named in path.read_bytes())
    ] == []


def test_the_units_name_what_was_installed(installed: Installed) -> None:
    folder = installed.tree / "etc" / "systemd" / "system"
    assert {path.name for path in folder.iterdir()} == set(UNITS)
    for unit, program in UNITS.items():
        text = (folder / unit).read_text()
        assert f"\nExecStart=/usr/sbin/{program} " in text
        (documentation,) = re.findall(r"^Documentation=file:/(.+)$", text, re.M)
        assert (installed.tree / documentation).is_file()
        assert text == (installed.checkout.folder / "packaging" / "systemd" / unit).read_text()
        assert (folder / unit).stat().st_mode & 0o777 == 0o644


def test_the_ocf_agents_can_be_run_where_they_are(installed: Installed) -> None:
    agents = {
        path.name: path
        for path in (installed.checkout.folder / "ocf_agents" / "resource.d" / "halo").iterdir()
    }
    folder = installed.tree / OCF_AGENTS
    assert {path.name for path in folder.iterdir()} == set(agents)
    for name, source in agents.items():
        assert (folder / name).read_bytes() == source.read_bytes()
        done = subprocess.run(
            [folder / name, "meta-data"],
            env={"PATH": os.defpath, "OCF_ROOT": "/usr/lib/ocf"},
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert f'<resource-agent name="{name}"' in done.stdout


def test_a_config_names_the_fence_agents_without_a_path(
    installed: Installed, tmp_path: Path
) -> None:
    prefix = installed.tree / "opt" / "halo"
    folder = prefix / "fence_agents"
    assert not folder.readlink().is_absolute()
    agents = {p.name for p in (installed.checkout.folder / "fence_agents").iterdir()}
    assert {p.name for p in folder.iterdir() if p.name != "__pycache__"} == agents
    for agent in agents - {"halo_fencing"}:
        done = subprocess.run(
            [prefix / "bin" / "python", "-I", "-S", folder / agent, "-o", "metadata"],
            cwd="/",
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "<resource-agent " in done.stdout
    # powerman needs no parameters; an agent that is nowhere is a mistake in the config.
    config = tmp_path / "halo.conf"
    for agent, code in (("powerman", 0), ("no_such_agent", 64)):
        config.write_text(f"hosts:\n- {{hostname: h1, fence_agent: {agent}}}\n")
        done = installed.run("halo", "--config", str(config), "validate")
        assert done.returncode == code, done.stdout + done.stderr


def test_the_texts_are_there_and_the_examples_are_valid(installed: Installed) -> None:
    folder = installed.tree / "opt" / "halo" / "share" / "doc" / "halo"
    sources = installed.checkout.folder  # the checkout itself may have changed meanwhile
    for name in ("README.md", "docs", "examples", "packaging"):
        source = sources / name
        texts = [source] if source.is_file() else [p for p in source.rglob("*") if p.is_file()]
        for text in texts:
            installed_text = folder / text.relative_to(sources)
            assert installed_text.read_bytes() == text.read_bytes()
            assert installed_text.stat().st_mode & 0o111 == text.stat().st_mode & 0o111
    for example in (folder / "examples").glob("*.yaml"):
        done = installed.run("halo", "--config", str(example), "validate")
        assert done.returncode == 0, done.stdout + done.stderr


def test_with_a_destination_this_machine_is_left_alone(installed: Installed) -> None:
    assert this_machine() == installed.machine_before
    assert installed.checkout.systemctl_calls == ""
    assert {path.name for path in installed.tree.iterdir()} == {"etc", "opt", "usr"}


# And away -----------------------------------------------------------------------------------


def test_uninstall_leaves_nothing_but_the_folder_of_the_config(
    installed: Installed, tmp_path: Path
) -> None:
    tree = installed.copy(tmp_path / "tree")
    config = tree / "etc" / "halo" / "halo.conf"
    config.write_text("hosts: []\n")
    done = installed.checkout.make("uninstall", tree)
    assert done.returncode == 0, done.stderr
    # The empty folders are those of any system.
    assert leaves(tree) == {
        *("etc/halo/halo.conf", "etc/systemd/system/", "opt/", "usr/sbin/"),
        "usr/lib/ocf/resource.d/",
    }
    assert this_machine() == installed.machine_before
    assert installed.checkout.systemctl_calls == ""


def test_uninstall_leaves_what_others_put_beside_it(installed: Installed, tmp_path: Path) -> None:
    tree = installed.copy(tmp_path / "tree")
    theirs = {f"{OCF_AGENTS}/Theirs", "etc/systemd/system/theirs.service", "opt/theirs/halo"}
    for name in theirs:
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_text("theirs")
    link = tree / "usr" / "sbin" / "halo"
    link.unlink()
    link.symlink_to("/opt/theirs/halo")
    done = installed.checkout.make("uninstall", tree)
    assert done.returncode == 0, done.stderr
    assert leaves(tree) == {*theirs, "usr/sbin/halo", "etc/halo/"}


def test_neither_touches_a_folder_that_is_not_of_an_installation(
    checkout: Checkout, tmp_path: Path
) -> None:
    theirs = tmp_path / "opt" / "halo" / "theirs"
    theirs.parent.mkdir(parents=True)
    theirs.touch()
    for target in ("install", "uninstall"):
        done = checkout.make(target, tmp_path)
        assert done.returncode != 0
        assert "not of `make install`" in done.stderr
        assert leaves(tmp_path) == {"opt/halo/theirs"}
