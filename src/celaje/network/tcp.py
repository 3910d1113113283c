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

from typing import Final

from celaje.network.buffers import Buffer, TransmitSegment
from celaje.network.tcp_receive_buffer import ReceiveBuffer
from celaje.network.tcp_segment import (
    ACK,
    FIN,
    HEADER_BYTES,
    PROTOCOL,
    RST,
    SYN,
    SynOptions,
    TcpSegment,
    header,
    sack_option,
    syn_options,
)
from celaje.network.tcp_sender import TcpSender
from celaje.network.tcp_settings import (
    CLOSED,
    ESTABLISHED,
    NEVER,
    READABLE,
    RESET,
    SUPERSEDED,
    WRITABLE,
    InitialSequences,
    State,
    TcpSettings,
)

__all__ = [
    "CLOSED",
    "ESTABLISHED",
    "NEVER",
    "READABLE",
    "RESET",
    "SUPERSEDED",
    "WRITABLE",
    "InitialSequences",
    "State",
    "TcpConnection",
    "TcpSettings",
]

# Module constants, since looking an enumeration's member up costs more than most of what is done with it.
_CLOSED: Final = State.CLOSED
_HELD: Final = State.HELD
_SYN_SENT: Final = State.SYN_SENT
_SYN_RECEIVED: Final = State.SYN_RECEIVED
_ESTABLISHED: Final = State.ESTABLISHED
_FIN_WAIT_1: Final = State.FIN_WAIT_1
_FIN_WAIT_2: Final = State.FIN_WAIT_2
_CLOSE_WAIT: Final = State.CLOSE_WAIT
_CLOSING: Final = State.CLOSING
_LAST_ACK: Final = State.LAST_ACK
_TIME_WAIT: Final = State.TIME_WAIT

_HALF = 1 << 31
_MASK = 0xFFFFFFFF

# An acknowledgment waits this long for data to go with. Where none came in time, waiting is of no use to this
# conversation, and the next ones leave at once: so a guest that writes twice before it reads (Nagle on its side)
# seldom waits for us.
_ACK_DELAY = 0.005
_QUICK_ACKS = 16

# Out-of-window segments without data, and whatever else RFC 5961 has challenged, are answered at most this often.
_CHALLENGE_INTERVAL = 0.1


