"""Every mistake in a config is reported, with its place and in words an operator can act on."""

from __future__ import annotations

from pathlib import Path

import pytest

from halo.config.loader import load, load_text
from halo.core.errors import ConfigError

GOLDEN = Path(__file__).with_name("test_config_mistakes.txt")


def _cases() -> list[tuple[str, str, list[str]]]:
    cases = []
    for block in GOLDEN.read_text(encoding="utf-8").split("\n=== ")[1:]:
        name, _, rest = block.partition("\n")
        config, _, messages = rest.rpartition("\n---\n")
        cases.append((name, config + "\n", messages.strip("\n").split("\n")))
    return cases


CASES = _cases()


def mistakes_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load_text(text, "halo.conf")
    return [f"{m.line}:{m.column}: {m.message}" for m in raised.value.mistakes]


@pytest.mark.parametrize(("config", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_mistakes_are_all_reported_with_their_places(config: str, expected: list[str]) -> None:
    assert mistakes_of(config) == expected


def test_the_table_of_mistakes_is_read_whole() -> None:
    assert len(CASES) == GOLDEN.read_text(encoding="utf-8").count("\n=== ") > 70


def test_no_message_repeats_what_may_be_a_secret() -> None:
    shown = [message for _, config, messages in CASES if "s3cret" in config for message in messages]
    assert len(shown) > 5
    assert not any("s3cret" in message for message in shown)


@pytest.mark.parametrize(
    "line", ["password: *s3cret", 'password: "s3cret', "password: !s3cret", "password: @s3cret"]
)
def test_a_password_that_is_not_yaml_is_not_repeated(line: str) -> None:
    config = f"hosts:\n- hostname: a\n  fence_agent: powerman\n  fence_parameters:\n    {line}\n"
    found = mistakes_of(config)
    assert found
    assert "s3cret" not in "".join(found)


def test_the_error_reads_as_file_line_column_and_message(tmp_path: Path) -> None:
    path = tmp_path / "halo.conf"
    path.write_text("hosts:\n- hostname: a:0\n- hostnam: b\n")
    with pytest.raises(ConfigError) as raised:
        load(path)
    assert str(raised.value).split("\n") == [
        f'{path}:2:13: hostname: expected a port from 1 to 65535, found "a:0"',
        f'{path}:3:3: host: unknown key "hostnam"; did you mean "hostname"?',
        f"{path}:3:3: host: hostname is missing; expected a name or address with an optional :port",
    ]


def test_of_thousands_of_mistakes_the_first_are_told(tmp_path: Path) -> None:
    path = tmp_path / "halo.conf"
    path.write_text("hosts:\n- hostname: a\n" + "".join(f"key{n}: 1\n" for n in range(2000)))
    with pytest.raises(ConfigError) as raised:
        load(path)
    lines = str(raised.value).split("\n")
    assert len(raised.value.mistakes) == 2000
    assert len(lines) == 101
    assert lines[-1] == f"{path}: and 1900 more; correct these first"


def test_control_characters_are_spelled_out() -> None:
    config = (
        "hosts:\n- hostname: a\n  fence_agent: powerman\n"
        '  fence_parameters: {"user\\tname\\e": x}\n'
    )
    (message,) = mistakes_of(config)
    assert message == r'4:22: fence_parameters: "user\tname\x1b": not usable as a name'


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for path, reason in (
        (
            tmp_path / "none.conf",
            "No such file or directory; give the config with --config or HALO_CONFIG",
        ),
        (tmp_path, "Is a directory"),
    ):
        with pytest.raises(ConfigError) as raised:
            load(path)
        assert str(raised.value) == f"{path}: cannot be read: {reason}"


def test_text_that_is_not_utf_8_is_located(tmp_path: Path) -> None:
    path = tmp_path / "halo.conf"
    path.write_bytes(b"hosts:\n- hostname: a\xff\n")
    with pytest.raises(ConfigError) as raised:
        load(path)
    assert str(raised.value) == f"{path}:2:14: not valid UTF-8 text"


@pytest.mark.parametrize("text", ["", "\n", "# nothing but a comment\n", "---\n...\n"])
def test_an_empty_config_is_called_empty(text: str) -> None:
    assert mistakes_of(text) == ["1:1: the config is empty; expected at least the key hosts"]


def test_a_second_document_is_located() -> None:
    (message,) = mistakes_of("hosts: [{hostname: a}]\n---\nname: b\n")
    assert message == "2:1: not valid YAML: expected one document, but found another"


def test_control_characters_are_located() -> None:
    (message,) = mistakes_of("hosts:\n- \x07\n")
    assert message.startswith("2:3: not valid YAML: ")


@pytest.mark.parametrize(
    "text",
    ["hosts: " + "[" * 50_000, "hosts: " + "{a: " * 50_000, "- " * 50_000, "? " * 50_000],
    ids=["lists", "mappings", "block lists", "keys"],
)
def test_absurd_nesting_is_refused_and_does_not_crash(text: str) -> None:
    """A composer that recurses ends the process on this (PyYAML's, in C, does)."""
    (message,) = mistakes_of(text)
    assert message.endswith("nested more than 64 levels deep")


@pytest.mark.parametrize("given", ["0", "-1", "1.5", "all", "[1]"])
def test_a_limit_of_starts_is_a_whole_number_above_zero(given: str) -> None:
    (message,) = mistakes_of(f"hosts: [{{hostname: a, max_starts: {given}}}]\n")
    assert "max_starts: expected a whole number of at least 1" in message


def test_settings_that_are_command_line_switches_are_unknown_keys() -> None:
    (message,) = mistakes_of(
        "hosts: [{hostname: a}]\nsettings: {fence_on_connection_close: true}\n"
    )
    assert message.startswith('2:12: settings: unknown key "fence_on_connection_close"')


def test_a_file_that_is_wrong_throughout_is_refused_quickly() -> None:
    """Looking for the nearest name a thousand times in a thousand names would take minutes."""
    lines = ["hosts:", *(f"- hostname: oss{n:04}" for n in range(2000))]
    lines += ["resources:", *(f"- {{name: r{n}, kind: a/b}}" for n in range(5000))]
    lines += ["resource_groups:"]
    lines += [f"- {{root: r{n}, home_host: ost{n:04}, failover_hosts: []}}" for n in range(5000)]
    assert len(mistakes_of("\n".join(lines))) == 5000
