"""The `halo` command: one module a command, over the manager's HTTP API."""
