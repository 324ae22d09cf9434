"""Tests of the deciding core: events in, actions out; no loop, socket or clock."""
