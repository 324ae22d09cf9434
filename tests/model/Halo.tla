-------------------------------- MODULE Halo --------------------------------
(***************************************************************************)
(* The safety core of HALO: which steps the manager may take, in a world   *)
(* that may do almost anything.  docs/model.md says how to read this page, *)
(* what it leaves out, and how it is checked.  The rules S1 to S9 are      *)
(* worded in docs/model.md, too; docs/architecture.md has the glossary.    *)
(*                                                                         *)
(* Every action below begins with its guard (when may it happen?).  Lines  *)
(* with a prime, as in conn' = ..., say what it changes.                   *)
(***************************************************************************)
EXTENDS Naturals, FiniteSets

CONSTANTS
    Hosts,      \* every host is a candidate of every group
    Groups,     \* the resource groups
    Desk,       \* the place of a token that no host task holds
    Faults,     \* how many faults and commands one behaviour may have
    Miswired,   \* hosts whose fence device is wired to another host
    SlowDisk    \* TRUE: the disk may hang, and a rescue goes on without it

VARIABLES
    \* The world.
    host,       \* of each host: "off", "mute" (has power, gives no answer), "up"
    runs,       \* of each group: the hosts on which it is present
    order,      \* of each group and host: a command sent and not begun: "none", "start", "stop"
    cut,        \* hosts whose device was told to cut the power, and may still do it
    word,       \* what a fence device says of each host: see Words
    disk,       \* the journal as it is on the disk
    faults,     \* what is left of the budget
    told,       \* what the operator was told: groups managed, and fences cancelled
    \* One life of the manager.
    conn,       \* hosts with a standing connection whose agent has answered
    holder,     \* of each group: who holds its token
    know,       \* of each group and host: see Knowledge
    fence,      \* of each host: see Stages
    proof,      \* of each host, its power proof: "none", "old", "good"
    mem         \* the journal as it was folded into memory

machines == <<host, runs, order>>     devices == <<cut, word>>    paper == <<disk, told>>
tasks    == <<conn, holder, know>>
world    == <<machines, devices, paper, faults>>
manager  == <<tasks, fence, proof, mem>>
vars     == <<world, manager>>

-----------------------------------------------------------------------------
(* What the values mean. *)
Knowledge ==            \* what the manager knows of a group on a host, over this connection
    { "unknown",        \* no answer since the decision to start began, or since the connection
      "stopped",        \* a monitor said "not running"
      "running",        \* a monitor, or a start, said so
      "ended" }         \* it ran here under its task, and a monitor found it stopped since

Words ==
    { "none",           \* no question is under way, and no answer is younger than 10 s
      "asked",          \* the device was asked
      "off",            \* it looked, and saw the host off; its answer is under way
      "void",           \* likewise, but the host gave a sign of life since
      "recent" }        \* it said off at most 10 s ago, and there was no sign of life since

Stages ==               \* of a fence
    { "none",
      "intent",         \* decided; the intent is being recorded, tokens are coming home
      "ordered",        \* likewise, by the operator
      "switching",      \* off was sent
      "asking" }        \* the device acknowledged; it and the agent are asked for the proof

Notes == {"-", "intent", "off", "cancelled"}   \* the journal's last word on the fences of a host
Journal == [managed : [Groups -> BOOLEAN], note : [Hosts -> Notes]]

TypeOK ==
    /\ host \in [Hosts -> {"off", "mute", "up"}] /\ runs \in [Groups -> SUBSET Hosts]
    /\ order \in [Groups -> [Hosts -> {"none", "start", "stop"}]]
    /\ cut \in SUBSET Hosts /\ word \in [Hosts -> Words] /\ faults \in 0..Faults
    /\ disk \in Journal /\ mem \in Journal
    /\ told \in [managed : [Groups -> BOOLEAN], cancelled : SUBSET Hosts]
    /\ conn \in SUBSET Hosts /\ holder \in [Groups -> SUBSET (Hosts \cup {Desk})]
    /\ know \in [Groups -> [Hosts -> Knowledge]]
    /\ fence \in [Hosts -> Stages] /\ proof \in [Hosts -> {"none", "old", "good"}]
ForHosts(v) == [h \in Hosts |-> v]        ForGroups(v) == [g \in Groups |-> v]

Init ==     \* all hosts are up, nothing runs, and the manager knows nothing
    /\ host = ForHosts("up") /\ word = ForHosts("none") /\ cut = {}
    /\ runs = ForGroups({}) /\ order = ForGroups(ForHosts("none"))
    /\ disk = [managed |-> ForGroups(TRUE), note |-> ForHosts("-")] /\ mem = disk
    /\ told = [managed |-> ForGroups(TRUE), cancelled |-> {}] /\ faults = Faults
    /\ conn = {} /\ holder = ForGroups({Desk}) /\ know = ForGroups(ForHosts("unknown"))
    /\ fence = ForHosts("none") /\ proof = ForHosts("none")

-----------------------------------------------------------------------------
Fault == faults > 0 /\ faults' = faults - 1     \* this step costs one of the budget
Noted(h, n) == [mem EXCEPT !.note[h] = n]       \* memory first, the disk follows (Flush)
Know(g, h, k) == know' = [know EXCEPT ![g][h] = k]
KnowNothingOf(h) == know' = [g \in Groups |-> [know[g] EXCEPT ![h] = "unknown"]]
Afresh(g) ==    \* a new decision begins: older monitors are no proof any more (S1)
    [h \in Hosts |-> IF know[g][h] = "running" THEN "running" ELSE "unknown"]
SeenOn(g) == {h \in Hosts : know[g][h] = "running"}
TokenAt(h) == \E g \in Groups : h \in holder[g]
Ready(h) == h \in conn /\ fence[h] = "none"

-----------------------------------------------------------------------------
(* S1. A group is started on a host only with proof that it is stopped on every other candidate. *)
MonitorProof(g, h) == Ready(h) /\ know[g][h] \in {"stopped", "ended"}
PowerProof(h) == h \notin conn /\ fence[h] = "none" /\ proof[h] = "good"
ProvenElsewhere(g, h) == \A o \in Hosts \ {h} : MonitorProof(g, o) \/ PowerProof(o)
MayStart(g, h) ==
    /\ Ready(h)
    /\ mem.managed[g]                                   \* S4
    /\ SeenOn(g) = {}                                   \* S9
    /\ \/ know[g][h] = "ended"                          \* the exception: in place
       \/ (know[g][h] = "stopped" /\ ProvenElsewhere(g, h))

(* S4, S5. HALO powers off no host that may hold an unmanaged group. *)
MayPowerOff(h) == \A g \in Groups : mem.managed[g] \/ SeenOn(g) \ {h} # {}

-----------------------------------------------------------------------------
(* The world. *)
OrdersLost(h) == [g \in Groups |-> [order[g] EXCEPT ![h] = "none"]]
LosePower(h) ==
    /\ host' = [host EXCEPT ![h] = "off"] /\ runs' = [g \in Groups |-> runs[g] \ {h}]
    /\ order' = OrdersLost(h)
Calm(h) == h \in Miswired => word[h] # "off"
    \* Axiom: a device that is wired to another host says "off" only for a host whose agent answers,
    \* and to that the manager has a connection before the answer of the device comes (Renew).

PowerCut(h) ==
    /\ host[h] # "off" /\ Calm(h) /\ Fault
    /\ LosePower(h) /\ UNCHANGED <<devices, paper, manager>>

Boot(h) ==          \* somebody switches it on; what was sent to it is lost; its agent comes later
    /\ host[h] = "off" /\ Fault
    /\ host' = [host EXCEPT ![h] = "mute"]
    /\ order' = OrdersLost(h) /\ UNCHANGED <<runs, devices, paper, manager>>

GoMute(h) ==        \* the network fails, or the agent hangs; what runs there runs on
    /\ host[h] = "up" /\ Calm(h) /\ Fault
    /\ host' = [host EXCEPT ![h] = "mute"] /\ UNCHANGED <<runs, order, devices, paper, manager>>

Heal(h) ==
    /\ host[h] = "mute" /\ host' = [host EXCEPT ![h] = "up"]
    /\ UNCHANGED <<runs, order, devices, paper, faults, manager>>

Crash(g) ==         \* a group stops by itself
    /\ runs[g] # {} /\ Fault
    /\ runs' = [runs EXCEPT ![g] = {}] /\ UNCHANGED <<host, order, devices, paper, manager>>

StartByHand(g, h) ==
    \* People may do what they like with an unmanaged group, one copy at a time.  Axiom: a host that
    \* boots runs nothing within 10 s, or while a device looks, unless it gave a sign of life.
    /\ ~told.managed[g] /\ Fault
    /\ runs[g] = {} /\ \A o \in Hosts : order[g][o] = "none"
    /\ host[h] # "off" /\ word[h] \notin {"off", "recent"}
    /\ runs' = [runs EXCEPT ![g] = {h}] /\ UNCHANGED <<host, order, devices, paper, manager>>

Begin(g, h) ==
    \* The agent begins what it was told.  It may be late: the connection may have ended since.
    \* Script, answer and what the manager learns are one step here.
    /\ order[g][h] # "none" /\ host[h] # "off"
    /\ order' = [order EXCEPT ![g][h] = "none"]
    /\ runs' = [runs EXCEPT ![g] = IF order[g][h] = "start" THEN @ \cup {h} ELSE @ \ {h}]
    /\ IF h \in conn /\ host[h] = "up" /\ order[g][h] = "start"
       THEN Know(g, h, "running")
       ELSE UNCHANGED know      \* only a monitor proves that a group is stopped
    /\ UNCHANGED <<host, devices, paper, faults, conn, holder, fence, proof, mem>>

CutPower(h) ==      \* a device does what it was told, at once or late, even after a crash
    /\ h \in cut /\ Calm(h) /\ cut' = cut \ {h}
    /\ IF h \in Miswired THEN UNCHANGED machines ELSE LosePower(h)
    /\ UNCHANGED <<word, paper, faults, manager>>

IgnoreOff(h) ==     \* a device acknowledges an off and does nothing
    /\ h \in cut /\ Fault /\ cut' = cut \ {h} /\ UNCHANGED <<machines, word, paper, manager>>

TenSeconds(h) ==    \* a device's word is proof no longer than that (S1)
    /\ word[h] = "recent" /\ word' = [word EXCEPT ![h] = "none"]
    /\ proof' = [proof EXCEPT ![h] = IF @ = "good" THEN "old" ELSE @]
    /\ UNCHANGED <<machines, cut, paper, faults, tasks, fence, mem>>

-----------------------------------------------------------------------------
(* The journal (S7). *)
Flush ==            \* the disk has caught up
    /\ disk # mem /\ disk' = mem /\ UNCHANGED <<machines, devices, told, faults, manager>>

Record(m) == mem' = m /\ disk' = m      \* a command: on the disk before it is answered

Manage(g) ==        \* people may have done anything meanwhile: look afresh
    /\ ~mem.managed[g] /\ Fault /\ Record([mem EXCEPT !.managed[g] = TRUE])
    /\ told' = [told EXCEPT !.managed[g] = TRUE]
    /\ know' = [know EXCEPT ![g] = ForHosts("unknown")]
    /\ UNCHANGED <<machines, devices, conn, holder, fence, proof>>

Unmanage(g) ==
    /\ mem.managed[g] /\ Fault /\ Record([mem EXCEPT !.managed[g] = FALSE])
    /\ told' = [told EXCEPT !.managed[g] = FALSE]
    /\ UNCHANGED <<machines, devices, tasks, fence, proof>>

Restart ==
    \* The manager dies and starts again.  It knows what the disk holds, and nothing else.  An open
    \* intent is settled first; a recorded fence is a proof whose device has to be asked again.
    /\ Fault
    /\ mem' = disk
    /\ conn' = {} /\ holder' = ForGroups({Desk}) /\ know' = ForGroups(ForHosts("unknown"))
    /\ fence' = [h \in Hosts |-> IF disk.note[h] = "intent" THEN "asking" ELSE "none"]
    /\ proof' = [h \in Hosts |-> IF disk.note[h] = "off" THEN "old" ELSE "none"]
    /\ word' = [h \in Hosts |-> IF disk.note[h] = "intent" THEN "asked" ELSE "none"]
    /\ UNCHANGED <<machines, cut, paper>>

-----------------------------------------------------------------------------
(* Connections, monitors, and signs of life. *)
Void(w) == CASE w = "off" -> "void" [] w = "recent" -> "none" [] OTHER -> w

Connect(h) ==
    \* A sign of life: it ends the power proof and an open word of the device.  The agent drops
    \* what it had not begun for the old connection, and no token of that is left.
    /\ host[h] = "up" /\ h \notin conn /\ fence[h] \in {"none", "intent"} /\ ~TokenAt(h)
    /\ conn' = conn \cup {h} /\ order' = OrdersLost(h)
    /\ KnowNothingOf(h) /\ proof' = [proof EXCEPT ![h] = "none"]
    /\ word' = [word EXCEPT ![h] = Void(@)]
    /\ mem' = IF fence[h] = "none" THEN Noted(h, "-") ELSE mem
    /\ told' = [told EXCEPT !.cancelled = @ \ {h}]
    /\ UNCHANGED <<host, runs, cut, disk, faults, holder, fence>>

ClosedPort(h) ==    \* a sign of life that leaves a doubt: the device has to be asked once more
    /\ host[h] = "mute" /\ h \notin conn /\ word[h] \in {"off", "recent"}
    /\ word' = [word EXCEPT ![h] = Void(@)]
    /\ proof' = [proof EXCEPT ![h] = IF @ = "good" THEN "old" ELSE @]
    /\ UNCHANGED <<machines, cut, paper, faults, tasks, fence, mem>>

Disconnect(h) ==    \* silence, or a reset connection (a fault); nothing is known of the host now
    /\ h \in conn /\ IF host[h] = "up" THEN Fault ELSE UNCHANGED faults
    /\ conn' = conn \ {h}
    /\ KnowNothingOf(h) /\ UNCHANGED <<machines, devices, paper, holder, fence, proof, mem>>

Monitor(g, h) ==    \* the agent answers after what it runs or was told before
    /\ Ready(h) /\ host[h] = "up" /\ order[g][h] = "none"
    /\ IF h \in runs[g]
       THEN /\ know[g][h] # "running"   \* seen here, so no other host may complete it
            /\ know' = [know EXCEPT ![g] = [o \in Hosts |->
                   IF o = h THEN "running" ELSE IF @[o] = "ended" THEN "stopped" ELSE @[o]]]
       ELSE /\ know[g][h] \in {"unknown", "running"}
            /\ Know(g, h, IF know[g][h] = "running" /\ holder[g] = {h} /\ SeenOn(g) = {h}
                          THEN "ended" ELSE "stopped")
    /\ UNCHANGED <<world, conn, holder, fence, proof, mem>>

