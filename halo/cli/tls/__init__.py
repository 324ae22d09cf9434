"""`halo tls`: a small certificate authority for a site, and a check of certificate files."""
