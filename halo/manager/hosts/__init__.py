"""One task per host: its link, its reports, and what is looked at there."""
