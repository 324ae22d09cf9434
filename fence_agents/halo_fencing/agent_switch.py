"""fence_test: power for the agents of a test environment, which are processes of this machine.

A host is on while the agent of its PID file lives. Off kills that agent with every script it runs,
waits until they are gone, and removes its state files. Faults for tests come from a file; see
docs/fencing.md.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

from .common import COMMON_PARAMETERS, Agent, AgentError, Device, Parameter, Parameters, main

_KILL_LIMIT_S = 10.0
_START_LIMIT_S = 10.0
_PAUSE_S = 0.005
_MARK = "HALO_FENCE_RUN"
_KEPT = (".cmd", ".fence-fault")
_FAULTS = ("fail", "hang", "lie", "blind", "slow", "missing-status")


class AgentSwitch(Device):
    """One agent of a test, by its id (`target`) and the folder of the test."""

    def __init__(self, parameters: Parameters) -> None:
        self._target = parameters["target"]
        if self._target in (".", "..") or "/" in self._target:
            raise AgentError(f'target: "{self._target}" is no agent id')
        folder = os.path.join("tests", "test_output", parameters["test_id"])
        self._folder = os.path.realpath(folder)
        if not os.path.isdir(self._folder):
            raise AgentError(f"test_id: there is no folder {self._folder}")
        action = parameters.get("action", "")
        self._faults = _read_faults(self._path(".fence-fault"), action)
        if "slow" in self._faults:
            time.sleep(self._faults["slow"])
        if "hang" in self._faults:
            while True:
                signal.pause()
        if "fail" in self._faults:
            raise AgentError(f"{self._target}: told to fail by its fault file")

    def _path(self, suffix: str) -> str:
        return os.path.join(self._folder, self._target + suffix)

    def is_on(self) -> bool:
        if "missing-status" in self._faults:
            raise AgentError(f"{self._target}: told to know no status by its fault file")
        if "blind" in self._faults:
            return False
        return self._agent() is not None

    def switch(self, on: bool) -> None:
        if "lie" in self._faults or "blind" in self._faults:
            return
        if on:
            self._start()
        else:
            self._kill()
            self._clean()

    def shows(self, on: bool) -> bool:
        if "lie" in self._faults or "blind" in self._faults:
            return True
        return (self._agent() is not None) == on

    def _agent(self) -> int | None:
        """The living agent of the PID file; None too where that PID is another's by now."""
        try:
            with open(self._path(".pid"), encoding="ascii") as file:
                pid = int(file.read().strip() or "0")
        except (OSError, ValueError):
            return None
        return pid if pid > 1 and self._is_agent(pid) and _is_alive(pid) else None

    def _is_agent(self, pid: int) -> bool:
        arguments = _read(f"/proc/{pid}/cmdline").split(b"\0")
        target = os.fsencode(self._target)
        named = b"--test-id=" + target in arguments or (
            b"--test-id" in arguments[:-1]
            and arguments[arguments.index(b"--test-id") + 1] == target
        )
        environment = _environment(pid)
        folder = environment.get(b"HALO_TEST_DIRECTORY")
        if folder and not self._is_folder(pid, folder):
            return False
        return named or environment.get(b"HALO_TEST_ID") == target

    def _is_folder(self, pid: int, folder: bytes) -> bool:
        """True where a process means our folder; its path may be relative to where it stands."""
        try:
            place = os.readlink(f"/proc/{pid}/cwd")
        except OSError:
            return False
        return os.path.realpath(os.path.join(place, os.fsdecode(folder))) == self._folder

    def _doomed(self) -> list[int]:
        """The agent, its scripts (by their environment), and all descendants of these."""
        target = os.fsencode(self._target)
        agent = self._agent()
        children: dict[int, list[int]] = {}
        todo = [agent] if agent is not None else []
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            state, parent = _state(int(name))
            if state in (b"", b"Z", b"X"):
                continue
            pid = int(name)
            children.setdefault(parent, []).append(pid)
            environment = _environment(pid)
            if environment.get(b"HALO_TEST_ID") == target:
                folder = environment.get(b"HALO_TEST_DIRECTORY")
                if folder and self._is_folder(pid, folder):
                    todo.append(pid)
        spared = _ourselves()
        found: dict[int, None] = {}
        while todo:
            pid = todo.pop(0)
            if pid not in found and pid not in spared:
                found[pid] = None
                todo += children.get(pid, ())
        return list(found)

    def _kill(self) -> None:
        end = time.monotonic() + _KILL_LIMIT_S
        was_on = self._agent() is not None
        sys.stdout.write(
            f"fencing OFF {self._target}\n" if was_on else f"{self._target} is already OFF\n"
        )
        known: set[int] = set()
        while True:
            doomed = self._doomed()
            known.update(doomed)
            known = {pid for pid in known if _is_alive(pid)}
            if not doomed and not known:
                return
            if time.monotonic() > end:
                raise AgentError(f"{self._target}: processes {sorted(known)} do not die")
            for pid in doomed:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                except PermissionError:
                    raise AgentError(f"{self._target}: may not kill process {pid}") from None
            time.sleep(_PAUSE_S)

    def _clean(self) -> None:
        """Remove what a host forgets without power: its state files and its PID file."""
        prefix = self._target + "."
        for name in os.listdir(self._folder):
            suffix = name[len(self._target) :]
            if not name.startswith(prefix) or suffix in _KEPT or suffix.startswith(".log"):
                continue
            path = os.path.join(self._folder, name)
            if os.path.isfile(path):
                with contextlib.suppress(FileNotFoundError):  # a script of the host was quicker
                    os.unlink(path)

    def _start(self) -> None:
        if self._agent() is not None:
            sys.stdout.write(f"{self._target} is already ON\n")
            return
        command = self._read_command()
        pid = _spawn_daemon(command, os.path.join(self._folder, f"agent_{self._target}_log"))
        end = time.monotonic() + _START_LIMIT_S
        while self._agent() is None:
            if not _is_alive(pid):
                raise AgentError(f"{self._target}: its agent ended at once; see its log")
            if time.monotonic() > end:
                raise AgentError(f"{self._target}: its agent wrote no PID file within 10 s")
            time.sleep(_PAUSE_S)

    def _read_command(self) -> dict[str, object]:
        import json

        path = self._path(".cmd")
        try:
            with open(path, encoding="utf-8") as file:
                command = json.load(file)
        except FileNotFoundError:
            raise AgentError(
                f"cannot switch {self._target} on: there is no {path} that tells how to start it"
            ) from None
        except ValueError as error:
            raise AgentError(f"{path} is not JSON: {error}") from None
        if not isinstance(command, dict) or not command.get("argv"):
            raise AgentError(f'{path} must hold {{"argv": [...], "env": {{...}}, "cwd": "..."}}')
        return command


