"""A simulated etcd, the way to it, and the thread of the journal."""
