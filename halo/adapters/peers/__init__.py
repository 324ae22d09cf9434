"""HTTPS between managers: who may connect, the port, and one exchange."""
