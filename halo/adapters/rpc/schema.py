"""The Cap'n Proto schema `halo.capnp`, which each process loads once."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import capnp

capnp.remove_import_hook()

schema: Any = capnp.load(str(files("halo") / "share" / "halo.capnp"))
OcfResourceAgent: Any = schema.OcfResourceAgent
HaloAgent: Any = schema.HaloAgent
