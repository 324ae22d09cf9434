"""OCF scripts: how they are found, run in their own sessions, and ended at their deadline."""
