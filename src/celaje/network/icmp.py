"""ICMP (RFC 792): echo, and errors about packets.

0  1  type
1  1  code
2  2  checksum
4  4  echo: identifier, sequence number; fragmentation needed: 0, the next hop's MTU; otherwise 0
8  …  echo: data; errors: the packet's IP header and at least 8 bytes of what follows
"""

from __future__ import annotations

import struct

from celaje.network.buffers import Buffer
from celaje.network.checksum import checksum

ECHO_REPLY = 0
UNREACHABLE = 3
ECHO_REQUEST = 8
TIME_EXCEEDED = 11

# Codes of UNREACHABLE (RFC 792, RFC 1122 3.2.2.1, RFC 1812 5.2.7.1).
NET_UNREACHABLE = 0
HOST_UNREACHABLE = 1
PROTOCOL_UNREACHABLE = 2
PORT_UNREACHABLE = 3
FRAGMENTATION_NEEDED = 4
ADMINISTRATIVELY_PROHIBITED = 13

# Types that are about a packet of their receiver's, and that no error is ever sent about (RFC 1122, 3.2.2).
ERRORS = frozenset((UNREACHABLE, 4, 5, TIME_EXCEEDED, 12))

HEADER = 8
_header = struct.Struct(">BBHHH")


def echo_reply(request: memoryview) -> bytes:
    """What answers an echo request (its ICMP header and data)."""
    rest = request[4:]
    return b"".join((b"\0\0", checksum(rest).to_bytes(2, "big"), rest))


def echo(kind: int, identifier: int, sequence: int, data: Buffer) -> bytes:
    """An echo request or reply."""
    sum_ = checksum(_header.pack(kind, 0, 0, identifier, sequence), data)
    return _header.pack(kind, 0, sum_, identifier, sequence) + data


def error(kind: int, code: int, quote: bytes, mtu: int = 0) -> bytes:
    """An error about the packet that begins with `quote`."""
    sum_ = checksum(_header.pack(kind, code, 0, 0, mtu), quote)
    return _header.pack(kind, code, sum_, 0, mtu) + quote


def may_be_told(quote: bytes) -> bool:
    """Whether an error may be sent about a packet: not about another error, a later fragment, or one to many
    (RFC 1122, 3.2.2)."""
    if len(quote) < 28 or quote[0] != 0x45 or quote[6] & 0x1F or quote[7] or quote[16] >> 4 >= 0xE:
        return False
    return not (quote[9] == 1 and quote[20] in ERRORS)
