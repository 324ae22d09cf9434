"""A whole cluster of real processes on loopback, and the verbs that scenarios are told in.

    async def test_a_dead_host_is_fenced_and_its_groups_move(cluster: ClusterHarness) -> None:
        await cluster.start()
        cluster.kill("h1")
        await cluster.until(g1="Running (Failed Over) on h2", g2="Running on h2")

Everything of a test lies in tests/test_output/<test>/: config.yaml, manager_log, agent_<host>_log,
test_log (what the scripts did), one state file per running resource. When a test ends,
:meth:`ClusterHarness.finish` checks that no exclusive resource was ever started twice, that every
group's token has a holder, that no log tells of a defect, and that no process is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import aiohttp

from tests.halo_decoder import decodes
from tests.integration import processes
from tests.integration.evidence import double_starts
from tests.integration.layout import GroupSpec, ResourceSpec, group, service
from tests.integration.site import DEADLINE_S, ROOT, Site
from tests.openapi_contract import answer_faults

_POLL_S = 0.02
_STATUS_POLL_S = 0.05  # a status costs the manager and the test some milliseconds each
_DEFECTS = (
    "invariant",
    "traceback (most recent call last)",
    "was never awaited",
    "was never retrieved",
)

Status: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class CommandResult:
    """What a run of the `halo` command came to."""

    code: int
    stdout: str
    stderr: str


class ClusterHarness(Site):
    """A site with the manager's view of it, and the checks at the end.

    Waiting verbs raise AssertionError at their deadline, with the status and the ends of all logs.
    """

    exit_deadline_s = 10.0
    """How long processes may take to end after the test."""

    async def start(self, *, settled: bool = True) -> None:
        """Start all agents and the manager; with `settled`, wait until all groups are at home."""
        for host in self.ports:
            self.boot(host)
        self.start_manager()
        if settled:
            await self.until({g: f"Running on {spec.home}" for g, spec in self.groups.items()})

    async def api(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> tuple[int, Any]:
        """One request of our half of the HTTP API: the HTTP status and the decoded answer, which
        has to be as the OpenAPI document says."""
        timeout = aiohttp.ClientTimeout(total=DEADLINE_S)
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(str(self.socket)), timeout=timeout
            ) as session,
            session.request(method, f"http://localhost{path}", json=body) as response,
        ):
            answer = await response.json(content_type=None)
        if path != "/v1/status":  # which is asked all the time: it is looked at when the test ends
            wrong = answer_faults(method, path, response.status, answer)
            assert not wrong, f"{method} {path} is not as documented: {wrong}"
        return response.status, answer

    async def root(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> tuple[int, str]:
        """The same of the half that programs of HALO (Rust) speak: the answer as text."""
        timeout = aiohttp.ClientTimeout(total=DEADLINE_S)
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(str(self.socket)), timeout=timeout
            ) as session,
            session.request(method, f"http://halo_manager{path}", json=body) as response,
        ):
            return response.status, await response.text()

    async def status(self) -> Status:
        """The manager's status."""
        code, status = await self.api("GET", "/v1/status")
        assert code == 200, f"GET /v1/status: {code} {status}"
        assert isinstance(status, dict)
        return status

    async def host(self, host: str) -> Status:
        """The status of one host."""
        return _by_id(await self.status(), "hosts", host)

    async def group(self, group_id: str) -> Status:
        """The status of one group."""
        return _by_id(await self.status(), "groups", group_id)

    async def halo(self, *arguments: str, deadline: float = DEADLINE_S) -> CommandResult:
        """Run the `halo` command against this cluster."""
        process = await asyncio.create_subprocess_exec(
            *("halo", "--config", str(self.config), "--socket", str(self.socket), *arguments),
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(), deadline)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise AssertionError(self._report(f"halo {' '.join(arguments)} hangs")) from None
        assert process.returncode is not None
        return CommandResult(process.returncode, out.decode(), err.decode())

    async def until(
        self,
        wanted: Mapping[str, str] | None = None,
        *,
        deadline: float = DEADLINE_S,
        **more: str,
    ) -> Status:
        """Wait until groups are as told: `g1="Running (Failed Over) on h2"`, or without the host
        (`g1="Stopped"`). Returns the status that showed it."""
        wanted = {**(wanted or {}), **more}

        def shows(status: Status) -> bool:
            return all(
                text in _descriptions(_by_id(status, "groups", g)) for g, text in wanted.items()
            )

        return await self.until_status(shows, f"groups are {wanted}", deadline=deadline)

    async def until_host(self, host: str, *, deadline: float = DEADLINE_S, **wanted: Any) -> Status:
        """Wait until a host's fields are as told: `connected=True, fenced=False`."""

        def shows(status: Status) -> bool:
            found = _by_id(status, "hosts", host)
            return all(found.get(key) == value for key, value in wanted.items())

        return await self.until_status(shows, f"{host} is {wanted}", deadline=deadline)

    async def until_event(
        self, name: str, obj_id: str | None = None, *, deadline: float = DEADLINE_S
    ) -> Status:
        """Wait until the status shows an event of that name (and object)."""

        def shows(status: Status) -> bool:
            return any(
                e["event"] == name and obj_id in (None, e["obj_id"]) for e in status["events"]
            )

        return await self.until_status(shows, f"event {name} {obj_id}", deadline=deadline)

    async def until_status(
        self, shows: Callable[[Status], bool], what: str, *, deadline: float = DEADLINE_S
    ) -> Status:
        """Wait until the manager answers with a status for which `shows` holds."""
        end = time.monotonic() + deadline
        last: Any = "the manager did not answer"
        while time.monotonic() < end:
            if self.manager is not None and (code := self.manager.poll()) is not None:
                raise AssertionError(self._report(f"the manager ended with exit status {code}"))
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                last = await asyncio.wait_for(self.status(), end - time.monotonic())
                if shows(last):
                    return dict(last)
            await asyncio.sleep(_STATUS_POLL_S)
        shown = json.dumps(last, indent=1) if isinstance(last, dict) else last
        raise AssertionError(self._report(f"not within {deadline:g} s: {what}\n\n{shown}"))

    async def until_true(
        self, holds: Callable[[], bool], what: str, *, deadline: float = DEADLINE_S
    ) -> None:
        """Wait for anything else: `lambda: cluster.count("g1", "start") == 2`."""
        end = time.monotonic() + deadline
        while not holds():
            if time.monotonic() > end:
                raise AssertionError(self._report(f"not within {deadline:g} s: {what}"))
            await asyncio.sleep(_POLL_S)

    async def stays(self, holds: Callable[[Status], bool], what: str, *, seconds: float) -> None:
        """Check that `holds` is true of every status for a while: that something does not happen.

        Choose `seconds` by the period of what would make it happen, such as two monitors.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if not holds(await self.status()):
                raise AssertionError(self._report(f"no longer so: {what}"))
            await asyncio.sleep(_POLL_S)

    # The end -------------------------------------------------------------------------------

    async def finish(self) -> None:
        """End everything, then raise AssertionError for every rule that was broken."""
        problems = []
        try:
            problems += await self._end_manager()
            for host in self.ports:
                self.thaw_process(host)
                if self.is_on(host):
                    self.stop_agent(host)
            for process in self.agents:
                process.poll()
            problems += await self._processes_left()
            problems += double_starts(self.actions(), self._exclusive())
            problems += self._defects_in_logs()
        finally:
            processes.kill_all(lambda: processes.marked(self.folder))
            self.close()
        if problems:
            raise AssertionError(self._report("\n".join(["when the test ended:", *problems])))

    async def _end_manager(self) -> list[str]:
        if self.manager is None:
            return []
        code = self.manager.poll()
        if code is not None:
            # Ended in order, or killed by the test.
            return [] if code in (0, -9) else [f"the manager ended with exit status {code}"]
        self.thaw_manager()
        problems = [*await self._token_problems(), *await self._answer_problems()]
        try:
            code = self.stop_manager()
        except subprocess.TimeoutExpired:
            self.kill_manager()
            return [*problems, f"the manager did not end within {DEADLINE_S:g} s of SIGTERM"]
        if code != 0:
            problems.append(f"the manager ended with exit status {code} on SIGTERM")
        return problems

    async def _token_problems(self) -> list[str]:
        try:
            groups = (await self.status())["groups"]
        except (aiohttp.ClientError, OSError, TimeoutError, AssertionError, KeyError) as error:
            return [f"no status of the groups at the end: {error!r}"]
        holders = {g["id"]: g.get("token") for g in groups}
        lost = [g for g in self.groups if not holders.get(g)]
        return [f"nobody holds the token of group {g}" for g in lost]

    async def _answer_problems(self) -> list[str]:
        """Is the last status as the document has it, and fit for programs of HALO (Rust)?"""
        try:
            problems = answer_faults("GET", "/v1/status", 200, await self.status())
            code, text = await self.root("GET", "/status")
            assert code == 200, f"GET /status: {code} {text}"
            decodes(json.loads(text))
        except (aiohttp.ClientError, OSError, TimeoutError, AssertionError) as error:
            return [f"a status at the end: {error}"]
        return [f"GET /v1/status is not as documented: {problem}" for problem in problems]

    async def _processes_left(self) -> list[str]:
        end = time.monotonic() + self.exit_deadline_s
        while left := list(processes.marked(self.folder)):
            if time.monotonic() > end:
                words = [f"{pid} ({' '.join(processes.command_of(pid))})" for pid in left]
                processes.kill_all(lambda: processes.marked(self.folder))
                return [f"process {word} was left" for word in words]
            await asyncio.sleep(_POLL_S)
        return []

    def _exclusive(self) -> set[str]:
        return {r.state_suffix for r in self.resources.values() if not r.shared}

    def _defects_in_logs(self) -> list[str]:
        found = []
        for log in sorted(self.folder.glob("*_log")):
            for line in log.read_text(errors="replace").splitlines():
                lower = line.lower()
                if any(word in lower for word in _DEFECTS) and not any(
                    allowed in line for allowed in self.allowed_defects
                ):
                    found.append(f"{log.name}: {line}")
        return found

    def _report(self, headline: str) -> str:
        """The headline, where everything really runs, and the ends of all logs."""
        parts = [headline, ""]
        parts += [f"{r} really runs on {sorted(self.running_on(r))}" for r in self.resources]
        for log in sorted(self.folder.glob("*_log")):
            lines = log.read_text(errors="replace").splitlines()
            parts += ["", f"--- {log.relative_to(ROOT)}, {len(lines)} lines, the last:"]
            parts += lines[-15:]
        return "\n".join(parts)


def _by_id(status: Status, key: str, wanted: str) -> Mapping[str, Any]:
    for item in status.get(key, ()):
        if item["id"] == wanted:
            return dict(item)
    raise AssertionError(f"the status has no {wanted} under {key}")


def _descriptions(item: Status) -> tuple[str, ...]:
    return item["status"], f"{item['status']} on {item.get('host')}"


__all__ = ["ClusterHarness", "CommandResult", "GroupSpec", "ResourceSpec", "group", "service"]
