"""A guest's TCP connection carried on over a host's socket, either way round.

Bytes are in one place at a time: the socket is read only while the connection has room, and what the guest sent is
consumed only when the socket took it. So a slow reader on either side fills its own side's buffers, and then stops
the other: no more than the connection's two capacities and the kernel's are ever held.

    guest's FIN  -> shutdown(SHUT_WR)          host's end of file -> FIN
    guest's RST  -> RST (SO_LINGER 0)          host's RST         -> RST
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from celaje.network.buffers import Buffer
from celaje.network.event_loop import READ, WRITE
from celaje.network.guest_stream import HALF_CLOSED_IDLE_SECONDS, OPENING_SECONDS, GuestStream
from celaje.network.host_sockets import RESETS, UNREACHABLE_CODES, HostSocket, close_with_reset
from celaje.network.tcp_segment import TcpSegment

if TYPE_CHECKING:
    from celaje.network.nat import InterfaceFlows

MOST_REMAINDERS = 256  # of one interface; a guest that leaves more behind at readers that do not read loses them
PIECES_A_TURN = 4
_GATHERED = 512  # pieces sent at once; Linux takes 1,024
WORTHWHILE = 1 << 14  # bytes of room below which reading the socket waits


class Bridge(GuestStream):
    """Between the guest's connection and `stream`, a socket of the host's. Owns both."""

    __slots__ = (
        "_connecting",
        "_descriptor",
        "_host_ended",
        "_quote",
        "_shut",
        "_stream",
        "_watched",
        "entrance",
        "on_decided",
    )

    def __init__(
        self,
        flows: InterfaceFlows,
        remote: tuple[int, int],
        port: int,
        stream: HostSocket,
        inward: bool,
        quote: bytes = b"",
    ) -> None:
        super().__init__(flows, remote, port, inward)
        self._stream: HostSocket | None = stream
        self._descriptor = stream.fileno()
        self._watched = 0  # events that the loop looks for
        self._connecting = False  # the socket is being connected, for a guest that waits
        self._quote = quote  # of the guest's SYN, for ICMP errors about it
        self._host_ended = False  # the host's side has sent its last byte
        self._shut = False  # the guest's has, and the host's side was told
        self.on_decided: Callable[[bool], None] | None = None  # who asked for an inward connection
        self.entrance: str | None = None  # the public address by which an inward connection came in

    # Opening.

    def connect(self, syn: TcpSegment) -> None:
        """The guest's SYN waits while the socket is being connected."""
        self._connecting = True
        self.flows.opening += 1
        self.connection.hold(syn)
        self._watch(WRITE)

    def open(self) -> None:
        """Towards the guest, for a client that is connected already and waits."""
        self.connection.open()
        self.wake()

    def opened(self) -> None:
        if self.inward:
            self._decided(True)

    def _decided(self, admitted: bool) -> None:
        told, self.on_decided = self.on_decided, None
        if told is not None:
            told(admitted)

    def _connected(self, stream: HostSocket) -> None:
        error = stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error == 0:
            try:
                stream.getpeername()
            except OSError:
                return  # the event was a former descriptor's of this number
            self._decide()
            self.connection.accept()
        else:
            self.failed(error)

    def _decide(self) -> None:
        if self._connecting:
            self._connecting = False
            self.flows.opening -= 1

    def failed(self, error: int) -> None:
        """The host's side could not be connected."""
        code = UNREACHABLE_CODES.get(error)
        flows = self.flows
        if code is None:
            self.connection.refuse()
            flows.nat.count("outward TCP connections refused by the other side")
        else:
            self.connection.drop()
            flows.nat.network.unreachable(flows.interface, self._quote, code, None)
            flows.nat.count("outward TCP connections that reached nobody")
        self.finish()

    # Moving bytes.

    def ready(self, events: int) -> None:
        """The loop's callback: the socket is ready."""
        stream = self._stream
        if stream is None:
            return
        self.active = self.flows.nat.loop.now
        if self._connecting:
            self._connected(stream)
        else:
            if events & WRITE:
                self.from_guest()
            if events & ~WRITE:
                self.to_guest()
        self.settle()

    def to_guest(self) -> None:
        stream = self._stream
        if stream is None or self._host_ended or (self.inward and not self.established):
            return
        connection = self.connection
        piece = connection.piece
        flows = self.flows
        try:
            for _ in range(PIECES_A_TURN):
                room = connection.room
                if room < WORTHWHILE or flows.congested:
                    break
                data = stream.recv(room if room < piece else piece)
                if not data:
                    self._host_ended = True
                    connection.close()
                    break
                connection.write(data)
                if len(data) < piece:
                    break  # that was all, probably; the loop says if not
        except BlockingIOError:
            pass
        except OSError as error:
            self._broken(error)

    def from_guest(self) -> None:
        stream = self._stream
        if stream is None or self._connecting:
            return
        connection = self.connection
        try:
            while pieces := connection.peek():
                sent = stream.sendmsg(pieces)
                connection.consume(sent)
                self.active = self.flows.nat.loop.now
            if connection.eof and not self._shut:
                self._shut = True
                stream.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            pass
        except OSError as error:
            self._broken(error)

    def _broken(self, error: OSError) -> None:
        if error.errno not in RESETS and error.errno != errno.ENOTCONN:
            self.flows.nat.count(f"host sockets that failed ({errno.errorcode.get(error.errno or 0, 'unknown')})")
        self.abort()

    def settled(self) -> None:
        """Look for what this can go on with. With nothing to look for the socket is not watched at all, since a hang-up
        would be reported over and over."""
        if self._connecting:
            return  # being connected
        if self._host_ended and self._shut:
            self._close()
            return
        wanted = 0
        if not self._host_ended and (self.established or not self.inward):
            if self.connection.room < WORTHWHILE:
                pass  # WRITABLE comes
            elif self.flows.congested:
                self.flows.stalled.add(self)
            else:
                wanted = READ
        if self.connection.peek():
            wanted |= WRITE
        self._watch(wanted)

    def _watch(self, events: int) -> None:
        if events == self._watched or self._stream is None:
            return
        loop = self.flows.nat.loop
        if not self._watched:
            loop.watch(self._descriptor, events, self.ready)
        elif not events:
            loop.unwatch(self._descriptor)
        else:
            loop.change(self._descriptor, events)
        self._watched = events

    # Ending.

    def _close(self) -> None:
        stream = self._stream
        if stream is not None:
            self._watch(0)
            self._stream = None
            stream.close()

    def over(self, reset: bool) -> None:
        stream = self._stream
        if stream is None:
            return
        self._watch(0)
        self._stream = None
        if reset or not self._host_ended:
            close_with_reset(stream)
            return
        # In order, and the other side has not taken everything yet: the ports are free, the bytes are not lost.
        rest = self.connection.read()
        if not rest:
            stream.close()
        elif len(self.flows.remainders) < MOST_REMAINDERS:
            Remainder(self.flows, stream, rest)
        else:
            self.flows.nat.count("TCP remainders beyond the limit")
            close_with_reset(stream)

    def released(self) -> None:
        self._decide()
        self._decided(False)
        self._close()
        self.flows.stalled.discard(self)

    def patience(self) -> float:
        if not self.established:
            return OPENING_SECONDS
        return HALF_CLOSED_IDLE_SECONDS if self._host_ended or self._shut else super().patience()

    def expire(self, now: float) -> None:
        if self._connecting and now - self.active > OPENING_SECONDS:
            self.failed(errno.ETIMEDOUT)
        else:
            super().expire(now)


