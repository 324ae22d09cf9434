"""OCF resource-agent exit codes (Resource Agent API 1.1, section "Exit status codes")."""

from __future__ import annotations

from enum import IntEnum


class OcfCode(IntEnum):
    """What a resource agent's exit code says."""

    SUCCESS = 0
    ERR_GENERIC = 1
    ERR_ARGS = 2
    ERR_UNIMPLEMENTED = 3
    ERR_PERM = 4
    ERR_INSTALLED = 5
    ERR_CONFIGURED = 6
    NOT_RUNNING = 7
    RUNNING_PROMOTED = 8
    FAILED_PROMOTED = 9
    DEGRADED = 190
    DEGRADED_PROMOTED = 191

    @staticmethod
    def describe(code: int) -> str:
        """A code in words, with its number."""
        try:
            return f"{_WORDS[OcfCode(code)]} (exit {code})"
        except ValueError:
            return f"exit {code}"

    @staticmethod
    def name_of(code: int) -> str:
        """A code's name in the API, such as OCF_ERR_CONFIGURED, or nothing."""
        try:
            return f"OCF_{OcfCode(code).name}"
        except ValueError:
            return ""


_WORDS = {
    OcfCode.SUCCESS: "success",
    OcfCode.ERR_GENERIC: "generic error",
    OcfCode.ERR_ARGS: "invalid parameter",
    OcfCode.ERR_UNIMPLEMENTED: "action not implemented",
    OcfCode.ERR_PERM: "insufficient permissions",
    OcfCode.ERR_INSTALLED: "required software is not installed",
    OcfCode.ERR_CONFIGURED: "not configured correctly",
    OcfCode.NOT_RUNNING: "not running",
    OcfCode.RUNNING_PROMOTED: "running as promoted",
    OcfCode.FAILED_PROMOTED: "failed as promoted",
    OcfCode.DEGRADED: "running, degraded",
    OcfCode.DEGRADED_PROMOTED: "running as promoted, degraded",
}

_OF_SETUP = frozenset(
    {
        OcfCode.ERR_ARGS,
        OcfCode.ERR_UNIMPLEMENTED,
        OcfCode.ERR_PERM,
        OcfCode.ERR_INSTALLED,
        OcfCode.ERR_CONFIGURED,
    }
)

_PRESENT = frozenset(
    {
        OcfCode.SUCCESS,
        OcfCode.RUNNING_PROMOTED,
        OcfCode.DEGRADED,
        OcfCode.DEGRADED_PROMOTED,
    }
)


def is_of_setup(code: int) -> bool:
    """Does an exit code say that software, permissions or parameters must be corrected first?"""
    return code in _OF_SETUP


def is_present(code: int) -> bool:
    """Does a monitor's exit code say that the resource runs, perhaps with a problem?"""
    return code in _PRESENT
