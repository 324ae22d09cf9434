"""Every behaviour of a rogue agent, by name."""

from __future__ import annotations

from collections.abc import Callable

from tests.hostile import agent_protocol, agent_texts, agent_values
from tests.hostile.rogue import Behaviour

BEHAVIOURS: dict[str, Callable[[], Behaviour]] = {
    **agent_texts.behaviours(),
    **agent_values.behaviours(),
    **agent_protocol.behaviours(),
}
