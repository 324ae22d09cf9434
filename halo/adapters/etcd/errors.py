"""What can go wrong with etcd, split by what the caller does next.

::

    EtcdError
     ├─ NoAnswer       no member answered in time; `unknown`: the request may have worked
     ├─ NoSpace        etcd is over its quota, and may have carried out the request all the same
     └─ Refused        a member answered with an error: the request changed nothing
         ├─ NotAllowed     wrong name, password, certificate or role: an administrator must mend it
         ├─ NoGateway      a server answers, but it has no JSON gateway
         ├─ LeaseGone      the lease has expired
         └─ TooOld         the revision that was to be read has been compacted
"""

from __future__ import annotations

from halo.core.errors import HaloError


class EtcdError(HaloError):
    """A request to etcd failed."""


class NoAnswer(EtcdError):
    """No member gave an answer before the deadline.

    `unknown` is true if a member may have carried out the request all the same."""

    def __init__(self, text: str, *, unknown: bool) -> None:
        self.unknown = unknown
        super().__init__(text)


class NoSpace(EtcdError):
    """etcd is over its quota.

    A member looks at the size of its database when a request comes, and again when it carries the
    request out. The second time it says the same words, but has written what was asked. No request
    is under way any more: what can be read now is the outcome."""


class Refused(EtcdError):
    """A member answered with an error. The request changed nothing."""


class NotAllowed(Refused):
    """The credentials, or what they allow, are wrong."""


class NoGateway(Refused):
    """What answers has no JSON gateway."""


class LeaseGone(Refused):
    """The lease has expired, or was revoked."""


class TooOld(Refused):
    """The revision is not kept any more."""
