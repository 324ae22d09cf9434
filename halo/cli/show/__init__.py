"""The status as text."""
