------------------------------ MODULE HaloChecked ------------------------------
(***************************************************************************)
(* What the model checker is asked beside the rules of Halo.tla: is a      *)
(* group ever forgotten?  And how it saves work: hosts are alike, and so   *)
(* are groups (Symmetry; only where nothing but safety is asked).          *)
(*                                                                         *)
(* Faults end, for their budget is finite.  Then a managed group must run  *)
(* on a host in sight, if there is one, unless the operator cancelled a    *)
(* fence or left a group unmanaged.  Fair says what the manager and its    *)
(* devices do sooner or later.  Nothing there heals the network or boots a *)
(* host: the manager has to fence.  SF marks what time would defeat again  *)
(* and again if it were always too late, such as a start while a proof is  *)
(* young.                                                                  *)
(***************************************************************************)
EXTENDS Halo, TLC

Symmetry ==
    {p \in Permutations(Hosts) : {p[h] : h \in Miswired} = Miswired} \cup Permutations(Groups)

Excused(g) ==
    \/ \A h \in Hosts : host[h] # "up"
    \/ \E u \in Groups : ~mem.managed[u]
    \/ \E h \in Hosts : mem.note[h] = "cancelled"

Fair ==
    /\ WF_vars(Flush)
    /\ \A h \in Hosts :
        /\ WF_vars(CutPower(h)) /\ WF_vars(Connect(h)) /\ WF_vars(Disconnect(h) /\ host[h] # "up")
        /\ SF_vars(Intend(h)) /\ WF_vars(SwitchOff(h)) /\ WF_vars(CallOff(h))
        /\ WF_vars(Acknowledge(h)) /\ WF_vars(AskAgain(h)) /\ WF_vars(SeeOff(h))
        /\ WF_vars(Confirm(h)) /\ WF_vars(Fail(h) /\ UNCHANGED faults) /\ WF_vars(Renew(h))
        /\ WF_vars(Deny(h))
    /\ \A g \in Groups, h \in Hosts :
        /\ WF_vars(Begin(g, h)) /\ SF_vars(Monitor(g, h)) /\ SF_vars(HandOut(g, h))
        /\ WF_vars(GoHome(g, h) /\ h \notin conn) /\ SF_vars(Start(g, h))

FairSpec == Spec /\ Fair

NotForgotten == \A g \in Groups : []<>(Excused(g) \/ \E h \in runs[g] : host[h] = "up")
===============================================================================
