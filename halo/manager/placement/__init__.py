"""Where tokens wait that no host holds, and what is done about second copies."""
