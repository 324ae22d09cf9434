"""The `halo` command, which uses the manager's HTTP API. Each command has its own module."""
