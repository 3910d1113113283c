"""A guest in user space: makes frames, answers ARP, and speaks TCP with the network's own TcpConnection.

It does no I/O of its own: `send` takes each message for the link, `receive` each message from it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from celaje.network import ethernet, icmp, ipv4, offload, tcp, udp
from celaje.network.buffers import Buffer
from celaje.network.checksum import checksum
from celaje.network.tcp import TcpConnection, TcpSettings
from celaje.network.tcp_segment import ACK, RST, SYN, TcpSegment, header, reset_for

ROUTER = 0x0A4D0001
ROUTER_MAC = b"\x02\x00" + ROUTER.to_bytes(4, "big")
ARP_REPLY = struct.Struct(">HHBBH6sI6sI")


@dataclass
class Datagram:
    """UDP that came in."""

    source: int
    source_port: int
    port: int
    data: bytes


@dataclass
class IcmpMessage:
    """ICMP that came in."""

    source: int
    kind: int
    code: int
    rest: bytes


class Stream:
    """A TCP connection of the guest's. What comes in is in `received`, unless `take` takes it."""

    def __init__(self, guest: Guest, connection: TcpConnection) -> None:
        self.guest = guest
        self.connection = connection
        self.received = bytearray()
        self.unsent: list[memoryview] = []
        self.reads = True  # whether it takes what comes
        self.established = False
        self.reset = False
        self.closed = False
        self.eof = False
        self.taken = 0
        self.take: Callable[[list[Buffer]], None] | None = None
        self._ending = False

    @property
    def local(self) -> tuple[int, int]:
        return self.connection.local

    @property
    def remote(self) -> tuple[int, int]:
        return self.connection.remote

    def write(self, data: Buffer) -> None:
        self.unsent.append(memoryview(data))
        self.turn()

    def close(self) -> None:
        """The guest has written all it will."""
        self._ending = True
        self.turn()

    def abort(self) -> None:
        self.connection.abort()
        self.finished()

    def finished(self) -> None:
        self.closed = True
        self.guest.streams.pop((self.remote, self.local[1]), None)

    def segment(self, segment: TcpSegment) -> None:
        self._report(self.connection.receive(segment, self.guest.clock(), True))

    def _report(self, events: int) -> None:
        self.established |= bool(events & tcp.ESTABLISHED)
        self.reset |= bool(events & tcp.RESET)
        if events & tcp.CLOSED:
            self._read()
            self.finished()

    def _read(self) -> None:
        connection = self.connection
        while self.reads and (pieces := connection.peek()):
            pieces = list(pieces)
            size = sum(len(piece) for piece in pieces)
            self.taken += size
            if self.take is None:
                for piece in pieces:
                    self.received += piece
            else:
                self.take(pieces)
            connection.consume(size)
        self.eof |= connection.eof

    def turn(self) -> None:
        """Move what can be moved."""
        connection = self.connection
        for _ in range(8):
            if self.closed:
                return
            self._read()
            while self.unsent:
                taken = connection.write(self.unsent[0])
                if taken < len(self.unsent[0]):
                    self.unsent[0] = self.unsent[0][taken:]
                    break
                self.unsent.pop(0)
            if self._ending and not self.unsent:
                self._ending = False
                connection.close()
            events = connection.poll(self.guest.clock())
            if not events:
                break
            self._report(events)


