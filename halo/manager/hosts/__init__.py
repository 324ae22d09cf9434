"""One task for each host: its link, its reports, and its probes."""
