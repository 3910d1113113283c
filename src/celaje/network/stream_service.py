"""TCP services inside the network that are answered in this process: the metadata address, DNS over TCP.

A service is a function from (write, close, limit_hops) to a function that takes what the guest sent: bytes as they
come, b"" at their end. It may write and close at once or later; it must not wait. From `limit_hops(number)` on, packets
to the guest live no longer than that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from celaje.network.guest_stream import GuestStream
from celaje.network.tcp_segment import TcpSegment

if TYPE_CHECKING:
    from celaje.network.nat import InterfaceFlows

Write = Callable[[bytes], None]
Close = Callable[[], None]
Receive = Callable[[bytes], None]
LimitHops = Callable[[int], None]
ServiceMaker = Callable[[Write, Close, LimitHops], Receive]

MOST_UNSENT = 1 << 20  # bytes of answers that wait for the guest; then its questions wait as well
A_TURN = 4 << 10  # bytes of a guest's questions that are answered before others have their turn
IDLE_SECONDS = 60.0


def _nobody(_data: bytes) -> None:
    pass


class ServiceStream(GuestStream):
    """A guest's connection to a service."""

    __slots__ = ("_closing", "_ended", "_receive", "_unsent", "_unsent_bytes", "waits")

    def __init__(self, flows: InterfaceFlows, remote: tuple[int, int], syn: TcpSegment, maker: ServiceMaker) -> None:
        super().__init__(flows, remote, syn.source_port, inward=False)
        self._unsent: deque[memoryview] = deque()
        self._unsent_bytes = 0
        self._closing = False
        self._ended = False
        self.waits = False  # for its turn
        self._receive = maker(self._write, self._close, self._limit_hops)
        self.connection.hold(syn)
        self.connection.accept()
        self.wake()

    def _write(self, data: bytes) -> None:
        if not self.ended and not self._closing:
            self._unsent.append(memoryview(data))
            self._unsent_bytes += len(data)
            self.to_guest()
            self.wake()

    def _close(self) -> None:
        self._closing = True
        self.to_guest()
        self.wake()

    def _limit_hops(self, number: int) -> None:
        self.transmit.ttl = number

    def to_guest(self) -> None:
        connection = self.connection
        while self._unsent:
            first = self._unsent[0]
            taken = connection.write(first)
            self._unsent_bytes -= taken
            if taken < len(first):
                self._unsent[0] = first[taken:]
                break
            self._unsent.popleft()
        if self._closing and not self._unsent and not self.ended:
            connection.close()
        elif self._unsent_bytes <= MOST_UNSENT:
            self.from_guest()

    def from_guest(self) -> None:
        if not self.waits:
            self.waits = True
            self.flows.serve_later(self)

    def serve(self) -> None:
        """Its turn has come. However many questions the guest has sent at once, and however large their answers are:
        a few are answered, and the rest waits for another turn."""
        connection = self.connection
        pieces = connection.peek()
        if pieces and self._unsent_bytes <= MOST_UNSENT:
            data = bytes(memoryview(pieces[0])[:A_TURN])
            connection.consume(len(data))
            if not self._closing:
                self._receive(data)
            self.wake()
        if connection.eof and not self._ended:
            self._ended = True
            self._receive(b"")
        elif connection.peek() and self._unsent_bytes <= MOST_UNSENT:
            self.from_guest()

    def released(self) -> None:
        self._receive = _nobody  # what it refers to refers to this
        self._unsent.clear()

    def patience(self) -> float:
        return IDLE_SECONDS


def dns_over_tcp(resolve: Callable[[bytes, Callable[[bytes], None]], bool]) -> ServiceMaker:
    """DNS over TCP (RFC 7766): each message follows its length in two bytes. `resolve` answers a query, once or later;
    where it says that it will not, that is the connection's end."""

    def serve(write: Write, close: Close, _limit_hops: LimitHops) -> Receive:
        received = bytearray()

        def answer(response: bytes) -> None:
            write(len(response).to_bytes(2, "big") + response)

        def receive(data: bytes) -> None:
            if not data:
                close()
                return
            received.extend(data)
            while len(received) >= 2:
                end = 2 + int.from_bytes(received[:2], "big")
                if len(received) < end:
                    break
                query = bytes(received[2:end])
                del received[:end]
                if not resolve(query, answer):
                    received.clear()
                    close()

        return receive

    return serve
