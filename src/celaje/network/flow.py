"""Tracked connections: what makes the firewall stateful.

A flow is one connection between two ends, each an interface or (None) outside. It stands in the table of each
interface that it touches, under what that interface's packets of it begin with, so that a packet costs one look into
one table:

    TCP    source, destination, source port, destination port             12 bytes, as they stand in the packet
    UDP    the same and 0x11                                              13 bytes
    ICMP   echo: source, destination, identifier, 0, 0, and the type      13 bytes
    else   source, destination, protocol                                  9 bytes

Flows end when they have been idle for what their state allows. Those that end in the same second share a place in the
wheel; a flow that is still alive then moves on to another place. A table is bounded: when it is full, the oldest flow
goes, connections that never came about first (what a flood leaves behind does not push out what works).
"""

from __future__ import annotations

import heapq
import struct
from collections.abc import Iterator
from enum import IntEnum
from itertools import islice
from typing import TYPE_CHECKING

from celaje.network.ipv4 import ICMP, TCP, UDP

if TYPE_CHECKING:
    from celaje.network.forwarding import Way
    from celaje.network.interface import Interface


class State(IntEnum):
    """Of a flow. Only ESTABLISHED packets take the short way."""

    NEW = 0  # nothing came back yet; TCP: SYN
    ANSWERED = 1  # TCP: SYN and ACK
    ESTABLISHED = 2
    CLOSING = 3  # TCP: one end has sent its FIN
    CLOSED = 4  # TCP: both have, or one has reset it
    CUT = 5  # no longer admitted: its packets are dropped


# Seconds without a packet, after which a flow ends.
TCP_TIMEOUTS = {
    State.NEW: 60.0,
    State.ANSWERED: 60.0,
    State.ESTABLISHED: 432_000.0,  # EC2's: five days
    State.CLOSING: 300.0,
    State.CLOSED: 10.0,
}
UDP_TIMEOUTS = {State.NEW: 30.0, State.ESTABLISHED: 180.0}
ICMP_TIMEOUTS = {State.NEW: 30.0, State.ESTABLISHED: 30.0}
OTHER_TIMEOUTS = {State.NEW: 180.0, State.ESTABLISHED: 600.0}
LONG = 600.0  # above this, a flow may last up to an hour longer
CUT_TIMEOUT = 300.0  # longer than a TCP retransmits without a pause

_TIMEOUTS = {TCP: TCP_TIMEOUTS, UDP: UDP_TIMEOUTS, ICMP: ICMP_TIMEOUTS}

FIN = 1
SYN = 2
RST = 4
ACK = 16

CONSIDERED = 8  # flows that are looked at when one must go

four_tuple = struct.Struct(">IIHH")
addresses = struct.Struct(">II")
UDP_SUFFIX = b"\x11"


class Flow:
    """`client` is the initiator's address as the responder's rules see it, `server` the responder's as the
    initiator's do, `port` what rules are about: the responder's port, or ICMP's type and code."""

    __slots__ = (
        "back",
        "beside_routes",
        "client",
        "closed_by_initiator",
        "initiator",
        "initiator_key",
        "last",
        "places",
        "port",
        "protocol",
        "responder",
        "responder_key",
        "second",
        "server",
        "state",
        "state_before",
        "there",
        "timeout",
    )

    def __init__(
        self,
        protocol: int,
        initiator: Interface | None,
        initiator_key: bytes,
        responder: Interface | None,
        responder_key: bytes,
        client: int,
        server: int,
        port: int,
        now: float,
    ) -> None:
        self.protocol = protocol
        self.initiator = initiator
        self.initiator_key = initiator_key
        self.responder = responder
        self.responder_key = responder_key
        self.client = client
        self.server = server
        self.port = port
        self.state = State.NEW
        self.state_before = State.NEW  # CUT
        self.closed_by_initiator = False  # CLOSING: whose FIN it was
        self.timeout = _TIMEOUTS.get(protocol, OTHER_TIMEOUTS)[State.NEW]
        self.last = now
        self.second = 0  # its place in the wheel
        # Where its packets go, those of its initiator and those of its responder, as was decided last; neither routes
        # nor access lists are asked about some.
        self.there: Way | None = None
        self.back: Way | None = None
        self.beside_routes = False
        # Where it stands: the tables of its ends, and its key in each.
        self.places: list[tuple[Interface, bytes]] = []
        if initiator is not None:
            self.places.append((initiator, initiator_key))
        if responder is not None:
            self.places.append((responder, responder_key))


