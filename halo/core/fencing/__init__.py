"""Decisions on powering hosts off."""
