"""The journal on a local disk."""
