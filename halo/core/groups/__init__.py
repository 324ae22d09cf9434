"""Decisions on one group: where it goes, and how it is managed there."""
