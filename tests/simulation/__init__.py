"""A deterministic simulator of whole clusters: the real manager on a virtual clock.

See ``docs/simulation.md``, and run ``python -m tests.simulation --help``.
"""