@dataclass
class Guest:
    """A machine's side of a link."""

    mac: bytes
    address: int
    send: Callable[[list[Buffer]], object]
    clock: Callable[[], float]
    settings: TcpSettings = field(default_factory=TcpSettings)
    answers_arp: bool = True
    gateway_mac: bytes = ROUTER_MAC

    def __post_init__(self) -> None:
        self.streams: dict[tuple[tuple[int, int], int], Stream] = {}
        self.listening: dict[int, Callable[[Stream], None]] = {}
        self.datagrams: list[Datagram] = []
        self.icmp: list[IcmpMessage] = []
        self.resets: list[TcpSegment] = []
        self.probed: list[int] = []
        self._port = 40_000
        self._sequence = 1_000

    # Sending.

    def packet(self, destination: int, protocol: int, parts: list[Buffer], link: bytes = offload.NOTHING) -> None:
        length = sum(len(part) for part in parts)
        frame = ethernet.header.pack(self.gateway_mac, self.mac, ethernet.IPV4)
        head = ipv4.header(self.address, destination, protocol, length)
        self.send([link + frame + head, *parts])

    def datagram(self, destination: int, port: int, data: bytes, source_port: int = 5_000) -> None:
        head = udp.header(self.address, source_port, destination, port, len(data))
        self.packet(destination, ipv4.UDP, [head, data], offload.UDP_NEEDS_CSUM)

    def ping(self, destination: int, identifier: int, sequence: int, data: bytes = b"ping") -> None:
        self.packet(destination, ipv4.ICMP, [icmp.echo(icmp.ECHO_REQUEST, identifier, sequence, data)])

    def _segment(self, remote: tuple[int, int], parts: list[Buffer], gso_size: int) -> None:
        link = offload.TCP_NEEDS_CSUM
        if gso_size and sum(len(part) for part in parts[1:]) > gso_size:
            link = offload.tcp_segments(len(parts[0]), gso_size)
        self.packet(remote[0], ipv4.TCP, parts, link)

    def connect(self, address: int, port: int, source_port: int = 0) -> Stream:
        if not source_port:
            self._port += 1
            source_port = self._port
        stream = self._stream((address, port), source_port)
        stream.connection.open()
        stream.turn()
        return stream

    def _stream(self, remote: tuple[int, int], port: int) -> Stream:
        self._sequence += 100_000
        connection = TcpConnection(
            (self.address, port),
            remote,
            lambda parts, gso_size: self._segment(remote, parts, gso_size),
            self.settings,
            self._sequence,
        )
        stream = self.streams[remote, port] = Stream(self, connection)
        return stream

    def listen(self, port: int, accepted: Callable[[Stream], None] = lambda stream: None) -> None:
        """Connections to `port` are accepted."""
        self.listening[port] = accepted

    # Receiving.

    def receive(self, message: Buffer) -> None:
        view = memoryview(message)
        frame = view[offload.SIZE :]
        kind = int.from_bytes(frame[12:14], "big")
        if kind == ethernet.ARP:
            self._arp(bytes(frame[14:42]), bytes(frame[6:12]))
        elif kind == ethernet.IPV4:
            total = int.from_bytes(frame[16:18], "big")
            source = int.from_bytes(frame[26:30], "big")
            self._packet(source, frame[23], frame[34 : 14 + total])

    def _arp(self, request: bytes, asker: bytes) -> None:
        target = int.from_bytes(request[24:28], "big")
        if request[6:8] == b"\0\1" and target == self.address and self.answers_arp:
            source = int.from_bytes(request[14:18], "big")
            reply = ARP_REPLY.pack(1, 0x800, 6, 4, 2, self.mac, self.address, request[8:14], source)
            self.send([offload.NOTHING + ethernet.header.pack(asker, self.mac, ethernet.ARP) + reply])

    def _packet(self, source: int, protocol: int, payload: memoryview) -> None:
        if protocol == ipv4.TCP:
            segment = TcpSegment.parse(payload)
            assert segment is not None
            self._tcp(source, segment)
        elif protocol == ipv4.UDP:
            source_port, port = udp.ports(payload)
            self.datagrams.append(Datagram(source, source_port, port, bytes(payload[8:])))
        elif protocol == ipv4.ICMP:
            assert checksum(payload) == 0
            self.icmp.append(IcmpMessage(source, payload[0], payload[1], bytes(payload[4:])))

    def _tcp(self, source: int, segment: TcpSegment) -> None:
        remote = (source, segment.source_port)
        stream = self.streams.get((remote, segment.destination_port))
        if stream is not None:
            stream.segment(segment)
            stream.turn()
            return
        if segment.flags & (SYN | ACK | RST) == SYN:
            self.probed.append(segment.destination_port)
            accepted = self.listening.get(segment.destination_port)
            if accepted is not None:
                stream = self._stream(remote, segment.destination_port)
                stream.connection.hold(segment)
                stream.connection.accept()
                accepted(stream)
                stream.turn()
                return
        if segment.flags & RST:
            self.resets.append(segment)
        answer = reset_for(segment)
        if answer is not None:
            sequence, acknowledgment, flags = answer
            pseudo = (self.address + source + ipv4.TCP + 20) % 0xFFFF or 0xFFFF
            head = header(segment.destination_port, segment.source_port, sequence, acknowledgment, flags, 0, pseudo)
            self.packet(source, ipv4.TCP, [head], offload.TCP_NEEDS_CSUM)

    # Time.

    def turn(self) -> None:
        """Let every connection do what is due."""
        for stream in tuple(self.streams.values()):
            if stream.connection.deadline <= self.clock():
                stream.turn()

    def deadline(self) -> float:
        """When `turn` is to be called."""
        return min((stream.connection.deadline for stream in self.streams.values()), default=tcp.NEVER)
