"""Fence programs, and the power of whole hosts."""
