"""The whole answer to "why?" for one group or one host: pure functions that change nothing."""
