------------------------------- MODULE HaloTrace -------------------------------
(***************************************************************************)
(* Is a run of the real manager a behaviour of the model?  TraceData (made *)
(* by traces.py) holds what crossed the manager's ports in some simulated  *)
(* runs, event by event.  Each event has to be the step of Halo.tla that   *)
(* Visible names.  Between two events, steps that no port shows may be     *)
(* taken (Hidden).  TLC looks for a way through, and Watch prints how far  *)
(* it came in each trace.                                                  *)
(***************************************************************************)
EXTENDS Halo, Sequences, TLC, TraceData

VARIABLES number, place     \* of a trace; of the event in it that comes next

Event == Traces[number][place]
Stay == UNCHANGED vars      \* the event says nothing new
AnyFault == UNCHANGED faults    \* replaces Fault: how many there are is the scenario's affair

TheGroup == CHOOSE g \in Groups : TRUE

Visible(e, g, h) ==
    CASE e.what = "connect"      -> Connect(h)
      [] e.what = "disconnect"   -> Disconnect(h) \/ (h \notin conn /\ Stay)
      [] e.what = "start"        -> Start(g, h)
      [] e.what = "stop"         -> Stop(g, h)
      [] e.what = "begin"        -> Begin(g, h)
      [] e.what = "says running" -> /\ h \in runs[g]
                                    /\ Monitor(g, h) \/ (know[g][h] = "running" /\ Stay)
      [] e.what = "says stopped" -> /\ h \notin runs[g]
                                    /\ Monitor(g, h) \/ (know[g][h] \in {"stopped", "ended"} /\ Stay)
      [] e.what = "off"          -> SwitchOff(h)
      [] e.what = "done"         -> Acknowledge(h)
      [] e.what = "asked"        -> AskAgain(h) \/ Stay
      [] e.what = "says off"     -> SeeOff(h) \/ (word[h] # "asked" /\ Stay)
      [] e.what = "aged"         -> TenSeconds(h) \/ (word[h] # "recent" /\ Stay)
      [] e.what = "intent"       -> Intend(h)
      [] e.what = "order"        -> OrderFence(h)
      [] e.what = "confirmed"    -> Confirm(h)
      [] e.what = "failed"       -> Fail(h) \/ CallOff(h)
      [] e.what = "cancelled"    -> Cancel(h)
      [] e.what = "manage"       -> Manage(g)
      [] e.what = "unmanage"     -> Unmanage(g)
      [] e.what = "power off"    -> IF h \in cut THEN CutPower(h) ELSE PowerCut(h)
      [] e.what = "power on"     -> Boot(h)
      [] e.what = "crash"        -> Crash(g)
      [] e.what = "restart"      -> Restart /\ \A o \in Hosts : disk.note[o] = e.notes[o]

(* To save work, a step is hidden only just before an event that may need it. *)
Hidden(e, g) ==
    \/ Flush
    \/ \E h \in Hosts :
        /\ h = e.host \/ e.what \in {"start", "restart"}
        /\ Heal(h) \/ GoMute(h) \/ ClosedPort(h) \/ Renew(h) \/ Deny(h)
    \/ IgnoreOff(e.host)
    \/ /\ e.what \in {"connect", "start", "stop", "off", "says stopped"}
       /\ \E h \in Hosts : HandOut(g, h) \/ GoHome(g, h)

TraceInit == Init /\ number \in DOMAIN Traces /\ place = 1

TraceNext ==
    /\ place <= Len(Traces[number]) /\ number' = number
    /\ \/ Visible(Event, TheGroup, Event.host) /\ place' = place + 1
       \/ Hidden(Event, TheGroup) /\ place' = place

ASSUME \A n \in DOMAIN Traces : TLCSet(n, 0)

Watch ==    \* asked of every state
    IF place > TLCGet(number) THEN TLCSet(number, place) /\ PrintT(<<"reached", number, place>>)
    ELSE TRUE

TraceSpec == TraceInit /\ [][TraceNext]_<<vars, number, place>>
===============================================================================
