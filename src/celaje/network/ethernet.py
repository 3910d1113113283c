"""Ethernet II frames: addresses and types.

0   6  destination
6   6  source
12  2  type        (an IEEE 802.1Q tag would stand here: VLANs are not offered)
14  …  payload
"""

from __future__ import annotations

import struct

HEADER = 14
BROADCAST = b"\xff" * 6

IPV4 = 0x0800
ARP = 0x0806
IPV6 = 0x86DD

header = struct.Struct(">6s6sH")


def is_unicast(mac: bytes) -> bool:
    """Whether an interface may have this address: not a group's, and not all zero."""
    return len(mac) == 6 and not mac[0] & 1 and any(mac)


def text(mac: bytes) -> str:
    """Six hexadecimal pairs with colons."""
    return mac.hex(":")
