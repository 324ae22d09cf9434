"""The manager's HTTP API on its Unix socket, in two halves.

`root` is HALO's half, for programs that were written for HALO (Rust). `ours` is everything else,
below `/v1/`. `routes` lists its routes, and `openapi` describes them. `app` joins both halves.
"""
