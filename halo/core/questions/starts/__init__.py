"""When a group may be started: after which groups, in whose turn, and how urgently."""
