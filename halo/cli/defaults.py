"""The default paths of the `halo` command."""

DEFAULT_CONFIG = "/etc/halo/halo.conf"
DEFAULT_SOCKET = "/var/run/halo.socket"
SOCKET_VARIABLE = "HALO_SOCKET"
