"""Nodesets: one short text for many host names."""
