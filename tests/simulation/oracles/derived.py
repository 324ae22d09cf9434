"""One status agrees with itself: what is derived of other fields follows the documented rules.

Written from `docs/http_api.md` and `docs/lifecycles.md`; HALO (Rust)'s form of the status is
compared with ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.simulation.oracles.facts import Facts

if TYPE_CHECKING:
    from tests.simulation.world import World

RULE = "status"
RUNNING, FAILED_OVER, STOPPED, ERROR, UNKNOWN = (
    "Running",
    "Running (Failed Over)",
    "Stopped",
    "Error",
    "Unknown",
)
WELL = (RUNNING, FAILED_OVER)

FIRST_DECISION_S = 1.5
"""A manager that has just started waits for the disk before it decides."""


class DerivedOracle:
    """Checks the rows of one status against each other, and against the config."""

    def __init__(self, world: World) -> None:
        self.world = world

    def check(self, facts: Facts) -> None:
        """All rows of one status."""
        for row in facts.status["resources"]:
            self._row(row, facts)
        for group in facts.status["groups"]:
            self._group(group, facts)
        groups = self.world.cluster.groups.values()
        expected = {r.id for group in groups for r in group.resources}
        if set(facts.rows) != expected or len(facts.rows) != len(facts.status["resources"]):
            self._wrong("the cluster", "resources", sorted(facts.rows), sorted(expected))

    # --- resources ---------------------------------------------------------------------------

    def _row(self, row: dict[str, Any], facts: Facts) -> None:
        name, said = row["id"], {h: at["status"] for h, at in row["candidates"].items()}
        groups = [facts.groups[g] for g in row["groups"]]
        running = [host for host, status in said.items() if status == RUNNING]
        copies = [] if row["shared"] else facts.running_on(row["group"])
        status = self._overall({g["home_host"] for g in groups}, said, running)
        if len(copies) > 1:
            status = ERROR
        may_be_failed = (
            status == UNKNOWN and len(groups) == 1 and not facts.managed_on(row["group"])
        )
        if (
            status in (STOPPED, UNKNOWN)
            and not row["shared"]
            and facts.may_be_elsewhere(row["group"])
        ):
            may_be = {status, UNKNOWN, ERROR}  # the former hosts count, and say nothing of each
        else:
            may_be = {status, ERROR} if may_be_failed else {status}
        if row["status"] not in may_be:
            self._wrong(name, "status", row["status"], f"{status} of {said}")
        for what, told, follows in (
            ("hosts", row["hosts"], running),
            ("host", row["host"], running[0] if len(running) == 1 else None),
            ("managed", row["managed"], any(g["managed"] for g in groups)),
        ):
            if told != follows:
                self._wrong(name, what, told, follows)
        if list(said) != self._hosts_of(row, facts):
            self._wrong(name, "candidates", list(said), self._hosts_of(row, facts))
        self._row_comment(row, copies, facts)

    def _row_comment(self, row: dict[str, Any], copies: list[str], facts: Facts) -> None:
        comment, name = row["comment"] or "", row["id"]
        if len(copies) > 1 and f"running on {' and '.join(copies)} at once" not in comment:
            self._wrong(name, "comment", comment, f"two copies on {copies}")
        if len(copies) > 1:
            return
        for host, at in row["candidates"].items():
            why, status = at["comment"] or "", at["status"]
            if not why and status in (ERROR, UNKNOWN):
                self._wrong(f"{name} on {host}", "comment", at, "a reason")
            concerns = status == RUNNING if row["status"] in WELL else status in (ERROR, UNKNOWN)
            if why and concerns and why not in comment:
                self._wrong(name, "comment", comment, f"{why} on {host}")
        if row["status"] in (ERROR, UNKNOWN) and not comment:
            self._wrong(name, "comment", comment, "a reason")

    @staticmethod
    def _overall(homes: set[str], said: dict[str, str], running: list[str]) -> str:
        if running:
            return RUNNING if homes & set(running) else FAILED_OVER
        found = set(said.values())
        if found == {STOPPED}:
            return STOPPED
        return ERROR if ERROR in found else UNKNOWN

    def _hosts_of(self, row: dict[str, Any], facts: Facts) -> list[str]:
        if len(row["groups"]) == 1:
            return facts.candidates(row["group"])
        homes = [facts.groups[g]["home_host"] for g in row["groups"]]
        every = [host for g in row["groups"] for host in facts.candidates(g)]
        return list(dict.fromkeys([*homes, *every]))

    # --- groups ------------------------------------------------------------------------------

    def _group(self, group: dict[str, Any], facts: Facts) -> None:
        name, rows = group["id"], facts.rows_of[group["id"]]
        for host, presence in group["candidates"].items():
            said = {row["candidates"][host]["status"] for row in rows}
            if (RUNNING in said) != (presence == RUNNING) or (
                presence == STOPPED and UNKNOWN in said
            ):
                self._wrong(f"{name} on {host}", "presence", presence, said)
            if said == {STOPPED} and presence != STOPPED:
                self._wrong(f"{name} on {host}", "presence", presence, said)
        seen = next((row["host"] for row in rows if row["host"]), None)
        host = seen or facts.managed_on(name)
        if group["host"] != host:
            self._wrong(name, "host", group["host"], host)
        status = self._status(group, facts)
        if group["status"] != status:
            self._wrong(name, "status", group["status"], status)
        self._cannot_take(group, facts)
        self._group_comment(group, facts)
        self._waiting(group, facts)

    def _status(self, group: dict[str, Any], facts: Facts) -> str:
        said = {row["status"] for row in facts.rows_of[group["id"]]}
        if group["error"] is not None or ERROR in said:
            return ERROR
        status = next(iter(said)) if len(said) == 1 else UNKNOWN
        if status in WELL and group["host"] is not None:
            shared = {
                row["candidates"][group["host"]]["status"]
                for row in facts.rows.values()
                if row["shared"] and group["id"] in row["groups"]
            } - {RUNNING}
            if shared:
                return ERROR if ERROR in shared else UNKNOWN
        return status

    def _cannot_take(self, group: dict[str, Any], facts: Facts) -> None:
        name, told = group["id"], group["cannot_take"]
        for host in facts.candidates(name):
            might = host != group["host"] and facts.is_ready(host)
            failed = host in group["start_failures"]
            bad = any(row["candidates"][host]["status"] == ERROR for row in facts.rows_of[name])
            if host in told and not (might and (failed or bad)):
                self._wrong(name, "cannot_take", told, f"nothing of {host}")
            if might and failed and host not in told:
                self._wrong(name, "cannot_take", told, f"{host}, where its start failed")

    def _waiting(self, group: dict[str, Any], facts: Facts) -> None:
        """S13: a group that should run and does not has one reason, which is what is told."""
        name, waiting, comment = group["id"], group["waiting"], group["comment"] or ""
        managed_on = facts.managed_on(name)
        if waiting is None:
            is_placed = comment.startswith(("starting on ", "running on "))
            rests = managed_on is None and not facts.is_between(name)
            age_s = self.world.clock.now - self.world.oracle.fresh_at
            if (
                age_s > FIRST_DECISION_S
                and rests
                and group["wanted"] == "started"
                and not is_placed
            ):
                self._wrong(name, "waiting", None, f"a reason: {comment}")
            return
        if group["wanted"] != "started" or not waiting["ends_when"]:
            self._wrong(name, "waiting", waiting, "nothing: it should not run")
        if managed_on is None and waiting["text"] not in comment:
            self._wrong(name, "waiting", waiting, comment)
        held = facts.is_held(name)
        has_error = bool(group["error"] or group["start_failures"] or managed_on)
        if held is False and waiting["reason"] == "Held" and not has_error:
            self._wrong(name, "waiting", waiting, "no hold")
        if held and not facts.running_on(name) and waiting["reason"] != "Held":
            self._wrong(name, "waiting", waiting, "a hold comes first")

    def _group_comment(self, group: dict[str, Any], facts: Facts) -> None:
        comment, name = group["comment"] or "", group["id"]
        has_to_be_said = [group["error"] or "", *group["start_failures"].values()]
        for text in has_to_be_said:
            if text not in comment:
                self._wrong(name, "comment", comment, text)
        if any(has_to_be_said) and "halo cleanup" not in comment:
            self._wrong(name, "comment", comment, "the way out")
        managed_on = facts.managed_on(name)
        if managed_on is None:
            waits = group["status"] not in WELL and not facts.is_between(name)
            if waits and not comment:
                self._wrong(name, "comment", comment, "a reason")
            return
        if (
            group["managed"]
            and group["status"] in WELL
            and not group["error"]
            and "frozen" in comment
        ):
            self._wrong(name, "comment", comment, "no hold of the whole cluster: it runs well")
        for what in group["under_way"]:
            if f"{what} is under way" not in comment:
                self._wrong(name, "comment", comment, what)
        for host in group["cannot_take"]:
            if f"{host} cannot take it" not in comment and host not in group["start_failures"]:
                self._wrong(name, "comment", comment, f"{host} cannot take it")
        for row in facts.rows_of[name]:
            if row["status"] == ERROR and (row["comment"] or "") not in comment:
                self._wrong(name, "comment", comment, row["comment"])
            down = row["candidates"][managed_on] == {"status": STOPPED, "comment": None}
            if down and f"not running on {managed_on}: " not in comment:
                self._wrong(name, "comment", comment, f"{row['id']} does not run")

    # --- HALO's half ---------------------------------------------------------------------------

    def check_root(self, root: dict[str, Any], facts: Facts) -> None:
        """HALO (Rust)'s form says the same."""
        hosts = [
            {key: host[key] for key in ("id", "active", "connected", "fenced")}
            for host in facts.status["hosts"]
        ]
        if root["hosts"] != hosts:
            self._wrong("the cluster", "hosts of the root", root["hosts"], hosts)
        events = [{**e, "comment": e["comment"] or None} for e in facts.status["events"]]
        if root["events"] != events:
            self._wrong("the cluster", "events of the root", root["events"][-3:], events[-3:])
        if [row["id"] for row in root["resources"]] != list(facts.rows):
            self._wrong("the cluster", "resources of the root", root["resources"], "ours")
            return
        for told in root["resources"]:
            self._root_row(told, facts.rows[told["id"]], facts)

    def _root_row(self, told: dict[str, Any], ours: dict[str, Any], facts: Facts) -> None:
        name = told["id"]
        for key in ("kind", "parameters", "managed", "home_host", "dependents"):
            if told[key] != ours[key]:
                self._wrong(name, f"{key} of the root", told[key], ours[key])
        if told["exclusive"] == ours["shared"]:
            self._wrong(name, "exclusive", told["exclusive"], not ours["shared"])
        copies = [] if ours["shared"] else facts.running_on(ours["group"])
        if set(told["status"]) != set(ours["candidates"]):
            self._wrong(name, "hosts of the root", set(told["status"]), set(ours["candidates"]))
            return
        for host, at in told["status"].items():
            word, why = ours["candidates"][host]["status"], ours["candidates"][host]["comment"]
            if len(copies) > 1 and word == RUNNING:
                word, why = ERROR, f"running on {' and '.join(copies)} at once"
            if at["status"] != word or (why or "") not in (at["comment"] or ""):
                self._wrong(f"{name} on {host}", "status of the root", at, (word, why))
        candidates = facts.groups[ours["group"]]["failover_hosts"]
        expected = candidates[0] if candidates else None
        for word in (UNKNOWN, ERROR, RUNNING):  # the later one counts more
            found = [h for h in candidates if told["status"][h]["status"] == word]
            expected = found[0] if found else expected
        if told["failover_host"] != expected:
            self._wrong(name, "failover_host", told["failover_host"], expected)

    def _wrong(self, who: str, what: str, told: object, follows: object) -> None:
        self.world.violated(
            RULE, f"{who} is shown with {what}={told!r}, and it follows {follows!r}"
        )
