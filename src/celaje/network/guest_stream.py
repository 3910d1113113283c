"""A guest's TCP connection that ends in this process: what bridges to host sockets and services have in common.

It drives a TcpConnection as that asks for: segments of one round are taken in first, then `settle` moves what can be
moved and lets the connection send once, whatever came.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from celaje.network import ipv4, tcp
from celaje.network.buffers import Buffer
from celaje.network.tcp_segment import PROTOCOL, TcpSegment

if TYPE_CHECKING:
    from celaje.network.nat import InterfaceFlows

IDLE_SECONDS = 24 * 3600.0  # without a byte either way; both ends send keepalives long before
HALF_CLOSED_IDLE_SECONDS = 3600.0
_TURNS = 8  # times that one stream moves bytes before others have their turn
OPENING_SECONDS = 75.0  # for a connection to be established, on either side


class GuestStream:
    """`remote` is the far end as the guest sees it: (address as a number, port); `port` the guest's."""

    __slots__ = (
        "active",
        "client",
        "connection",
        "ended",
        "established",
        "events",
        "flows",
        "inward",
        "key",
        "leaves_as",
        "queued",
        "timer",
        "transmit",
    )

    def __init__(self, flows: InterfaceFlows, remote: tuple[int, int], port: int, inward: bool) -> None:
        nat = flows.nat
        now = nat.loop.now
        guest = (flows.interface.address, port)
        self.flows = flows
        self.key = stream_key(remote[0], remote[1], port)
        self.inward = inward
        self.client = remote[0]  # whom the firewall's rules are about
        self.leaves_as: str | None = None  # the public address in whose name it goes out, if in one's
        self.active = now
        self.established = False
        self.ended = False
        self.events = 0  # reported by the connection and not acted on
        self.queued = False  # among those that the present round will settle
        self.timer = nat.loop.timer(self.settle)
        self.transmit = _Transmit(partial(nat.network.deliver, flows.interface, remote[0], guest[0], PROTOCOL))
        self.connection = tcp.TcpConnection(
            remote, guest, self.transmit, flows.settings, nat.initial_sequence(remote, guest, now)
        )
        flows.streams[self.key] = self

    @property
    def remote(self) -> tuple[int, int]:
        return self.connection.local

    @property
    def port(self) -> int:
        """The guest's."""
        return self.connection.remote[1]

    def segment(self, segment: TcpSegment) -> None:
        """A segment from the guest; its buffer stays as it is."""
        nat = self.flows.nat
        if self.established:  # a SYN again makes nobody more patient
            self.active = nat.loop.now
        self.events |= self.connection.receive(segment, nat.loop.now, True)
        if self.events & tcp.SUPERSEDED:
            self.finish()
            nat.new_stream(self.flows, self.remote, segment)
        elif not self.queued:
            self.queued = True
            nat.unsettled.append(self)

    def settle(self) -> None:
        """Move bytes both ways as far as they go, and let the connection send."""
        self.queued = False
        nat = self.flows.nat
        connection = self.connection
        now = nat.loop.now
        for _ in range(_TURNS):
            events, self.events = self.events, 0
            if not self._acted(events):
                return
            self.events = connection.poll(now)
            if not self.events:
                break
        else:
            self.wake()
        self.settled()
        deadline = connection.deadline
        nat.loop.set(self.timer, None if deadline == tcp.NEVER else deadline)

    def _acted(self, events: int) -> bool:
        """Whether it still lives after acting on these."""
        if events and not self.ended:
            if events & tcp.ESTABLISHED:
                self.established = True
                self.active = self.flows.nat.loop.now
                self.opened()
            if events & tcp.READABLE:
                self.from_guest()
            if events & tcp.WRITABLE:
                self.to_guest()
            if events & tcp.CLOSED and not self.ended:
                self.over(bool(events & tcp.RESET))
                self.finish()
        return not self.ended

    def wake(self) -> None:
        """Settle at the end of what is being done now."""
        if not self.queued and not self.ended:
            self.queued = True
            nat = self.flows.nat
            nat.unsettled.append(self)
            nat.settle_soon()

    def finish(self) -> None:
        """Leave the tables. The connection is closed already, or vanishes without a word."""
        if self.ended:
            return
        self.ended = True
        flows = self.flows
        if flows.streams.get(self.key) is self:
            del flows.streams[self.key]
            remote = self.remote
            flows.nat.network.forget(flows.interface, PROTOCOL, remote[0], remote[1], self.port)
        flows.nat.loop.discard(self.timer)
        self.connection.drop()
        self.released()

    def expire(self, now: float) -> None:
        """End it, with a reset, if it has been idle for too long."""
        if now - self.active > self.patience():
            self.flows.nat.count("TCP connections that were idle for too long")
            self.abort()

    def patience(self) -> float:
        """Seconds that it may be idle."""
        return IDLE_SECONDS if self.established else OPENING_SECONDS

    def cut(self) -> None:
        """Reset it outside, and say nothing to the guest: its rules admit no more."""
        self.over(True)
        self.finish()

    def abort(self) -> None:
        """Reset it, on both sides."""
        self.connection.abort()
        self.over(True)
        self.finish()

    # What a stream is made for.

    def opened(self) -> None:
        """The handshake with the guest is complete."""

    def from_guest(self) -> None:
        """There are bytes, or the end of them, to take from the connection."""
        raise NotImplementedError

    def to_guest(self) -> None:
        """There is room for bytes towards the guest."""
        raise NotImplementedError

    def settled(self) -> None:
        """A turn is over; the connection's room and bytes are what they are until something comes."""

    def over(self, reset: bool) -> None:
        """The connection has ended, in order or by a reset of the guest's or ours; `finish` follows."""

    def released(self) -> None:
        """Let go of what is held outside."""


def stream_key(remote: int, remote_port: int, port: int) -> int:
    """What a flow is found by in its interface's table."""
    return remote << 32 | remote_port << 16 | port


class _Transmit:
    """`deliver` says whether a frame was taken; to TCP a dropped frame is one that was lost on the way."""

    __slots__ = ("_deliver", "ttl")

    def __init__(self, deliver: partial[bool]) -> None:
        self._deliver = deliver
        self.ttl = ipv4.TTL

    def __call__(self, parts: list[Buffer], gso_size: int) -> None:
        self._deliver(parts, gso_size, self.ttl)
