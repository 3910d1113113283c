"""The switch: what a guest's frame is checked for, and which way it goes.

The way of a packet that belongs to an established flow between guests, or between a guest and outside, is this
module's `receive` alone: one look into the flow table. Frames between guests keep their link header and every byte.
There is no flooding: an interface has one MAC and one address, both known; ARP is answered by the network, and beyond
ARP, DHCP and neighbour discovery neither broadcast nor multicast goes anywhere (as in EC2). Between subnets packets
are routed: to the router's MAC, with another link header and one hop fewer to live. Where to, and whether they may
cross the subnets' borders, forwarding.py decides, once a flow and direction until something changes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Protocol

from celaje.network import ethernet, icmp, ipv4, offload
from celaje.network.buffers import Buffer
from celaje.network.firewall import Firewall
from celaje.network.flow import UDP_SUFFIX, Flow, State
from celaje.network.forwarding import Forwarding, Way, rule_port
from celaje.network.interface import Interface
from celaje.network.statistics import Drop
from celaje.network.subnet import Blocks

IP = offload.SIZE + ethernet.HEADER  # where a packet begins in a message
TRANSPORT = IP + ipv4.HEADER
SHORTEST = TRANSPORT + 8  # an ARP message ends here too
SHORTEST_TCP = 40  # bytes of a packet

# A message from its first byte to the IP header's last: of the link header flags, gso_type, gso_size, csum_start and
# csum_offset (the last three with their bytes swapped), then Ethernet, then IPv4 without identification and checksum.
_frame = struct.Struct(">BB2xHHH2x6s6sHBBH2xHBB2xII")
_CSUM_START = int.from_bytes(offload.CSUM_START.to_bytes(2, "little"), "big")
_TCP_CSUM_OFFSET = int.from_bytes(offload.TCP_CSUM_OFFSET.to_bytes(2, "little"), "big")
_MORE_OR_OFFSET = 0xBFFF  # of the fragment field: everything but "don't fragment"
_NEW = State.NEW
_ESTABLISHED = State.ESTABLISHED
_SYN_FIN_RST = 7


class Routing(Protocol):
    """What the switch needs of the router."""

    mac: bytes

    def is_own(self, address: int) -> bool:
        """Whether the network itself has this address, the router's or a service's."""

    def own_packet(
        self,
        interface: Interface,
        message: memoryview,
        source: int,
        destination: int,
        protocol: int,
        total: int,
        now: float,
    ) -> None:
        """A packet to one of the network's own addresses."""

    def outward(
        self, interface: Interface, message: memoryview, source: int, destination: int, protocol: int, total: int
    ) -> None:
        """An admitted packet that leaves the network."""

    def foreign(self, interface: Interface, message: memoryview, source: int, destination: int, total: int) -> None:
        """A packet that does not come from the interface's address."""

    def unreachable(self, interface: Interface, quote: bytes, code: int) -> None:
        """The interface's packet cannot go where it wants to."""

    def time_exceeded(self, interface: Interface, quote: bytes) -> None:
        """The interface's packet has been routed too often."""

    def arp(self, interface: Interface, message: memoryview) -> None:
        """An ARP message of the interface's."""

    def ipv6(self, interface: Interface, message: memoryview) -> None:
        """An IPv6 packet of the interface's."""


