"""What passes between a manager and its agents, as values: calls, codes, roles, bounds."""
