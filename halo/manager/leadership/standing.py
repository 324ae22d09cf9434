"""What a manager knows of the other managers and of the leader.

The values are those of :mod:`halo.ports`, because the adapters make them and the API shows them.
"""

from __future__ import annotations

from halo.ports import Known, ManagerSeen, Standing

__all__ = ["Known", "ManagerSeen", "Standing"]
