"""Questions about the state that decisions ask, by subject: pure functions that change nothing."""
