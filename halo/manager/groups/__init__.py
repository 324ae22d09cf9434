"""One task per managed group, and the operations that all tasks carry out."""
