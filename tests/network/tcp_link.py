"""Two TCP connections against each other over a link that does what it likes, in virtual time."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable

from celaje.network.buffers import Buffer
from celaje.network.checksum import pseudo_header_sum
from celaje.network.tcp import CLOSED, NEVER, State, TcpConnection, TcpSettings
from celaje.network.tcp_segment import FIN, PSH, TcpSegment, header, reset_for

ALICE = (0x0A4D0001, 8080)
BOB = (0x0A4D000A, 40000)


def segment_of(parts: list[Buffer], source: tuple[int, int], destination: tuple[int, int]) -> TcpSegment:
    """What was transmitted, its checksum field compared with the pseudo header's sum."""
    data = b"".join(parts)
    assert int.from_bytes(data[16:18], "big") == pseudo_header_sum(source[0], destination[0], 6, len(data))
    assert len(data) <= 0xFFFF - 20
    segment = TcpSegment.parse(data)
    assert segment is not None
    assert (segment.source_port, segment.destination_port) == (source[1], destination[1])
    return segment


def cut(segment: TcpSegment, gso_size: int) -> list[TcpSegment]:
    """The segments that a large one stands for."""
    if not gso_size or len(segment.payload) <= gso_size:
        return [segment]
    pieces = []
    for at in range(0, len(segment.payload), gso_size):
        payload = segment.payload[at : at + gso_size]
        last = at + gso_size >= len(segment.payload)
        flags = segment.flags if last else segment.flags & ~(PSH | FIN)
        sequence = (segment.sequence + at) & 0xFFFFFFFF
        pieces.append(
            TcpSegment(
                segment.source_port,
                segment.destination_port,
                sequence,
                segment.acknowledgment,
                flags,
                segment.window,
                segment.options,
                payload,
            )
        )
    return pieces


class Weather:
    """What a link does to segments. Rates are of 1; at most `most_faults` drops, so that every conversation ends."""

    def __init__(
        self, seed: int, drop: float, duplicate: float, reorder: float, split: float, most_faults: int
    ) -> None:
        self.random = random.Random(seed)
        self.drop = drop
        self.duplicate = duplicate
        self.reorder = reorder
        self.split = split
        self.faults_left = most_faults

    def fates(self) -> list[float]:
        """How late each copy of a segment arrives, in seconds."""
        draw = self.random.random
        if self.faults_left > 0 and draw() < self.drop:
            self.faults_left -= 1
            return []
        copies = 2 if draw() < self.duplicate else 1
        return [0.0001 + (draw() * 0.05 if draw() < self.reorder else 0.0) for _ in range(copies)]


class End:
    """A connection, what its owner wants to send, and what came."""

    def __init__(self, connection: TcpConnection, to_send: bytes, reads: bool = True) -> None:
        self.connection = connection
        self.to_send = to_send
        self.sent = 0
        self.got = bytearray()
        self.events = 0
        self.closed_at = NEVER
        self.reads = reads


class Link:
    """Alice opens, Bob accepts."""

    def __init__(self, weather: Weather, settings: tuple[TcpSettings, TcpSettings], sequences: tuple[int, int]) -> None:
        self.now = 0.0
        self.weather = weather
        self.order = itertools.count()
        self.queue: list[tuple[float, int, Callable[[], None]]] = []
        self.transmitted = 0
        self.alice = End(TcpConnection(ALICE, BOB, self.sender(ALICE, BOB), settings[0], sequences[0]), b"")
        self.bob = End(TcpConnection(BOB, ALICE, self.sender(BOB, ALICE), settings[1], sequences[1]), b"")

    def at(self, time: float, action: Callable[[], None]) -> None:
        heapq.heappush(self.queue, (time, next(self.order), action))

    def sender(self, source: tuple[int, int], destination: tuple[int, int]) -> Callable[[list[Buffer], int], None]:
        def transmit(parts: list[Buffer], gso_size: int) -> None:
            self.transmitted += 1
            segment = segment_of(parts, source, destination)
            pieces = cut(segment, gso_size) if self.weather.random.random() < self.weather.split else [segment]
            for piece in pieces:
                for late in self.weather.fates():
                    self.at(self.now + late, lambda piece=piece: self.arrive(piece, destination))  # type: ignore[misc]

        return transmit

    def arrive(self, segment: TcpSegment, destination: tuple[int, int]) -> None:
        end = self.alice if destination == ALICE else self.bob
        connection = end.connection
        if connection.state is State.CLOSED and not end.events:
            connection.hold(segment)
            self.at(self.now + self.weather.random.random() * 0.01, lambda: self.accept(end))
        elif connection.state is State.CLOSED:
            self.refuse(segment, destination)
        else:
            end.events |= connection.receive(segment, self.now)

    def refuse(self, segment: TcpSegment, destination: tuple[int, int]) -> None:
        """What a system does with a segment of a connection that it does not know."""
        answer = reset_for(segment)
        if answer is not None:
            source = BOB if destination == ALICE else ALICE
            sequence, acknowledgment, flags = answer
            total = pseudo_header_sum(source[0], destination[0], 6, 20)
            data = header(destination[1], source[1], sequence, acknowledgment, flags, 0, total)
            self.sender(destination, source)([data], 0)

    def accept(self, end: End) -> None:
        end.connection.accept()

    def serve(self, end: End) -> None:
        """What an owner does each time round its loop."""
        connection = end.connection
        draw = self.weather.random.random
        if connection.state is State.CLOSED:
            return
        if connection.state not in (State.HELD, State.CLOSED) and end.sent < len(end.to_send) and connection.room:
            most = int(draw() * 60000) + 1
            end.sent += connection.write(end.to_send[end.sent : end.sent + most])
        if end.sent == len(end.to_send) and connection.state >= State.ESTABLISHED:
            connection.close()
        self.read(end)
        if connection.deadline <= self.now:
            end.events |= connection.poll(self.now)
            assert connection.deadline > self.now

    def read(self, end: End) -> None:
        if end.reads and self.weather.random.random() < 0.7:
            for piece in end.connection.read():
                end.got += piece

    def run(self, until: float = 3600.0) -> None:
        """Until both ends are closed."""
        self.alice.connection.open()
        while self.now < until:
            for end in (self.alice, self.bob):
                self.serve(end)
                if end.events & CLOSED:
                    for piece in end.connection.read():
                        end.got += piece
            if self.alice.events & self.bob.events & CLOSED:
                return
            nexts = [end.connection.deadline for end in (self.alice, self.bob)]
            # An owner whose socket is slow comes back by itself.
            if any(end.connection.peek() or end.sent < len(end.to_send) for end in (self.alice, self.bob)):
                nexts.append(self.now + 0.001)
            if self.queue:
                nexts.append(self.queue[0][0])
            self.now = max(self.now, min(nexts))
            assert self.now != NEVER, "nobody will ever do anything again"
            while self.queue and self.queue[0][0] <= self.now:
                heapq.heappop(self.queue)[2]()
        raise AssertionError("not over after an hour")
