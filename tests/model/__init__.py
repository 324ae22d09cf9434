"""A model of HALO's safety core in TLA+, its checks, and traces of the simulation held against it."""