-----------------------------------------------------------------------------
(* S2. Tokens: the right to act on a group is in one place at every moment. *)
HandOut(g, h) ==    \* to the host where the group runs, or where it may be started
    /\ Desk \in holder[g] /\ Ready(h)
    /\ SeenOn(g) = {h} \/ MayStart(g, h)
    /\ holder' = [holder EXCEPT ![g] = (@ \ {Desk}) \cup {h}]
    /\ UNCHANGED <<world, conn, know, fence, proof, mem>>

GoHome(g, h) ==     \* the connection ended, or a start lacks its proof, or a stop is done
    /\ h \in holder[g]
    /\ h \in conn => know[g][h] # "running" /\ order[g][h] = "none"
    /\ holder' = [holder EXCEPT ![g] = (@ \ {h}) \cup {Desk}]
    /\ know' = [know EXCEPT ![g] = IF @[h] \in {"stopped", "ended"}
                                   THEN [@ EXCEPT ![h] = "stopped"] ELSE Afresh(g)]
    /\ UNCHANGED <<world, conn, fence, proof, mem>>

Send(g, h, what) ==
    /\ h \in holder[g] /\ order[g][h] = "none"
    /\ order' = [order EXCEPT ![g][h] = what]
    /\ UNCHANGED <<host, runs, devices, paper, conn, holder, fence, proof, mem>>

