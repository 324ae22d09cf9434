"""Fence programs, and the power state of whole hosts."""
