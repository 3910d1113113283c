"""A link between a machine and its network: a connected SEQPACKET socket, a frame a message.

Towards the machine a message is sent at once. What its full socket does not take waits here in order, bounded, and
while anything waits NAT fetches no more for that machine. Beyond the bound frames are dropped, as on any wire.
"""

from __future__ import annotations

import select
import socket
from collections import deque
from collections.abc import Callable

from celaje.network.buffers import Buffer
from celaje.network.event_loop import READ, WRITE, EventLoop

LONGEST_MESSAGE = 12 + 65_550  # virtio_net_hdr and frame
MOST_WAITING = 4 << 20  # bytes
MESSAGES_A_TURN = 32
SILENCE_SECONDS = 0.0001  # a message after that is taken alone: most likely it is, and to look for another takes 8 µs
_MOST_PIECES = 1_000  # that one system call takes (Linux: 1,024)


class Link:
    """`receive` gets each message, `received` is called after a batch of them, `congested` when messages begin (True)
    and cease (False) to wait, `closed` when the machine has gone."""

    def __init__(
        self,
        loop: EventLoop,
        connection: socket.socket,
        receive: Callable[[memoryview], None],
        received: Callable[[], float],
        congested: Callable[[bool], None],
        closed: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._socket = connection
        self._recv = connection.recv
        self._sendmsg = connection.sendmsg
        self._receive = receive
        self._received = received
        self._congested = congested
        self._closed = closed
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._events = READ
        self._taken_at = 0.0
        self._resume = loop.timer(self._resumed)
        loop.watch(connection.fileno(), READ, self._ready)

    @property
    def waiting(self) -> int:
        """Messages that the machine has not taken."""
        return len(self._waiting)

    def transmit(self, parts: list[Buffer]) -> bool:
        """One message to the machine; False if it was dropped."""
        if not self._waiting:
            try:
                self._sendmsg(parts if len(parts) < _MOST_PIECES else [b"".join(parts)])
                return True
            except BlockingIOError:
                pass
            except OSError:
                return False  # the machine has gone; the loop is about to say so
        elif self._waiting_bytes > MOST_WAITING:
            return False
        message = b"".join(parts)
        if not self._waiting:
            self._congested(True)
            self._look(self._events | WRITE)
        self._waiting.append(message)
        self._waiting_bytes += len(message)
        return True

    def has_ended(self) -> bool:
        """Whether the machine has closed its end, whatever it sent before."""
        poll = select.poll()
        poll.register(self._socket.fileno(), 0)
        return any(events & select.POLLHUP for _, events in poll.poll(0))

    def close(self) -> None:
        """No more messages either way."""
        self._loop.set(self._resume, None)
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()
        self._waiting.clear()

    def _look(self, events: int) -> None:
        if events != self._events:
            self._events = events
            self._loop.change(self._socket.fileno(), events)

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._send_waiting()
        if events & ~WRITE:
            self._take()

    def _send_waiting(self) -> None:
        waiting = self._waiting
        while waiting:
            try:
                self._sendmsg((waiting[0],))
            except BlockingIOError:
                return
            except OSError:
                waiting.clear()
                self._waiting_bytes = 0
                break
            self._waiting_bytes -= len(waiting.popleft())
        self._look(self._events & ~WRITE)
        self._congested(False)

    def _take(self) -> None:
        recv, receive = self._recv, self._receive
        gone = False
        most = 1 if self._loop.now - self._taken_at > SILENCE_SECONDS else MESSAGES_A_TURN
        try:
            for _ in range(most):
                message = recv(LONGEST_MESSAGE)
                if not message:
                    gone = True
                    break
                receive(memoryview(message))
        except BlockingIOError:
            pass
        except OSError:
            gone = True
        resume_at = self._received()
        self._taken_at = self._loop.clock()
        if gone:
            self._closed()
        elif resume_at > self._loop.now:
            # The machine sends faster than it may; what it sends now waits in its own socket.
            self._look(self._events & ~READ)
            self._loop.set(self._resume, resume_at)

    def _resumed(self) -> None:
        self._look(self._events | READ)
