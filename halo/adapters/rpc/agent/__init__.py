"""The agent's end of the Cap'n Proto link."""
