"""S2: each group has one token, held by one owner; a lost or copied one is found."""

from __future__ import annotations

import pytest

from halo.core.errors import InvariantError
from halo.core.tokens import ResourceToken, TokenLedger


def test_a_token_is_handed_on_and_the_ledger_knows_its_owner() -> None:
    ledger = TokenLedger()
    first = ledger.mint("g", "desk")
    second = first.hand_to("host h1, inbox")
    third = second.hand_to("host h1, task g")
    assert ledger.holder("g") == "host h1, task g"
    assert ledger.holders == {"g": "host h1, task g"}
    assert (first.spent, second.spent, third.spent) == (True, True, False)
    assert [first.serial, second.serial, third.serial] == [1, 2, 3]


def test_a_spent_handle_cannot_be_used() -> None:
    ledger = TokenLedger()
    old = ledger.mint("g", "desk")
    new = old.hand_to("host h1, inbox")
    with pytest.raises(InvariantError, match=r"g #1 at desk spent.*after it was handed on"):
        old.hand_to("host h2, inbox")
    with pytest.raises(InvariantError):
        old.require_live()
    assert ledger.holder("g") == "host h1, inbox"
    new.require_live()


def test_a_handle_that_the_ledger_did_not_make_cannot_be_used() -> None:
    ledger = TokenLedger()
    ledger.mint("g", "desk")
    forged = ResourceToken(ledger, "g", "thief", serial=1)
    with pytest.raises(InvariantError):
        forged.hand_to("elsewhere")
    with pytest.raises(InvariantError):
        TokenLedger().require_live(ledger.mint("other", "desk"))


def test_a_second_token_is_never_minted() -> None:
    ledger = TokenLedger()
    ledger.mint("g", "desk").hand_to("host h1, task g")
    with pytest.raises(InvariantError, match="a second token for group g"):
        ledger.mint("g", "desk")


def test_the_audit_is_content_with_every_token_once() -> None:
    ledger = TokenLedger()
    tokens = [ledger.mint(name, "desk") for name in "abc"]
    ledger.audit(reversed(tokens))
    ledger.audit([tokens[0].hand_to("host"), *tokens[1:]])


def test_the_audit_finds_a_lost_token_and_says_where_it_was_last() -> None:
    ledger = TokenLedger()
    kept = ledger.mint("a", "desk")
    ledger.mint("b", "desk").hand_to("host h1, inbox")
    with pytest.raises(InvariantError, match="group b is lost; last at host h1, inbox"):
        ledger.audit([kept])


def test_the_audit_finds_a_token_in_two_places() -> None:
    ledger = TokenLedger()
    token = ledger.mint("a", "desk")
    with pytest.raises(InvariantError, match="group a is in two places"):
        ledger.audit([token, token])


def test_the_audit_finds_a_spent_handle_that_was_kept() -> None:
    ledger = TokenLedger()
    old = ledger.mint("a", "desk")
    new = old.hand_to("host")
    with pytest.raises(InvariantError, match="after it was handed on"):
        ledger.audit([old])
    with pytest.raises(InvariantError, match="after it was handed on"):
        ledger.audit([new, old])
