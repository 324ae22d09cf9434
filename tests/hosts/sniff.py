"""Writes one JSON line for every IPv4 TCP segment and ARP packet that an interface receives.

Usage: sniff.py INTERFACE, in the network namespace that shall be listened in. The line `ready`
comes first. `at` is the time of day in seconds.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
from typing import Any

_ETH_P_ALL = 3
_OUTGOING = 4
_SO_TIMESTAMPNS = 35
_FLAGS = "FSRPAU"


def parse(frame: bytes) -> dict[str, Any] | None:
    """What is worth telling of a frame."""
    kind = struct.unpack_from("!H", frame, 12)[0]
    if kind == 0x0806:
        operation, sender, _, target = struct.unpack_from("!6xH6x4s6s4s", frame, 14)
        return {
            "arp": operation,
            "mac": frame[6:12].hex(":"),
            "sender": socket.inet_ntoa(sender),
            "target": socket.inet_ntoa(target),
        }
    if kind == 0x0800 and frame[23] == socket.IPPROTO_TCP:
        at = 14 + (frame[14] & 15) * 4
        flags = "".join(name for bit, name in enumerate(_FLAGS) if frame[at + 13] >> bit & 1)
        return {"tcp": flags, "source": socket.inet_ntoa(frame[26:30])}
    return None


def main() -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL)) as ear:
        ear.bind((sys.argv[1], 0))
        ear.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)  # when it came, not when it was read
        print(json.dumps({"ready": True}), flush=True)
        while True:
            frame, control, _, address = ear.recvmsg(2048, 64)
            if address[2] != _OUTGOING and (told := parse(frame)):
                seconds, nanoseconds = struct.unpack("qq", control[0][2])
                print(json.dumps({"at": seconds + nanoseconds / 1e9, **told}), flush=True)


if __name__ == "__main__":
    main()
