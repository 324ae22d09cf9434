"""Turns the exit status and output of a fence program that has ended into a result.

Only a clear answer counts, because an "off" starts groups on other hosts.
"""

from __future__ import annotations

from dataclasses import dataclass

from halo.adapters.fence.parameters import Redactor
from halo.adapters.fence.process import KEEP_BYTES
from halo.core.outcomes import FenceResult, PowerState

_STATUS_OFF = 2
_EXCERPT = 400


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a fence program. Its texts come from :func:`readable`."""

    name: str  # the program and its action, for messages
    status: int | None  # None: it had not ended at its deadline
    stdout: str
    stderr: str
    stdout_was_cut: bool
    is_gone: bool  # False: it was killed, but does not die
    duration_s: float

    def failed(self, what: str) -> FenceResult:
        """A failure, with the end of the program's output."""
        message = _with_excerpt(f"{self.name}: {what}", self.stderr or self.stdout)
        return failure(message, self.duration_s)


def outcome_of(run: Run, deadline_s: float) -> FenceResult:
    """The result of an `off`, an `on` or a similar action."""
    if run.status is None:
        return run.failed(_no_end(run, deadline_s))
    if run.status != 0:
        return run.failed(_describe_exit(run.status))
    message = _with_excerpt(f"{run.name}: done", run.stderr or run.stdout)
    return FenceResult(True, message=message, duration_s=run.duration_s)


def status_of(run: Run, deadline_s: float, *, strict: bool) -> FenceResult:
    """The result of a `status`. `strict`: the program always says what it found, as ours do."""
    if run.status is None:
        return run.failed(_no_end(run, deadline_s))
    if run.stdout_was_cut:
        # The lost part of the output may contradict the rest.
        return run.failed(f"wrote more than {KEEP_BYTES} bytes, which is too long an answer")
    says_on = "is ON" in run.stdout
    says_off = "is OFF" in run.stdout
    if says_on and says_off:
        return failure(f"{run.name}: says both on and off", run.duration_s)
    if run.status == 0:
        power = PowerState.OFF if says_off else PowerState.ON
        return FenceResult(True, power, f"{run.name}: {power.value}", run.duration_s)
    if run.status == _STATUS_OFF:
        # Interpreters also exit with 2, for a usage error or a script that they cannot open. Our
        # programs always say what they found. The API does not require this of other programs.
        if says_on or (strict and not says_off):
            return run.failed("exit status 2, but the program did not say off")
        return FenceResult(True, PowerState.OFF, f"{run.name}: off", run.duration_s)
    return run.failed(_describe_exit(run.status))


def failure(message: str, duration_s: float = 0.0) -> FenceResult:
    """A run that proves nothing."""
    return FenceResult(False, PowerState.UNKNOWN, message, duration_s)


def readable(text: str, was_cut: bool, redact: Redactor) -> str:
    """A program's output for a message, without secrets, even if one was cut in two."""
    text = redact(text)
    return text[redact.longest :] if was_cut else text


def _no_end(run: Run, deadline_s: float) -> str:
    end = "killed" if run.is_gone else "and cannot be killed: it is stuck in the kernel"
    return f"not finished within {deadline_s:g} s, {end}"


def _describe_exit(status: int) -> str:
    return f"killed by signal {-status}" if status < 0 else f"failed with exit status {status}"


def _with_excerpt(message: str, output: str) -> str:
    """The message with the end of the program's output, in one printable line."""
    line = "; ".join(part.strip() for part in output.splitlines() if part.strip())
    line = "".join(character if character.isprintable() else "?" for character in line)
    if len(line) > _EXCERPT:
        line = "..." + line[-_EXCERPT:]
    return f"{message}: {line}" if line else message