class Switch:
    """`mtu` in bytes of an IP packet. `clock` gives seconds."""

    def __init__(self, blocks: Blocks, mtu: int, firewall: Firewall, clock: Callable[[], float]) -> None:
        self._blocks = blocks
        self._mtu = mtu
        self._firewall = firewall
        self._clock = clock
        self.by_address: dict[int, Interface] = {}
        self.forwarding = Forwarding(blocks, self.by_address)
        self.waiting: set[Interface] = set()  # those whose shapers hold messages
        self.router: Routing

    def receive(self, interface: Interface, message: memoryview) -> None:
        """A message of the link from the interface's guest, whatever it may be."""
        size = len(message)
        statistics = interface.statistics
        statistics.sent_frames += 1
        if size < SHORTEST:
            statistics.drop(Drop.TRUNCATED)
            return
        statistics.sent_bytes += size - 12
        (
            flags,
            gso_type,
            _,
            csum_start,
            csum_offset,
            mac,
            source_mac,
            ethertype,
            version,
            _,
            total,
            fragment,
            ttl,
            protocol,
            source,
            destination,
        ) = _frame.unpack_from(message)
        now = self._clock()
        if interface.from_guest is not None and not self._charge(interface, size, now):
            statistics.drop(Drop.BANDWIDTH)
            return
        if source_mac != interface.mac:
            statistics.drop(Drop.SPOOFED)
            return
        if ethertype != ethernet.IPV4:
            self._not_ipv4(interface, message, ethertype)
            return
        if version != 0x45:
            statistics.drop(Drop.IP_OPTIONS if version >> 4 == 4 and version > 0x45 else Drop.MALFORMED)
            return
        if total > size - IP or total < 28:
            statistics.drop(Drop.TRUNCATED)
            return
        if int.from_bytes(message[26:46], "big") % 0xFFFF:
            statistics.drop(Drop.HEADER_CHECKSUM)
            return
        if fragment & _MORE_OR_OFFSET:
            statistics.drop(Drop.FRAGMENT)
            return
        # Established TCP leaves the checks of the link's header at the most common ones.
        if protocol == 6:
            if total < SHORTEST_TCP:
                statistics.drop(Drop.TRUNCATED)
                return
            if (
                (flags != 1 or csum_start != _CSUM_START or csum_offset != _TCP_CSUM_OFFSET or gso_type)
                and (flags or gso_type)
                and not offload.fits(message, offload.GSO_TCPV4, self._mtu)
            ):
                statistics.drop(Drop.OFFLOAD)
                return
            key = bytes(message[38:50])
            tcp_flags = message[59]
        else:
            if (flags or gso_type) and not offload.fits(message, offload.GSO_NONE, self._mtu):
                statistics.drop(Drop.OFFLOAD)
                return
            key = bytes(message[38:50]) + UDP_SUFFIX if protocol == 17 else b""
            tcp_flags = 0
        if total > self._mtu and not gso_type:
            statistics.drop(Drop.OVERSIZED)
            return
        if source != interface.address:
            other = interface.others.get(source)
            if other is not None:
                interface = other
            elif interface.source_dest_check or not source:
                self.router.foreign(interface, message, source, destination, total)
                return
        flow = interface.flows.get(key)
        # Datagrams that nobody has answered yet change nothing either.
        if (
            flow is None
            or tcp_flags & _SYN_FIN_RST
            or (
                flow.state is not _ESTABLISHED
                and (protocol != 17 or flow.state is not _NEW or flow.initiator is not interface)
            )
        ):
            if flow is not None and flow.initiator is None:  # a client's from outside
                drop = self._decided(flow, interface, source, destination, protocol, message).drop
                if drop is not None:
                    self._drop(interface, message, mac, drop)
                    return
            self._beside_flows(interface, message, mac, source, destination, protocol, total, ttl, now)
            return
        flow.last = now
        begun = flow.initiator is interface
        peer = flow.responder if begun else flow.initiator
        if peer is not None and mac == peer.mac and peer.subnet is interface.subnet:
            self.send(peer, [message], size, now)
            return
        way = flow.there if begun else flow.back
        if way is None or way.version != self.forwarding.version:
            way = self._decided(flow, interface, source, destination, protocol, message)
        if way.drop is not None:
            self._drop(interface, message, mac, way.drop)
        elif way.peer is not peer:
            # Its route leads to somebody else now: to the firewall that is another flow.
            self._firewall.flows.remove(flow)
            self._beside_flows(interface, message, mac, source, destination, protocol, total, ttl, now)
        elif peer is None:
            self._leave(interface, message, mac, source, destination, protocol, total, ttl)
        else:
            self._pass(interface, peer, message, mac, ttl, now)

    def _decided(
        self, flow: Flow, interface: Interface, source: int, destination: int, protocol: int, message: memoryview
    ) -> Way:
        """The way of the interface's packets of an established flow, from now on."""
        forwarding = self.forwarding
        begun = flow.initiator is interface
        if (flow.responder if begun else flow.initiator) is None:
            # Who is outside is known by another address in here, if the guest could not answer to the real one.
            destination = flow.server if begun else flow.client
        if flow.beside_routes or self.router.is_own(destination):
            way = Way(forwarding.version, None)
        else:
            way = forwarding.outward(
                interface, source, destination, protocol, rule_port(protocol, message[TRANSPORT : TRANSPORT + 4])
            )
        if begun:
            flow.there = way
        else:
            flow.back = way
        return way

    def _drop(self, interface: Interface, message: memoryview, mac: bytes, cause: Drop) -> None:
        """What has no way; its sender is told only that nobody has that address."""
        interface.statistics.drop(cause)
        if cause is Drop.UNKNOWN_DESTINATION and mac == self.router.mac:
            self.router.unreachable(interface, bytes(message[IP : IP + 28]), icmp.HOST_UNREACHABLE)

    def send(self, interface: Interface, parts: list[Buffer], size: int, now: float) -> bool:
        """Sends a message of `size` bytes to the interface's guest, or lets it wait for its bandwidth; False if it
        was dropped, and counted."""
        shaper = interface.to_guest
        if shaper is not None and not shaper.passes(size, now):
            if shaper.keep(parts, size):
                self.waiting.add(interface)
                return True
            interface.statistics.drop(Drop.QUEUE_FULL)
            return False
        return self._transmit(interface, parts, size)

    def send_due(self, now: float) -> None:
        """Sends what has waited for its bandwidth and may go now."""
        for interface in tuple(self.waiting):
            shaper = interface.to_guest
            if shaper is not None:
                for message in shaper.due(now):
                    self._transmit(interface, [message], len(message))
            if shaper is None or shaper.ready_at is None:
                self.waiting.discard(interface)

    @property
    def deadline(self) -> float | None:
        """When the next waiting message may go."""
        times = [shaper.ready_at for shaper in (one.to_guest for one in self.waiting) if shaper is not None]
        return min((at for at in times if at is not None), default=None)

    @staticmethod
    def _transmit(interface: Interface, parts: list[Buffer], size: int) -> bool:
        statistics = interface.statistics
        if interface.transmit(parts):
            statistics.received_frames += 1
            statistics.received_bytes += size - 12
            return True
        statistics.drop(Drop.QUEUE_FULL)
        return False

    @staticmethod
    def _charge(interface: Interface, size: int, now: float) -> bool:
        bucket = interface.from_guest
        if bucket is None:
            return True
        taken = bucket.charge(size, now)
        ready = bucket.ready_at
        interface.resume_at = ready if ready > now else 0.0
        return taken

    def _not_ipv4(self, interface: Interface, message: memoryview, ethertype: int) -> None:
        if not offload.fits(message, offload.GSO_NONE, self._mtu):
            interface.statistics.drop(Drop.OFFLOAD)
        elif ethertype == ethernet.ARP:
            self.router.arp(interface, message)
        elif ethertype == ethernet.IPV6:
            self.router.ipv6(interface, message)
        else:
            interface.statistics.drop(Drop.UNSUPPORTED)

    def _beside_flows(
        self,
        interface: Interface,
        message: memoryview,
        mac: bytes,
        source: int,
        destination: int,
        protocol: int,
        total: int,
        ttl: int,
        now: float,
    ) -> None:
        """A packet from the interface's address that is of no established flow, or changes its flow's state."""
        statistics = interface.statistics
        router = self.router
        if destination >> 28 == 0xE or destination in (ipv4.BROADCAST, interface.subnet.last):
            if protocol == ipv4.UDP and destination == ipv4.BROADCAST:
                router.own_packet(interface, message, source, destination, protocol, total, now)
            else:
                statistics.drop(Drop.MULTICAST)
            return
        if router.is_own(destination):
            if source != interface.address:
                statistics.drop(Drop.SPOOFED)
            elif mac == router.mac:
                router.own_packet(interface, message, source, destination, protocol, total, now)
            else:
                statistics.drop(Drop.UNKNOWN_DESTINATION)
            return
        transport = message[TRANSPORT : IP + total]
        peer = self.by_address.get(destination) if mac != router.mac else None
        if peer is not None:
            if peer is interface or mac != peer.mac or peer.subnet is not interface.subnet:
                statistics.drop(Drop.UNKNOWN_DESTINATION)
                return
        elif mac != router.mac:
            statistics.drop(Drop.UNKNOWN_DESTINATION)
            return
        else:
            way = self.forwarding.outward(interface, source, destination, protocol, rule_port(protocol, transport))
            peer = way.peer
            if peer is interface:
                way = Way(way.version, None, Drop.UNKNOWN_DESTINATION)
            if way.drop is not None:
                self._drop(interface, message, mac, way.drop)
                return
        if not self._firewall.track(protocol, interface, peer, source, destination, transport, now):
            statistics.drop(Drop.FIREWALL)
        elif peer is None:
            self._leave(interface, message, mac, source, destination, protocol, total, ttl)
        else:
            self._pass(interface, peer, message, mac, ttl, now)

    def _pass(
        self, interface: Interface, peer: Interface, message: memoryview, mac: bytes, ttl: int, now: float
    ) -> None:
        """Passes a frame on to another guest. In its subnet: untouched, or, where it was sent to the router's MAC, with
        the guest's. In another one: as a router does."""
        size = len(message)
        if peer.subnet is interface.subnet:
            if mac == peer.mac:
                self.send(peer, [message], size, now)
                return
            if mac == self.router.mac:
                self.send(peer, [message[:12], peer.mac, message[18:]], size, now)
                return
        elif mac == self.router.mac:
            if ttl <= 1:
                interface.statistics.drop(Drop.TTL)
                self.router.time_exceeded(interface, bytes(message[IP : IP + 28]))
                return
            # One less in the TTL, its word's high byte, is one more there in the checksum (RFC 1624).
            sum_ = (message[36] << 8 | message[37]) + 0x0100
            head = b"".join(
                (
                    message[:12],
                    peer.mac,
                    mac,
                    message[24:34],
                    bytes((ttl - 1, message[35])),
                    ((sum_ & 0xFFFF) + (sum_ >> 16)).to_bytes(2, "big"),
                )
            )
            self.send(peer, [head, message[38:]], size, now)
            return
        interface.statistics.drop(Drop.UNKNOWN_DESTINATION)

    def _leave(
        self,
        interface: Interface,
        message: memoryview,
        mac: bytes,
        source: int,
        destination: int,
        protocol: int,
        total: int,
        ttl: int,
    ) -> None:
        if mac != self.router.mac:
            interface.statistics.drop(Drop.UNKNOWN_DESTINATION)
        elif ttl <= 1 and not self.router.is_own(destination):
            interface.statistics.drop(Drop.TTL)
            self.router.time_exceeded(interface, bytes(message[IP : IP + 28]))
        else:
            self.router.outward(interface, message, source, destination, protocol, total)
