"""The sending direction of a TCP connection: what may be sent when, what is lost, and what is sent again.

`TcpConnection` hands it acknowledgments and time; it hands back segments through an `emit` (flags, sequence number,
pieces, bytes of data), to which the connection adds what concerns the other direction.
"""

from __future__ import annotations

from collections.abc import Callable

from celaje.network.buffers import Buffer
from celaje.network.tcp_congestion import Congestion
from celaje.network.tcp_segment import ACK, DEFAULT_MSS, FIN, HEADER_BYTES, PSH, TcpSegment, sack_blocks
from celaje.network.tcp_send_buffer import SendBuffer
from celaje.network.tcp_settings import NEVER, TcpSettings

Emit = Callable[[int, int, list[Buffer], int], None]

# An IPv4 packet's bytes after the two headers, which is what one segment can carry.
_LARGEST_PAYLOAD = 0xFFFF - 20 - HEADER_BYTES

# A guest that offers less has not meant it, and would have every byte sent in a frame of its own.
_SMALLEST_MSS = 88

_HALF = 1 << 31
_MASK = 0xFFFFFFFF


class TcpSender:
    """SND.* of RFC 9293, 3.3.1, with the timer for retransmission and persistence."""

    __slots__ = (
        "_last_window_ack",
        "_last_window_sequence",
        "_settings",
        "backoff",
        "buffer",
        "closing",
        "congestion",
        "fin_sent",
        "largest",
        "mss",
        "retries",
        "sack",
        "shift",
        "timer_at",
        "widest",
        "window",
    )

    def __init__(self, settings: TcpSettings, initial_sequence: int) -> None:
        self._settings = settings
        self.buffer = SendBuffer(initial_sequence)
        self.congestion = Congestion()
        self.mss = DEFAULT_MSS
        self.largest = _LARGEST_PAYLOAD
        self.sack = True
        self.shift = 0
        self.window = 0  # SND.WND
        self.widest = 0  # the widest that it ever was
        self._last_window_sequence = 0  # SND.WL1
        self._last_window_ack = 0  # SND.WL2
        self.closing = False  # a FIN follows what was written
        self.fin_sent = False
        self.timer_at = NEVER  # nothing is sent again or probed before
        self.retries = 0  # timeouts in a row without a sign of the guest
        self.backoff = 0  # timeouts in a row; each doubles the next one's time

    def agree(self, mss: int | None, shift: int | None, sack: bool) -> None:
        """Take over the options of the guest's SYN."""
        self.mss = max(min(mss or DEFAULT_MSS, self._settings.mss), _SMALLEST_MSS)
        self.largest = _LARGEST_PAYLOAD - _LARGEST_PAYLOAD % self.mss
        self.shift = shift or 0
        self.sack = sack

    def begin(self, segment: TcpSegment, start: int, scaled: bool) -> None:
        """The SYN is acknowledged, and `segment` (at `start`) says how wide the window is."""
        buffer = self.buffer
        buffer.unacknowledged = buffer.next
        self.restart()
        self.window = segment.window << self.shift if scaled else segment.window
        self.widest = self.window
        self._last_window_sequence = start
        self._last_window_ack = buffer.next

    def restart(self) -> None:
        """The guest was heard: no timeout counts any more."""
        self.retries = self.backoff = 0
        self.timer_at = NEVER

    @property
    def finished(self) -> bool:
        """Whether the guest has acknowledged everything, the FIN included."""
        return self.fin_sent and not self.buffer.flights

    def free(self) -> int:
        """How many bytes more the send capacity has room for; may be negative by a FIN."""
        buffer = self.buffer
        return self._settings.send_capacity - buffer.unsent - (buffer.next - buffer.unacknowledged)

    # ---- what the guest says

    def receive(self, segment: TcpSegment, start: int, ack: int, empty: bool, now: float) -> bool:
        """Take the acknowledgment, window and SACK fields of a segment at `start`; returns whether `ack` was new."""
        buffer = self.buffer
        window = segment.window << self.shift
        advanced = ack > buffer.unacknowledged
        if advanced:
            self._advance(ack, now)
        elif buffer.flights and ack == buffer.unacknowledged and empty and window == self.window:
            self.congestion.duplicates += 1
        last = self._last_window_sequence
        if start > last or (start == last and ack >= self._last_window_ack):
            if window > self.window and not buffer.flights:
                self.restart()  # no need to persist
            self.window = window
            if window > self.widest:
                self.widest = window
            self._last_window_sequence = start
            self._last_window_ack = ack
        if not (buffer.flights and window):
            self.retries = 0  # what waits for a window waits as long as the guest answers
        if buffer.flights and (self.congestion.duplicates or (segment.options and self.sack)):
            self._look_for_loss(segment)
        return advanced

    def _advance(self, ack: int, now: float) -> None:
        buffer = self.buffer
        congestion = self.congestion
        settings = self._settings
        count = ack - buffer.unacknowledged
        round_trip = buffer.acknowledge(ack, now)
        if round_trip is not None:
            congestion.measured(round_trip, settings.shortest_timeout, settings.longest_timeout)
        congestion.duplicates = 0
        congestion.acknowledged(count, self.mss, settings.send_capacity)
        if congestion.recovery is not None:
            if ack < congestion.recovery:
                if not self.sack:
                    buffer.mark_first_lost()  # RFC 6582: a partial acknowledgment names the next loss
            elif buffer.first_lost() is None:
                congestion.recovery = None
            else:
                congestion.recovery = buffer.next
        self.retries = self.backoff = 0
        self.timer_at = now + congestion.timeout if buffer.flights else NEVER

    def _look_for_loss(self, segment: TcpSegment) -> None:
        """Fast retransmit (RFC 5681, 3.2) and SACK-based recovery (RFC 6675)."""
        buffer = self.buffer
        congestion = self.congestion
        if segment.options and self.sack:
            una = buffer.unacknowledged
            blocks = [
                (una + ((first - una + _HALF) & _MASK) - _HALF, una + ((last - una + _HALF) & _MASK) - _HALF)
                for first, last in sack_blocks(segment.options)
            ]
            buffer.mark_sacked([(first, last) for first, last in blocks if una < first < last <= buffer.next])
        if congestion.recovery is None:
            if congestion.duplicates < 3 and buffer.sacked_bytes() <= 2 * self.mss:
                return
            congestion.lost(buffer.on_the_way(), self.mss, buffer.next)
            buffer.mark_first_lost()
        buffer.mark_lost_before_sacked()

    # ---- what is sent

    def send(self, now: float, emit: Emit) -> None:
        """Send what is lost, and what was written and the FIN after it, as far as both windows allow."""
        buffer = self.buffer
        if buffer.flights and self.congestion.recovery is not None:
            self._send_again(emit)
        if buffer.unsent or (self.closing and not self.fin_sent):
            self._send_new(now, emit)

    def _send_again(self, emit: Emit) -> None:
        """What the guest waits for is sent in any case, the rest as far as the congestion window allows."""
        buffer = self.buffer
        window = self.congestion.window
        allowance = window - buffer.on_the_way()
        while (flight := buffer.first_lost()) is not None:
            length = flight.end - flight.start
            size = max(allowance, window if flight is buffer.flights[0] else 0)
            if size < length:
                size -= size % self.mss
                if size <= 0:
                    return
                buffer.split(flight, size)
                length = size
            flight.lost = False
            flight.resent = True
            emit(ACK | PSH | FIN if flight.fin else ACK | PSH, flight.start, flight.pieces, length - flight.fin)
            allowance -= length

    def _send_new(self, now: float, emit: Emit) -> None:
        buffer = self.buffer
        congestion = self.congestion
        mss = self.mss
        limit = buffer.unacknowledged + min(self.window, congestion.window)
        if congestion.recovery is not None:
            limit = min(limit, buffer.next + congestion.window - buffer.on_the_way())
        while buffer.unsent or (self.closing and not self.fin_sent):
            count = min(buffer.unsent, self.largest)
            fin = self.closing and count == buffer.unsent
            usable = limit - buffer.next
            if count + fin > usable:
                fin = False
                if count > usable or not count:
                    # Silly window avoidance (RFC 9293, 3.8.6.2.1), and larger frames for the price of waiting for one
                    # more of the acknowledgments that are on their way.
                    count = usable - usable % mss if usable >= mss else usable
                    least = min(self.largest, (limit - buffer.unacknowledged) // 3) if buffer.flights else 1
                    if count <= 0 or count < least or (count < mss and count < self.widest // 2):
                        break
            self._send_data(count, fin, now, emit)
        if self.timer_at == NEVER and not buffer.flights:
            self.timer_at = now + congestion.timeout  # the guest's window is closed: persist

    def _send_data(self, count: int, fin: bool, now: float, emit: Emit) -> None:
        buffer = self.buffer
        start = buffer.next
        pieces = buffer.send(count, fin, now)
        flags = ACK if buffer.unsent else ACK | PSH
        if fin:
            flags |= FIN
            self.fin_sent = True
        emit(flags, start, pieces, count)
        if self.timer_at == NEVER:
            self.timer_at = now + self.congestion.timeout

    def time_out(self, now: float, emit: Emit) -> None:
        """`timer_at` has come while the connection is open: everything is lost, or the window has stayed closed."""
        buffer = self.buffer
        congestion = self.congestion
        if buffer.flights:
            if self.backoff == 1:
                congestion.timed_out(buffer.next - buffer.unacknowledged, self.mss, buffer.next)
            else:
                congestion.window = self.mss
                congestion.recovery = buffer.next
            buffer.mark_all_lost()
        elif not self._send_small(now, emit):
            self.probe(emit)

    def wait_longer(self, now: float) -> None:
        """Set the timer again, each time to twice as long."""
        timeout = self.congestion.timeout * (1 << min(self.backoff, 10))
        self.timer_at = now + min(timeout, self._settings.longest_timeout)

    def probe(self, emit: Emit) -> None:
        """A segment just before what the guest expects: it must answer (RFC 9293, 3.8.4 and 3.8.6.1)."""
        emit(ACK, self.buffer.unacknowledged - 1, [], 0)

    def _send_small(self, now: float, emit: Emit) -> bool:
        """Where the window has stayed small: send what fits, however little. False if nothing does."""
        buffer = self.buffer
        usable = buffer.unacknowledged + self.window - buffer.next
        count = min(buffer.unsent, usable, self.largest)
        fin = self.closing and count == buffer.unsent and count < usable
        if count + fin <= 0:
            return False
        self._send_data(count, fin, now, emit)
        return True
