"""What to do with a group whose token no host holds: one pure function, asked after every change.

If the group runs somewhere, manage it there. If it is proven stopped everywhere, wanted and
managed, start it on the first candidate that can take it. Otherwise wait, and say why.

The caller looks up once what is known of the candidates. Each subject in
:mod:`halo.core.questions` is then asked once, in this order, and only if the answers before it
have not decided. What could bring a proof that is missing is the next question:
:mod:`halo.core.groups.proof_search`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from halo.core.cluster.candidate import Candidate
from halo.core.cluster.knowledge import Presence
from halo.core.cluster.state import ClusterState
from halo.core.model import HostId, ResourceGroup, StartFailurePolicy
from halo.core.questions import candidates, former, holds, proof

FIRST_LOOK_S = 3.0
"""How long a running group waits for the first probe of its other candidates. After that it is
managed, even if the monitor of a candidate hangs."""

RECHECK_S = 1.0
"""How soon to decide again if a decision waits for time to pass (limits, pauses)."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with a waiting group. At most one of `manage_on` and `start_on` is set."""

    reason: str = ""
    manage_on: HostId | None = None
    start_on: HostId | None = None
    second_copy: tuple[HostId, ...] = ()
    probe: tuple[HostId, ...] = ()
    unproven: tuple[HostId, ...] = ()  # the group waits for proof that it is stopped there
    recheck_s: float | None = None
    failed: bool = False
    at_rest: bool = False  # it should stay stopped, and is stopped on every candidate


def decide(
    state: ClusterState,
    group: ResourceGroup,
    seen: Sequence[Candidate],
    since: float,
    now: float,
) -> Decision:
    """Decide on a group whose token waits at the placer. `seen` is what is known now of its
    candidates, in order of preference. `since` is when this decision began."""
    looked_for = [*seen, *state.former_of(group)]
    running = [each for each in looked_for if each.presence is Presence.RUNNING]
    if running:
        return _running(running, looked_for, since, now)

    memory = state.memory_of(group)
    held = holds.standing_hold(state, group)
    if held is not None:
        return Decision(held, failed=memory.error is not None)

    beyond_reach = former.beyond_reach(state, group)
    to_prove = [*seen, *former.to_ask(state, group)]
    if not memory.wanted:
        doubtful = [each for each in to_prove if each.presence is not Presence.STOPPED]
        if not doubtful and beyond_reach is not None:
            return Decision(f"wanted stopped, but {beyond_reach}")
        if not doubtful:
            return Decision("stopped by the administrator", at_rest=True)
        off = [each for each in doubtful if each.at.is_proven_off]
        hosts = tuple(each.host for each in doubtful)
        text = f"wanted stopped, but may still run on {' and '.join(hosts)}"
        lacks = proof.lacking(state, off, since, now)
        return Decision(
            "; ".join([text, *lacks.values()]),
            unproven=hosts,
            recheck_s=RECHECK_S if off else None,
        )

    failures = memory.start_failures
    remedy = f"remove the cause, then run `halo cleanup {group.id}`"
    if failures and group.on_start_failure is StartFailurePolicy.STAY:
        return Decision(f"{'; '.join(failures.values())}; {remedy}", failed=True)

    if beyond_reach is not None:
        return Decision(beyond_reach)
    lacks = proof.lacking(state, to_prove, since, now)
    if lacks:
        in_sight = [each for each in to_prove if each.host in lacks and each.at.ready]
        return Decision(
            "; ".join(lacks.values()),
            probe=tuple([each.host for each in in_sight if each.answered_since < since]),
            unproven=tuple(lacks),
            recheck_s=RECHECK_S,
        )

    why_not = {each.host: candidates.unavailable(state, each) for each in seen}
    able = [host for host, reason in why_not.items() if reason is None]
    if able:
        target = memory.move_target if memory.move_target in able else able[0]
        return Decision(f"starting on {target}", start_on=target)
    text = "no host can take it: " + "; ".join(filter(None, why_not.values()))
    return Decision(f"{text}; {remedy}" if failures else text, failed=bool(failures))


def _running(
    running: Sequence[Candidate], seen: Sequence[Candidate], since: float, now: float
) -> Decision:
    """The group is seen running on one host: manage it there after a first probe of the others.

    A host that manages the group may complete it in place (S1). After a cleanup, or when several
    hosts connect at once, the answer that shows a second copy may come some milliseconds later."""
    here = running[0]
    if len(running) > 1:
        copies = tuple(copy.host for copy in running)
        return Decision(
            f"running on {' and '.join(copies)} at once; make sure that at most one copy runs, "
            f"then run `halo cleanup {here.group.id}`",
            second_copy=copies,
            failed=True,
        )
    if here.host not in here.group.candidates:
        return Decision(former.runs_there(here.group, here.host), failed=True)
    if not here.at.ready:
        return Decision(f"{here.host} is being fenced")
    if now - since < FIRST_LOOK_S:
        unseen = tuple(
            other.host
            for other in seen
            if other is not here and other.at.ready and not other.was_looked_at
        )
        if unseen:
            text = f"running on {here.host}; HALO has to probe {', '.join(unseen)} first"
            return Decision(text, probe=unseen, recheck_s=RECHECK_S)
    return Decision(f"running on {here.host}", manage_on=here.host)
