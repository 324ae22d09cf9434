"""docs/replicated-managers.md names what is there: files, links, Secrets and tested commands."""

from __future__ import annotations

import re
from pathlib import Path

from tests.packaging import test_replicated_managers
from tests.packaging.manifests import (
    KUBERNETES,
    ROOT,
    Manifest,
    container,
    environment,
    kustomization,
    one,
    pod,
    pod_names,
    stateful_sets,
)
from tests.packaging.page import PAGE, blocks

TEXT = PAGE.read_text(encoding="utf-8")


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}


def test_every_link_leads_to_a_chapter() -> None:
    links = re.findall(r"\]\(([^)#:]*)(?:#([^)]+))?\)", TEXT)
    assert len(links) > 10
    for file, anchor in links:
        page = (PAGE.parent / file) if file else PAGE
        assert page.exists(), file
        if anchor:
            assert anchor in anchors_of(page), f"{file}#{anchor}"


def test_every_file_that_it_names_is_shipped() -> None:
    paths = re.findall(r"(?<![\w/])packaging/[\w./-]*\w", TEXT)
    assert [path for path in paths if not (ROOT / path).exists()] == []
    samples = {path.name for path in (ROOT / "packaging/systemd/replicated").iterdir()}
    installed = {
        name for b in blocks() for name in re.findall(r"[\w.]+\.(?:env|conf|default)", b.commands)
    }
    assert samples <= installed
    table = re.findall(r"^\| `([\w.]+)` \|", TEXT, re.M)
    known = {*kustomization()["resources"], "kustomization.yaml", "halo.conf"}
    assert set(table) <= known
    assert "halo.conf" in table


def test_all_of_its_commands_are_run_by_tests() -> None:
    assert {block.chapter for block in blocks()} == test_replicated_managers.CHAPTERS
    for chapter in test_replicated_managers.CHAPTERS:
        name = next(n for n, v in vars(test_replicated_managers).items() if v == chapter)
        source = Path(test_replicated_managers.__file__).read_text()
        assert re.search(rf"of_chapter\({name}\)", source), f"nobody runs {chapter}"


def secrets_of_the_page() -> dict[str, set[str]]:
    """The Secrets that the page's commands make, and their keys."""
    found = {}
    for name, rest in re.findall(
        r"create secret generic ([\w-]+)((?: (?:\\\n +)?--from-file=\S+)+)", TEXT
    ):
        found[name] = {Path(file).name for file in re.findall(r"--from-file=([^\s=]+)", rest)}
    return found


def files_below(folder: str, stateful_set: Manifest) -> set[str]:
    """The files in a folder that the pods, or the config, name."""
    values = [
        value
        for name in pod_names(stateful_set)
        for value in environment(stateful_set, name).values()
    ]
    text = "\n".join(values) + (KUBERNETES / "halo.conf").read_text()
    return set(re.findall(rf"(?<![\w/]){re.escape(folder)}/([\w.-]+)", text))


def test_the_secrets_of_the_commands_hold_what_the_pods_read() -> None:
    made = secrets_of_the_page()
    wanted = {}
    for stateful_set in stateful_sets():
        mounts = {m["name"]: m["mountPath"] for m in container(stateful_set)["volumeMounts"]}
        for volume in pod(stateful_set)["volumes"]:
            if "secret" in volume:
                name = volume["secret"]["secretName"]
                wanted[name] = files_below(mounts[volume["name"]], stateful_set)
    assert all(wanted.values())
    assert made == wanted


def test_the_image_is_named_as_in_the_manifests() -> None:
    (image,) = kustomization()["images"]
    assert TEXT.count(f"{image['newName']}:{image['newTag']}") == 2
    assert f"exec {pod_names(one('StatefulSet', 'halo'))[0]} -- halo status" in TEXT
