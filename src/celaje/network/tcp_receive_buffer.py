"""What one end of a TCP connection has received: bytes in order that their owner has not consumed, and islands beyond
a gap.

Sequence numbers are counted on without end, as in `tcp_send_buffer`. Payloads are kept as they came where they are
large; small ones are put together, and the islands are few, so that what is kept costs little more than the bytes
that it is.
"""

from __future__ import annotations

from celaje.network.buffers import Buffer

_SMALL = 2048

# Who may still send this much hears of more with the next acknowledgment, not before.
_ENOUGH_WINDOW = 32 << 10

# A peer with more gaps than this sends again what lies beyond them.
_MOST_ISLANDS = 64


class Island:
    """Bytes `start` to `end` that came before the ones in front of them."""

    __slots__ = ("end", "pieces", "start")

    def __init__(self, start: int, data: Buffer) -> None:
        self.start = start
        self.end = start + len(data)
        self.pieces: list[Buffer] = [data]


class ReceiveBuffer:
    """Bytes between the other end and the one who reads them. The caller keeps what it hands in within its window."""

    __slots__ = ("_latest", "capacity", "edge", "islands", "next", "pieces", "shift", "unread")

    def __init__(self, capacity: int) -> None:
        self.next = 0  # RCV.NXT
        self.unread = 0  # bytes in `pieces`
        self.capacity = capacity
        self.shift = (capacity >> 16).bit_length()  # of the window field (RFC 7323, 2.3)
        self.edge = 0  # the end of what was ever offered
        self.pieces: list[Buffer] = []
        self.islands: list[Island] = []
        self._latest = 0

    def receive(self, start: int, data: Buffer, stable: bool) -> None:
        """Take `data`, which begins at `start` and of which anything may be here already."""
        gap = start - self.next
        if gap < 0:
            stable = stable and -gap < len(data) // 2
            data = data[-gap:]
        if len(data) < _SMALL or not stable:
            data = bytes(data)
        if gap > 0:
            self._latest = start
            self._put(start, data)
            return
        if data:
            _append(self.pieces, data)
            self.next += len(data)
            self.unread += len(data)
        while self.islands and self.islands[0].start <= self.next:
            self._land(self.islands.pop(0))

    def _land(self, island: Island) -> None:
        """Add an island that the bytes in order have reached, or passed."""
        known = self.next - island.start
        for piece in island.pieces:
            if known >= len(piece):
                known -= len(piece)
                continue
            new = _part(piece, known, len(piece)) if known else piece
            known = 0
            _append(self.pieces, new)
            self.next += len(new)
            self.unread += len(new)

    def _put(self, start: int, data: Buffer) -> None:
        """Add `data` to the islands, filling what lies between those that it touches."""
        islands = self.islands
        end = start + len(data)
        at = 0
        while at < len(islands) and islands[at].end < start:
            at += 1
        if at == len(islands) or end < islands[at].start:
            if len(islands) < _MOST_ISLANDS:
                islands.insert(at, Island(start, data))
            return
        island = islands[at]
        if start < island.start:
            front: list[Buffer] = [_part(data, 0, island.start - start)]
            _append(front, island.pieces[0])
            island.pieces[:1] = front
            island.start = start
        while island.end < end:
            after = islands[at + 1] if at + 1 < len(islands) else None
            if after is None or after.start > end:
                _append(island.pieces, _part(data, island.end - start, len(data)))
                island.end = end
                return
            if island.end < after.start:
                _append(island.pieces, _part(data, island.end - start, after.start - start))
            _append(island.pieces, after.pieces[0])
            island.pieces += after.pieces[1:]
            island.end = after.end
            del islands[at + 1]

    def begin(self, sequence: int, scaled: bool) -> None:
        """The first byte will be at `sequence`; `scaled`: the other end knows window scaling."""
        self.next = self.edge = sequence
        if not scaled:
            self.shift = 0
            self.capacity = min(self.capacity, 0xFFFF)

    def offer(self, mss: int, shift: int) -> int:
        """The window field of a segment that is sent now. The window's end moves by whole segments, and never back
        (RFC 9293, 3.8.6.2.2).
        """
        expected = self.next
        edge = self.edge
        reachable = expected + self.capacity - self.unread
        if reachable - edge >= mss or reachable - edge >= self.capacity // 2:
            edge = reachable
        if edge <= expected:
            return 0
        window = min((edge - expected) >> shift, 0xFFFF)
        if expected + (window << shift) > self.edge:
            self.edge = expected + (window << shift)
        return window

    def has_news(self, mss: int) -> bool:
        """Whether so much was consumed that the other end should hear of it without having sent anything."""
        left = self.edge - self.next
        if left >= _ENOUGH_WINDOW:
            return False
        gain = self.capacity - self.unread - left
        return gain >= left and gain >= min(2 * mss, self.capacity // 2)

    def sack_blocks(self) -> list[tuple[int, int]]:
        """The islands to report, the one that grew last first (RFC 2018, 4); at most four."""
        blocks = [(island.start, island.end) for island in self.islands]
        for at, (first, end) in enumerate(blocks):
            if first <= self._latest < end:
                blocks.insert(0, blocks.pop(at))
                break
        return blocks[:4]

    def end_at(self, end: int) -> None:
        """Nothing after `end` counts any more."""
        self.islands = [island for island in self.islands if island.start < end]

    def read(self) -> list[Buffer]:
        """All bytes in order, which are let go of."""
        pieces = self.pieces
        self.pieces = []
        self.unread = 0
        return pieces

    def consume(self, count: int) -> None:
        """Let go of the first `count` bytes in order. ValueError if there are not as many."""
        if count > self.unread:
            raise ValueError(f"{count} bytes cannot be consumed of {self.unread}")
        self.unread -= count
        pieces = self.pieces
        whole = 0
        for piece in pieces:
            size = len(piece)
            if size > count:
                break
            count -= size
            whole += 1
        del pieces[:whole]
        if count:
            pieces[0] = memoryview(pieces[0])[count:]


def _part(data: Buffer, first: int, end: int) -> Buffer:
    """A slice that does not keep a buffer more than twice its size alive."""
    part = data[first:end]
    return bytes(part) if len(part) < len(data) // 2 else part


def _append(pieces: list[Buffer], data: Buffer) -> None:
    if pieces and len(data) < _SMALL and len(pieces[-1]) < _SMALL:
        pieces[-1] = b"".join((pieces[-1], data))
    else:
        pieces.append(data)