Start(g, h) ==
    MayStart(g, h) /\ Send(g, h, "start") /\ Know(g, h, "unknown") /\ UNCHANGED faults

Stop(g, h) ==       \* a planned move; the decision to start elsewhere begins here
    /\ know' = [know EXCEPT ![g] = Afresh(g)]
    /\ Ready(h) /\ mem.managed[g] /\ SeenOn(g) = {h} /\ Fault /\ Send(g, h, "stop")

-----------------------------------------------------------------------------
(* S3. Fences: intent, off, the device's word, the agent's silence, and only then the record. *)
Fencing(h, stage, w) == fence' = [fence EXCEPT ![h] = stage] /\ word' = [word EXCEPT ![h] = w]
Unfenced(h, note) == IF proof[h] = "none" THEN note ELSE "off"  \* an earlier fence stays valid
End(h, note, w) == Fencing(h, "none", w) /\ mem' = Noted(h, note)

Intend(h) ==
    \* The host is silent, a group that should run waits for it, and another host could take it.
    /\ host[h] # "up" /\ h \notin conn /\ fence[h] = "none" /\ proof[h] = "none"
    /\ mem.note[h] # "cancelled" /\ MayPowerOff(h)
    /\ \E g \in Groups : mem.managed[g] /\ SeenOn(g) = {}
    /\ \E o \in Hosts : Ready(o)
    /\ Fencing(h, "intent", "none")
    /\ mem' = Noted(h, "intent") /\ UNCHANGED <<machines, cut, paper, faults, tasks, proof>>

