"""Powering hosts off, and asking whether they are off."""
