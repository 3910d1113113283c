"""What leaves the network, and who takes it.

The network itself does no I/O. Packets for other networks, for the host's opened ports and for services, and DNS
questions that it cannot answer, go to an `Outside`; what comes back enters by `Network.deliver` and by the callback
of the question.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from celaje.network.interface import Interface

# The answer to a DNS question, as it came; None if no resolver answered.
Answer = Callable[[bytes | None], None]


class Packet:
    """An IPv4 packet on its way out of the network: not a fragment, without IP options, with correct checksums.

    `datagram` is the whole of it from its IP header on, and `payload` what follows that header: both are views of the
    message that was received, so whoever keeps them past the call keeps a copy, unless the message's buffer is never
    used again. Where the guest left the transport checksum to be computed (or `gso_size` is not 0), its field holds
    no checksum; otherwise the network has verified it. `ttl` is what is left of it here, the network's own hop taken
    off.
    """

    __slots__ = ("datagram", "destination", "gso_size", "payload", "protocol", "source", "tos", "ttl")

    def __init__(
        self,
        source: int,
        destination: int,
        protocol: int,
        tos: int,
        ttl: int,
        gso_size: int,
        datagram: memoryview,
        payload: memoryview,
    ) -> None:
        self.source = source  # addresses are numbers, the first octet the most significant
        self.destination = destination
        self.protocol = protocol
        self.tos = tos  # DSCP (6 bits) and ECN (2 bits)
        self.ttl = ttl
        self.gso_size = gso_size  # bytes of data in each segment that this stands for; 0: it is one packet
        self.datagram = datagram
        self.payload = payload

    @property
    def quote(self) -> bytes:
        """What an ICMP error says of this packet: its IP header and the 8 bytes after it (RFC 792), copied."""
        return bytes(self.datagram[:28])


class Outside(Protocol):
    """Takes what leaves the network. Neither method may raise, block, or call back before it returns into `receive`'s
    caller's caller: both run within `Network.receive`, from which `deliver` and the answer may be called at once."""

    def packet(self, interface: Interface, packet: Packet) -> None:
        """A packet of the guest's that the firewall admits: to another network, to the router's own address (an
        opened port of the host's, or nothing), or to a service's (metadata and the like, DNS over TCP)."""

    def resolve(self, query: bytes, answer: Answer) -> None:
        """Asks the host's resolvers. `query` is a whole DNS message with an identifier of the network's choice;
        `answer` is to be called exactly once, now or later: with a whole message, not truncated (over TCP if need
        be), or with None once retries and resolvers are used up. At most `dns.MOST_QUESTIONS` are asked at a time."""