OrderFence(h) ==    \* the operator fences a host; the manager drops its connection
    /\ fence[h] = "none" /\ Fault /\ Fencing(h, "ordered", "none")
    /\ proof' = [proof EXCEPT ![h] = IF @ = "good" THEN "old" ELSE @]
    /\ conn' = conn \ {h}
    /\ KnowNothingOf(h) /\ Record(Noted(h, "intent"))
    /\ told' = [told EXCEPT !.cancelled = @ \ {h}] /\ UNCHANGED <<machines, cut, holder>>

SwitchOff(h) ==     \* every token is home; what forbids the fence is asked again in this step
    /\ fence[h] = "ordered" \/ (fence[h] = "intent" /\ h \notin conn /\ MayPowerOff(h))
    /\ ~TokenAt(h) /\ (SlowDisk \/ disk.note[h] = "intent")
    /\ fence' = [fence EXCEPT ![h] = "switching"]
    /\ cut' = cut \cup {h} /\ UNCHANGED <<machines, word, paper, faults, tasks, proof, mem>>

CallOff(h) ==       \* the host answers again, or the operator forbids it; it is greeted afresh
    /\ fence[h] = "intent" /\ (h \in conn \/ ~MayPowerOff(h)) /\ End(h, "-", "none")
    /\ conn' = conn \ {h} /\ KnowNothingOf(h)
    /\ UNCHANGED <<machines, cut, paper, faults, holder, proof>>

