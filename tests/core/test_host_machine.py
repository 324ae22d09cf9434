"""The host task's decisions: where a token is, and when the link may connect again."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from halo.core.errors import InvariantError
from halo.core.groups.actions import Left
from halo.core.hosts.machine import (
    ChildLeft,
    HostMachine,
    LinkDown,
    LinkUp,
    ManageOrder,
    Phase,
    Recall,
    Released,
    RevokeChild,
    SendHome,
    StartChild,
    TokenArrived,
)
from halo.core.tokens import ResourceToken, TokenLedger

ORDER = ManageOrder(epoch=1, since=10.0)


def token(group: str) -> ResourceToken:
    return TokenLedger().mint(group, "host h, inbox")


def connected(*groups: str) -> tuple[HostMachine, dict[str, ResourceToken]]:
    """A connected host with a child for each of these groups."""
    machine = HostMachine("h")
    machine.handle(LinkUp(1))
    tokens = {group: token(group) for group in groups}
    for held in tokens.values():
        assert machine.handle(TokenArrived(held, ORDER)) == [StartChild(held, ORDER)]
    return machine, tokens


def left(held: ResourceToken, why: Left = Left.REVOKED) -> ChildLeft:
    return ChildLeft(held, why, "said so", 20.0)


def test_a_token_that_arrives_while_disconnected_goes_straight_home() -> None:
    machine, held = HostMachine("h"), token("g")
    [action] = machine.handle(TokenArrived(held, ORDER))
    assert isinstance(action, SendHome)
    assert action.token is held
    assert (action.why, action.since) == (Left.REVOKED, 10.0)
    assert machine.children == set()


def test_a_token_sent_over_an_older_connection_goes_straight_home() -> None:
    machine, _ = connected()
    machine.handle(LinkDown("gone"))
    machine.handle(LinkUp(2))
    [action] = machine.handle(TokenArrived(token("g"), ORDER))
    assert isinstance(action, SendHome)


def test_a_token_that_arrives_while_leaving_goes_straight_home() -> None:
    machine, _ = connected("f")
    machine.handle(LinkDown("gone"))
    [action] = machine.handle(TokenArrived(token("g"), ORDER))
    assert isinstance(action, SendHome)
    assert machine.children == {"f"}


def test_a_child_that_leaves_sends_its_token_home_with_its_reason() -> None:
    machine, tokens = connected("f", "g")
    assert machine.handle(left(tokens["g"], Left.STOPPED)) == [
        SendHome(tokens["g"], Left.STOPPED, "said so", 20.0)
    ]
    assert (machine.phase, machine.children) == (Phase.CONNECTED, {"f"})


def test_with_a_lost_connection_every_child_is_revoked_and_the_last_one_home_frees_the_link() -> (
    None
):
    machine, tokens = connected("g", "f")
    assert machine.handle(LinkDown("gone")) == [RevokeChild("f", "gone"), RevokeChild("g", "gone")]
    assert str(machine.phase) == str(Phase.LEAVING)
    assert Released() not in machine.handle(left(tokens["f"]))
    assert machine.handle(left(tokens["g"]))[-1] == Released()
    assert machine.phase is Phase.DISCONNECTED


def test_a_lost_connection_without_children_frees_the_link_at_once() -> None:
    machine, _ = connected()
    assert machine.handle(LinkDown("gone")) == [Released()]
    assert machine.handle(LinkDown("gone")) == []  # said once


def test_a_connection_before_the_last_child_is_home_is_a_defect() -> None:
    machine, _ = connected("g")
    machine.handle(LinkDown("gone"))
    with pytest.raises(InvariantError, match="connected while it was leaving"):
        machine.handle(LinkUp(2))
    with pytest.raises(InvariantError, match="connected while it was connected"):
        connected()[0].handle(LinkUp(2))


def test_a_second_token_of_a_group_is_a_defect() -> None:
    machine, _ = connected("g")
    with pytest.raises(InvariantError, match="a second token of g arrived at h"):
        machine.handle(TokenArrived(token("g"), ORDER))


def test_a_recall_revokes_a_child_and_ignores_what_is_not_here() -> None:
    machine, _ = connected("g")
    assert machine.handle(Recall("g", "cleanup")) == [RevokeChild("g", "cleanup")]
    assert machine.handle(Recall("other", "cleanup")) == []


class Tokens(RuleBasedStateMachine):
    """Whatever the order of events: no token is kept twice, dropped, or left behind."""

    @initialize()
    def begin(self) -> None:
        self.machine = HostMachine("h")
        self.ledger = TokenLedger()
        self.home = {name: self.ledger.mint(name, "desk") for name in "abc"}
        self.inbox: list[TokenArrived] = []
        self.children: dict[str, ResourceToken] = {}
        self.link_is_up = False
        self.released = True
        self.epoch = 0

    def carry_out(self, event: LinkUp | LinkDown | TokenArrived | ChildLeft | Recall) -> None:
        for action in self.machine.handle(event):
            match action:
                case StartChild():
                    assert self.link_is_up
                    assert action.order.epoch == self.epoch
                    self.children[action.token.group] = action.token.hand_to("child")
                case SendHome():
                    self.home[action.token.group] = action.token.hand_to("desk")
                case RevokeChild():
                    assert action.group in self.children
                case Released():
                    assert not self.children
                    self.released = True
        held = [*self.home.values(), *self.children.values()]
        self.ledger.audit([*held, *(message.token for message in self.inbox)])

    @precondition(lambda self: not self.link_is_up and self.released)
    @rule()
    def the_link_comes_up(self) -> None:
        self.epoch += 1
        self.link_is_up, self.released = True, False
        self.carry_out(LinkUp(self.epoch))

    @precondition(lambda self: self.link_is_up)
    @rule()
    def the_link_goes_down(self) -> None:
        self.link_is_up = False
        self.carry_out(LinkDown("gone"))

    @precondition(lambda self: self.home)
    @rule(which=st.integers(0, 2), older=st.booleans())
    def the_desk_hands_a_token_out(self, which: int, older: bool) -> None:
        group = sorted(self.home)[which % len(self.home)]
        order = ManageOrder(self.epoch - older, 1.0)
        self.inbox.append(TokenArrived(self.home.pop(group).hand_to("inbox"), order))

    @precondition(lambda self: self.inbox)
    @rule()
    def the_token_arrives(self) -> None:
        self.carry_out(self.inbox.pop(0))

    @precondition(lambda self: self.children)
    @rule(which=st.integers(0, 2), why=st.sampled_from(Left))
    def a_child_leaves(self, which: int, why: Left) -> None:
        group = sorted(self.children)[which % len(self.children)]
        self.carry_out(ChildLeft(self.children.pop(group).hand_to("inbox"), why, "", 1.0))

    @rule(group=st.sampled_from("abc"))
    def a_recall(self, group: str) -> None:
        self.carry_out(Recall(group, "afresh"))

    def teardown(self) -> None:
        """From any state, a lost link brings every token home."""
        if not hasattr(self, "machine"):
            return
        while self.inbox:
            self.the_token_arrives()
        if self.link_is_up:
            self.the_link_goes_down()
        while self.children:
            self.a_child_leaves(0, Left.REVOKED)
        assert set(self.home) == set("abc")
        assert self.released


TestTokensAreNeverLost = Tokens.TestCase
