"""Chaos: three pairs of hosts under a random schedule of faults, with clients at work.

`schedule` says what is done when, from a seed; `site` is the cluster; `faults` and `operator` do
it; `run` holds them together; `judge` says what was wrong, and `story` what happened.
"""
