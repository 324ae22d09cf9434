"""One run of chaos: the plan is carried out, everything is mended, and the judge is asked."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from tests.hosts.chaos import judge, story
from tests.hosts.chaos.faults import Faults, Skipped
from tests.hosts.chaos.operator import Operator, first_line
from tests.hosts.chaos.schedule import COMMANDS, Act, plan
from tests.hosts.chaos.site import PAIRS, Site
from tests.hosts.cluster import Status
from tests.hosts.services import rows_acknowledged, rows_found
from tests.hosts.world import MANAGER, json_lines

TICK_S = 0.05
LOOK_S = 0.5
SETTLE_S = 90.0
"""All groups run again so soon after the last fault; of that the operator may wait 14 s, and the
manager 15 s for a storm to be over."""
HOME_S = 60.0
SERVED_S = 10.0
ACTS_END_S = 120.0


class Chaos:
    """A run. `problems` is what was wrong, as far as it is known."""

    def __init__(self, seed: int, seconds: float, name: str) -> None:
        self.seed = seed
        self.seconds = seconds
        self.site = Site(name)
        self.world = self.site.world
        self.cluster = self.site.cluster
        self.timeline = story.Timeline(self.world.logs / "timeline.txt")
        self.say = self.timeline.say
        self.problems: list[str] = []
        self.counts: Counter[str] = Counter()
        self.courses: dict[str, story.Course] = {}
        self._world_log = story.Follower(self.world.logs / "world_log")
        self._begun = self._ended = 0.0

    def run(self) -> list[str]:
        """All of it; the problems, none where all was well."""
        self.say("run", f"seed {self.seed}, {self.seconds / 60:g} min; logs: {self.world.logs}")
        with self.world, ThreadPoolExecutor(32) as pool:
            self.site.start()
            self.say("run", "all is at home and served")
            self.courses = {group: story.Course() for group in self.site.homes}
            self._tell_seen()
            faults = Faults(self.site)
            operator = Operator(self.site, faults, self.say, self.seed, pool)
            self._carry_out(faults, operator, pool)
            self._settle(operator)
            self.problems += operator.problems
            self._judge(faults)
            self._summarise(operator)
        return self.problems

    # --- the plan ------------------------------------------------------------------------------

    def _carry_out(self, faults: Faults, operator: Operator, pool: ThreadPoolExecutor) -> None:
        acts = plan(self.seed, self.seconds, PAIRS)
        self._begun = self.timeline.begun = time.time()
        futures: list[Future[None]] = []

        def over() -> bool:
            while acts and self._begun + acts[0].at_s <= time.time():
                futures.append(pool.submit(self._do, acts.pop(0), faults, operator))
            return not acts and all(future.done() for future in futures)

        if not self._until(over, self.seconds + ACTS_END_S, operator):
            self.problems.append("the faults did not end")
        wait(futures, ACTS_END_S)
        self._ended = time.time()
        self.say("run", "no more faults")

    def _do(self, act: Act, faults: Faults, operator: Operator) -> None:
        try:
            if act.kind in COMMANDS:
                self.say("command", operator.command(act))
                self.counts[act.kind] += 1
                if act.lasts_s:
                    time.sleep(act.lasts_s)
                    self.say("command", operator.undo(act))
                return
            with faults.of(act) as words:
                self.counts[act.kind] += 1
                self.say("fault", words + (f", for {act.lasts_s:.1f} s" if act.lasts_s else ""))
                time.sleep(act.lasts_s)
            if act.lasts_s:
                self.say("fault", f"over: {words}")
        except Skipped as why:
            self.say("-", f"no {act}: {why}")
        except Exception as error:
            # Of whatever kind: the ground failed, and the run is not what its plan says.
            self.problems.append(f"{act}: {first_line(error)}")
            self.say("PROBLEM", f"{act}: {error}")

    def _until(self, over: Callable[[], bool], seconds: float, operator: Operator) -> bool:
        """Let the operator work until something is over; False after so many seconds."""
        end, look = time.monotonic() + seconds, 0.0
        while not over():
            if time.monotonic() > end:
                return False
            if time.monotonic() > look:
                look = time.monotonic() + LOOK_S
                operator.look(self.cluster.status())
                self._tell_seen()
            time.sleep(TICK_S)
        self._tell_seen()
        return True

    def _tell_seen(self) -> None:
        for line in self._world_log.read():
            if words := story.follow(self.courses, line):
                self.say("seen", words, line["at"])

    # --- the end -------------------------------------------------------------------------------

    def _settle(self, operator: Operator) -> None:
        troubles: list[str] = []

        def well() -> bool:
            nonlocal troubles
            troubles = judge.troubles(self.cluster.status(), self.world.holders())
            return not troubles and not operator.is_at_work()

        if self._until(well, SETTLE_S, operator):
            took = time.time() - self._ended
            self.say("run", f"all is well {took:.1f} s after the last fault")
        else:
            self.problems += [f"not within {SETTLE_S:g} s: {what}" for what in troubles]
        for host in sorted(set(self.site.homes.values())):
            self.cluster.halo("failback", "--onto", host, "--reason", "the end")
        homes = self.site.homes
        self._until(lambda: not self._misplaced(self.cluster.status()), HOME_S, operator)
        status = self.cluster.status()
        self.problems += self._misplaced(status)
        self.problems += judge.tokens(status, homes)

    def _misplaced(self, status: Status) -> list[str]:
        return judge.misplaced(status, self.world.holders(), self.site.homes)

    def _judge(self, faults: Faults) -> None:
        self._judge_rows()
        self._judge_disks()
        self.world.signal("manager", signal.SIGTERM)
        if self.world.runs("manager"):
            self.problems.append("the manager does not end on SIGTERM")
        self.problems += judge.journal(self.world.logs / "halo.state")
        self._tell_seen()
        lines = self._world_log.lines
        self.problems += judge.doubles(lines)
        self.problems += judge.managers(lines)
        self.problems += judge.needless_fences(lines, faults.spans)
        self.problems += self.cluster.defects()

    def _judge_rows(self) -> None:
        try:
            for log in (self.site.rows_log, self.site.web_log):
                self._wait_for_answer(log, time.time())
            self.world.kill("rows")
            self.world.kill("web")
            found = rows_found(self.world, self.site.homes["disk"])
            promised = rows_acknowledged(json_lines(self.site.rows_log))
            self.problems += judge.lost_rows(promised, found)
        except AssertionError as error:
            self.problems.append(first_line(error))

    def _wait_for_answer(self, log: Path, since: float) -> None:
        what = f"an answer to the client of {log.name}"
        self.world.wait(lambda: json_lines(log)[-1]["at"] > since, what, SERVED_S)

    def _judge_disks(self) -> None:
        """Stopped in order, the file systems are whole."""
        for group, image in zip(("disk", "files"), self.site.images, strict=True):
            stopped = self.cluster.halo("stop", group, "--wait", "90", deadline=100)
            if stopped.code != 0:
                self.problems.append(f"{group} does not stop: {stopped.stderr.strip()}")
                continue
            done = self.world.run(MANAGER, "e2fsck", "-f", "-n", str(image))
            if done.code != 0:
                self.problems.append(f"the file system of {group} is damaged:\n{done.stdout}")

    def _summarise(self, operator: Operator) -> None:
        since, until = self._begun, self._ended
        rows = json_lines(self.site.rows_log)
        faults = Counter({k: n for k, n in self.counts.items() if k not in COMMANDS})
        commands = Counter({k: n for k, n in self.counts.items() if k in COMMANDS})
        gaps = {
            "rows acknowledged": [line["at"] for line in rows],
            "web answers": [line["at"] for line in json_lines(self.site.web_log)],
        }
        lines = [["group", "failovers", "moves", "longest away", "at"]]
        for name, course in self.courses.items():
            when = f"{max(course.longest_at - since, 0):.1f}"
            lines.append([name, str(course.failovers), str(course.moves),
                          f"{course.longest_s:.1f} s", when])  # fmt: skip
        for name, times in gaps.items():
            gap, at = story.longest_gap(times, since, until)
            lines.append([f"{name}: {len(times)}", "", "", f"{gap:.1f} s", f"{at - since:.1f}"])
        self.say("summary", f"seed {self.seed}, {self.seconds / 60:g} min")
        self.say("summary", f"faults: {story.counted(faults)}")
        self.say("summary", f"commands: {story.counted(commands)}")
        self.say("summary", f"mended by the operator: {story.counted(operator.mended)}")
        self.say("summary", story.table(lines))
        for problem in self.problems:
            self.say("PROBLEM", problem)
        verdict = f"{len(self.problems)} PROBLEMS; logs: {self.world.logs}"
        self.say("summary", verdict if self.problems else "all is well")