Acknowledge(h) ==   \* the device says "done", which proves nothing: ask it, and the agent
    /\ fence[h] = "switching" /\ Fencing(h, "asking", "asked")
    /\ UNCHANGED <<machines, cut, paper, faults, tasks, proof, mem>>

AskAgain(h) ==      \* an old proof needs the device's word once more
    /\ proof[h] = "old" /\ h \notin conn /\ fence[h] = "none" /\ word[h] = "none"
    /\ word' = [word EXCEPT ![h] = "asked"] /\ UNCHANGED <<machines, cut, paper, faults, manager>>

SeeOff(h) ==        \* the device looks; its answer may be slow
    /\ word[h] = "asked"
    /\ host[h] = "off" \/ (h \in Miswired /\ host[h] = "up")
    /\ word' = [word EXCEPT ![h] = "off"] /\ UNCHANGED <<machines, cut, paper, faults, manager>>

Confirm(h) ==
    /\ fence[h] = "asking" /\ word[h] \in {"off", "void"}
    /\ host[h] # "up"               \* its agent does not answer
    /\ proof' = [proof EXCEPT ![h] = IF word[h] = "off" THEN "good" ELSE "old"]
    /\ End(h, "off", IF word[h] = "off" THEN "recent" ELSE "none")
    /\ UNCHANGED <<machines, cut, paper, faults, tasks>>

