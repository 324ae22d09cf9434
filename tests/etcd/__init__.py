"""The journal in etcd: tests on real members, and on servers that behave as members may."""
