"""A model of HALO's safety core in TLA+, its checks, and runs of the manager held against it."""