def _spawn_daemon(command: dict[str, object], log: str) -> int:
    """Start a process that outlives this program: another session, parent and mark."""
    import json

    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        with open(reading, encoding="utf-8") as file:
            answer = file.read()
        os.waitpid(child, 0)
        pid, _, failure = answer.partition(" ")
        if failure:
            raise AgentError(f"cannot start {json.dumps(command['argv'])}: {failure}")
        return int(pid)
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.write(writing, str(os.getpid()).encode())
        try:
            _become(command, log)
        except OSError as error:
            os.write(writing, f" {error.strerror}".encode())
    finally:
        os._exit(127)


def _become(command: dict[str, object], log: str) -> None:
    argv = command["argv"]
    extra = command.get("env")
    assert isinstance(argv, list)
    environment = {key: value for key, value in os.environ.items() if key != _MARK}
    if isinstance(extra, dict):
        environment.update({str(key): str(value) for key, value in extra.items()})
    null = os.open(os.devnull, os.O_RDONLY)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if command.get("cwd"):
        os.chdir(str(command["cwd"]))
    os.execvpe(str(argv[0]), [str(word) for word in argv], environment)


def _read_faults(path: str, action: str) -> dict[str, float]:
    """The faults that a file asks for this action.

    A line is `[on|off|status] FAULT [SECONDS]`; without an action it counts for all of them.
    """
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except OSError:
        return {}
    faults: dict[str, float] = {}
    for line in lines:
        words = line.split()
        if words and words[0] in ("on", "off", "status") and words.pop(0) != action:
            continue
        if not words or words[0].startswith("#"):
            continue
        if words[0] not in _FAULTS:
            raise AgentError(f'{path}: unknown fault "{words[0]}"; known: {", ".join(_FAULTS)}')
        faults[words[0]] = float(words[1]) if len(words) > 1 else 0.0
    return faults


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except OSError:
        return b""


def _environment(pid: int) -> dict[bytes, bytes]:
    entries = (entry.partition(b"=") for entry in _read(f"/proc/{pid}/environ").split(b"\0"))
    return {key: value for key, _, value in entries}


def _state(pid: int) -> tuple[bytes, int]:
    """State letter and parent of a process; an empty letter where there is none."""
    fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return (fields[0], int(fields[1])) if len(fields) > 1 else (b"", 0)


def _is_alive(pid: int) -> bool:
    # A zombie runs no more, though PID 1 of a container may take seconds to reap it.
    return _state(pid)[0] not in (b"", b"Z", b"X")


def _ourselves() -> set[int]:
    """This program and its ancestors: the manager may have been started within a test."""
    found = set()
    pid = os.getpid()
    while pid > 0 and pid not in found:
        found.add(pid)
        pid = _state(pid)[1]
    return found


AGENT = Agent(
    "fence_test",
    "Power control of test agents",
    "Stands for the power switch of a host where hosts are processes of one machine (tests).",
    [
        *COMMON_PARAMETERS,
        Parameter("target", "Id of the agent", required=True),
        Parameter("test_id", "Folder below tests/test_output, or an absolute one", required=True),
    ],
    AgentSwitch,
)


def run() -> None:
    """Entry point of the program `fence_test`."""
    main(AGENT)
