"""Public addresses of the owner's, living on a TUN device: each is one interface's, all its ports real.

Nothing ends here: packets pass with one address exchanged for another (RFC 3022's basic NAT).

    a client's packet to the public address   -> destination becomes the private one, then the network's firewall
    the guest's packet to another network     -> source becomes the public one, then the host's routes

so rules see the client itself, and the guest does too. A guest may answer whoever it was reached by, the host too;
beyond that it may go where NAT lets everybody go. TCP and UDP checksums cover addresses: coming in, they are verified
(where the host's kernel has not left them out) and left to the guest's device to compute; going out, to the host.
"""

from __future__ import annotations

import ipaddress
import logging
import struct
from collections import Counter
from collections.abc import Callable
from itertools import islice

from celaje.errors import HostError, InputError
from celaje.network import icmp, ipv4, offload, udp
from celaje.network.buffers import Buffer
from celaje.network.checksum import is_correct, pseudo_header_sum
from celaje.network.event_loop import READ, EventLoop
from celaje.network.hairpin import translated_error, with_checksum
from celaje.network.interface import Interface
from celaje.network.network import Network
from celaje.network.outside import Packet
from celaje.network.tcp_segment import ACK, SYN
from celaje.network.tun import LINK_HEADER, TunDevice

log = logging.getLogger(__name__)

MOST_KNOWN = 1 << 17  # conversations
A_TURN = 64  # packets read before others have their turn
_CHECKSUM_AT = {ipv4.TCP: offload.TCP_CSUM_OFFSET, ipv4.UDP: offload.UDP_CSUM_OFFSET}
_SHORTEST = {ipv4.TCP: 20, ipv4.UDP: 8, ipv4.ICMP: icmp.HEADER}
_link = struct.Struct("<BBHHHHH")  # as offload.py draws it, offsets from the IP header
_ip = struct.Struct(">BBHHHBBHII")
_NOT_FRAGMENT = 0xBFFF


