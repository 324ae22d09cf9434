"""Fuzzers of what HALO reads: each throws random cases at a real part, of a seed that repeats them.

See docs/hostile.md.
"""
