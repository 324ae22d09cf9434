"""Could the cluster lose a host? A forecast for operators. No decision asks for it."""