class TcpConnection:
    """One connection. `local` is the network's end, `remote` the guest's: (IPv4 address as a number, port).

    `initial_sequence`: see `InitialSequences`. `transmit(parts, gso_size)` gets a header, whose checksum field holds
    the pseudo header's sum, and pieces of data of up to 64 KiB together. Nothing a guest sends makes any method
    raise, and what is kept for a connection is bounded by a small multiple of the two capacities.
    """

    __slots__ = (
        "_ack_at",
        "_acknowledged",
        "_challenged_at",
        "_fin_at",
        "_fin_received",
        "_first_sequence",
        "_heard_at",
        "_incoming",
        "_keepalive_at",
        "_probes",
        "_pseudo",
        "_quick",
        "_scaling",
        "_sender",
        "_settings",
        "_syn_due",
        "_transmit",
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
        self._sender = TcpSender(settings, initial_sequence)
        self._incoming = ReceiveBuffer(settings.receive_capacity)
        self._scaling = True  # both ends know window scaling
        self._first_sequence = 0  # of the guest's SYN
        self._acknowledged = 0  # how far the guest knows that its bytes have come
        self._fin_at: int | None = None  # the sequence number of the guest's FIN, once known
        self._fin_received = False  # and everything before it
        self._syn_due = False
        self._ack_at = NEVER  # when an acknowledgment is due, with data or alone
        self._quick = 0  # how many acknowledgments leave at once
        self._challenged_at = -NEVER
        self._heard_at = 0.0
        self._keepalive_at = NEVER
        self._probes = 0  # keepalive probes in a row

    # ---- opening

    def open(self) -> None:
        """Open towards the guest: the next `poll` sends the SYN. ESTABLISHED or RESET is reported later."""
        if self.state is _CLOSED:
            self.state = _SYN_SENT
            self._send_syn_soon()

    def hold(self, syn: TcpSegment) -> None:
        """Take note of a guest's SYN (`syn.is_opening`) without answering.

        Later segments of the same ports go to `receive` as always.
        """
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
            self._sender.buffer.next = 0
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
        self._scaling = options.window_scale is not None
        self._sender.agree(options.mss, options.window_scale, options.sack_permitted)
        self._incoming.begin(syn.sequence + 1, self._scaling)
        self._first_sequence = syn.sequence
        self._acknowledged = syn.sequence + 1

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
        if start > incoming.edge or (start < expected and end <= expected):
            if not flags & RST:
                self._answer_unacceptable(flags, end > start, now)
            return 0
        if flags & RST:
            if start == expected:
                # Where both have closed, nothing is lost by it (RFC 9293, 3.10.7.4, second).
                return self._end(0 if self.state >= _CLOSING else RESET)
            self._challenge(now)
            return 0
        if not flags & ACK:
            return 0
        sender = self._sender
        unacknowledged = sender.buffer.unacknowledged
        ack = unacknowledged + ((segment.acknowledgment - unacknowledged + _HALF) & _MASK) - _HALF
        if self.state is _SYN_RECEIVED:
            if not unacknowledged < ack <= sender.buffer.next:
                self._send_reset(segment.acknowledgment)
                return 0
            events = self._establish(segment, start, now)
        elif ack > sender.buffer.next or ack < unacknowledged - sender.widest:
            self._challenge(now)  # RFC 5961, 5.2
            return 0
        else:
            self._heard_at = now
            self._probes = 0
            events = self._receive_acknowledgment(segment, start, ack, end == start, now)
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
            ahead = (segment.sequence - self._first_sequence) & _MASK
            if flags & RST:
                return self._end(RESET) if ahead <= 1 else 0
            # The same SYN again says nothing new; another one means that its sender has given the first one up.
            return self._end(SUPERSEDED) if segment.is_opening and ahead else 0
        if self.state is _CLOSED:
            return 0
        if flags & ACK and not self._acknowledges_syn(segment):
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
            return self._establish(segment, self._incoming.next, now)
        self.state = _SYN_RECEIVED  # both have opened at once (RFC 9293, 3.5)
        self._sender.restart()
        self._send_syn_soon()
        return 0

    def _receive_syn(self, segment: TcpSegment, start: int, now: float) -> int:
        """A SYN where none is due."""
        expected = self._incoming.next
        if segment.flags & RST:
            return 0
        if self.state is _TIME_WAIT and segment.is_opening and start > expected:
            return self._end(SUPERSEDED)  # RFC 9293, 3.6.1
        if self.state is not _SYN_RECEIVED or start != expected - 1:
            self._challenge(now)
            return 0
        if segment.flags & ACK and self._acknowledges_syn(segment):  # an opening from both ends goes on so
            self._ack_at = 0.0
            return self._establish(segment, expected, now)
        self._send_syn_soon()
        return 0

    def _acknowledges_syn(self, segment: TcpSegment) -> bool:
        buffer = self._sender.buffer
        return buffer.next > buffer.unacknowledged and segment.acknowledgment == buffer.next & _MASK

    def _establish(self, segment: TcpSegment, start: int, now: float) -> int:
        """The guest has acknowledged the SYN."""
        self._sender.begin(segment, start, scaled=not segment.flags & SYN)
        self.state = _ESTABLISHED
        self._heard_at = now
        self._keepalive_at = now + self._settings.keepalive_idle
        self.deadline = 0.0
        return ESTABLISHED | WRITABLE

    def _receive_acknowledgment(self, segment: TcpSegment, start: int, ack: int, empty: bool, now: float) -> int:
        if self.state is _TIME_WAIT:
            return 0
        sender = self._sender
        had_room = ack <= sender.buffer.unacknowledged or self.room
        if not sender.receive(segment, start, ack, empty, now):
            return 0
        if sender.finished:
            if self.state is _FIN_WAIT_1:
                self.state = _FIN_WAIT_2
            elif self.state is _CLOSING:
                self._wait(now)
            elif self.state is _LAST_ACK:
                return self._end(0)
        return WRITABLE if not had_room and self.room else 0

    def _receive_data(self, segment: TcpSegment, start: int, now: float, stable: bool) -> int:
        """Payload and FIN of a segment in the window."""
        incoming = self._incoming
        before = incoming.next
        payload = segment.payload
        end = start + len(payload)
        limit = incoming.edge
        if segment.flags & FIN and self._fin_at is None and before <= end <= limit:
            self._fin_at = end
            incoming.end_at(end)
        if self._fin_at is not None:
            limit = min(limit, self._fin_at)
        if end > limit:
            stable = False
            payload = payload[: max(limit - start, 0)]
        if payload:
            waiting = bool(incoming.islands)
            incoming.receive(start, payload, stable)
            if start > before:  # RFC 5681, 4.2: each of these is answered at once, so that the guest sends the gap
                self._send_ack()
                return 0
            if waiting:
                self._ack_at = 0.0
        if incoming.next == before or self._quick or incoming.next - self._acknowledged > self._sender.mss:
            self._ack_at = 0.0
        elif self._ack_at == NEVER:
            self._ack_at = now + _ACK_DELAY
        if self._fin_at is not None and self._fin_at <= incoming.next:
            self._receive_fin(now)
        return READABLE if incoming.next > before else 0

    def _receive_fin(self, now: float) -> None:
        """Everything up to the guest's FIN has come."""
        self._incoming.next += 1
        self._fin_received = True
        self._ack_at = 0.0
        if self.state is _ESTABLISHED:
            self.state = _CLOSE_WAIT
        elif self.state is _FIN_WAIT_1:
            self.state = _CLOSING
        else:
            self._wait(now)

    def _wait(self, now: float) -> None:
        self.state = _TIME_WAIT
        self._sender.timer_at = now + self._settings.time_wait
        self._keepalive_at = NEVER

    def _answer_unacceptable(self, flags: int, occupies: bool, now: float) -> None:
        """Answer a segment outside the window; one with data or a FIN is repeated until it is answered."""
        if occupies:
            self._send_ack()
        else:
            self._challenge(now)
        if flags & FIN and self.state is _TIME_WAIT:
            self._wait(now)
            self.deadline = 0.0

    def _challenge(self, now: float) -> None:
        """A challenge ACK (RFC 5961), unless there was one just now."""
        if now - self._challenged_at >= _CHALLENGE_INTERVAL:
            self._challenged_at = now
            self._send_ack()

    def _end(self, events: int) -> int:
        self.state = _CLOSED
        sender = self._sender
        sender.buffer.clear()
        sender.closing = True
        self._incoming.islands.clear()
        self.deadline = sender.timer_at = self._ack_at = self._keepalive_at = NEVER
        return events | CLOSED

    # ---- time

    def poll(self, now: float) -> int:
        """Do what is due: retransmissions, probes, data, acknowledgments. Returns events; sets `deadline`."""
        sender = self._sender
        if self.state <= _HELD:
            self.deadline = NEVER
            return 0
        if now >= sender.timer_at:
            if events := self._time_out(now):
                return events
        elif now >= self._keepalive_at and self._keep_alive(now):
            return RESET | CLOSED
        if self.state >= _ESTABLISHED:
            sender.send(now, self._emit)
            if sender.fin_sent:
                if self.state is _ESTABLISHED:
                    self.state = _FIN_WAIT_1
                elif self.state is _CLOSE_WAIT:
                    self.state = _LAST_ACK
            if now >= self._ack_at:
                if self._ack_at:
                    self._quick = _QUICK_ACKS
                elif self._quick:
                    self._quick -= 1
                self._send_ack()
            elif not self._fin_received and self._incoming.has_news(sender.mss):
                self._send_ack()
        elif self._syn_due:
            self._send_syn(now)
        self.deadline = min(sender.timer_at, self._ack_at, self._keepalive_at)
        return 0

    def _time_out(self, now: float) -> int:
        if self.state is _TIME_WAIT:
            return self._end(0)
        sender = self._sender
        settings = self._settings
        opening = self.state <= _SYN_RECEIVED
        sender.retries += 1
        sender.backoff += 1
        if sender.retries > (settings.syn_retries if opening else settings.retries):
            if not opening:
                self.abort()
            return self._end(RESET)
        if opening:
            self._syn_due = True
        else:
            sender.time_out(now, self._emit)
        sender.wait_longer(now)
        return 0

    def _keep_alive(self, now: float) -> int:
        """RFC 9293, 3.8.4. The time is moved on here rather than with every segment."""
        settings = self._settings
        quiet_at = self._heard_at + settings.keepalive_idle
        if not self._probes and quiet_at > now:
            self._keepalive_at = quiet_at
        elif self._sender.buffer.flights:
            self._keepalive_at = now + settings.keepalive_idle  # retransmission will find out
        elif self._probes >= settings.keepalive_probes:
            self.abort()
            return RESET | CLOSED
        else:
            self._probes += 1
            self._sender.probe(self._emit)
            self._keepalive_at = now + settings.keepalive_interval
        return 0

    # ---- segments out

    def _send_syn(self, now: float) -> None:
        self._syn_due = False
        sender = self._sender
        buffer = sender.buffer
        options = syn_options(self._settings.mss, self._incoming.shift if self._scaling else None, sender.sack)
        buffer.next = buffer.unacknowledged + 1
        self._emit(SYN if self.state is _SYN_SENT else SYN | ACK, buffer.unacknowledged, [], 0, options)
        if sender.timer_at == NEVER:
            sender.timer_at = now + sender.congestion.timeout

    def _send_ack(self) -> None:
        sender = self._sender
        options = sack_option(self._incoming.sack_blocks()) if self._incoming.islands and sender.sack else b""
        self._emit(ACK, sender.buffer.next, [], 0, options)

    def _send_reset(self, sequence: int) -> None:
        """Answer a segment that acknowledges what was never sent."""
        total = self._pseudo % 0xFFFF or 0xFFFF
        self._transmit([header(self.local[1], self.remote[1], sequence, 0, RST, 0, total)], 0)

    def _emit(self, flags: int, sequence: int, pieces: list[Buffer], count: int, options: bytes = b"") -> None:
        """Transmit one segment, with the acknowledgment and the window of this moment."""
        incoming = self._incoming
        mss = self._sender.mss
        window = incoming.offer(mss, 0 if flags & SYN else incoming.shift)
        self._acknowledged = expected = incoming.next
        self._ack_at = NEVER
        total = (self._pseudo + count + len(options)) % 0xFFFF or 0xFFFF
        acknowledgment = expected if flags & ACK else 0
        first = header(self.local[1], self.remote[1], sequence, acknowledgment, flags, window, total, options)
        self._transmit([first, *pieces], mss if count > mss else 0)

    # ---- the owner's bytes

    def peek(self) -> list[Buffer]:
        """The bytes from the guest that are not consumed, in order, in at most 1,024 pieces.

        The list is not to be altered. What was received stays here when the connection is CLOSED.
        """
        pieces = self._incoming.pieces
        return pieces if len(pieces) <= 1024 else pieces[:1024]

    def consume(self, count: int) -> None:
        """Let go of the first `count` bytes of `peek`, which opens the guest's window."""
        self._incoming.consume(count)
        self._wake()

    def read(self) -> list[Buffer]:
        """`peek` and `consume` of all of it."""
        pieces = self._incoming.read()
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
        sender = self._sender
        free = sender.free()
        return 0 if sender.closing or free < self._settings.send_capacity >> 2 else free

    @property
    def piece(self) -> int:
        """How many bytes the largest segment carries: written in pieces of this size, none leaves in two frames."""
        return self._sender.largest

    def write(self, data: Buffer) -> int:
        """Queue bytes towards the guest; returns how many were taken: all, or what the capacity leaves.

        `data` is kept, not copied: it must not change afterwards.
        """
        sender = self._sender
        free = sender.free()
        if sender.closing or free <= 0:
            return 0
        if len(data) > free:
            data = memoryview(data)[:free]
        if data:
            sender.buffer.write(data)
            self._wake()
        return len(data)

    def close(self) -> None:
        """End the direction towards the guest (FIN) after all that was written; the other direction goes on."""
        self._sender.closing = True
        self._wake()

    def abort(self) -> None:
        """Reset the connection. It is CLOSED, and not reported."""
        if self.state > _SYN_SENT or self.state is _HELD:
            self._emit(RST | ACK, self._sender.buffer.next, [], 0)
        self._end(0)

    def _wake(self) -> None:
        if self.state > _HELD:
            self.deadline = 0.0
