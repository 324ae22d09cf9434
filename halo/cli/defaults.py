"""Where the `halo` command looks, when it is told nothing."""

DEFAULT_CONFIG = "/etc/halo/halo.conf"
DEFAULT_SOCKET = "/var/run/halo.socket"
SOCKET_VARIABLE = "HALO_SOCKET"
