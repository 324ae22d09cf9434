# The parameters of `watch` with the same bytes as in halo.capnp, but with a struct in the place of
# the observer: a capability cannot be set without an RPC system. See frames.py.
@0xd2a5c4b1e7f08a31;

struct Argument {
    key @0 :Text;
    value @1 :Text;
}

struct Item {
    resource @0 :Text;
    args @1 :List(Argument);
    instance @2 :Text;
    periodMs @3 :UInt32;
    timeoutMs @4 :UInt32;
}

struct Nothing {}

struct WatchParams {
    items @0 :List(Item);
    observer @1 :Nothing;
    digestMs @2 :UInt32;
    term @3 :UInt64;
}
