"""Groups of a lower priority give way to a group with `preempt: true` that lacks only room."""
