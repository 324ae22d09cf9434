"""A command is refused where the documented rules refuse it (S8), and its reason is true.

A refusal is compared with the status of that step. What was done is compared with the status of
the step that heard the command: only commands that nothing else could change meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.simulation.oracles.facts import Facts, Maybe, all_of, any_of, no
from tests.simulation.oracles.phrases import untrue

if TYPE_CHECKING:
    from tests.simulation.operator import Pending
    from tests.simulation.world import World

RULE = "S8"
TAKES_EFFECT_LATE = "takes effect if"
WAITING = frozenset({"move", "failback", "fence", "deactivate"})
"""They depend on where groups can start, and may wait some seconds for candidates that are just
being probed."""


class CommandOracle:
    """Judges each answer to the operator."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._heard: dict[Pending, Facts | None] = {}

    def heard(self, entry: Pending, status: dict[str, Any] | None) -> None:
        """The manager hears a command. The status is given if nothing else is under way."""
        self._heard[entry] = None if status is None else self._facts(status)

    def _facts(self, status: dict[str, Any]) -> Facts:
        return Facts(status, self.world.oracles.memory.book.elsewhere())

    def gone(self, entry: Pending) -> None:
        """It gets no answer any more."""
        self._heard.pop(entry, None)

    def answered(self, entry: Pending, error: Exception | None, text: str, now: Any) -> None:
        """The answer to a command. `now`: the status of this step."""
        before = self._heard.pop(entry)
        after, kind = self._facts(now), "" if error is None else type(error).__name__
        self.world.oracle.checks += 1
        if self.world.manager_is_away():
            return  # it is ending
        if not text.strip() or text.endswith(": "):
            self._wrong(entry, "no reason is given")
        named = {entry.object} if entry.name == "confirm-stopped" else {entry.object, entry.to}
        unknown = named - {"", *after.groups, *after.hosts}
        lifts = entry.name in ("cleanup", "confirm-stopped")  # also of a group that was removed
        is_done = kind == "" and not lifts
        if (unknown and is_done) or (not unknown and kind == "UnknownObject"):
            self._wrong(entry, f"the config lacks {sorted(unknown)}, and said: {text}")
        if unknown:
            return
        if kind in ("CommandRefused", "BadRequest"):
            self._refused(entry, text, after)
        elif kind == "" and before is not None:
            self._done(entry, text, before, after)

    def _refused(self, entry: Pending, text: str, facts: Facts) -> None:
        if "is just ending" in text and entry.name != "confirm-off":
            self._wrong(entry, f"no other command says so: {text}")
        if self.must_be_refused(entry, facts) is False and not self._is_late(text):
            self._wrong(entry, f"refused, and possible: {text}")
        for who, phrase in untrue(text, facts):
            self._wrong(entry, f"the reason is not true of {who or 'anything'} ({phrase}): {text}")

    @staticmethod
    def _is_late(text: str) -> bool:
        return "ending" in text or TAKES_EFFECT_LATE in text

    def _done(self, entry: Pending, text: str, before: Facts, after: Facts) -> None:
        must = self.must_be_refused(entry, before)
        if entry.name == "fence":  # what it would strand is asked at its first off
            at = before.hosts[entry.object]
            must = not at["fence_agents"] or not at["fence_trusted"]
            must = must or (at["fenced"] and not entry.force)
        still = entry.name not in WAITING - {"fence"} or self._still(entry, before, after)
        if must and still:
            self._wrong(entry, f"done, where it has to be refused: {text}")
        self._check_words(entry, text, before, after)
        self._check_still_running(entry, text, after)
        if not self.world.oracles.has_pending():
            self._check_effect(entry, text, before, after)

    def _still(self, entry: Pending, before: Facts, after: Facts) -> bool:
        """Did nothing happen meanwhile that makes another answer right?"""
        return bool(self.must_be_refused(entry, after))

    # --- what the documents say ----------------------------------------------------------------

    def must_be_refused(self, entry: Pending, facts: Facts) -> Maybe:
        """Has the command to be refused, as the status is? None: the status does not tell."""
        if entry.name == "clear_events":
            return False
        if facts.manager["mode"] == "observe":
            return True
        rule = getattr(self, f"_{entry.name.replace('-', '_')}", None)
        if rule is None or (entry.name in WAITING and self._is_in_doubt(entry.object, facts)):
            return None
        found: Maybe = rule(entry, facts)
        return found

    @staticmethod
    def _is_in_doubt(name: str, facts: Facts) -> bool:
        """Is it about a group for which more hosts count than its candidates?"""
        return any(
            facts.may_be_elsewhere(group)
            for group in facts.groups
            if group == name or name in facts.candidates(group) or name in facts.former(group)
        )

    def _manage(self, entry: Pending, facts: Facts) -> Maybe:
        return False

    _unmanage = _activate = _freeze = _thaw = _manage

    def _start(self, entry: Pending, facts: Facts) -> Maybe:
        group = facts.groups[entry.object]
        is_in_error = bool(group["error"] or group["start_failures"])
        told_already = group["wanted"] == "started"
        return not group["managed"] or facts.manager["frozen"] or (told_already and is_in_error)

    def _stop(self, entry: Pending, facts: Facts) -> Maybe:
        group = facts.groups[entry.object]
        is_held = group["wanted"] == "stopped" and group["error_kind"] == "stop-failed"
        return not group["managed"] or facts.manager["frozen"] or is_held

    def _cleanup(self, entry: Pending, facts: Facts) -> Maybe:
        return not facts.groups[entry.object]["managed"]

    def _reset(self, entry: Pending, facts: Facts) -> Maybe:
        at = facts.hosts[entry.object]
        nothing = not at["fenced"] and at["fence_trusted"]
        return facts.is_fencing(entry.object) or nothing

    def _move(self, entry: Pending, facts: Facts) -> Maybe:
        return self._cannot_move(entry.object, entry.to, facts)

    def _cannot_move(self, name: str, target: str, facts: Facts) -> Maybe:
        group = facts.groups[name]
        if target not in facts.candidates(name):
            return True
        firm = group["wanted"] == "stopped" or group["error"] is not None
        held = any_of(facts.is_held(name), firm)
        here = facts.where(name)
        if here == target:
            nothing_to_take_back = group["move_target"] in (None, target)
            return any_of(held, nothing_to_take_back)
        obstacle: Maybe = False if here is None else no(facts.can_leave(name, here))
        return any_of(held, no(facts.can_take(name, target)), obstacle)

    def _failback(self, entry: Pending, facts: Facts) -> Maybe:
        host = entry.object
        away = [
            name
            for name, group in facts.groups.items()
            if group["home_host"] == host and facts.where(name) not in (None, host)
        ]
        if not away:
            at = facts.hosts[host]
            return not at["connected"] or not at["active"]
        return all_of(*(self._cannot_move(name, host, facts) for name in away))

    def _deactivate(self, entry: Pending, facts: Facts) -> Maybe:
        host = entry.object
        if entry.force or not facts.hosts[host]["active"]:
            return False
        return any_of(
            *(
                self._keeps_active(name, host, facts)
                for name in facts.groups
                if host in facts.candidates(name)
            )
        )

    def _keeps_active(self, name: str, host: str, facts: Facts) -> Maybe:
        others = [h for h in facts.candidates(name) if h != host and facts.hosts[h]["active"]]
        if not others:
            return True
        is_here = facts.where(name) == host and facts.groups[name]["managed"]
        if not is_here:
            return False
        return no(all_of(facts.has_taker(name, host), facts.can_leave(name, host)))

    def _fence(self, entry: Pending, facts: Facts) -> Maybe:
        at = facts.hosts[entry.object]
        always = not at["fence_agents"] or not at["fence_trusted"]
        if facts.is_fencing(entry.object) or always:
            return True
        if entry.force:
            return False
        if at["fenced"]:
            return True
        mine = [name for name in facts.groups if entry.object in facts.candidates(name)]
        return any_of(*(self._keeps_power(name, entry.object, facts) for name in mine))

    def _keeps_power(self, name: str, host: str, facts: Facts) -> Maybe:
        group = facts.groups[name]
        if not group["managed"]:
            if host in facts.running_on(name):
                return True
            known_elsewhere = [h for h in facts.running_on(name) if h != host]
            gone = facts.is_ready(host) and group["candidates"][host] == "Stopped"
            return False if known_elsewhere or gone else None  # where was it last seen?
        if facts.managed_on(name) != host or group["wanted"] == "stopped":
            return False
        return no(all_of(facts.has_taker(name, host), facts.can_leave(name, host)))

    def _confirm_off(self, entry: Pending, facts: Facts) -> Maybe:
        state = facts.hosts[entry.object]["state"]
        if state in ("fencing", "connected"):
            return True
        if state == "suspect" or entry.force:
            return False
        return None  # something may answer at its address

    def _cancel_fence(self, entry: Pending, facts: Facts) -> Maybe:
        state = facts.hosts[entry.object]["state"]
        return None if state == "fencing" else state != "fence failed"

    # --- what the answer says ----------------------------------------------------------------

    def _check_words(self, entry: Pending, text: str, before: Facts, after: Facts) -> None:
        """What an answer says of what was there before."""
        name = entry.object
        if entry.name in ("start", "stop"):
            same = before.groups[name]["wanted"] == ("started" if entry.name == "start" else
                                                     "stopped")  # fmt: skip
            said_same = "was told to" in text or "is stopped already" in text
            if same != said_same:
                self._wrong(entry, f"wanted was {before.groups[name]['wanted']}, and said: {text}")
            at_rest = set(before.groups[name]["candidates"].values()) == {"Stopped"}
            if "is stopped already" in text and not at_rest:
                self._wrong(entry, f"not known to be stopped, and said: {text}")
        elif entry.name in ("manage", "unmanage"):
            self._said_already(entry, text, before.groups[name]["managed"], entry.name == "manage")
        elif entry.name in ("freeze", "thaw"):
            same = before.manager["frozen"] == (entry.name == "freeze")
            if same != ("frozen already" in text or text == "not frozen"):
                self._wrong(entry, f"frozen was {before.manager['frozen']}, and said: {text}")
        elif entry.name == "activate" or (entry.name == "deactivate" and entry.force):
            self._said_already(entry, text, before.hosts[name]["active"], entry.name == "activate")
        elif entry.name == "failback" and "runs elsewhere" in text:
            away = [
                g
                for g, found in before.groups.items()
                if found["home_host"] == name
                and not before.may_be_elsewhere(g)
                and all(facts.where(g) not in (None, name) for facts in (before, after))
            ]
            if away and not any(before.is_between(g) for g in away):
                self._wrong(entry, f"{away} were elsewhere, and said: {text}")

    def _check_still_running(self, entry: Pending, text: str, after: Facts) -> None:
        """What an answer says of what still runs."""
        if self.world.was_away(self.world.clock.now):
            return  # what was decided as it woke has not left yet
        told = text.partition("; still running: ")[2].split("; ")[0]
        known = {what for group in after.groups.values() for what in group["under_way"]}
        for what in filter(None, told.split(", ")):
            host = what.removeprefix("fencing ")
            is_true = after.is_fencing(host) if host in after.hosts else what in known
            if not is_true:
                self._wrong(entry, f"{what} does not run, and said: {text}")

    def _check_effect(self, entry: Pending, text: str, before: Facts, after: Facts) -> None:
        """What was done is done."""
        group, host = after.groups.get(entry.object, {}), after.hosts.get(entry.object, {})
        if entry.name == "cleanup":  # what failed since is another error
            was = before.groups[entry.object]
            failed = group["start_failures"].items() & was["start_failures"].items()
            if failed or (group["error"] and group["error"] == was["error"]):
                self._wrong(entry, f"it is in error still: {group['error']} {failed}")
        elif entry.name == "reset" and (host["fenced"] or not host["fence_trusted"]):
            self._wrong(entry, "it is fenced, or not trusted, still")
        elif entry.name in ("fence", "confirm-off") and not host["fenced"]:
            self._wrong(entry, "it does not count as fenced")
        elif entry.name == "cancel-fence" and host["state"] == "fencing":
            self._wrong(entry, "it is being fenced still")
        elif entry.name == "move" and group["move_target"] != entry.to:
            if after.where(entry.object) != entry.to and not group["error"]:
                self._wrong(entry, f"it moves to {group['move_target']}")
        elif entry.name == "failback" and text.startswith("moving to"):
            for name in text.partition(": ")[2].split(", "):
                if after.groups[name]["home_host"] != entry.object:
                    self._wrong(entry, f"{name} is not at home there, and said: {text}")
        elif entry.name == "deactivate":
            self._check_who_leaves(entry, text, after)

    def _check_who_leaves(self, entry: Pending, text: str, after: Facts) -> None:
        leaving = text.partition("moving away: ")[2].split(";")[0].split(", ")
        for name, group in after.groups.items():
            is_here = after.managed_on(name) == entry.object and group["wanted"] == "started"
            leaves, stays = name in leaving, f"{name} (" in text.partition("staying here: ")[2]
            if is_here != (leaves or stays) or (leaves and stays):
                self._wrong(entry, f"{name} is there: {is_here}, and said: {text}")
            if leaves and (after.is_held(name) or group["error_kind"]):
                self._wrong(entry, f"{name} is held, and said: {text}")
            if stays and not after.is_held(name) and not group["error"] and all_of(
                after.has_taker(name, entry.object), after.can_leave(name, entry.object),
                after.is_held(name) is False,
            ):  # fmt: skip
                self._wrong(entry, f"{name} can leave, and said: {text}")

    def _said_already(self, entry: Pending, text: str, was: bool, wanted: bool) -> None:
        if (was == wanted) != (" already" in text):
            self._wrong(entry, f"it was {was}, and said: {text}")

    def _wrong(self, entry: Pending, text: str) -> None:
        what = f"{entry.name} {entry.object} {entry.to}".rstrip()
        self.world.violated(RULE, f"{what}{' --force' if entry.force else ''}: {text}")
