"""What a frame costs a network, in processor time: `python -m bench.frames [FRAMES]`.

Nothing is sent anywhere: receivers take frames and forget them. Times are the least of several rounds, since whatever
else the host does only adds to them.
"""

from __future__ import annotations

import struct
import sys
import time
from collections.abc import Callable

from celaje.network.interface import Interface
from celaje.network.outside import Packet
from tests.network.conversation import (
    ACK,
    FAR,
    NEEDS_TCP,
    SYN,
    Machine,
    Outside,
    World,
    connect,
    tcp_segment,
)

ROUNDS = 5
SEGMENTS = struct.pack("<BBHHHHH", 1, 1, 54, 1448, 34, 16, 0)
LARGE = bytes(65_000)
FULL = bytes(1448)  # of data in a frame of 1,500 bytes


def least(what: Callable[[], object], count: int) -> float:
    """Microseconds of processor time for one of `count`."""
    best = float("inf")
    for _ in range(ROUNDS):
        begin = time.process_time()
        for _ in range(count):
            what()
        best = min(best, (time.process_time() - begin) / count)
    return best * 1e6


class Forgetful(Outside):
    """Takes packets and forgets them."""

    def packet(self, interface: Interface, packet: Packet) -> None:
        pass


def main(count: int) -> None:
    world = World(outside=Forgetful())
    a, b = world.machine("a"), world.machine("b")
    connect(a, b)
    a.says(a.udp(b, 1000, 53))
    b.says(b.udp(a, 53, 1000))
    a.says(a.tcp(FAR, 40000, 80, SYN))
    header = tcp_segment(FAR, 80, a.address, 40000, ACK, b"", partial=True)
    answer = tcp_segment(FAR, 80, a.address, 40000, SYN | ACK, b"", partial=True)
    assert world.network.deliver(a.interface, FAR, a.address, 6, [answer])
    a.says(a.tcp(FAR, 40000, 80, ACK))
    for machine in (a, b):
        machine.interface.transmit = lambda parts: True

    def received(frame: bytes, sender: Machine = a) -> Callable[[], object]:
        view = memoryview(frame)
        return lambda: world.network.receive(sender.interface, view)

    def delivered(data: bytes) -> Callable[[], object]:
        return lambda: world.network.deliver(a.interface, FAR, a.address, 6, [header, data], 1448)

    for name, what in {
        "guest to guest: TCP, 64 KiB": received(a.tcp(b, 40000, 22, ACK, LARGE, SEGMENTS)),
        "guest to guest: TCP, an acknowledgement": received(a.tcp(b, 40000, 22, ACK)),
        "guest to guest: UDP": received(a.udp(b, 1000, 53, FULL)),
        "guest to guest: ping": received(a.ping(b)),
        "guest to outside: TCP, 64 KiB": received(a.tcp(FAR, 40000, 80, ACK, LARGE, SEGMENTS)),
        "guest to outside: TCP, 1500 bytes": received(a.tcp(FAR, 40000, 80, ACK, FULL, NEEDS_TCP)),
        "guest to outside: the same, checksum verified": received(a.tcp(FAR, 40000, 80, ACK, FULL)),
        "outside to guest: TCP, 64 KiB": delivered(LARGE),
        "outside to guest: TCP, 1500 bytes": delivered(FULL),
    }.items():
        print(f"{name:46} {least(what, count):6.2f} µs")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