Fail(h) ==          \* the device says on, or fails (a fault), or the agent answers
    /\ \/ fence[h] = "asking" /\ (host[h] = "up" \/ (word[h] = "asked" /\ host[h] # "off"))
          /\ UNCHANGED faults
       \/ fence[h] \in {"switching", "asking"} /\ Fault
    /\ End(h, Unfenced(h, "-"), "none") /\ UNCHANGED <<machines, cut, paper, tasks, proof>>

Renew(h) ==         \* the answer to AskAgain; a sign of life since the question makes it void
    /\ fence[h] = "none" /\ word[h] \in {"off", "void"} /\ ~(h \in Miswired /\ host[h] = "up")
    /\ IF word[h] = "off" /\ proof[h] # "none"
       THEN proof' = [proof EXCEPT ![h] = "good"] /\ word' = [word EXCEPT ![h] = "recent"]
       ELSE proof' = proof /\ word' = [word EXCEPT ![h] = "none"]
    /\ UNCHANGED <<machines, cut, paper, faults, tasks, fence, mem>>

Deny(h) ==          \* the device says on: the host is not proven off any more
    /\ fence[h] = "none" /\ word[h] = "asked" /\ host[h] # "off"
    /\ proof' = [proof EXCEPT ![h] = "none"] /\ word' = [word EXCEPT ![h] = "none"]
    /\ mem' = IF mem.note[h] = "off" THEN Noted(h, "-") ELSE mem
    /\ UNCHANGED <<machines, cut, paper, faults, tasks, fence>>

Cancel(h) ==        \* the operator gives the fence up: no other one before the host answers
    /\ fence[h] # "none" /\ Fault /\ Fencing(h, "none", "none")
    /\ Record(Noted(h, Unfenced(h, "cancelled")))
    /\ told' = [told EXCEPT !.cancelled = IF proof[h] = "none" THEN @ \cup {h} ELSE @]
    /\ UNCHANGED <<machines, cut, tasks, proof>>

-----------------------------------------------------------------------------
(* The whole. *)
OnHost(h) ==
    \/ PowerCut(h) \/ Boot(h) \/ GoMute(h) \/ Heal(h) \/ CutPower(h) \/ IgnoreOff(h)
    \/ TenSeconds(h) \/ Connect(h) \/ ClosedPort(h) \/ Disconnect(h)
    \/ Intend(h) \/ OrderFence(h) \/ SwitchOff(h) \/ CallOff(h) \/ Acknowledge(h) 
    \/ AskAgain(h) \/ SeeOff(h) \/ Confirm(h) \/ Fail(h) \/ Renew(h) \/ Deny(h) \/ Cancel(h)
OnGroup(g) == Crash(g) \/ Manage(g) \/ Unmanage(g)
OnBoth(g, h) ==
    \/ StartByHand(g, h) \/ Begin(g, h) \/ Monitor(g, h) \/ HandOut(g, h) \/ GoHome(g, h)
    \/ Start(g, h) \/ Stop(g, h)

Next ==
    \/ Flush \/ Restart
    \/ \E h \in Hosts : OnHost(h)
    \/ \E g \in Groups : OnGroup(g) \/ \E h \in Hosts : OnBoth(g, h)

Spec == Init /\ [][Next]_vars

-----------------------------------------------------------------------------
(* Safety. *)
AtMostOnce == \A g \in Groups : Cardinality(runs[g]) <= 1          \* what S1 is for

ProofsAreTrue ==                                                    \* S1
    \A g \in Groups, h \in Hosts :
        (MonitorProof(g, h) /\ mem.managed[g]) \/ PowerProof(h)
            => h \notin runs[g] /\ (order[g][h] = "start" => host[h] = "off")

OneToken == \A g \in Groups : Cardinality(holder[g]) = 1           \* S2

OpenIntentsAreKept ==                                               \* S3
    \A h \in Hosts :
        /\ mem.note[h] = "intent" <=> fence[h] # "none"
        /\ fence[h] = "switching" /\ ~SlowDisk => disk.note[h] = "intent"

RecordedOnlyWhenConfirmed ==                                        \* S3
    [][\A h \in Hosts : mem.note[h] # "off" /\ mem'.note[h] = "off" =>
        \/ fence[h] = "asking" /\ word[h] \in {"off", "void"} /\ host[h] # "up"
        \/ proof[h] # "none" \/ mem' = disk]_vars                   \* as before; a restart

UnmanagedIsLeftAlone ==                                             \* S4
    [][\A g \in Groups, h \in Hosts :
            order[g][h] = "none" /\ order'[g][h] # "none" => mem.managed[g]]_vars

OffOnlyWhenAllowed ==                                               \* S3, S4
    [][\A h \in cut' \ cut : fence[h] = "ordered" \/ (h \notin conn /\ MayPowerOff(h))]_vars

ToldIsKept ==                                                       \* S7
    /\ disk.managed = told.managed /\ mem.managed = told.managed
    /\ \A h \in told.cancelled : fence[h] = "none"
=============================================================================
