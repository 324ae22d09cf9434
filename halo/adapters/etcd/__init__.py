"""The journal in etcd: a client of its JSON gateway, the leadership, and the medium."""
