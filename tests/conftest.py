"""What all tests share."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# How fast examples come is the machine's affair: two slow cores with four workers on them are
# no reason to fail.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")
