"""The keys of a config that say where and when a group is started: order, company, and room."""
