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
