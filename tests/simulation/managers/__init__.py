"""Several managers of one cluster at once, over a simulated etcd: see `docs/simulation.md`."""
