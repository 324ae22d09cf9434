"""From the administrator's YAML to a validated :class:`halo.core.model.Cluster`."""
