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

What is left out, and why. Timestamps (RFC 7323, 3) cost 12 bytes and their handling in every segment; the round trip is
measured without them, and no segment of the link outlives the 4 GiB after which PAWS would matter. Nagle's algorithm is
off: whoever writes wants it sent. Urgent data is delivered in line. Data in a SYN is left for its sender to repeat.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from celaje.network.buffers import Buffer, TransmitSegment
from celaje.network.tcp_congestion import Congestion
from celaje.network.tcp_receive_buffer import ReceiveBuffer
from celaje.network.tcp_segment import (
    ACK,
    DEFAULT_MSS,
    FIN,
    HEADER_BYTES,
    PROTOCOL,
    PSH,
    RST,
    SYN,
    SynOptions,
    TcpSegment,
    header,
    sack_blocks,
    sack_option,
    syn_options,
)
from celaje.network.tcp_send_buffer import SendBuffer

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


# Module constants, since looking an enumeration's member up costs more than most of what is done with it.
_CLOSED, _HELD, _SYN_SENT, _SYN_RECEIVED, _ESTABLISHED = list(State)[:5]
_FIN_WAIT_1, _FIN_WAIT_2, _CLOSE_WAIT, _CLOSING, _LAST_ACK, _TIME_WAIT = list(State)[5:]

_HALF = 1 << 31
_MASK = 0xFFFFFFFF

# An IPv4 packet's bytes after the two headers, which is what one segment can carry.
_LARGEST_PAYLOAD = 0xFFFF - 20 - HEADER_BYTES

# A guest that offers less has not meant it, and would have every byte sent in a frame of its own.
_SMALLEST_MSS = 88

# An acknowledgment waits this long for data to go with. Where none came in time, waiting is of no use to this
# conversation, and the next ones leave at once: so a guest that writes twice before it reads (Nagle on its side)
# seldom waits for us.
_ACK_DELAY = 0.005
_QUICK_ACKS = 16

# A guest that may still send this much hears of more with the next acknowledgment, not before.
_ENOUGH_WINDOW = 32 << 10

