"""Every fuzzer, by name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from tests.hostile.fuzz.config import ConfigFuzzer
from tests.hostile.fuzz.fence import FenceFuzzer
from tests.hostile.fuzz.fuzzer import Make
from tests.hostile.fuzz.http import HttpFuzzer
from tests.hostile.fuzz.journal import JournalFuzzer
from tests.hostile.fuzz.journal_kill import JournalKillFuzzer
from tests.hostile.fuzz.ocf import OcfFuzzer
from tests.hostile.fuzz.self_test import SelfTest
from tests.hostile.fuzz.wire_agent import AgentWireFuzzer
from tests.hostile.fuzz.wire_frames import FrameFuzzer
from tests.hostile.fuzz.wire_manager import ManagerWireFuzzer

FUZZERS: Mapping[str, Make] = {
    "config": ConfigFuzzer,
    "journal": JournalFuzzer,
    "journal-kill": JournalKillFuzzer,
    "fence": FenceFuzzer,
    "ocf": OcfFuzzer,
    "http": HttpFuzzer,
    "wire-frames": FrameFuzzer,
    "wire-agent": AgentWireFuzzer,
    "wire-manager": ManagerWireFuzzer,
}

SELF_TESTS: Mapping[str, Make] = {
    f"self-test-{how}": partial(SelfTest, how) for how in ("raise", "kill", "hang")
}
"""What the tests of the runner run."""
