"""Commands and questions of many clients during faults, again and again: `make linear`."""

from __future__ import annotations

import sys

from tests.etcd.linear.rounds import main

sys.exit(main())
