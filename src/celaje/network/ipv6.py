"""IPv6 on the link, and no further: the router's link-local address is there and answers, nothing else is promised.

Neighbour solicitations for it and echo requests to it are answered (RFC 4861, RFC 4443). A router solicitation is
answered by an advertisement with a router lifetime of 0 and no prefix: a guest that asks hears at once that there is
no default router here, instead of asking again and waiting.

    IPv6     0  4  version 6, class, flow label    8   16  source
             4  2  payload length                  24  16  destination
             6  1  next header
             7  1  hop limit
    ICMPv6   0  1  type,  1  1  code,  2  2  checksum (with IPv6's pseudo header), then by type
"""

from __future__ import annotations

import struct

from celaje.network.checksum import checksum, is_correct, pseudo_header_sum_v6

HEADER = 40
ICMPV6 = 58

ECHO_REQUEST = 128
ECHO_REPLY = 129
ROUTER_SOLICITATION = 133
ROUTER_ADVERTISEMENT = 134
NEIGHBOUR_SOLICITATION = 135
NEIGHBOUR_ADVERTISEMENT = 136

ALL_NODES = bytes.fromhex("ff020000000000000000000000000001")
ALL_ROUTERS = bytes.fromhex("ff020000000000000000000000000002")
UNSPECIFIED = bytes(16)

_header = struct.Struct(">IHBB16s16s")
_SOLICITED_OVERRIDE = 0x60000000
_OVERRIDE = 0x20000000


def link_local(mac: bytes) -> bytes:
    """The link-local address that goes with a MAC address (RFC 4291, appendix A)."""
    return b"\xfe\x80" + bytes(6) + bytes((mac[0] ^ 2,)) + mac[1:3] + b"\xff\xfe" + mac[3:]


class Ipv6Router:
    """The router's end of the link. `mtu` is what it advertises."""

    def __init__(self, mac: bytes, mtu: int) -> None:
        self.address = link_local(mac)
        self._target = b"\x02\x01" + mac  # option: target link-layer address (RFC 4861, 4.6.1)
        self._source = b"\x01\x01" + mac
        self._mtu = struct.pack(">BBHI", 5, 1, 0, mtu)
        self._solicited_node = bytes.fromhex("ff0200000000000000000001ff") + self.address[13:]

    def answer(self, packet: memoryview) -> bytes | None:
        """What is answered to an IPv6 packet: a packet, or b"" for nothing. None if the packet is malformed."""
        if len(packet) < HEADER:
            return None
        first, length, next_header, hop_limit, source, destination = _header.unpack_from(packet)
        if first >> 28 != 6 or length > len(packet) - HEADER:
            return None
        if next_header != ICMPV6:
            return b""
        message = packet[HEADER : HEADER + length]
        numbers = int.from_bytes(source, "big"), int.from_bytes(destination, "big")
        if length < 8 or not is_correct(message, initial=pseudo_header_sum_v6(*numbers, ICMPV6, length)):
            return None
        kind = message[0]
        to_us = destination == self.address
        if kind == ECHO_REQUEST and (to_us or destination in (ALL_NODES, ALL_ROUTERS)) and source[:2] == b"\xfe\x80":
            return self._packet(source, bytes((ECHO_REPLY, 0)), bytes(message[4:]))
        if hop_limit != 255 or message[1]:
            return b""  # neighbour discovery that came from further away than the link is nobody's (RFC 4861, 7.1.1)
        if kind == NEIGHBOUR_SOLICITATION and length >= 24 and message[8:24] == self.address:
            return self._advertise(source) if to_us or destination == self._solicited_node else b""
        if kind == ROUTER_SOLICITATION:
            # Hop limit 64, no flags, router lifetime 0, nothing said of reachability (RFC 4861, 4.2).
            body = struct.pack(">BBHII", 64, 0, 0, 0, 0) + self._source + self._mtu
            return self._packet(ALL_NODES if source == UNSPECIFIED else source, bytes((ROUTER_ADVERTISEMENT, 0)), body)
        return b""

    def _advertise(self, source: bytes) -> bytes:
        """RFC 4861, 7.2.4: to everybody if the one who asks has no address yet (it is about to take ours)."""
        unspecified = source == UNSPECIFIED
        flags = _OVERRIDE if unspecified else _SOLICITED_OVERRIDE
        body = flags.to_bytes(4, "big") + self.address + self._target
        return self._packet(ALL_NODES if unspecified else source, bytes((NEIGHBOUR_ADVERTISEMENT, 0)), body)

    def _packet(self, destination: bytes, kind: bytes, body: bytes) -> bytes:
        length = 4 + len(body)
        numbers = int.from_bytes(self.address, "big"), int.from_bytes(destination, "big")
        sum_ = checksum(kind, b"\0\0", body, initial=pseudo_header_sum_v6(*numbers, ICMPV6, length))
        header = _header.pack(6 << 28, length, ICMPV6, 255, self.address, destination)
        return header + kind + sum_.to_bytes(2, "big") + body


def multicast_mac(address: bytes) -> bytes:
    """Where packets to a multicast address go on Ethernet (RFC 2464, 7)."""
    return b"\x33\x33" + address[12:]
