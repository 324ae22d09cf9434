"""The manager's HTTP API on its Unix socket, in two halves.

`root` is HALO's half: what programs written for HALO (Rust) speak. `ours` is everything else, below
`/v1/`, along the table in `routes` and as `openapi` describes it. `app` puts the two together.
"""
