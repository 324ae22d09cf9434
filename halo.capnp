# The RPC contract between manager and agents. Kept compatible with existing HALO sites:
# method 0 of OcfResourceAgent alone is what they know.
@0x9663f4dd604afa35;

interface OcfResourceAgent {
    enum Operation {
        monitor @0;
        start @1;
        stop @2;
    }

    struct Argument {
        key @0 :Text;
        value @1 :Text;
    }

    struct OcfError {
        code @0 :Int32;
        message @1 :Text;
    }

    struct InnerResult {
        union {
            innerOk @0 :Void;
            innerErr @1 :OcfError;
        }
    }

    struct Result {
        union {
            ok @0 :InnerResult;
            err @1 :Text;
        }
    }

    operation @0 (resource :Text, op :Operation, args :List(Argument)) -> (result :Result);
}

# What agents of this HALO know besides. A peer without it answers `hello` with *unimplemented*.
# Add methods and fields at the end only; announce new methods (such as a later `watch`) as a name
# in Welcome.features, so that a manager asks for nothing that an older agent does not know.
interface HaloAgent extends(OcfResourceAgent) {
    struct Welcome {
        version @0 :Text;           # of the agent program
        bootId @1 :Text;            # changes when the host boots
        startId @2 :Text;           # changes when the agent starts
        features @3 :List(Text);
    }

    struct Greeting {
        union {
            welcome @0 :Welcome;
            busy @1 :Text;          # another manager is served; the text names it
            staleTerm @2 :UInt64;   # a leader with this higher term was served already
        }
        leader @3 :Text;            # with staleTerm: the manager that had this term; may be empty
    }

    struct Completed {
        code @0 :Int32;             # the script's exit status
        message @1 :Text;           # the end of its standard error, unless the code is 0
    }

    struct Outcome {
        union {
            completed @0 :Completed;
            notRun @1 :Text;        # the script could not be run; the text says why
            timedOut @2 :Text;      # its session was killed at the deadline
            staleTerm @3 :UInt64;   # nothing was done: a leader with this higher term was served
            refused @4 :Text;       # nothing was done, nor counted as an operation that ended: this
                                    # connection is not the one served, or the call is out of bounds
            pending @5 :Void;       # of `monitorMany` alone: it runs still
        }
        leader @6 :Text;            # with staleTerm: the manager that had this term; may be empty
    }

    struct Item {
        resource @0 :Text;          # as in `operation`
        args @1 :List(OcfResourceAgent.Argument);
        instance @2 :Text;          # the resource's id: each once
        periodMs @3 :UInt32;
        timeoutMs @4 :UInt32;       # 0: the timeout that the script advertises
    }

    # Serves the manager's side of a watch; implemented by the manager.
    interface Observer {
        struct Report {
            instance @0 :Text;
            operations @1 :UInt32;  # starts and stops of this connection that had ended before
            outcome @2 :Outcome;    # completed, notRun or timedOut
        }

        struct Batch {
            sequence @0 :UInt64;    # 1, 2, 3, ...
            complete @1 :Bool;      # the full report ends with this batch
            digest @2 :UInt64;      # see halo.core.peers.digest
            reports @3 :List(Report);
        }

        report @0 (batch :Batch) -> (accepted :Bool);
    }

    # First call on a connection. `manager` names the manager, the same after its restart.
    # `term` is the leader's; 0 where there is one manager only.
    hello @0 (manager :Text, cluster :Text, term :UInt64) -> (greeting :Greeting);

    # Answered by the event loop itself: no script can delay it.
    heartbeat @1 () -> ();

    # As `operation`, with the name of the instance, and the script's deadline
    # (0: the timeout that the script advertises).
    run @2 (resource :Text, op :OcfResourceAgent.Operation, args :List(OcfResourceAgent.Argument),
            instance :Text, timeoutMs :UInt32, term :UInt64) -> (outcome :Outcome);

    # Feature `watch`: monitor these resources without being asked, and report what changes.
    # Ends the watch before. `refused` is empty, or says why nothing is watched.
    watch @3 (items :List(Item), observer :Observer, digestMs :UInt32, term :UInt64)
            -> (refused :Text);

    # Feature `monitorMany`: a `run` of monitor for each item, in their order. Answered when all have
    # ended, when none did for `patienceMs`, or after ten times that: what still runs then is
    # `pending`, and its outcome is asked for by a `run`, which waits for it. `periodMs` is not used.
    monitorMany @4 (items :List(Item), patienceMs :UInt32, term :UInt64)
            -> (outcomes :List(Outcome));

    # Feature `validateAll`: a `run` of the script's `validate-all`, which looks at its parameters
    # and starts nothing.
    validateAll @5 (resource :Text, args :List(OcfResourceAgent.Argument), instance :Text,
            timeoutMs :UInt32, term :UInt64) -> (outcome :Outcome);
}