# Out-of-window segments without data, and whatever else RFC 5961 has challenged, are answered at most this often.
_CHALLENGE_INTERVAL = 0.1


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
    raise, and what is kept for a connection is bounded by a small multiple of the two capacities.
    """

    __slots__ = (
        "_ack_at",
        "_acknowledged",
        "_backoff",
        "_capacity",
        "_challenged_at",
        "_closing",
        "_congestion",
        "_edge",
        "_fin_at",
        "_fin_received",
        "_fin_sent",
        "_heard_at",
        "_incoming",
        "_keepalive_at",
        "_largest",
        "_last_window_ack",
        "_last_window_sequence",
        "_mss",
        "_outgoing",
        "_probes",
        "_pseudo",
        "_quick",
        "_receive_shift",
        "_retries",
        "_sack",
        "_scaling",
        "_send_shift",
        "_settings",
        "_syn_due",
        "_timer_at",
        "_transmit",
        "_widest",
        "_window",
        "deadline",
        "local",
        "remote",
        "state",
    )

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
        self.state = _CLOSED
        # When `poll` must be called next; NEVER (infinity) if only a segment or the owner can change anything.
        self.deadline: float = NEVER
        self._transmit = transmit
        self._settings = settings
        self._pseudo = local[0] + remote[0] + PROTOCOL + HEADER_BYTES
        self._outgoing = SendBuffer(initial_sequence)
        self._incoming = ReceiveBuffer(0)
        self._congestion = Congestion()
        # What the two ends have agreed on.
        self._mss = DEFAULT_MSS
        self._largest = _LARGEST_PAYLOAD
        self._sack = True
        self._scaling = True
        self._send_shift = 0
        self._receive_shift = (settings.receive_capacity >> 16).bit_length()
        # The window towards the guest (RFC 9293, 3.3.1: SND.WND, SND.WL1, SND.WL2), and the widest that it ever was.
        self._window = 0
        self._widest = 0
        self._last_window_sequence = 0
        self._last_window_ack = 0
        # The window offered to it: how much is kept, where what was offered ends, and what was acknowledged last.
        self._capacity = settings.receive_capacity
        self._edge = 0
        self._acknowledged = 0
        self._fin_at: int | None = None  # the sequence number of the guest's FIN, once known
        self._fin_received = False  # and everything before it
        self._closing = False  # `close` was called
        self._fin_sent = False
        self._syn_due = False
        # Times, NEVER where nothing is due. `_timer_at`: retransmission, persistence and TIME_WAIT exclude each other.
        self._timer_at = NEVER
        self._ack_at = NEVER
        self._keepalive_at = NEVER
        self._heard_at = 0.0
        self._challenged_at = -NEVER
        self._retries = 0  # timeouts in a row without a sign of the guest
        self._backoff = 0  # timeouts in a row; each doubles the next one's time
        self._probes = 0  # keepalive probes in a row
        self._quick = 0

    # ---- opening

    def open(self) -> None:
        """Open towards the guest: the next `poll` sends the SYN. ESTABLISHED or RESET is reported later."""
        if self.state is _CLOSED:
            self.state = _SYN_SENT
            self._send_syn_soon()

    def hold(self, syn: TcpSegment) -> None:
        """Take note of a guest's SYN without answering; later segments of the same ports go to `receive` as always."""
        if self.state is _CLOSED:
            self.state = _HELD
            self._synchronize(syn)

    def accept(self) -> None:
        """Answer the SYN that is held; ESTABLISHED is reported later, but `write` may be used at once."""
        if self.state is _HELD:
            self.state = _SYN_RECEIVED
            self._send_syn_soon()

    def refuse(self) -> None:
        """Answer the SYN that is held with a reset. The connection is CLOSED, and not reported."""
        if self.state is _HELD:
            self._outgoing.next = 0
            self.abort()

    def drop(self) -> None:
        """Forget the connection without a word. It is CLOSED, and not reported."""
        self._end(0)

    def _send_syn_soon(self) -> None:
        self._syn_due = True
        self.deadline = 0.0

    def _synchronize(self, syn: TcpSegment) -> None:
        """Take over what a SYN of the guest's says."""
        options = SynOptions(syn.options)
        mss = min(options.mss or DEFAULT_MSS, self._settings.mss)
        self._mss = max(mss, _SMALLEST_MSS)
        self._largest = _LARGEST_PAYLOAD - _LARGEST_PAYLOAD % self._mss
        self._sack = options.sack_permitted
        if options.window_scale is None:
            self._scaling = False
            self._receive_shift = 0
            self._capacity = min(self._capacity, 0xFFFF)
        else:
            self._send_shift = options.window_scale
        self._incoming.next = self._acknowledged = self._edge = syn.sequence + 1
        self._window = self._widest = syn.window
        self._last_window_sequence = syn.sequence

    # ---- segments

    def receive(self, segment: TcpSegment, now: float, stable: bool = False) -> int:
        """Take a segment from the guest (checksum already verified); returns events.

        `stable`: the payload's buffer will not change, so that views of it may be kept; otherwise what is kept is
        copied.
        """
        if self.state <= _SYN_SENT:
            return self._receive_unsynchronized(segment, now)
        incoming = self._incoming
        expected = incoming.next
        flags = segment.flags
        start = expected + ((segment.sequence - expected + _HALF) & _MASK) - _HALF
        end = start + len(segment.payload) + (flags & FIN)
        if flags & SYN:
            return self._receive_syn(segment, start, now)
        # RFC 9293, 3.10.7.4, first: in the window, or at its very end, where a sender that has filled it stands.
        if start > self._edge or (start < expected and end <= expected):
            if not flags & RST:
                self._answer_unacceptable(end > start, now)
                if self.state is _TIME_WAIT and flags & FIN:
                    self._timer_at = now + self._settings.time_wait
            return 0
        if flags & RST:
            if start == expected:
                # Where both have closed, nothing is lost by it (RFC 9293, 3.10.7.4, second).
                return self._end(0 if self.state >= _CLOSING else RESET)
            self._challenge(now)
            return 0
        if not flags & ACK:
            return 0
        self._heard_at = now
        self._probes = 0
        outgoing = self._outgoing
        unacknowledged = outgoing.unacknowledged
        ack = unacknowledged + ((segment.acknowledgment - unacknowledged + _HALF) & _MASK) - _HALF
        events = 0
        if ack > outgoing.next or ack < unacknowledged - self._widest:
            if self.state is _SYN_RECEIVED:
                self._send_reset(segment.acknowledgment)
            else:
                self._challenge(now)
            return 0
        if self.state is _SYN_RECEIVED:
            if ack <= unacknowledged:
                self._send_reset(segment.acknowledgment)
                return 0
            events = self._establish(segment, start, ack, now)
        else:
            events = self._receive_acknowledgment(segment, start, end, ack, now)
            if events & CLOSED:
                return events
        if end > start and not self._fin_received:
            events |= self._receive_data(segment, start, now, stable)
        self.deadline = 0.0
        return events

    def _receive_unsynchronized(self, segment: TcpSegment, now: float) -> int:
        """In CLOSED, HELD and SYN_SENT (RFC 9293, 3.10.7.3)."""
        flags = segment.flags
        if self.state is _HELD:
            own = (segment.sequence - self._last_window_sequence) & _MASK
            if flags & RST:
                return self._end(RESET) if own <= 1 else 0
            # The same SYN again says nothing new; another one means that its sender has given the first one up.
            return self._end(SUPERSEDED) if flags & (SYN | ACK) == SYN and own else 0
        if self.state is _CLOSED:
            return 0
        outgoing = self._outgoing
        if flags & ACK and (
            outgoing.next == outgoing.unacknowledged or segment.acknowledgment != outgoing.next & _MASK
        ):
            if not flags & RST:
                self._send_reset(segment.acknowledgment)
            return 0
        if flags & RST:
            return self._end(RESET) if flags & ACK else 0
        if not flags & SYN:
            return 0
        self._synchronize(segment)
        if flags & ACK:
            self._ack_at = 0.0
            return self._establish(segment, self._incoming.next, outgoing.next, now)
        self.state = _SYN_RECEIVED  # both opened at once (RFC 9293, 3.5)
        self._retries = self._backoff = 0
        self._send_syn_soon()
        return 0

    def _receive_syn(self, segment: TcpSegment, start: int, now: float) -> int:
        """A SYN where none is due."""
        expected = self._incoming.next
        if self.state is _TIME_WAIT and not segment.flags & (ACK | RST) and start > expected:
            return self._end(SUPERSEDED)  # RFC 9293, 3.6.1
        if self.state is _SYN_RECEIVED and start == expected - 1 and not segment.flags & RST:
            outgoing = self._outgoing
            known = segment.flags & ACK and segment.acknowledgment == outgoing.next & _MASK
            if known and outgoing.next > outgoing.unacknowledged:  # that of an opening from both ends
                self._ack_at = 0.0
                return self._establish(segment, expected, outgoing.next, now)
            self._send_syn_soon()
            return 0
        if not segment.flags & RST:
            self._challenge(now)
        return 0

    def _establish(self, segment: TcpSegment, start: int, ack: int, now: float) -> int:
        """The guest has acknowledged the SYN."""
        outgoing = self._outgoing
        outgoing.unacknowledged = outgoing.next
        self.state = _ESTABLISHED
        self._retries = self._backoff = 0
        self._timer_at = NEVER
        self._heard_at = now
        self._keepalive_at = now + self._settings.keepalive_idle
        self._window = segment.window if segment.flags & SYN else segment.window << self._send_shift
        self._widest = max(self._window, self._widest)
        self._last_window_sequence = start
        self._last_window_ack = ack
        self.deadline = 0.0
        return ESTABLISHED | WRITABLE

    def _receive_acknowledgment(self, segment: TcpSegment, start: int, end: int, ack: int, now: float) -> int:
        """The acknowledgment, window and SACK fields of a segment that is in order."""
        outgoing = self._outgoing
        window = segment.window << self._send_shift
        events = 0
        if ack > outgoing.unacknowledged:
            events = self._advance(ack, now)
            if events & CLOSED:
                return events
        elif outgoing.flights and ack == outgoing.unacknowledged and end == start and window == self._window:
            self._congestion.duplicates += 1
        if start > self._last_window_sequence or (start == self._last_window_sequence and ack >= self._last_window_ack):
            if window > self._window and not outgoing.flights and self.state is not _TIME_WAIT:
                self._timer_at = NEVER  # no need to persist
                self._backoff = 0
            self._window = window
            if window > self._widest:
                self._widest = window
            self._last_window_sequence = start
            self._last_window_ack = ack
        if not (outgoing.flights and window):
            self._retries = 0  # what waits for a window waits as long as the guest answers
        if outgoing.flights and (self._congestion.duplicates or (segment.options and self._sack)):
            self._look_for_loss(segment)
        return events

    def _advance(self, ack: int, now: float) -> int:
        """Something new is acknowledged."""
        outgoing = self._outgoing
        congestion = self._congestion
        settings = self._settings
        count = ack - outgoing.unacknowledged
        room = self.room
        round_trip = outgoing.acknowledge(ack, now)
        if round_trip is not None:
            congestion.measured(round_trip, settings.shortest_timeout, settings.longest_timeout)
        congestion.duplicates = 0
        congestion.acknowledged(count, self._mss, settings.send_capacity)
        if congestion.recovery is not None:
            if ack < congestion.recovery:
                outgoing.mark_first_lost()  # RFC 6582: a partial acknowledgment names the next loss
            elif outgoing.first_lost() is None:
                congestion.recovery = None
            else:
                congestion.recovery = outgoing.next
        self._retries = self._backoff = 0
        self._timer_at = now + congestion.timeout if outgoing.flights else NEVER
        if self._fin_sent and not outgoing.flights:
            if self.state is _FIN_WAIT_1:
                self.state = _FIN_WAIT_2
            elif self.state is _CLOSING:
                self._wait(now)
            elif self.state is _LAST_ACK:
                return self._end(0)
        return WRITABLE if not room and self.room else 0

    def _look_for_loss(self, segment: TcpSegment) -> None:
        """Fast retransmit (RFC 5681, 3.2) and SACK-based recovery (RFC 6675)."""
        outgoing = self._outgoing
        congestion = self._congestion
        if segment.options and self._sack:
            una = outgoing.unacknowledged
            blocks = [
                (una + ((first - una + _HALF) & _MASK) - _HALF, una + ((last - una + _HALF) & _MASK) - _HALF)
                for first, last in sack_blocks(segment.options)
            ]
            outgoing.mark_sacked([(first, last) for first, last in blocks if una < first < last <= outgoing.next])
        sacked = outgoing.sacked_bytes()
        if congestion.recovery is None:
            if congestion.duplicates < 3 and sacked <= 2 * self._mss:
                return
            congestion.lost(outgoing.on_the_way(), self._mss, outgoing.next)
            outgoing.mark_first_lost()
        outgoing.mark_lost_before_sacked()

    def _receive_data(self, segment: TcpSegment, start: int, now: float, stable: bool) -> int:
        """Payload and FIN of a segment in the window."""
        incoming = self._incoming
        payload = segment.payload
        length = len(payload)
        end = start + length
        limit = self._edge
        if segment.flags & FIN and self._fin_at is None and incoming.next <= end <= limit:
            self._fin_at = end
            incoming.end_at(end)
        if self._fin_at is not None:
            limit = min(limit, self._fin_at)
        if end > limit:
            stable = False
            payload = payload[: max(limit - start, 0)]
        before = incoming.next
        if payload:
            waiting = bool(incoming.islands)
            incoming.receive(start, payload, stable)
            if start > before:  # RFC 5681, 4.2: each of these is answered at once, so that the guest sends the gap
                self._send_ack()
                return 0
            if waiting:
                self._ack_at = 0.0
        if incoming.next == before or self._quick or incoming.next - self._acknowledged > self._mss:
            self._ack_at = 0.0
        elif self._ack_at == NEVER:
            self._ack_at = now + _ACK_DELAY
        if self._fin_at is not None and self._fin_at <= incoming.next:
            incoming.next += 1
            self._fin_received = True
            self._ack_at = 0.0
            if self.state is _ESTABLISHED:
                self.state = _CLOSE_WAIT
            elif self.state is _FIN_WAIT_1:
                self.state = _CLOSING
            else:
                self._wait(now)
        return READABLE if incoming.next > before else 0

    def _wait(self, now: float) -> None:
        self.state = _TIME_WAIT
        self._timer_at = now + self._settings.time_wait
        self._keepalive_at = NEVER

    def _answer_unacceptable(self, occupies: bool, now: float) -> None:
        """Answer a segment outside the window. What carries data or a FIN is a repetition, whose sender waits for
        this.
        """
        if occupies:
            self._send_ack()
        else:
            self._challenge(now)

    def _challenge(self, now: float) -> None:
        """A challenge ACK (RFC 5961), unless there was one just now."""
        if now - self._challenged_at >= _CHALLENGE_INTERVAL:
            self._challenged_at = now
            self._send_ack()

    def _end(self, events: int) -> int:
        self.state = _CLOSED
        self._outgoing.clear()
        self._incoming.islands.clear()
        self._closing = True
        self.deadline = self._timer_at = self._ack_at = self._keepalive_at = NEVER
        return events | CLOSED

    # ---- time

    def poll(self, now: float) -> int:
        """Do what is due: retransmissions, probes, data, acknowledgments. Returns events; sets `deadline`."""
        state = self.state
        if state <= _HELD:
            self.deadline = NEVER
            return 0
        if now >= self._timer_at or now >= self._keepalive_at:
            events = self._timed_out(now) if now >= self._timer_at else self._keep_alive(now)
            if events:
                return events
        if state >= _ESTABLISHED:
            outgoing = self._outgoing
            if outgoing.flights and self._congestion.recovery is not None:
                self._send_again()
            if outgoing.unsent or (self._closing and not self._fin_sent):
                self._send_new(now)
            if now >= self._ack_at:
                if self._ack_at:
                    self._quick = _QUICK_ACKS
                elif self._quick:
                    self._quick -= 1
                self._send_ack()
            elif not self._fin_received and self._window_update_is_due():
                self._send_ack()
        elif self._syn_due:
            self._send_syn(now)
        self.deadline = min(self._timer_at, self._ack_at, self._keepalive_at)
        return 0

    def _timed_out(self, now: float) -> int:
        settings = self._settings
        if self.state is _TIME_WAIT:
            return self._end(0)
        outgoing = self._outgoing
        opening = self.state <= _SYN_RECEIVED
        self._retries += 1
        self._backoff += 1
        if self._retries > (settings.syn_retries if opening else settings.retries):
            if not opening:
                self.abort()
            return self._end(RESET)
        congestion = self._congestion
        if opening:
            self._syn_due = True
        elif outgoing.flights:
            if self._backoff == 1:
                congestion.timed_out(outgoing.next - outgoing.unacknowledged, self._mss, outgoing.next)
            else:
                congestion.window = self._mss
                congestion.recovery = outgoing.next
            outgoing.mark_all_lost()
        elif not self._send_small(now):
            # A segment just before what the guest expects makes it say how wide its window is (RFC 9293, 3.8.6.1).
            self._emit(ACK, outgoing.unacknowledged - 1, [], 0)
        self._timer_at = now + min(congestion.timeout * (1 << min(self._backoff, 10)), settings.longest_timeout)
        return 0

    def _keep_alive(self, now: float) -> int:
        """RFC 9293, 3.8.4. Moved on here rather than with every segment."""
        settings = self._settings
        quiet_at = self._heard_at + settings.keepalive_idle
        if not self._probes and quiet_at > now:
            self._keepalive_at = quiet_at
        elif self._outgoing.flights:
            self._keepalive_at = now + settings.keepalive_idle  # the retransmissions find out
        elif self._probes >= settings.keepalive_probes:
            self.abort()
            return RESET | CLOSED
        else:
            self._probes += 1
            self._emit(ACK, self._outgoing.unacknowledged - 1, [], 0)
            self._keepalive_at = now + settings.keepalive_interval
        return 0

    # ---- sending

    def _send_syn(self, now: float) -> None:
        self._syn_due = False
        outgoing = self._outgoing
        flags = SYN if self.state is _SYN_SENT else SYN | ACK
        options = syn_options(self._settings.mss, self._receive_shift if self._scaling else None, self._sack)
        outgoing.next = outgoing.unacknowledged + 1
        self._emit(flags, outgoing.unacknowledged, [], 0, options)
        if self._timer_at == NEVER:
            self._timer_at = now + self._congestion.timeout

    def _send_again(self) -> None:
        """Send what is lost, as far as the congestion window allows; the first of it in any case."""
        outgoing = self._outgoing
        window = self._congestion.window
        allowance = window - outgoing.on_the_way()
        while (flight := outgoing.first_lost()) is not None:
            length = flight.end - flight.start
            size = max(allowance, window if flight is outgoing.flights[0] else 0)
            if size < length:
                size -= size % self._mss
                if size <= 0:
                    return
                outgoing.split(flight, size)
                length = size
            flight.lost = False
            flight.resent = True
            flags = ACK | PSH | FIN if flight.fin else ACK | PSH
            self._emit(flags, flight.start, flight.pieces, length - flight.fin)
            allowance -= length

    def _send_new(self, now: float) -> None:
        """Send what was written, and the FIN after it, as far as both windows allow."""
        outgoing = self._outgoing
        congestion = self._congestion
        mss = self._mss
        limit = outgoing.unacknowledged + min(self._window, congestion.window)
        if congestion.recovery is not None:
            limit = min(limit, outgoing.next + congestion.window - outgoing.on_the_way())
        while outgoing.unsent or (self._closing and not self._fin_sent):
            count = min(outgoing.unsent, self._largest)
            fin = self._closing and count == outgoing.unsent
            usable = limit - outgoing.next
            if count + fin > usable:
                fin = False
                if count > usable or not count:
                    # Silly window avoidance (RFC 9293, 3.8.6.2.1), and larger frames for the price of waiting for one
                    # more of the acknowledgments that are on their way.
                    count = usable - usable % mss if usable >= mss else usable
                    least = min(self._largest, (limit - outgoing.unacknowledged) // 3) if outgoing.flights else 1
                    if count <= 0 or count < least or (count < mss and count < self._widest // 2):
                        break
            self._send_data(count, fin, now)
        if self._timer_at == NEVER and not outgoing.flights and (outgoing.unsent or not self._fin_sent):
            self._timer_at = now + congestion.timeout  # the guest's window is closed: persist

    def _send_small(self, now: float) -> bool:
        """Where the window has stayed small: send what fits, however little. False if nothing does."""
        outgoing = self._outgoing
        usable = outgoing.unacknowledged + self._window - outgoing.next
        count = min(outgoing.unsent, usable, self._largest)
        fin = self._closing and count == outgoing.unsent and count < usable
        if count + fin <= 0:
            return False
        self._send_data(count, fin, now)
        return True

    def _send_data(self, count: int, fin: bool, now: float) -> None:
        outgoing = self._outgoing
        start = outgoing.next
        pieces = outgoing.send(count, fin, now)
        flags = ACK if outgoing.unsent else ACK | PSH
        if fin:
            flags |= FIN
            self._fin_sent = True
            self.state = _LAST_ACK if self.state is _CLOSE_WAIT else _FIN_WAIT_1
        self._emit(flags, start, pieces, count)
        if self._timer_at == NEVER:
            self._timer_at = now + self._congestion.timeout

    def _send_ack(self) -> None:
        options = sack_option(self._incoming.sack_blocks()) if self._incoming.islands and self._sack else b""
        self._emit(ACK, self._outgoing.next, [], 0, options)

    def _send_reset(self, sequence: int) -> None:
        """Answer a segment that acknowledges what was never sent."""
        source, destination = self.local[1], self.remote[1]
        total = self._pseudo % 0xFFFF or 0xFFFF
        self._transmit([header(source, destination, sequence, 0, RST, 0, total)], 0)

    def _emit(self, flags: int, sequence: int, pieces: list[Buffer], count: int, options: bytes = b"") -> None:
        """Transmit one segment, with the acknowledgment and the window of this moment."""
        expected = self._incoming.next
        edge = self._edge
        reachable = expected + self._capacity - self._incoming.unread
        # The window's end moves by whole segments (RFC 9293, 3.8.6.2.2), and never back.
        if reachable - edge >= self._mss or reachable - edge >= self._capacity // 2:
            edge = reachable
        shift = 0 if flags & SYN else self._receive_shift
        window = min((edge - expected) >> shift, 0xFFFF) if edge > expected else 0
        if expected + (window << shift) > self._edge:
            self._edge = expected + (window << shift)
        self._acknowledged = expected
        self._ack_at = NEVER
        total = (self._pseudo + count + len(options)) % 0xFFFF or 0xFFFF
        acknowledgment = expected if flags & ACK else 0
        first = header(self.local[1], self.remote[1], sequence, acknowledgment, flags, window, total, options)
        self._transmit([first, *pieces], self._mss if count > self._mss else 0)

    def _window_update_is_due(self) -> bool:
        """Whether so much was consumed that the guest should hear of it without having sent anything."""
        incoming = self._incoming
        left = self._edge - incoming.next
        if left >= _ENOUGH_WINDOW:
            return False
        gain = self._capacity - incoming.unread - left
        return gain >= left and gain >= min(2 * self._mss, self._capacity // 2)

    # ---- the owner's bytes

    def peek(self) -> list[Buffer]:
        """The bytes from the guest that are not consumed, in order, in at most 1,024 pieces.

        The list is not to be altered.
        """
        pieces = self._incoming.pieces
        return pieces if len(pieces) <= 1024 else pieces[:1024]

    def consume(self, count: int) -> None:
        """Let go of the first `count` bytes of `peek`, which opens the guest's window."""
        if count > self._incoming.unread:
            raise ValueError(f"{count} bytes cannot be consumed of {self._incoming.unread}")
        self._incoming.consume(count)
        self._wake()

    def read(self) -> list[Buffer]:
        """`peek` and `consume` of all of it."""
        incoming = self._incoming
        pieces = incoming.pieces
        incoming.pieces = []
        incoming.unread = 0
        self._wake()
        return pieces

    @property
    def eof(self) -> bool:
        """Whether the guest has closed its direction and everything before that has been consumed."""
        return self._fin_received and not self._incoming.unread

    @property
    def room(self) -> int:
        """How many bytes are worth writing now: 0 while less than a quarter of the capacity is free, and after `close`.

        WRITABLE reports when it is not 0 any more.
        """
        outgoing = self._outgoing
        capacity = self._settings.send_capacity
        free = capacity - outgoing.unsent - (outgoing.next - outgoing.unacknowledged)
        return 0 if self._closing or free < capacity >> 2 else free

    def write(self, data: Buffer) -> int:
        """Queue bytes towards the guest; returns how many were taken: all, or what the capacity leaves.

        `data` is kept, not copied: it must not change afterwards.
        """
        outgoing = self._outgoing
        free = self._settings.send_capacity - outgoing.unsent - (outgoing.next - outgoing.unacknowledged)
        if self._closing or free <= 0:
            return 0
        if len(data) > free:
            data = memoryview(data)[:free]
        if data:
            outgoing.write(data)
            self._wake()
        return len(data)

    def close(self) -> None:
        """End the direction towards the guest (FIN) after all that was written; the other direction goes on."""
        self._closing = True
        self._wake()

    def abort(self) -> None:
        """Reset the connection. It is CLOSED, and not reported."""
        if self.state > _SYN_SENT or self.state is _HELD:
            self._emit(RST | ACK, self._outgoing.next, [], 0)
        self._end(0)

    def _wake(self) -> None:
        if self.state > _HELD:
            self.deadline = 0.0


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
        return (int.from_bytes(digest, "big") + int(now * 250_000)) & _MASK
