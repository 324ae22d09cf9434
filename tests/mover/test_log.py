"""The log of a copy: whatever its end looks like, each whole line before it counts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from halo.remote.mover.log import NAME, Log

KEYS = [bytes([n]) * 16 for n in range(10)]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def read(folder: int) -> Log:
    log = Log(folder)
    log.close()
    return log


def test_what_was_written_is_read(folder: int) -> None:
    log = Log(folder)
    log.begin({"source": "/a\udcff", "n": 1})
    log.add_files([(KEYS[0], KEYS[1], KEYS[2]), (KEYS[3], KEYS[4], KEYS[5])])
    log.add_segment(KEYS[6], KEYS[7], 3, KEYS[8])
    log.publishing(77)
    log.close()
    found = read(folder)
    assert found.header == {"source": "/a\udcff", "n": 1}
    assert found.files == {KEYS[0]: KEYS[1], KEYS[3]: KEYS[4]}
    assert found.parts[KEYS[6]].identity == KEYS[7]
    assert found.parts[KEYS[6]].segments == {3: KEYS[8]}
    assert (found.published, found.finished, found.has_begun) == (77, None, True)


def test_segments_of_an_older_file_do_not_count(folder: int) -> None:
    log = Log(folder)
    log.begin({})
    log.add_segment(KEYS[0], KEYS[1], 0, KEYS[2])
    log.add_segment(KEYS[0], KEYS[3], 1, KEYS[4])
    log.close()
    assert read(folder).parts[KEYS[0]].segments == {1: KEYS[4]}


def test_a_finished_log_is_short(folder: int, tmp_path: Path) -> None:
    log = Log(folder)
    log.begin({"n": 1})
    log.add_files([(KEYS[0], KEYS[1], KEYS[2])] * 1000)
    log.finish(5, {"files": 3})
    log.close()
    found = read(folder)
    assert (found.header, found.published, found.finished) == ({"n": 1}, 5, {"files": 3})
    assert found.files == {}
    assert (tmp_path / os.fsdecode(NAME)).stat().st_size < 200


def test_a_log_that_was_cut_anywhere(folder: int, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(NAME)
    log = Log(folder)
    log.begin({"n": 1})
    for n in range(3):
        log.add_files([(KEYS[n], KEYS[1], KEYS[2])])
    log.close()
    whole = path.read_bytes()
    ends = [n + 1 for n, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        log = Log(folder)
        lines = sum(end <= cut for end in ends)
        assert len(log.files) == max(lines - 1, 0)
        assert path.stat().st_size == ([0, *ends])[lines], "the rest is cut off"
        if lines:
            log.add_files([(KEYS[9], KEYS[1], KEYS[2])])
            log.close()
            assert KEYS[9] in read(folder).files
        else:
            log.close()


def test_a_changed_byte_ends_the_log_before_it(folder: int, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(NAME)
    log = Log(folder)
    log.begin({"n": 1})
    log.add_files([(KEYS[n], KEYS[1], KEYS[2]) for n in range(3)])
    log.close()
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        found = read(folder)
        assert set(found.files) <= set(KEYS[:3])
        assert found.header in ({"n": 1}, None)
        path.write_bytes(whole)
