"""What hangs between a simulated BMC and the mains: one wire a protocol.

    python -S switch.py ipmi SOCKET OUTLET get power        ipmi_sim's chassis_control
    python -S switch.py powerman SOCKET                     a coprocess of powermand

Run as a file with the standard library alone, since `ipmi_sim` starts it for every question.
"""

from __future__ import annotations

import json
import socket
import sys


def ask(path: str, outlet: str, verb: str) -> bool:
    """`get`, `on`, `off` or `reset` an outlet; whether it is on then. Raises OSError."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        request = {"do": "switch", "name": outlet, "verb": verb}
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile("rb") as lines:
            answer = json.loads(lines.readline() or b'{"error": "no answer"}')
    if "error" in answer:
        raise OSError(answer["error"])
    return bool(answer["on"])


def ipmi(path: str, outlet: str, words: list[str]) -> int:
    """`get power`, `set power 0`, `set reset 1`, ...; exit status 1 is told to the client."""
    try:
        match words:
            case ["get", "power"]:
                print(f"power:{int(ask(path, outlet, 'get'))}")
            case ["set", "power", state]:
                ask(path, outlet, "on" if state == "1" else "off")
            case ["set", "reset", _]:
                ask(path, outlet, "reset")
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def powerman(path: str) -> int:
    """The line protocol of powerman's virtual power controller; plug N feeds host hN."""
    for line in sys.stdin:
        try:
            answer = _plugs(path, line.split())
        except OSError:
            continue  # no answer: powermand gives up after a while, and says so
        print(f"{answer}1 OK\n1 vpc> ", end="", flush=True)
    return 0


def _plugs(path: str, words: list[str]) -> str:
    match words:
        case ["stat", "*"]:
            lines = []
            for plug in range(16):
                try:
                    state = "ON" if ask(path, f"h{plug}", "get") else "OFF"
                except OSError:
                    state = "OFF"  # nothing is plugged in there
                lines.append(f"plug {plug}: {state}\n")
            return "".join(lines)
        case ["on" | "off" as verb, plug]:
            ask(path, f"h{plug}", verb)
    return ""


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["ipmi", mains, outlet_name, *rest]:
            sys.exit(ipmi(mains, outlet_name, rest))
        case ["powerman", mains]:
            sys.exit(powerman(mains))
    sys.exit(2)
