"""Decisions on one host: its tokens and connection, and when its silence becomes a verdict."""