class PublicPool:
    """`pool`'s first address is the host's own on the device; the others may be interfaces'."""

    def __init__(
        self,
        loop: EventLoop,
        network: Network,
        pool: ipaddress.IPv4Network,
        mtu: int,
        counters: Counter[str],
        is_refused: Callable[[int], bool],
        device: Callable[[ipaddress.IPv4Interface, int], TunDevice] = TunDevice,
    ) -> None:
        if pool.num_addresses < 4:
            raise InputError(f"a pool has at least four addresses (a.b.c.d/30), and {pool} has {pool.num_addresses}")
        self.pool = pool
        self._loop = loop
        self._network = network
        self._counters = counters
        self._is_refused = is_refused
        self._known: dict[int, None] = {}  # conversations (see _conversation) that both sides may carry on
        self._public: dict[int, Interface] = {}
        self._device = device(ipaddress.IPv4Interface(f"{pool[1]}/{pool.prefixlen}"), mtu)
        loop.watch(self._device.descriptor, READ, self._ready)

    def close(self) -> None:
        self._loop.unwatch(self._device.descriptor)
        self._device.close()

    def __len__(self) -> int:
        """How many addresses are interfaces'."""
        return len(self._public)

    def has(self, address: int) -> bool:
        """Whether the address is one of the pool's."""
        return ipaddress.IPv4Address(address) in self.pool

    def add(self, address: int, interface: Interface) -> Callable[[Packet], bool]:
        """The address is the interface's from now on; answers what takes its packets for other networks, and says
        whether they may go there. HostError if it is somebody else's, or nobody can have it."""
        first, last = int(self.pool[0]), int(self.pool[-1])
        if address in (first, first + 1, last):
            raise HostError(
                f"{ipv4.text(address)} is the pool {self.pool}'s own or the host's; "
                f"choose one from {self.pool[2]} to {self.pool[-2]}"
            )
        other = self._public.get(address)
        if other is not None:
            raise HostError(
                f"the public address {ipv4.text(address)} is {other.name!r}'s; choose another of {self.pool}"
            )
        self._public[address] = interface
        return lambda packet: self._outward(address, packet)

    def remove(self, interface: Interface) -> None:
        """The interface's address is nobody's."""
        for address in [one for one, whose in self._public.items() if whose is interface]:
            self.remove_address(address)

    def remove_address(self, address: int) -> None:
        """It is nobody's. Who has it next may answer nobody who has spoken to this one."""
        del self._public[address]
        for conversation in [one for one in self._known if one >> 64 & 0xFFFFFFFF == address]:
            del self._known[conversation]

    # From the host's side.

    def _ready(self, _events: int) -> None:
        for _ in range(A_TURN):
            try:
                message = self._device.receive()
            except OSError as error:
                log.error(
                    "the device of the pool %s is there no more (%s): stop the network's machines, then start them",
                    self.pool,
                    error.strerror,
                )
                self._loop.unwatch(self._device.descriptor)  # or it would be announced over and over
                return
            if message is None:
                return
            self.inward(memoryview(message))

    def inward(self, message: memoryview) -> None:
        """A packet from the device."""
        if len(message) < LINK_HEADER + 28:
            self._counters["pool: packets cut short"] += 1
            return
        flags, gso_type, _, gso_size, start, offset, _ = _link.unpack_from(message)
        version, tos, total, _, fragment, ttl, protocol, _, source, destination = _ip.unpack_from(message, LINK_HEADER)
        interface = self._public.get(destination)
        if version != 0x45 or total > len(message) - LINK_HEADER or fragment & _NOT_FRAGMENT:
            self._counters["pool: packets with options, in fragments, or no IPv4"] += 1
            return
        if interface is None or self._network.blocks.has(source) or source in self._public:
            self._counters["pool: packets for or from nobody"] += 1
            return
        transport = message[LINK_HEADER + ipv4.HEADER : LINK_HEADER + total]
        if protocol not in _SHORTEST or len(transport) < _SHORTEST[protocol]:
            self._counters["pool: packets of protocols that are not translated"] += 1
            return
        at = _CHECKSUM_AT.get(protocol)
        parts: list[Buffer]
        if at is None:
            parts = [translated_error(transport, destination, interface.address, source_side=True)]
        else:
            left_out = flags & offload.NEEDS_CSUM and (start, offset) == (ipv4.HEADER, at)
            pseudo = pseudo_header_sum(source, destination, protocol, len(transport))
            none = protocol == ipv4.UDP and not transport[6] and not transport[7]
            if not left_out and not none and not is_correct(transport, initial=pseudo):
                self._counters["pool: packets with a wrong checksum"] += 1
                return
            pseudo = pseudo_header_sum(source, interface.address, protocol, len(transport))
            parts = with_checksum(transport, at, pseudo)
        size = gso_size if gso_type == offload.GSO_TCPV4 else 0
        if ttl <= 1:
            self._counters["pool: packets whose TTL ran out"] += 1
        elif self._network.deliver(interface, source, interface.address, protocol, parts, size, ttl - 1, tos):
            if len(self._known) >= MOST_KNOWN:
                for conversation in tuple(islice(self._known, MOST_KNOWN // 8)):
                    del self._known[conversation]
            self._known[_conversation(protocol, destination, source, transport, inward=True)] = None

    # From the guest's.

    def _outward(self, public: int, packet: Packet) -> bool:
        """The guest's packet for another network; whether it may go there."""
        protocol, payload = packet.protocol, packet.payload
        if protocol not in _SHORTEST or len(payload) < _SHORTEST[protocol]:
            self._counters["pool: packets of protocols that are not translated"] += 1
            return not self._is_refused(packet.destination)
        if not self._may_go(public, packet):
            return False
        at = _CHECKSUM_AT.get(protocol)
        parts: list[Buffer]
        if at is None:
            parts = [translated_error(payload, packet.source, public, source_side=False)]
        else:
            pseudo = pseudo_header_sum(public, packet.destination, protocol, len(payload))
            parts = with_checksum(payload, at, pseudo)
        neighbour = self._public.get(packet.destination)
        if neighbour is not None:
            self._between(public, neighbour, packet, parts, at)
            return True
        header = ipv4.header(public, packet.destination, protocol, len(payload), packet.ttl, packet.tos)
        if at is None:
            link = offload.NOTHING
        elif packet.gso_size:
            headers = ipv4.HEADER + (payload[12] >> 4) * 4
            link = _link.pack(offload.NEEDS_CSUM, offload.GSO_TCPV4, headers, packet.gso_size, ipv4.HEADER, at, 1)
        else:
            link = _link.pack(offload.NEEDS_CSUM, offload.GSO_NONE, 0, 0, ipv4.HEADER, at, 1)
        if not self._device.send([link + header, *parts]):
            self._counters["pool: packets that the host did not take"] += 1
        return True

    def _may_go(self, public: int, packet: Packet) -> bool:
        protocol, payload = packet.protocol, packet.payload
        if protocol == ipv4.TCP:
            opens = payload[13] & (SYN | ACK) == SYN
        else:
            opens = protocol == ipv4.ICMP and payload[0] == icmp.ECHO_REQUEST
        if not opens and _conversation(protocol, public, packet.destination, payload, inward=False) in self._known:
            return True
        return not self._is_refused(packet.destination)

    def _between(self, public: int, to: Interface, packet: Packet, parts: list[Buffer], at: int | None) -> None:
        """From one interface's public address to another's: the host's routes need not know of it."""
        if at is not None:
            pseudo = pseudo_header_sum(public, to.address, packet.protocol, len(packet.payload))
            parts = with_checksum(packet.payload, at, pseudo)
        self._network.deliver(
            to, public, to.address, packet.protocol, parts, packet.gso_size, max(packet.ttl, 1), packet.tos
        )


def _conversation(protocol: int, public: int, other: int, transport: memoryview, inward: bool) -> int:
    """A number for what is said between two ends, whichever of them says it; ICMP has no ports."""
    first, second = (0, 0) if protocol == ipv4.ICMP else udp.ports(transport)
    ports = first << 16 | second if inward else second << 16 | first
    return ((protocol << 32 | public) << 32 | other) << 32 | ports
