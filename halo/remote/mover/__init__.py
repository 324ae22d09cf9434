"""The mover: a program that copies data into and out of a burst buffer.

The agent runs it (`python -m halo.remote.mover`) in a session of its own, and hands it one order.
It uses nothing of the agent. Nobody sees half of a copy, nothing is overwritten, and a successor
takes up what is complete. docs/staging.md says what it promises.
"""
