"""Defects that the simulator found, each with the shrunk scenario that showed it (`found/*.json`).

A scenario that was shrunk by the machine is kept as it came; the shortest were written by hand
after it.
"""

from __future__ import annotations

from pathlib import Path

from tests.simulation.model import Scenario

FOUND = Path(__file__).parent / "found"

WHAT_IT_FOUND = {
    "a_closed_port_while_it_is_fenced": (
        "Nothing: the oracle's own. A port that the probe of a fence found closed counted as a "
        "sign of life, and the next try of that fence came too soon for it."
    ),
    "a_closed_port_that_counts_as_death": (
        "Nothing: the oracle's own. Where a closed port counts as a dead host, it held such a port "
        "against the proof of a fence."
    ),
    "a_confirmation_as_the_manager_ends": (
        "A person said that a host is dark just as the manager ended. The answer did not say that "
        "the command may still take effect, and its record was written."
    ),
    "a_connection_that_ends_in_a_short_standstill": (
        "Nothing: the oracle's own. A connection ended while the manager stood still for 0.2 s. "
        "The manager's first step after that could not know of it yet."
    ),
    "a_confirmation_in_a_standstill": (
        "Nothing: the oracle's own. A person said that a host is dark while the manager stood "
        "still. The age of that word counts from when the manager could hear it."
    ),
    "a_copy_on_a_host_that_is_no_candidate": (
        "A group was seen running on two candidates, and on a host that is no candidate any more. "
        "The comment named that host, and `former_hosts` did not."
    ),
    "a_failure_of_another_group": (
        "The failed start of a shared resource for one group was taken for its own failure by "
        "another, which did not restart the resource when it stopped."
    ),
    "a_fence_for_a_group_that_is_elsewhere": (
        "A host was fenced also for the sake of a group for which it is no candidate any more, and "
        "which was proven stopped there."
    ),
    "a_look_that_nobody_told_the_group_task_of": (
        "A look that placement had asked for found a resource running after the group's task "
        "had begun with an older look, and the task started it."
    ),
    "a_lost_report_of_the_same_result": (
        "A root died right after it had been restarted, and the report of that got lost: it said "
        "the same as the one before the restart, so that the digest was the same, too, and the "
        "root stayed down for ever."
    ),
    "a_momentary_seven_that_nobody_asks_again": (
        "A resource that answered 7 once to a monitor of the manager's own, between two looks of "
        "the agent that watched it, was shown as stopped for ever while it ran."
    ),
    "a_monitor_that_fails_after_a_stop": (
        "A group was stopped to be started again, and the monitor after the stop of a leaf failed. "
        "The leaf was stopped again, and so on without a pause, as long as its monitor failed."
    ),
    "a_move_that_another_one_overtook": (
        "A group arrived where it was moved to while a failback waited for the disk. The record of "
        "the arrival came after that of the failback, and ended it, though it was answered as done."
    ),
    "a_need_from_before_the_connection": (
        "A host went away and came back. A group that had needed a shared resource there was found "
        "on another host. Its old need stayed on record, so that nothing stopped the resource."
    ),
    "a_partner_that_nobody_heard_of_since": (
        "A monitor that an old agent had not answered in time counted as its answer, and a "
        "host was fenced though its partner was out of reach, too."
    ),
    "a_record_behind_a_full_disk": (
        "A group was seen running, and its host was not told to manage it before the journal had "
        "a record of that. The disk was full, and the status gave no reason for the wait."
    ),
    "a_sample_from_long_before_the_start": (
        "A group that had waited for a minute and a half for proof on one host was started on "
        "the word of another from before that time."
    ),
    "a_standstill_that_was_cut_short": (
        "The oracle's own: the end of all faults cut a standstill of 12 s down to 0.3, and it "
        "wanted the silence of a host to count from there on only."
    ),
    "a_sign_of_life_that_a_fence_met": (
        "A host that was proven off was powered on and fenced again; the probe of that fence was "
        "answered, and before the fence had failed a group was started on the older proof."
    ),
    "accepted_while_the_fence_waits_for_the_disk": (
        "As `back_while_the_fence_waits_for_the_disk`, with a host that had connected just before "
        "the command, and whose first heartbeat was answered while the command waited."
    ),
    "an_error_that_nobody_asks_again": (
        "A monitor of the manager's own that timed out once stood as Error for ever beside the "
        "watching agent's unchanged word that all was well."
    ),
    "back_while_the_fence_waits_for_the_disk": (
        "A host came back while the intent of a fence command waited for the disk; the command "
        "failed, and the host, passed over on account of the fence, was never looked at."
    ),
    "cleanup_before_the_second_look": (
        "After a cleanup the group was managed where the first answer said that it ran, and "
        "completed there, before the other host's answer told of the second copy."
    ),
    "completed_beside_a_host_just_back": (
        "A group whose root somebody started on the partner was completed there, by S1's "
        "exception, while it ran on a host that had just come back and was not looked at yet."
    ),
    "ended_before_its_first_step": (
        "A manager that was told to end before its first step had minted no tokens, and a status "
        "that was asked of it then ended in a KeyError."
    ),
    "fence_limit_in_one_step": (
        "Two silent hosts of one group were judged before either counted, so that one fence more "
        "than the limit was made."
    ),
    "idle_host_in_a_storm": (
        "When every host fell silent together, one that was deactivated and idle was fenced all "
        "the same as soon as a candidate came back: the storm guard did not count its own silence."
    ),
    "nobody_tells_the_group_that_it_may_leave": (
        "A group on a deactivated host was not moved when the other candidate came back, because "
        "where an agent watches nothing wakes the group's task."
    ),
    "nobody_asks_while_a_fence_is_open": (
        "Nothing: the oracle's own. A manager that had just started asked a slow device about an "
        "open fence. Nobody asks the host meanwhile, and the oracle expected it to be called lost."
    ),
    "one_error_is_a_part_of_another": (
        "Nothing: the oracle's own. An error is told as it was recorded, and it took the words of "
        "one for new, since the error of another group was a part of it."
    ),
    "one_fence_level_is_enough": (
        "Nothing: the oracle's own. Of two fence levels that were asked, one said off and the "
        "other one did not, and the next question came too soon for it."
    ),
    "powered_on_again_after_its_answer": (
        "With `on_loss: reboot`, one device failed to switch a host on, and another one did it. "
        "The host answered, was off again, and was switched on by the next try."
    ),
    "an_answer_while_a_slow_device_is_asked": (
        "A host that answered while its slow device was asked after an off was not heard until the "
        "device had answered, most of a minute later, and the next death was judged without it."
    ),
    "an_answer_to_a_question_of_before_the_off": (
        "Nothing: the oracle's own. A device answered on to a question of before the off, after "
        "the off had ended, and the oracle took the off for undone."
    ),
    "a_fence_of_a_second_copy_after_a_standstill": (
        "Nothing: the oracle's own. The manager stood still for 77 s between the intent to fence a "
        "second copy and the off. The oracle had forgotten the second copy by then."
    ),
    "a_host_that_answered_a_fence_by_command": (
        "Nothing: the oracle's own. A host answered the probe of a fence by command and was then "
        "switched off. The oracle counted that as a third host that fell silent."
    ),
    "a_shared_leaf_that_the_other_group_left_meanwhile": (
        "A group that moved away left a shared resource running for another group. That group was "
        "found elsewhere while the first one was still stopping. Nobody stopped the resource."
    ),
    "an_unmanaged_group_that_gained_a_resource": (
        "An unmanaged group got a resource from another group, which still ran on another host. "
        "So the group counted as running elsewhere, and its own host was fenced on account of a "
        "third group."
    ),
    "a_host_that_answered_its_own_fence": (
        "Nothing: the oracle's own. A host answered the probe of its fence while the slow device "
        "was still asked, and counted as silent, since nobody asks it meanwhile."
    ),
    "a_standstill_as_the_manager_begins": (
        "A manager that stood still between its start and its first step counted that time as the "
        "silence of its hosts, and fenced one 2.2 s after it woke, with a budget of 3 s."
    ),
    "revoked_twice": (
        "A connection that ended in the step in which a group task had left killed the manager "
        "by a KeyError."
    ),
    "shared_stopped_for_a_newcomer": (
        "A group that moved to a host stopped a shared resource there to start it after its own "
        "root, while two other groups needed it."
    ),
    "spinning_group_task": (
        "A resource that waited for its dependents to stop kept its group's task spinning, with a "
        "whole core, for as long as they took."
    ),
    "a_service_given_to_a_group_that_runs": (
        "The config gave a resource to another group, whose root ran. The resource was started "
        "beside that root, in place, while it still ran on a host that had left the config."
    ),
    "a_shared_resource_of_a_group_not_looked_at": (
        "A manager that had just started stopped a shared resource for a group that was to stop, "
        "before it had looked at another group there, which ran and needed it."
    ),
    "a_stop_whose_fate_is_unknown": (
        "Nothing: the oracle's own. Nobody knew what became of a stop, and the start after it was "
        "refused on account of an error; it took the group for one that may not run, for ever."
    ),
    "a_silence_behind_a_fence": (
        "Nothing: the oracle's own. A host that had been fenced was powered on without its agent "
        "and died again, and it took that for a new silence, which made a storm of three."
    ),
    "standstill_while_connecting": (
        "A manager that stood still in the middle of a connection attempt counted its own "
        "standstill as the host's silence, and fenced it 44 ms after it woke."
    ),
    "started_again_beside_a_copy_out_of_sight": (
        "A group that ran on a host out of sight, and was started on its partner by hand, was "
        "started again there when it stopped, while the other copy ran."
    ),
    "started_by_hand_beside_a_dark_copy": (
        "Nothing: the oracle's own. Somebody started parts of a group on one host, and then on "
        "another. The fence of the first could not be confirmed. The manager waited for an "
        "operator and said so, and the oracle expected the group to run."
    ),
    "stopped_as_its_host_was_to_be_fenced": (
        "A host was fenced for the sake of a group that had been stopped, with an answer, "
        "since the decision."
    ),
    "the_taker_is_deactivated_before_the_off": (
        "A host was powered off for the sake of a group although the one candidate that could take "
        "it had been deactivated, with an answer, since the decision."
    ),
    "the_verdict_outlives_an_answer_between_two_levels": (
        "A host that answered between two fence levels, so that the fence was called off, and died "
        "again at once, was fenced by the verdict of before, two seconds after that answer."
    ),
    "two_results_in_one_report": (
        "Of a report of two results the first was acted on before the second was read: a root "
        "was started that the second showed to be running."
    ),
    "vouched_for_before_a_slow_disk": (
        "A host that the operator had seen dark counted as off from when the disk had written "
        "that down, not from when it was said."
    ),
}


def scenario_of(name: str) -> Scenario:
    """The scenario of one found defect."""
    return Scenario.from_json((FOUND / f"{name}.json").read_text())
