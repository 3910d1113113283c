"""A network's tests as conversations: what a guest says, what it hears.

world = World()
a, b = world.machine("a"), world.machine("b")
a.says(a.udp(b, 1000, 53, b"hello"))
assert b.hears() == [...]
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace

from celaje.network import ethernet, icmp
from celaje.network.checksum import checksum, pseudo_header_sum
from celaje.network.interface import Interface, InterfaceConfig
from celaje.network.network import Network, NetworkConfig
from celaje.network.outside import Packet
from celaje.network.security_group import Rule, SecurityGroup
from celaje.network.statistics import Drop

ROUTER = 0x0A4D0001
DNS = 0x0A4D0002
FAR = 0x08080808  # somewhere in another network
METADATA = 0xA9FEA9FE
ROUTER_MAC = b"\x02\x00" + ROUTER.to_bytes(4, "big")
NOTHING = bytes(12)
NEEDS_TCP = struct.pack("<BBHHHHH", 1, 0, 0, 0, 34, 16, 0)
NEEDS_UDP = struct.pack("<BBHHHHH", 1, 0, 0, 0, 34, 6, 0)

SYN, ACK, FIN, RST = 2, 16, 1, 4
EVERYTHING = SecurityGroup("everything", (Rule(None),))


@dataclass(frozen=True)
class Seen:
    """A packet as its receiver sees it."""

    source: int
    destination: int
    protocol: int
    transport: bytes
    ttl: int
    frame: bytes
    link: bytes

    @property
    def ports(self) -> tuple[int, int]:
        return int.from_bytes(self.transport[:2], "big"), int.from_bytes(self.transport[2:4], "big")


class Outside:
    """Notes what leaves the network."""

    def __init__(self) -> None:
        self.packets: list[tuple[str, Packet]] = []
        self.questions: list[tuple[bytes, Callable[[bytes | None], None]]] = []

    def packet(self, interface: Interface, packet: Packet) -> None:
        self.packets.append((interface.name, packet))

    def resolve(self, query: bytes, answer: Callable[[bytes | None], None]) -> None:
        self.questions.append((query, answer))

    def hears(self) -> list[Packet]:
        heard = [packet for _, packet in self.packets]
        self.packets.clear()
        return heard


class World:
    """A network with a clock that stands still until it is told to go on."""

    def __init__(self, config: NetworkConfig | None = None, outside: Outside | None = None) -> None:
        self.now = 1000.0
        self.outside = outside or Outside()
        self.network = Network(config or NetworkConfig(), self.outside, lambda: self.now)
        self.network.set_security_groups([EVERYTHING])
        self._count = 0

    def machine(self, name: str, groups: tuple[str, ...] = ("everything",), **more: object) -> Machine:
        self._count += 1
        config = InterfaceConfig(name, b"\x52\x54\x00\x00\x00" + bytes((self._count,)), groups=groups)
        return Machine(self, replace(config, **more))  # type: ignore[arg-type]

    def passes(self, seconds: float) -> None:
        self.now += seconds
        self.network.poll(self.now)


class Machine:
    """A guest: makes frames, and keeps those that it is sent."""

    def __init__(self, world: World, config: InterfaceConfig) -> None:
        self.world = world
        self.reads = True
        self.frames: list[bytes] = []
        self.interface = world.network.attach(config, self._take)
        self.mac = config.mac
        self.address = self.interface.address

    def _take(self, parts: list[bytes | bytearray | memoryview]) -> bool:
        if self.reads:
            self.frames.append(b"".join(parts))
        return self.reads

    def says(self, *messages: bytes) -> None:
        for message in messages:
            self.world.network.receive(self.interface, memoryview(message))

    def hears_messages(self) -> list[bytes]:
        heard = list(self.frames)
        self.frames.clear()
        return heard

    def hears(self) -> list[Seen]:
        """IPv4 packets that it was sent; each is well-formed."""
        seen = []
        for message in self.hears_messages():
            frame = message[12:]
            assert frame[12:14] == b"\x08\x00"
            assert frame[:6] in (self.mac, ethernet.BROADCAST)
            header = frame[14:34]
            assert header[0] == 0x45
            assert checksum(header) == 0
            total = int.from_bytes(header[2:4], "big")
            source, destination = struct.unpack(">II", header[12:])
            transport = frame[34 : 14 + total]
            protocol = header[9]
            if message[0] & 1:
                start, offset = struct.unpack_from("<HH", message, 6)
                at = start - 34 + offset
                assert int.from_bytes(transport[at : at + 2], "big") == pseudo_header_sum(
                    source, destination, protocol, len(transport)
                ) or source in {one.address for one in self.world.network.interfaces}
            elif protocol == 1:
                assert checksum(transport) == 0
            seen.append(Seen(source, destination, protocol, transport, header[8], frame, message[:12]))
        return seen

    def dropped(self, cause: Drop) -> int:
        return self.interface.statistics.dropped.get(cause, 0)

    # Frames that it may say.

    def frame(
        self, target: Machine | None, packet: bytes, link: bytes = NOTHING, ethertype: int = ethernet.IPV4
    ) -> bytes:
        mac = ROUTER_MAC if target is None else target.mac
        return link + mac + self.mac + ethertype.to_bytes(2, "big") + packet

    def ip(
        self,
        target: Machine | int,
        protocol: int,
        transport: bytes,
        link: bytes = NOTHING,
        ttl: int = 64,
        fragment: int = 0x4000,
        source: int | None = None,
    ) -> bytes:
        destination = target if isinstance(target, int) else target.address
        packet = ipv4_packet(
            self.address if source is None else source, destination, protocol, transport, ttl, fragment
        )
        return self.frame(None if isinstance(target, int) else target, packet, link)

    def udp(self, target: Machine | int, source_port: int, port: int, data: bytes = b"", **more: int) -> bytes:
        destination = target if isinstance(target, int) else target.address
        return self.ip(target, 17, udp_datagram(self.address, source_port, destination, port, data), **more)  # type: ignore[arg-type]

    def tcp(
        self, target: Machine | int, source_port: int, port: int, flags: int, data: bytes = b"", link: bytes = NOTHING
    ) -> bytes:
        destination = target if isinstance(target, int) else target.address
        segment = tcp_segment(self.address, source_port, destination, port, flags, data, link[0] & 1 == 1)
        return self.ip(target, 6, segment, link)

    def ping(self, target: Machine | int, identifier: int = 7, data: bytes = b"ping", ttl: int = 64) -> bytes:
        return self.ip(target, 1, icmp.echo(icmp.ECHO_REQUEST, identifier, 1, data), ttl=ttl)

    def pong(self, target: Machine | int, identifier: int = 7, data: bytes = b"ping") -> bytes:
        return self.ip(target, 1, icmp.echo(icmp.ECHO_REPLY, identifier, 1, data))


def connect(client: Machine, server: Machine, client_port: int = 40000, port: int = 22) -> None:
    """Three frames that establish a connection; each is heard."""
    client.says(client.tcp(server, client_port, port, SYN))
    assert len(server.hears_messages()) == 1
    server.says(server.tcp(client, port, client_port, SYN | ACK))
    assert len(client.hears_messages()) == 1
    client.says(client.tcp(server, client_port, port, ACK))
    assert len(server.hears_messages()) == 1


def ipv4_packet(
    source: int, destination: int, protocol: int, transport: bytes, ttl: int = 64, fragment: int = 0x4000
) -> bytes:
    header = struct.pack(
        ">BBHHHBBHII", 0x45, 0, 20 + len(transport), 1, fragment, ttl, protocol, 0, source, destination
    )
    return header[:10] + checksum(header).to_bytes(2, "big") + header[12:] + transport


def udp_datagram(source: int, source_port: int, destination: int, port: int, data: bytes) -> bytes:
    whole = struct.pack(">HHHH", source_port, port, 8 + len(data), 0) + data
    sum_ = checksum(whole, initial=pseudo_header_sum(source, destination, 17, len(whole))) or 0xFFFF
    return whole[:6] + sum_.to_bytes(2, "big") + whole[8:]


def tcp_segment(
    source: int, source_port: int, destination: int, port: int, flags: int, data: bytes, partial: bool = False
) -> bytes:
    whole = struct.pack(">HHIIBBHHH", source_port, port, 1, 1, 0x50, flags, 1000, 0, 0) + data
    pseudo = pseudo_header_sum(source, destination, 6, len(whole))
    sum_ = pseudo if partial else checksum(whole, initial=pseudo)
    return whole[:16] + sum_.to_bytes(2, "big") + whole[18:]
