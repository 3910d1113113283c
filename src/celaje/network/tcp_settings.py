"""What TCP connections share with their owners: events, states, settings and initial sequence numbers."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

# What `receive` and `poll` report, as bits.
ESTABLISHED: Final = 1  # the handshake is complete
READABLE: Final = 2  # `peek()` has more than before, or `eof` has become true
WRITABLE: Final = 4  # `room` has become worth writing into again
RESET: Final = 8  # the guest reset or refused the connection, or it never answered: what was unread and unsent is gone
CLOSED: Final = 16  # over, in whatever way: forget the connection. Comes once
SUPERSEDED: Final = 32  # with CLOSED: the segment is the SYN of a new connection with the same ports; make one for it

NEVER: Final = math.inf


class State(enum.IntEnum):
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


class InitialSequences:
    """Initial sequence numbers that nobody can guess and that grow with time for the same two ends (RFC 6528)."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        """`secret`: 16 random bytes that stay with the network."""
        self._secret = secret

    def __call__(self, local: tuple[int, int], remote: tuple[int, int], now: float) -> int:
        """The number for a connection that is made now."""
        ends = b"%d:%d:%d:%d" % (*local, *remote)
        digest = blake2b(ends, digest_size=4, key=self._secret).digest()
        return (int.from_bytes(digest, "big") + int(now * 250_000)) & 0xFFFFFFFF
