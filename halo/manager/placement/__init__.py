"""The placer, where tokens wait that no host holds; and the handling of second copies."""
