"""Any manager answers: those that stand by send each request on to the leader, once.

`forwarding` decides whom to ask, and what may be asked again. `standby` answers the Unix socket of
a manager that does not lead, and `known` says what it knows without the leader. `connections`
bounds what other managers may do at the port of this one. `redundancy` keeps the operator informed
of missing managers.
"""
