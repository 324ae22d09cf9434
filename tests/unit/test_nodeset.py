"""Nodesets: what they stand for, what is refused, and that folding is undone by expanding."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import halo.config
from halo.config.nodesets.nodeset import MAX_NAMES, expand, fold


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("oss01", ["oss01"]),
        ("oss[0,2-4]", ["oss0", "oss2", "oss3", "oss4"]),
        ("oss[08-11]", ["oss08", "oss09", "oss10", "oss11"]),
        ("oss[099-101]", ["oss099", "oss100", "oss101"]),
        ("a,b[1-2] c", ["a", "b1", "b2", "c"]),
        (" b , a ", ["b", "a"]),
        ("a,a,a", ["a"]),
        ("r[1-2]n[01-02]-ib", ["r1n01-ib", "r1n02-ib", "r2n01-ib", "r2n02-ib"]),
        ("n[0-8/4]", ["n0", "n4", "n8"]),
        ("10.0.0.[1-2]", ["10.0.0.1", "10.0.0.2"]),
        ("fe80::1", ["fe80::1"]),
    ],
)
def test_a_nodeset_stands_for_its_names_in_order(text: str, names: list[str]) -> None:
    assert expand(text) == names


def test_sixteen_hosts_with_their_zero_padding() -> None:
    assert expand("oss[00-15]") == [f"oss{number:02}" for number in range(16)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "an empty nodeset names no host"),
        (" ", "an empty nodeset names no host"),
        ("a,", "a name is missing next to a comma"),
        (",a", "a name is missing next to a comma"),
        ("a,,b", "a name is missing next to a comma"),
        ("a[1", "a bracket is not closed, or contains another bracket"),
        ("a[[1]]", "a bracket is not closed, or contains another bracket"),
        ("a]", "a closing bracket has no opening bracket"),
        ("a[]", 'in brackets, found ""'),
        ("a[1-]", 'in brackets, found "1-"'),
        ("a[x]", 'in brackets, found "x"'),
        ("a[1,,2]", 'in brackets, found ""'),
        ("a[²]", 'in brackets, found "²"'),
        ("a[3-1]", 'the range "3-1" is empty'),
        ("a[1-3/0]", 'the range "1-3/0" is empty'),
        ("a[1-03]", "need the same number of digits"),
        ("@rack1", '"@" is not supported'),
        ("a*", '"*" is not supported'),
        ("a[1-99999999]", f"more than {MAX_NAMES} names"),
        ("a[0-999]b[0-999]", f"more than {MAX_NAMES} names"),
        ("a[0-60000],b[0-60000]", f"more than {MAX_NAMES} names"),
        ("a[" + "9" * 5000 + "]", "expected a number"),
    ],
)
def test_a_malformed_nodeset_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match="nodeset") as raised:
        expand(text)
    assert reason in str(raised.value)


@pytest.mark.parametrize("text", ["node[", "node[0-2", "node[a]", "host0[-1]", "a]", "a,,b", "@a"])
def test_what_is_no_nodeset_is_refused_in_the_words_of_halo(text: str) -> None:
    with pytest.raises(ValueError, match=r"^nodeset syntax error: unable to parse") as raised:
        expand(text)
    assert f'"{text}"' in str(raised.value)


def test_the_bound_itself_is_allowed() -> None:
    assert len(expand(f"n[1-{MAX_NAMES}]")) == MAX_NAMES


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        (["mds00"], "mds00"),
        (["oss03", "oss01", "oss02"], "oss[01-03]"),
        (["oss1", "oss3", "oss4", "mds0"], "oss[1,3-4],mds0"),
        (["n08", "n09", "n10", "n11"], "n[08-11]"),
        (["a1-ib", "a2-ib", "a1-eth"], "a[1-2]-ib,a1-eth"),
        (["r1n1", "r1n2", "r2n1"], "r1n[1-2],r2n1"),
        (["fe80::1", "fe80::2"], "fe80::1,fe80::2"),
        (["login", "login"], "login"),
    ],
)
def test_names_fold_to_the_usual_short_form(names: list[str], text: str) -> None:
    assert fold(names) == text


@pytest.mark.parametrize("name", ["", "a b", "a,b", "a[1]", "@a"])
def test_a_name_that_has_no_place_in_a_nodeset_is_not_folded(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be part of a nodeset"):
        fold([name])


NAMES = st.from_regex(r"[a-z]{0,3}[0-9]{0,3}(-[a-z]{1,2}[0-9]{0,13})?", fullmatch=True).filter(bool)


@given(st.lists(NAMES, min_size=1, max_size=60))
def test_expanding_undoes_folding(names: list[str]) -> None:
    assert sorted(expand(fold(names))) == sorted(set(names))


@given(st.text(alphabet="ab01-9,[] /@é\n", max_size=25) | st.text(max_size=25))
def test_any_text_expands_to_few_names_or_is_refused(text: str) -> None:
    try:
        names = expand(text)
    except ValueError:
        return
    assert 0 < len(names) <= MAX_NAMES
    assert all(names)
    assert sorted(expand(fold(names))) == sorted(names)


def test_reading_nodesets_costs_no_yaml() -> None:
    """`halo status` expands host arguments and has 80 ms for everything."""
    program = "import sys, halo.config.nodesets.nodeset; sys.exit('yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0


@pytest.mark.parametrize("name", halo.config.__all__)
def test_every_name_that_the_package_offers_can_be_imported(name: str) -> None:
    """They are imported on first use, so that a wrong place would show only then."""
    assert callable(getattr(halo.config, name))
