"""What is written down, and what is remembered of it."""
