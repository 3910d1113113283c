"""A guest that is driven by hand, to converse with one TcpConnection.

Sequence numbers are told relative to the initial ones: `seq` of what the guest says and `ack` of what it hears count
from its own, the other two from the network's.
"""

from __future__ import annotations

from celaje.network.buffers import Buffer
from celaje.network.tcp import CLOSED, NEVER, State, TcpConnection, TcpSettings
from celaje.network.tcp_segment import (
    ACK,
    FIN,
    PSH,
    RST,
    SYN,
    URG,
    SynOptions,
    TcpSegment,
    sack_blocks,
    sack_option,
    syn_options,
)
from tests.network.tcp_link import segment_of

NETWORK = (0x0A4D0001, 80)
GUEST = (0x0A4D000A, 40000)
FLAGS = {"S": SYN, "A": ACK, "F": FIN, "R": RST, "P": PSH, "U": URG}


class Guest:
    def __init__(self, sequences: tuple[int, int], settings: TcpSettings | None = None) -> None:
        self.own, self.networks = sequences
        self.now = 100.0
        self.heard: list[tuple[TcpSegment, int]] = []
        self.events = 0
        self.network = TcpConnection(NETWORK, GUEST, self._hear, settings or TcpSettings(), self.networks)
        self.scale = 0

    def _hear(self, parts: list[Buffer], gso_size: int) -> None:
        self.heard.append((segment_of(parts, NETWORK, GUEST), gso_size))

    # ---- what the guest does

    def says(
        self,
        flags: str,
        seq: int = 0,
        ack: int = 0,
        data: bytes = b"",
        window: int = 0xFFFF,
        options: bytes = b"",
        sack: list[tuple[int, int]] | None = None,
    ) -> int:
        """Send a segment; returns the events that the connection reports."""
        if sack is not None:
            options = sack_option([(self.networks + first, self.networks + end) for first, end in sack])
        bits = sum(FLAGS[flag] for flag in flags)
        segment = TcpSegment(
            GUEST[1],
            NETWORK[1],
            (self.own + seq) & 0xFFFFFFFF,
            (self.networks + ack) & 0xFFFFFFFF if bits & ACK else 0,
            bits,
            window,
            options,
            data,
        )
        if self.network.state is State.CLOSED and segment.is_opening and not self.events & CLOSED:
            self.network.hold(segment)
            return 0
        events = self.network.receive(segment, self.now, True)
        self.events |= events
        return events

    def waits(self, seconds: float) -> int:
        """Let time pass, polling whenever the connection asks for it; returns the events."""
        until = self.now + seconds
        events = 0
        while self.network.deadline <= until:
            self.now = max(self.now, self.network.deadline)
            events |= self.network.poll(self.now)
        self.now = until
        self.events |= events
        return events

    def hears(
        self,
        flags: str,
        seq: int,
        ack: int | None = None,
        data: bytes | None = b"",
        window: int | None = None,
        gso: int | None = None,
        sack: list[tuple[int, int]] | None = None,
    ) -> TcpSegment:
        """The next segment from the network is this one."""
        self._polled()
        assert self.heard, f"nothing is heard; {flags} {seq} was expected"
        segment, gso_size = self.heard.pop(0)
        said = "".join(letter for letter in "SAFRPU" if segment.flags & FLAGS[letter])
        assert set(said) == set(flags), segment
        assert (segment.sequence - self.networks) & 0xFFFFFFFF == seq & 0xFFFFFFFF, segment
        if ack is not None:
            assert (segment.acknowledgment - self.own) & 0xFFFFFFFF == ack, segment
        if data is not None:
            assert bytes(segment.payload) == data
        if window is not None:
            assert segment.window == window
        if gso is not None:
            assert gso_size == gso
        blocks = [((a - self.own) & 0xFFFFFFFF, (b - self.own) & 0xFFFFFFFF) for a, b in sack_blocks(segment.options)]
        if not segment.flags & SYN:
            assert blocks == (sack or [])
        return segment

    def hears_nothing(self) -> None:
        self._polled()
        assert self.heard == []

    def _polled(self) -> None:
        if self.network.deadline <= self.now:
            self.events |= self.network.poll(self.now)

    def reads(self) -> bytes:
        """What the network's owner would read now."""
        return b"".join(self.network.read())

    # ---- conversations so far

    def opens(self, window: int = 0xFFFF, options: bytes | None = None) -> None:
        """The handshake, begun by the guest."""
        self.says("S", options=syn_options(1460, None, True) if options is None else options, window=window)
        self.network.accept()
        answer = self.hears("SA", 0, 1)
        self.scale = SynOptions(answer.options).window_scale or 0
        self.says("A", 1, 1, window=window)
        self.hears_nothing()
        assert self.network.state is State.ESTABLISHED

    def closed(self) -> None:
        """It is over, and nothing is due."""
        assert self.network.state is State.CLOSED
        assert self.network.deadline == NEVER
        self.hears_nothing()
