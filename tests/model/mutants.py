"""Weakenings of the model, one line each: TLC has to find a counterexample to every one.

A property that nothing can break says nothing. Each mutant takes one guard or one effect away, as a
mistake in the manager would. `found` names the property that TLC finds broken first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.model.tlc import HERE


@dataclass(frozen=True)
class Mutant:
    """One line of Halo.tla, and what it becomes."""

    name: str
    rule: str
    line: str
    becomes: str
    found: str
    config: str = "pair"
    constants: Mapping[str, str] = field(default_factory=dict)

    def applied(self) -> str:
        """The weakened module. Raises ValueError unless the line stands there exactly once."""
        text = (HERE / "Halo.tla").read_text(encoding="utf-8")
        if text.count(self.line) != 1:
            raise ValueError(f"{self.name}: {text.count(self.line)} times: {self.line}")
        return text.replace(self.line, self.becomes)


_FEW = {"Faults": "2"}
_THREE_HOSTS = {"Hosts": "{h1, h2, h3}", "Faults": "1"}
_WRONG_WIRE = {"Miswired": "{h1}", "Faults": "2"}

MUTANTS = (
    Mutant(
        "one_proof_is_enough",
        "S1",
        r"ProvenElsewhere(g, h) == \A o",
        r"ProvenElsewhere(g, h) == \E o",
        "AtMostOnce",
        constants=_THREE_HOSTS,
    ),
    Mutant(
        "a_connection_leaves_the_power_proof",
        "S1",
        r"""/\ KnowNothingOf(h) /\ proof' = [proof EXCEPT ![h] = "none"]""",
        r"/\ KnowNothingOf(h) /\ proof' = proof",
        "ProofsAreTrue",
    ),
    Mutant(
        "a_closed_port_leaves_no_doubt",
        "S1",
        r"""    /\ proof' = [proof EXCEPT ![h] = IF @ = "good" THEN "old" ELSE @]
    /\ UNCHANGED <<machines, cut, paper, faults, tasks, fence, mem>>

Disconnect""",
        r"""    /\ proof' = proof
    /\ UNCHANGED <<machines, cut, paper, faults, tasks, fence, mem>>

Disconnect""",
        "ProofsAreTrue",
        constants={"Faults": "4"},
    ),
    Mutant(
        "an_answer_from_before_a_sign_of_life_counts",
        "S1",
        r"""    /\ IF word[h] = "off" /\ proof[h] # "none" """.rstrip(),
        r"""    /\ IF proof[h] # "none" """.rstrip(),
        "ProofsAreTrue",
        constants={"Faults": "4"},
    ),
    Mutant(
        "a_power_proof_never_grows_old",
        "S1",
        r"""fence[h] = "none" /\ proof[h] = "good" """.rstrip(),
        r"""fence[h] = "none" /\ proof[h] # "none" """.rstrip(),
        "ProofsAreTrue",
        constants={"Faults": "4"},
    ),
    Mutant(
        "a_restart_believes_its_old_proof",
        "S1",
        r"""IF disk.note[h] = "off" THEN "old" ELSE""",
        r"""IF disk.note[h] = "off" THEN "good" ELSE""",
        "ProofsAreTrue",
        constants={"Faults": "4"},
    ),
    Mutant(
        "monitors_from_before_the_decision_count",
        "S1",
        r"""    /\ know' = [know EXCEPT ![g] = ForHosts("unknown")]""",
        r"    /\ know' = know",
        "ProofsAreTrue",
    ),
    Mutant(
        "a_token_is_handed_out_and_kept",
        "S2",
        r"holder' = [holder EXCEPT ![g] = (@ \ {Desk}) \cup {h}]",
        r"holder' = [holder EXCEPT ![g] = @ \cup {h}]",
        "OneToken",
        constants=_FEW,
    ),
    Mutant(
        "a_token_is_lost_on_its_way_home",
        "S2",
        r"holder' = [holder EXCEPT ![g] = (@ \ {h}) \cup {Desk}]",
        r"holder' = [holder EXCEPT ![g] = @ \ {h}]",
        "OneToken",
        constants=_FEW,
    ),
    Mutant(
        "a_fence_is_recorded_before_the_device_has_looked",
        "S3",
        r"""    /\ fence[h] = "asking" /\ word[h] \in {"off", "void"}
    /\ host[h]""",
        r"""    /\ fence[h] = "asking"
    /\ host[h]""",
        "RecordedOnlyWhenConfirmed",
        constants=_FEW,
    ),
    Mutant(
        "the_agent_is_not_asked",
        "S3",
        r"""    /\ host[h] # "up"               \* its agent does not answer""",
        r"    /\ TRUE",
        "RecordedOnlyWhenConfirmed",
        constants=_WRONG_WIRE,
    ),
    Mutant(
        "a_restart_forgets_an_open_intent",
        "S3",
        r"""fence' = [h \in Hosts |-> IF disk.note[h] = "intent" THEN "asking" ELSE "none"]""",
        r"""fence' = ForHosts("none")""",
        "OpenIntentsAreKept",
        constants=_FEW,
    ),
    Mutant(
        "off_before_the_intent_is_on_the_disk",
        "S3",
        r"""/\ (SlowDisk \/ disk.note[h] = "intent")""",
        r"",
        "OpenIntentsAreKept",
        constants=_FEW,
    ),
    Mutant(
        "an_unmanaged_group_is_started",
        "S4",
        r"    /\ mem.managed[g]                                   \* S4",
        r"    /\ TRUE",
        "UnmanagedIsLeftAlone",
        constants=_FEW,
    ),
    Mutant(
        "off_without_another_look_at_what_forbids_it",
        "S4",
        r"""fence[h] = "intent" /\ h \notin conn /\ MayPowerOff(h))""",
        r"""fence[h] = "intent" /\ h \notin conn)""",
        "OffOnlyWhenAllowed",
        constants=_FEW,
    ),
    Mutant(
        "off_although_the_host_answers_again",
        "S3",
        r"""fence[h] = "intent" /\ h \notin conn /\ MayPowerOff(h))""",
        r"""fence[h] = "intent" /\ MayPowerOff(h))""",
        "OffOnlyWhenAllowed",
        constants=_FEW,
    ),
    Mutant(
        "a_command_is_answered_before_it_is_on_the_disk",
        "S7",
        r"Record(m) == mem' = m /\ disk' = m ",
        r"Record(m) == mem' = m /\ disk' = disk ",
        "ToldIsKept",
        constants=_FEW,
    ),
    Mutant(
        "a_cancelled_fence_begins_again",
        "S7",
        r"""/\ mem.note[h] # "cancelled" /\ MayPowerOff(h)""",
        r"/\ MayPowerOff(h)",
        "ToldIsKept",
    ),
    Mutant(
        "an_old_proof_is_never_renewed",
        "forgotten",
        r"""    /\ proof[h] = "old" /\ h \notin conn""",
        r"    /\ FALSE",
        "NotForgotten",
        "live",
    ),
    Mutant(
        "a_silent_host_is_never_fenced",
        "forgotten",
        r"""    /\ mem.note[h] # "cancelled" /\ MayPowerOff(h)""",
        r"    /\ FALSE",
        "NotForgotten",
        "live",
    ),
    Mutant(
        "what_was_known_outlives_the_connection",
        "forgotten",
        r"/\ KnowNothingOf(h) /\ UNCHANGED <<machines, devices, paper, holder, fence, proof, mem>>",
        r"/\ know' = know /\ UNCHANGED <<machines, devices, paper, holder, fence, proof, mem>>",
        "NotForgotten",
        "live",
    ),
)
