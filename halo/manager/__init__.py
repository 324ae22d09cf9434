"""The asyncio shell of the manager: host tasks, group tasks, the HTTP API, the main program."""
