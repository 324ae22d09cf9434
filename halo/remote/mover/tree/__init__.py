"""A tree on its way: walked through, copied, checked, and moved to its place."""
