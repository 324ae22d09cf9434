"""`halo tls`: a small certificate authority of the site's own, and what a set of files may do."""
