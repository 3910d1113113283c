"""The network's own end of a TCP connection with a guest (RFC 9293), without I/O.

NAT ends a guest's connections here and carries their bytes on over a host's socket; services inside the network
(metadata) answer here. Time is handed in (`now`: seconds, monotonic), segments are handed in, segments leave through
`transmit`.

How its owner drives it, each time round its loop:

    events = connection.receive(segment, now)       # for each segment that came
    if events & READABLE:                           # bytes in order from the guest, or the end of them
        sent = socket.sendmsg(connection.peek())
        connection.consume(sent)                    # what is not consumed shrinks the window that the guest sees
    if events & WRITABLE:                           # room again for bytes towards the guest
        connection.write(socket.recv(connection.room))
    events = connection.poll(now)                   # timers, and the segments that are due: data and acknowledgments
    … arrange that poll is called again at connection.deadline

Only `poll` sends SYNs, data, FINs and ordinary acknowledgments, so that a round costs one segment, however much came
and went in it. (`receive` itself sends what must not wait: duplicate acknowledgments, challenges, resets.) Any call
may bring `deadline` forward; where something is to be sent it is 0, which is always past.

A guest that opens a connection: `hold(syn)` as soon as its SYN comes, then `accept()` once the host's socket is
connected, or `refuse()` (a reset), or `drop()` (silence; the owner answers with ICMP). Towards a guest: `open()`.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Final

from celaje.network.buffers import Buffer, TransmitSegment
from celaje.network.tcp_segment import TcpSegment

# What `receive` and `poll` report, as bits.
ESTABLISHED: Final = 1  # the handshake is complete
READABLE: Final = 2  # `peek()` has more than before, or `eof` has become true
WRITABLE: Final = 4  # `room` has become worth writing into again
RESET: Final = 8  # the guest reset or refused the connection, or it never answered: what was unread and unsent is gone
CLOSED: Final = 16  # over, in whatever way: forget the connection. Comes once
SUPERSEDED: Final = 32  # with CLOSED: the segment is the SYN of a new connection with the same ports; make one for it

NEVER: Final = math.inf


class State(enum.Enum):
    """RFC 9293, 3.3.2. HELD is LISTEN with a SYN that waits for its owner's decision."""

    CLOSED = enum.auto()
    HELD = enum.auto()
    SYN_SENT = enum.auto()
    SYN_RECEIVED = enum.auto()
    ESTABLISHED = enum.auto()
    FIN_WAIT_1 = enum.auto()
    FIN_WAIT_2 = enum.auto()
    CLOSE_WAIT = enum.auto()
    CLOSING = enum.auto()
    LAST_ACK = enum.auto()
    TIME_WAIT = enum.auto()


@dataclass(frozen=True)
class TcpSettings:
    """What connections share. Sizes in bytes, times in seconds."""

    mss: int = 1460  # offered to the guest: the link's MTU less 40
    send_capacity: int = 512 << 10  # unacknowledged and unsent bytes that `write` takes
    receive_capacity: int = 512 << 10  # the widest window offered, and the bound on what is kept for the owner
    shortest_timeout: float = 0.3  # of retransmission; RFC 6298 says 1 s, every system less
    longest_timeout: float = 60.0
    syn_retries: int = 5
    retries: int = 12  # with the timeouts above, some 9 minutes without a sign of the guest
    keepalive_idle: float = 7200.0  # RFC 9293, 3.8.4: not less than two hours by default
    keepalive_interval: float = 75.0
    keepalive_probes: int = 9
    time_wait: float = 2.0  # both ends are on one host: a lost last acknowledgment is asked for again well within this


class TcpConnection:
    """One connection. `local` is the network's end, `remote` the guest's: (IPv4 address as a number, port).

    `initial_sequence`: see `InitialSequences`. `transmit(parts, gso_size)` gets a header, whose checksum field holds
    the pseudo header's sum, and pieces of data of up to 64 KiB together. Nothing a guest sends makes any method
    raise, and what is kept for a connection never exceeds the two capacities by more than a constant.
    """

    __slots__ = ("deadline", "local", "remote", "state")

    def __init__(
        self,
        local: tuple[int, int],
        remote: tuple[int, int],
        transmit: TransmitSegment,
        settings: TcpSettings,
        initial_sequence: int,
    ) -> None:
        self.local = local
        self.remote = remote
        self.state = State.CLOSED
        # When `poll` must be called next; NEVER (infinity) if only a segment or the owner can change anything.
        self.deadline: float = NEVER

    # ---- opening

    def open(self) -> None:
        """Open towards the guest: the next `poll` sends the SYN. ESTABLISHED or RESET is reported later."""
        raise NotImplementedError

    def hold(self, syn: TcpSegment) -> None:
        """Take note of a guest's SYN without answering; later segments of the same ports go to `receive` as always."""
        raise NotImplementedError

    def accept(self) -> None:
        """Answer the SYN that is held; ESTABLISHED is reported later, but `write` may be used at once."""
        raise NotImplementedError

    def refuse(self) -> None:
        """Answer the SYN that is held with a reset. The connection is CLOSED, and not reported."""
        raise NotImplementedError

    def drop(self) -> None:
        """Forget the connection without a word. It is CLOSED, and not reported."""
        raise NotImplementedError

    # ---- segments and time

    def receive(self, segment: TcpSegment, now: float, stable: bool = False) -> int:
        """Take a segment from the guest (checksum already verified); returns events.

        `stable`: the payload's buffer will not change, so that views of it may be kept; otherwise what is kept is
        copied.
        """
        raise NotImplementedError

    def poll(self, now: float) -> int:
        """Do what is due: retransmissions, probes, data, acknowledgments. Returns events; sets `deadline`."""
        raise NotImplementedError

    # ---- the owner's bytes

    def peek(self) -> list[Buffer]:
        """The bytes from the guest that are not consumed, in order, in at most 1,024 pieces.

        The list is not to be altered.
        """
        raise NotImplementedError

    def consume(self, count: int) -> None:
        """Let go of the first `count` bytes of `peek`, which opens the guest's window."""
        raise NotImplementedError

    def read(self) -> list[Buffer]:
        """`peek` and `consume` of all of it."""
        raise NotImplementedError

    @property
    def eof(self) -> bool:
        """Whether the guest has closed its direction and everything before that has been consumed."""
        raise NotImplementedError

    @property
    def room(self) -> int:
        """How many bytes `write` would take now; 0 after `close`."""
        raise NotImplementedError

    def write(self, data: Buffer) -> int:
        """Queue bytes towards the guest; returns how many were taken, at most `room`.

        `data` is kept, not copied: it must not change afterwards.
        """
        raise NotImplementedError

    def close(self) -> None:
        """End the direction towards the guest (FIN) after all that was written; the other direction goes on."""
        raise NotImplementedError

    def abort(self) -> None:
        """Reset the connection. It is CLOSED, and not reported."""
        raise NotImplementedError


class InitialSequences:
    """Initial sequence numbers that nobody can guess and that grow with time for the same two ends (RFC 6528)."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def __call__(self, local: tuple[int, int], remote: tuple[int, int], now: float) -> int:
        """The number for a connection that is made now."""
        raise NotImplementedError
