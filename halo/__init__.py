"""HALO: a high-availability failover manager for storage and service clusters."""

__version__ = "0.1.0"
