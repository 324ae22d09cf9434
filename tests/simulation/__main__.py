"""``python -m tests.simulation``: see :mod:`tests.simulation.cli`."""

from tests.simulation.cli import main

main()
