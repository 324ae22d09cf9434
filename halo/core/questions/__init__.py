"""What decisions ask of the facts, by subject: pure functions that change nothing."""
