"""Oracles that judge what the manager says, writes down and delays: see `docs/simulation.md`.

Each module states one rule and checks it. They are told what crosses the ports by
:class:`tests.simulation.oracles.all.Oracles`.
"""
