"""Measurements on loopback with real processes: `python -m benchmarks` prints them all."""