class Remainder:
    """The last bytes of a guest whose connection is over, on their way to a slow reader."""

    __slots__ = ("_flows", "_pieces", "_stream", "active")

    PATIENCE_SECONDS = 600.0  # without a byte taken

    def __init__(self, flows: InterfaceFlows, stream: HostSocket, pieces: list[Buffer]) -> None:
        self._flows = flows
        self._stream = stream
        self._pieces = [memoryview(piece) for piece in pieces]
        self.active = flows.nat.loop.now
        flows.remainders.add(self)
        flows.nat.loop.watch(stream.fileno(), WRITE, self.ready)

    def ready(self, _events: int) -> None:
        """The loop's callback: the socket takes bytes."""
        self.active = self._flows.nat.loop.now
        pieces = self._pieces
        try:
            while pieces:
                sent = self._stream.sendmsg(pieces[:_GATHERED])
                while pieces and sent >= len(pieces[0]):
                    sent -= len(pieces.pop(0))
                if sent:
                    pieces[0] = pieces[0][sent:]
        except BlockingIOError:
            return
        except OSError:
            pieces.clear()  # whoever was to read it has gone
        self.close()

    def close(self) -> None:
        """Done, or given up."""
        self._flows.remainders.discard(self)
        self._flows.nat.loop.unwatch(self._stream.fileno())
        self._stream.close()
