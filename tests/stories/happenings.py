"""What a step says, done to the simulated world. `HAPPENINGS` is all that can be said."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.simulation.devices import Outlet
from tests.simulation.model import Action
from tests.stories.telling import whole_status

if TYPE_CHECKING:
    from tests.simulation.hosts import SimHost
    from tests.stories.stage import Stage

FOR_EVER_S = 1e6
FOR_SECONDS = r"(?: for (\d+) s)?"


class NotUnderstood(Exception):
    """A step that cannot happen; the text says why."""


def happen(stage: Stage, text: str) -> None:
    """Do what a step says, now. Raises NotUnderstood."""
    for pattern, function in HAPPENINGS.items():
        found = re.fullmatch(pattern, text)
        if found is not None:
            stage.world.is_directed = True
            try:
                function(stage, *found.groups(default=""))
            finally:
                stage.world.is_directed = False
            return
    raise NotUnderstood("this step is not understood; README.md has all that can happen")


# --- the operator ----------------------------------------------------------------------------


def _halo(stage: Stage, text: str) -> None:
    words = shlex.split(text)
    options: dict[str, Any] = {"reason": ""}
    objects = []
    name = words.pop(0)
    while words:
        match words.pop(0):
            case "--to":
                options["to"] = words.pop(0)
            case "--onto":
                objects.append(words.pop(0))
            case "--reason":
                options["reason"] = words.pop(0)
            case "--force":
                options["force"] = True
            case "--stopped-on" if name == "cleanup":
                name = "confirm-stopped"
                options["to"] = words.pop(0)
            case "--cancel" if name == "fence":
                name = "cancel-fence"
            case "--confirm-off" if name == "fence":
                name = "confirm-off"
            case option if option.startswith("-"):
                raise NotUnderstood(f"unknown option {option}")
            case word:
                objects.append(word)
    _give(stage, name, objects, options)


def _give(stage: Stage, name: str, objects: list[str], options: dict[str, Any]) -> None:
    world, current = stage.world, stage.simulation.current
    if current is None:
        raise NotUnderstood("no manager runs")
    if name == "status":
        stage.world.log.lines += whole_status(current.manager.operations.status())
        return
    if name == "events" and objects == ["clear"]:
        name, objects = "clear_events", []
    known = {
        "start": world.cluster.groups, "stop": world.cluster.groups,
        "move": world.cluster.groups, "cleanup": world.cluster.groups,
        "confirm-stopped": world.cluster.groups,
        "manage": world.cluster.groups, "unmanage": world.cluster.groups,
        "failback": world.hosts, "fence": world.hosts, "confirm-off": world.hosts,
        "cancel-fence": world.hosts, "activate": world.hosts, "deactivate": world.hosts,
        "reset": world.hosts, "freeze": (), "thaw": (), "clear_events": (),
    }.get(name)  # fmt: skip
    if known is None or len(objects) != bool(known) or any(o not in known for o in objects):
        raise NotUnderstood(f"no such command, or no such object: {name} {' '.join(objects)}")
    if name == "confirm-off" and _would_lie(stage, objects[0]):
        raise NotUnderstood(f"nobody may say that {objects[0]} is off: it has power")
    stage.simulation.operator.command(name, "".join(objects), **options)


def _would_lie(stage: Stage, host: str) -> bool:
    """Would who vouches for the host being off be believed, and be wrong? Where it answers, it is
    refused."""
    is_seen = stage.world.oracle.hosts[host].connection is not None
    return stage.world.hosts[host].powered and not is_seen


# --- hosts, agents, network ------------------------------------------------------------------


def _power_cut(stage: Stage, names: str) -> None:
    for host in _hosts(stage, names):
        host.power_off("cut")


def _power_back(stage: Stage, names: str) -> None:
    for host in _hosts(stage, names):
        stage.world.outlets.reconnect(host.id)
        host.power_on("back")


def _network(stage: Stage, names: str, what: str, seconds: str) -> None:
    hosts = _hosts(stage, names)
    if what == "cut":
        _fault(stage, "hole", seconds, hosts=[host.id for host in hosts], way="both")
    else:
        stage.simulation.faults._mend_holes(hosts)


def _agent(stage: Stage, name: str, what: str, seconds: str) -> None:
    host = _hosts(stage, name)[0]
    match what:
        case "crashes":
            _fault(stage, "agent_crash", seconds, host=host.id)
        case "hangs":
            _fault(stage, "agent_hang", seconds, host=host.id)
        case "starts":
            host.start_agent()
        case "goes on":
            host.wake_agent()


# --- resources and scripts -------------------------------------------------------------------


def _resource(stage: Stage, name: str, what: str, host_name: str) -> None:
    host = _hosts(stage, host_name)[0]
    _known_resource(stage, name)
    if (name in host.running) == what.startswith("is started"):
        raise NotUnderstood(f"{name} {'runs' if name in host.running else 'does not run'} there")
    if what.startswith("is started"):
        host.start_by_hand(name)
    else:
        host.stop_by_itself(name)


def _script(stage: Stage, operation: str, name: str, host_name: str, what: str, count: str) -> None:
    host = _hosts(stage, host_name)[0]
    _known_resource(stage, name)
    fault = {"fails": "no-effect-fail", "hangs": "hang", "is slow": "slow"}[what]
    _fault(
        stage, "script", host=host.id, resource=name, operation=operation, fault=fault,
        count=int(count or 1),
    )  # fmt: skip


def _known_resource(stage: Stage, name: str) -> None:
    if name not in stage.world.oracle.groups_with:
        raise NotUnderstood(f"there is no resource {name}")


# --- fence devices ---------------------------------------------------------------------------


def _device(stage: Stage, level: str, name: str, what: str, seconds: str) -> None:
    outlet = _outlet(stage, name, int(level or 1))
    faults = {
        "fails": "fail", "hangs": "hang", "does nothing": "no-effect", "is unplugged": "unplugged",
        "is mended": "",
    }  # fmt: skip
    outlet.fault = faults[what]
    if seconds:
        stage.simulation.clock.after(float(seconds), setattr, outlet, "fault", "")
    if what == "is mended":
        outlet.miswired_to = None


def _miswired(stage: Stage, name: str, other: str) -> None:
    _outlet(stage, name, 1).miswired_to = _hosts(stage, other)[0]


def _outlet(stage: Stage, host: str, level: int) -> Outlet:
    found = stage.world.outlets.by_name.get(f"{host}/{level - 1}.0")
    if found is None:
        raise NotUnderstood(f"{host} has no fence device {level}")
    return found


# --- the manager -----------------------------------------------------------------------------


def _manager_starts(stage: Stage) -> None:
    if stage.simulation.current is not None:
        raise NotUnderstood("the manager runs already")
    stage.simulation.start_manager()


def _manager_crashes(stage: Stage, seconds: str) -> None:
    stage.simulation.down_s = float(seconds or 1.0)
    stage.simulation.kill_manager()


def _group_is_configured(stage: Stage, group: str, hosts: str) -> None:
    config = stage.simulation.config
    groups = [
        replace(plan, candidates=tuple(hosts.split())) if plan.tree[0][0] == group else plan
        for plan in config.now.groups
    ]
    config.write(replace(config.now, groups=tuple(groups)))


def _host_leaves(stage: Stage, host: str) -> None:
    config = stage.simulation.config
    hosts = {name: options for name, options in config.now.hosts.items() if name != host}
    groups = [
        replace(plan, candidates=tuple(name for name in plan.candidates if name != host))
        for plan in config.now.groups
    ]
    config.write(replace(config.now, hosts=hosts, groups=tuple(groups)))


def _manager_stands_still(stage: Stage, seconds: str) -> None:
    stage.simulation.stall_manager(float(seconds))


def _disk(stage: Stage, what: str) -> None:
    stage.world.disk.full = what == "full"


# --- what they share -------------------------------------------------------------------------


def _fault(stage: Stage, kind: str, seconds: str = "", **args: Any) -> None:
    action = Action(0.0, kind, {"for_s": float(seconds or FOR_EVER_S), **args})
    stage.simulation.faults.happen(action, "")


def _hosts(stage: Stage, names: str) -> list[SimHost]:
    for name in names.split():
        if name not in stage.world.hosts:
            raise NotUnderstood(f"there is no host {name}")
    return [stage.world.hosts[name] for name in names.split()]


HAPPENINGS: dict[str, Callable[..., None]] = {
    r"halo (.+)": _halo,
    r"power cut ([\w ]+)": _power_cut,
    r"power back ([\w ]+)": _power_back,
    rf"network of ([\w ]+) is (cut|mended){FOR_SECONDS}": _network,
    rf"agent of (\w+) (crashes|hangs|starts|goes on){FOR_SECONDS}": _agent,
    r"resource (\S+) (crashes|is started by hand|is stopped by hand) on (\w+)": _resource,
    r"(start|stop|monitor) of (\S+) on (\w+) (fails|hangs|is slow)(?:,? (\d+) times)?": _script,
    r"device (?:(\d+) )?of (\w+) (fails|hangs|does nothing|is unplugged|is mended)"
    + FOR_SECONDS: _device,
    r"device of (\w+) switches (\w+)": _miswired,
    r"manager starts": _manager_starts,
    rf"manager crashes{FOR_SECONDS}": _manager_crashes,
    r"config: (\S+) may run on ([\w ]+)": _group_is_configured,
    r"config: (\S+) is gone": _host_leaves,
    r"manager stands still for (\d+) s": _manager_stands_still,
    r"disk is (full|mended)": _disk,
}
