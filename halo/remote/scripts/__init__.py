"""OCF scripts: found, run in sessions of their own, ended at their deadline."""
