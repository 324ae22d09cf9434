"""Peers that lie, flood, stall and speak nonsense, and fuzzers for all that HALO reads.

See docs/hostile.md.
"""
