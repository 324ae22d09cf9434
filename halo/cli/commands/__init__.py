"""The commands of `halo`, one module a subject."""
