"""Decisions: plain synchronous code that knows no asyncio, file, socket, clock or randomness."""
