"""The mover: copies into and out of burst buffers. See docs/staging.md."""