class FlowTable:
    """All flows of a network. `most` of one interface."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._wheel: dict[int, set[Flow]] = {}
        self._seconds: list[int] = []  # a heap of the wheel's keys
        self.evicted = 0

    def add(self, flow: Flow) -> None:
        """Tracks a flow; those that were known by its keys end."""
        for interface, key in flow.places:
            former = interface.flows.get(key)
            if former is not None:
                self.remove(former)
            elif len(interface.flows) >= self._most:
                self._evict(interface)
            interface.flows[key] = flow
            interface.tentative[key] = flow
        self._place(flow)

    def remove(self, flow: Flow) -> None:
        """The flow is over. Harmless if it is already."""
        for interface, key in flow.places:
            if interface.flows.get(key) is flow:
                del interface.flows[key]
                interface.tentative.pop(key, None)
        self._unplace(flow)

    def enter(self, flow: Flow, state: State) -> None:
        """The flow is in this state from its last packet on."""
        flow.state = state
        for interface, key in flow.places:
            if state is State.ESTABLISHED:
                interface.tentative.pop(key, None)
            else:
                interface.tentative.setdefault(key, flow)
        if state is State.CUT:
            flow.timeout = CUT_TIMEOUT
        else:
            flow.timeout = _TIMEOUTS.get(flow.protocol, OTHER_TIMEOUTS)[state]
        self._unplace(flow)
        self._place(flow)

    def advance(self, flow: Flow, from_initiator: bool, flags: int, now: float) -> None:
        """A packet of the flow, which is not CUT; `flags` are TCP's, otherwise 0."""
        flow.last = now
        state = flow.state
        if flow.protocol != TCP:
            if state is State.NEW and not from_initiator:
                self.enter(flow, State.ESTABLISHED)
        elif flags & RST:
            if state is not State.CLOSED:
                self.enter(flow, State.CLOSED)
        elif flags & FIN:
            if state is State.CLOSING:
                if from_initiator is not flow.closed_by_initiator:
                    self.enter(flow, State.CLOSED)
            elif state is not State.CLOSED:
                flow.closed_by_initiator = from_initiator
                self.enter(flow, State.CLOSING)
        elif state is State.NEW:
            if not from_initiator and flags & ACK:
                self.enter(flow, State.ANSWERED if flags & SYN else State.ESTABLISHED)
        elif state is State.ANSWERED and from_initiator and flags & (SYN | ACK) == ACK:
            self.enter(flow, State.ESTABLISHED)

    def expire(self, now: float) -> None:
        """Ends what has been idle for too long."""
        while self._seconds and self._seconds[0] <= now:
            second = heapq.heappop(self._seconds)
            for flow in self._wheel.pop(second, ()):
                flow.second = 0
                if flow.last + flow.timeout <= now:
                    self.remove(flow)
                else:
                    self._place(flow)

    @property
    def deadline(self) -> float | None:
        """When `expire` has something to look at."""
        while self._seconds and not self._wheel[self._seconds[0]]:
            del self._wheel[heapq.heappop(self._seconds)]
        return float(self._seconds[0]) if self._seconds else None

    def _place(self, flow: Flow) -> None:
        # Places are a second wide, or an hour for long timeouts: those that empty early stay until their time, so there
        # must not be one for every second of five days.
        width = 1 if flow.timeout <= LONG else 3600
        flow.second = second = (int(flow.last + flow.timeout) // width + 1) * width
        place = self._wheel.get(second)
        if place is None:
            self._wheel[second] = {flow}
            heapq.heappush(self._seconds, second)
        else:
            place.add(flow)

    def _unplace(self, flow: Flow) -> None:
        place = self._wheel.get(flow.second)
        if place is not None:
            place.discard(flow)

    def _evict(self, interface: Interface) -> None:
        """Ends the oldest flow that is not established, or, where all are, the longest idle of the oldest; these then
        count as new."""
        self.evicted += 1
        for tentative in interface.tentative.values():
            self.remove(tentative)
            return
        oldest = list(islice(interface.flows.items(), CONSIDERED))
        for key, _ in oldest:
            interface.flows[key] = interface.flows.pop(key)
        self.remove(min((flow for _, flow in oldest), key=lambda flow: flow.last))


def flows_of(interface: Interface) -> Iterator[Flow]:
    """An interface's flows, each once."""
    return iter(tuple(interface.flows.values()))
