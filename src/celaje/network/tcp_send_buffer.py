"""What one end of a TCP connection has written: the bytes not sent yet, and those that were sent and not acknowledged.

Sequence numbers are counted on without end, not modulo 2**32, so that they compare as numbers do: whoever puts one into
a segment cuts it, and whoever takes one out of a segment adds what was cut.

Bytes are kept as the buffers they were written in. What one segment carried (up to 64 KiB) is a `Flight`, and flights
are what is acknowledged, lost and sent again; all lists here are a few dozen entries long, since small writes are put
together.
"""

from __future__ import annotations

from celaje.network.buffers import Buffer

# Buffers under this are put together, so that a capacity of single bytes does not become as many objects.
_SMALL = 2048


class Flight:
    """Bytes `start` to `end` (in sequence numbers, a FIN counts one), as they were sent."""

    __slots__ = ("end", "fin", "lost", "pieces", "resent", "sacked", "sent_at", "start")

    def __init__(self, start: int, end: int, pieces: list[Buffer], fin: bool, sent_at: float) -> None:
        self.start = start
        self.end = end
        self.pieces = pieces
        self.fin = fin
        self.sent_at = sent_at
        self.sacked = False  # the other end has it, out of order
        self.lost = False  # to be sent again
        self.resent = False  # was sent again: no measure of the round trip (Karn)


class SendBuffer:
    """Bytes between the one who writes them and the other end's acknowledgment."""

    __slots__ = ("_chunks", "flights", "next", "unacknowledged", "unsent")

    def __init__(self, sequence: int) -> None:
        self.unacknowledged = sequence  # SND.UNA
        self.next = sequence  # SND.NXT
        self.unsent = 0  # bytes
        self.flights: list[Flight] = []
        self._chunks: list[Buffer] = []

    def write(self, data: Buffer) -> None:
        """Queue `data`, which must not change any more."""
        chunks = self._chunks
        if len(data) < _SMALL and chunks and len(chunks[-1]) < _SMALL:
            chunks[-1] = b"".join((chunks[-1], data))
        else:
            chunks.append(data)
        self.unsent += len(data)

    def send(self, count: int, fin: bool, now: float) -> list[Buffer]:
        """Move `count` unsent bytes, and a FIN after them, among the flights; returns the pieces to transmit."""
        pieces = self._taken(count)
        start = self.next
        self.next = end = start + count + fin
        flights = self.flights
        if flights and count < _SMALL:
            last = flights[-1]
            if last.end - last.start < _SMALL and not (last.sacked or last.lost or last.resent):
                last.pieces = [b"".join((*last.pieces, *pieces))]
                last.end = end
                last.fin = fin
                return pieces
        flights.append(Flight(start, end, pieces, fin, now))
        return pieces

    def _taken(self, count: int) -> list[Buffer]:
        self.unsent -= count
        chunks = self._chunks
        pieces: list[Buffer] = []
        whole = 0
        for chunk in chunks:
            size = len(chunk)
            if size > count:
                break
            pieces.append(chunk)
            count -= size
            whole += 1
        del chunks[:whole]
        if count:
            view = memoryview(chunks[0])
            pieces.append(view[:count])
            chunks[0] = view[count:]
        return pieces

    def acknowledge(self, upto: int, now: float) -> float | None:
        """Let go of what lies before `upto`; returns the round trip's time where this measures it (RFC 6298, 3)."""
        self.unacknowledged = upto
        flights = self.flights
        whole = 0
        sent_at = None
        ambiguous = False
        for flight in flights:
            if flight.end > upto:
                if flight.start < upto:
                    _cut_front(flight, upto - flight.start)
                break
            whole += 1
            sent_at = flight.sent_at
            ambiguous = ambiguous or flight.resent or flight.sacked
        del flights[:whole]
        return None if ambiguous or sent_at is None else now - sent_at

    # ---- loss

    def on_the_way(self) -> int:
        """Bytes that are thought to be between the two ends ("pipe" in RFC 6675)."""
        return sum(flight.end - flight.start for flight in self.flights if not (flight.sacked or flight.lost))

    def mark_sacked(self, blocks: list[tuple[int, int]]) -> None:
        """Note that the other end has `blocks`. A flight that it has a part of only counts as one it has not."""
        for first, end in blocks:
            for flight in self.flights:
                if flight.start >= end:
                    break
                if first <= flight.start and flight.end <= end:
                    flight.sacked = True
                    flight.lost = False

    def sacked_bytes(self) -> int:
        """How many bytes the other end has beyond a gap."""
        return sum(flight.end - flight.start for flight in self.flights if flight.sacked)

    def mark_lost_before_sacked(self) -> None:
        """What was sent before something that has arrived is lost: the link keeps the order."""
        last = next((flight.start for flight in reversed(self.flights) if flight.sacked), 0)
        for flight in self.flights:
            if flight.start >= last:
                break
            if not (flight.sacked or flight.resent):
                flight.lost = True

    def mark_first_lost(self) -> None:
        """What the other end is waiting for is lost, unless it is on its way again."""
        if self.flights and not self.flights[0].resent:
            self.flights[0].lost = True

    def mark_all_lost(self) -> None:
        """After a timeout: nothing is believed to have arrived, what was sacked included (RFC 2018, 8)."""
        for flight in self.flights:
            flight.lost = True
            flight.sacked = False

    def first_lost(self) -> Flight | None:
        """The first that is to be sent again."""
        return next((flight for flight in self.flights if flight.lost), None)

    def split(self, flight: Flight, size: int) -> None:
        """Make two of `flight`, the first of them `size` bytes long."""
        at = self.flights.index(flight)
        front, back = _split(flight.pieces, size)
        rest = Flight(flight.start + size, flight.end, back, flight.fin, flight.sent_at)
        rest.lost = flight.lost
        rest.resent = flight.resent
        flight.end = flight.start + size
        flight.pieces = front
        flight.fin = False
        self.flights.insert(at + 1, rest)

    def clear(self) -> None:
        """Forget everything unsent and unacknowledged."""
        self._chunks.clear()
        self.flights.clear()
        self.unsent = 0


def _cut_front(flight: Flight, size: int) -> None:
    _, flight.pieces = _split(flight.pieces, size)
    flight.start += size


def _split(pieces: list[Buffer], size: int) -> tuple[list[Buffer], list[Buffer]]:
    for at, piece in enumerate(pieces):
        if size < len(piece):
            view = memoryview(piece)
            return ([*pieces[:at], view[:size]] if size else pieces[:at]), [view[size:], *pieces[at + 1 :]]
        size -= len(piece)
    return pieces, []
