"""One task for each managed group, and the operations that all these tasks use."""
