"""ARP (RFC 826) for IPv4 over Ethernet. The network answers for everybody (RFC 1027), so no request is ever flooded.

0   2  hardware type 1        8   6  sender's MAC
2   2  protocol type 0x0800   14  4  sender's address (0: a probe, RFC 5227)
4   1  6                      18  6  target's MAC
5   1  4                      24  4  target's address
6   2  1 request, 2 reply
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

SIZE = 28
REQUEST = 1
REPLY = 2

_message = struct.Struct(">HHBBH6sI6sI")
_KIND = (1, 0x0800, 6, 4)


@dataclass(frozen=True, slots=True)
class ArpMessage:
    """`sender` and `target` are addresses as numbers."""

    operation: int
    sender_mac: bytes
    sender: int
    target: int


def parse(data: memoryview) -> ArpMessage | None:
    """The message in `data`, which is at least SIZE bytes long; None if it is about anything but IPv4 over
    Ethernet."""
    *kind, operation, sender_mac, sender, _, target = _message.unpack_from(data)
    if tuple(kind) != _KIND or operation not in (REQUEST, REPLY):
        return None
    return ArpMessage(operation, sender_mac, sender, target)


def request(mac: bytes, address: int, target: int) -> bytes:
    """Asks, as `address` at `mac`, who has `target`."""
    return _message.pack(*_KIND, REQUEST, mac, address, bytes(6), target)


def reply(mac: bytes, address: int, target_mac: bytes, target: int) -> bytes:
    """Says to `target` that `address` is at `mac`."""
    return _message.pack(*_KIND, REPLY, mac, address, target_mac, target)
