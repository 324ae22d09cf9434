"""Decisions on one group: on which host it runs, and how it is managed there."""
