"""From one machine of a planned network to another's public address, and back: an internet gateway turns such packets.

Each end knows the other by its public address only, and its rules and access lists see that one. Nothing ends here and
nothing is kept: a packet from x, known outside as X, to Y, which is y's public address, goes to y as one from X. So
machines reach each other that way if both have a route to an internet gateway; who goes out by a NAT gateway does not,
nor does anybody through a pool, whose device does it.
"""

from __future__ import annotations

from celaje.network import icmp, ipv4, offload
from celaje.network.buffers import Buffer
from celaje.network.checksum import checksum, pseudo_header_sum
from celaje.network.interface import Interface
from celaje.network.network import Network
from celaje.network.outside import Packet

CHECKSUM_AT = {ipv4.TCP: offload.TCP_CSUM_OFFSET, ipv4.UDP: offload.UDP_CSUM_OFFSET}
SHORTEST = {ipv4.TCP: 20, ipv4.UDP: 8, ipv4.ICMP: icmp.HEADER}
_QUOTED = 28  # bytes of a packet that every ICMP error repeats


def turned(network: Network, interface: Interface, packet: Packet) -> bool:
    """Whether the packet was another machine's, and has been taken to it, or dropped on the way."""
    peer = network.publics.get(packet.destination)
    public = interface.public_address
    if peer is None or peer is interface or public is None:
        return False
    if network.leaves_as(interface, packet.destination) != public:
        return False
    protocol, payload = packet.protocol, packet.payload
    if protocol not in SHORTEST or len(payload) < SHORTEST[protocol]:
        return False
    source = ipv4.number(public)
    at = CHECKSUM_AT.get(protocol)
    parts: list[Buffer]
    if at is None:
        message = translated_error(payload, interface.address, source, source_side=False)
        parts = [translated_error(memoryview(message), packet.destination, peer.address, source_side=True)]
    else:
        parts = with_checksum(payload, at, pseudo_header_sum(source, peer.address, protocol, len(payload)))
    ttl = max(packet.ttl - 1, 1)
    network.deliver(peer, source, peer.address, protocol, parts, packet.gso_size, ttl, packet.tos)
    return True


def with_checksum(transport: memoryview, at: int, field: int) -> list[Buffer]:
    """The transport header and data with another checksum field; the data is not copied."""
    end = SHORTEST[ipv4.TCP if at == offload.TCP_CSUM_OFFSET else ipv4.UDP]
    head = bytearray(transport[:end])
    head[at : at + 2] = field.to_bytes(2, "big")
    return [bytes(head), transport[end:]] if end < len(transport) else [bytes(head)]


def translated_error(message: memoryview, was: int, becomes: int, source_side: bool) -> bytes:
    """An ICMP message, and in an error the packet that it is about with its address exchanged too: its source if
    the guest had sent it, its destination if the guest has received it."""
    if message[0] not in icmp.ERRORS or len(message) < icmp.HEADER + _QUOTED or message[icmp.HEADER] != 0x45:
        return bytes(message)
    changed = bytearray(message)
    place = icmp.HEADER + (12 if source_side else 16)
    if int.from_bytes(changed[place : place + 4], "big") == was:
        changed[place : place + 4] = becomes.to_bytes(4, "big")
        inner = slice(icmp.HEADER + 10, icmp.HEADER + 12)
        changed[inner] = b"\0\0"
        changed[inner] = checksum(changed[icmp.HEADER : icmp.HEADER + ipv4.HEADER]).to_bytes(2, "big")
    changed[2:4] = b"\0\0"
    changed[2:4] = checksum(changed).to_bytes(2, "big")
    return bytes(changed)
