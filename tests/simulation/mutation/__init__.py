"""How good is the hunter? Mutants of the deciding code, made from the code itself.

See that section of ``docs/simulation.md``, and ``python -m tests.simulation.mutate --help``.

Nothing here imports `halo` or the simulation before a child process has replaced the module that it
is about. The parent only parses files, forks children and counts.
"""
