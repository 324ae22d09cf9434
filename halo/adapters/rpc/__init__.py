"""Cap'n Proto between manager and agents."""
