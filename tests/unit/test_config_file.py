"""The config of a manager that stands by: read again when it leads, and never a reason not to."""

from __future__ import annotations

import pickle
import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from halo.core.errors import AdministratorError
from halo.core.model import Cluster
from halo.manager.leadership import config_file
from halo.manager.leadership.config_file import ConfigFile


class Reader:
    """Reads the name of the cluster from a file. `may_go_on` as of a file server."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reads = 0
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def __call__(self) -> bytes:
        self.reads += 1
        self.may_go_on.wait(60)
        text = self.path.read_text()
        if text == "defect":
            raise RuntimeError(text)
        if text == "mistake":
            raise AdministratorError(f"{self.path}:1:1: a mistake")
        return pickle.dumps(Cluster(text, {}, {}))


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    path = tmp_path / "conf"
    path.write_text("before")
    return Reader(path)


async def test_a_changed_file_is_read_again(reader: Reader) -> None:
    config = ConfigFile(reader.path, reader)
    cluster = config.first()
    assert await config.renewed(cluster) is cluster
    assert reader.reads == 1  # a large config takes seconds
    reader.path.write_text("after")
    assert (await config.renewed(cluster)).name == "after"


@pytest.mark.parametrize("text", ["mistake", "defect"])
async def test_a_file_with_a_mistake_keeps_nobody_from_leading(reader: Reader, text: str) -> None:
    config = ConfigFile(reader.path, reader)
    cluster = config.first()
    reader.path.write_text(text)
    with capture_logs() as logs:
        assert await config.renewed(cluster) is cluster
    assert text in logs[0]["problem"]


async def test_a_file_that_is_gone_or_hangs_keeps_nobody_from_leading(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ConfigFile(reader.path, reader)
    cluster = config.first()
    reader.path.unlink()
    with capture_logs() as logs:
        assert await config.renewed(cluster) is cluster
    assert "No such file" in logs[0]["problem"]
    monkeypatch.setattr(config_file, "READ_DEADLINE_S", 0.1)
    reader.path.write_text("after")
    reader.may_go_on.clear()
    with capture_logs() as logs:
        assert await config.renewed(cluster) is cluster
    assert "no answer in time" in logs[0]["problem"]
    reader.may_go_on.set()


async def test_a_file_on_a_dead_server_does_not_delay_a_takeover_for_long(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ConfigFile(reader.path, reader)
    cluster = config.first()
    answers = threading.Event()
    monkeypatch.setattr(config_file, "LOOK_DEADLINE_S", 0.1)
    monkeypatch.setattr(config_file, "_content_of", lambda _path: answers.wait(60))
    with capture_logs() as logs:
        assert await config.renewed(cluster) is cluster
    assert "no answer in time" in logs[0]["problem"]
    answers.set()
