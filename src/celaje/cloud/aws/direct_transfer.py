"""Long bodies past the event loop: a thread reads from the connection's socket, or has the kernel send a file to it.

For a body of many megabytes the loop, the parser and their copies cost more than the bytes themselves, all of it under
the interpreter's lock. So once a request's head and the first of its body have been read as always, reading is paused,
what has already come is taken, and the thread that wants the body receives the rest itself, as much as the head has
announced and no byte more. Then the parser is told that the message is complete, and the connection goes on. An answer
from a file is sent by such a thread too, once its head has left the buffers.

Everything that knows uvicorn's insides is `Connection`. It is not there for TLS, whose bytes the socket does not have,
nor for a uvicorn that is made differently: then long bodies go through the loop as all others, and the log says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import mmap
import operator
import os
import select
import socket
from typing import Protocol, cast

import httptools

from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.streams import FileRange
from celaje.cloud.aws.threads import LEAST, Pace

log = logging.getLogger(__name__)

DIRECT_FROM = 1 << 20
"""Bytes of a body, or what is left of one, from which it is worth while."""

_BLOCK = 256 << 10
_WINDOW = 8 << 20  # bytes of a file that are mapped at once
_PIECE = 1 << 20  # that are given to the kernel at once, so that the reader finds them in the caches
_DRAIN_PAUSE = 0.001


class _Cycle(Protocol):
    """uvicorn's request and answer."""

    body: bytearray
    more_body: bool
    disconnected: bool
    expected_content_length: int


class _Flow(Protocol):
    def pause_reading(self) -> None: ...


class _HttpProtocol(Protocol):
    """uvicorn's connection."""

    cycle: _Cycle
    flow: _Flow
    parser: httptools.HttpRequestParser
    transport: asyncio.Transport

    def on_message_complete(self) -> None: ...


class ClientGone(Exception):
    """The client went away, or takes nothing, in the middle of an answer."""


class Connection:
    """The connection of one request, whose head has been read. Its methods run on the loop."""

    def __init__(self, protocol: _HttpProtocol) -> None:
        self._protocol = protocol
        self._cycle = protocol.cycle

    def socket(self) -> socket.socket:
        """The connection's socket once more, for a thread: whoever gets it closes it."""
        shared = self._protocol.transport.get_extra_info("socket")
        # A descriptor of its own: the loop may close its, and the number be another file's then.
        return socket.socket(fileno=os.dup(shared.fileno()))

    @property
    def gone(self) -> bool:
        """Whether there is nobody any more to answer to."""
        return self._cycle.disconnected or self._protocol.transport.is_closing()

    def take_over(self) -> bytes | None:
        """Pause the loop's reading: the bytes of the body that have come and were not received. None if it is complete
        or the client gone."""
        cycle = self._cycle
        if not cycle.more_body or cycle.disconnected or self._protocol.transport.is_closing():
            return None
        self._protocol.flow.pause_reading()
        rest = bytes(cycle.body)
        cycle.body = bytearray()
        return rest

    def give_back(self) -> None:
        """All of the body has been received: the next bytes are another request's. Reading goes on with the answer."""
        if self._cycle.disconnected or self._protocol.transport.is_closing():
            return
        # The parser waits for a body that it will not see.
        self._protocol.parser = httptools.HttpRequestParser(self._protocol)
        self._protocol.on_message_complete()

    async def drained(self, patience: float) -> None:
        """Wait until what was written is the kernel's. ClientGone."""
        for _ in range(int(patience / _DRAIN_PAUSE)):
            if self._cycle.disconnected or self._protocol.transport.is_closing():
                raise ClientGone
            if not self._protocol.transport.get_write_buffer_size():
                return
            await asyncio.sleep(_DRAIN_PAUSE)
        raise ClientGone

    def sent(self, length: int) -> None:
        """So many bytes of the answer's body were sent."""
        self._cycle.expected_content_length -= length

    def lost(self) -> None:
        """The answer cannot be finished: let go of the connection."""
        self._cycle.disconnected = True
        self._protocol.transport.abort()


_NEEDED = (
    "cycle.body",
    "cycle.more_body",
    "cycle.disconnected",
    "cycle.expected_content_length",
    "flow.pause_reading",
    "parser.feed_data",
    "transport.get_extra_info",
    "transport.get_write_buffer_size",
    "on_message_complete",
)


class Connections:
    """Makes them, if this uvicorn is one that `Connection` knows; that is looked at in the first request."""

    def __init__(self) -> None:
        self._usable: bool | None = None

    def of(self, protocol: object) -> Connection | None:
        """The connection whose request's head uvicorn's `protocol` has just read; None where it is not usable."""
        if self._usable is None:
            missing = [name for name in _NEEDED if not _has(protocol, name)]
            self._usable = not missing
            if missing:
                log.warning(
                    "long bodies of S3 go through the event loop, several times slower: this uvicorn has no %s; "
                    "install a version that celaje was tested with",
                    ", ".join(missing),
                )
        return Connection(cast(_HttpProtocol, protocol)) if self._usable else None


def _has(protocol: object, name: str) -> bool:
    try:
        operator.attrgetter(name)(protocol)
    except AttributeError:
        return False
    return True


def timed_out(patience: float) -> AwsError:
    """The client has sent nothing for that long."""
    return AwsError(
        "RequestTimeout", f"Nothing of the body came for {patience:g} seconds. Idle connections will be closed."
    )


def too_slow() -> AwsError:
    """Others wait for the thread that this client holds."""
    return AwsError(
        "RequestTimeout",
        f"Less than {LEAST} bytes a second of the body came while other requests wait; send it again, or in parts.",
    )


class DirectBody:
    """What is left of a request's body, `left` bytes, received by the thread that asks for it."""

    def __init__(self, connection: socket.socket, left: int, patience: float, pace: Pace) -> None:
        self._pace = pace
        self._connection = connection
        self._connection.settimeout(patience)
        self._patience = patience
        self.left = left

    def next(self) -> bytes:
        """The next bytes; b"" at the end. AwsError RequestTimeout, IncompleteBody."""
        if not self.left:
            return b""
        try:
            piece = self._connection.recv(min(self.left, _BLOCK))
        except TimeoutError:
            raise timed_out(self._patience) from None
        except OSError:
            piece = b""
        if not piece:
            raise AwsError("IncompleteBody", "The client went away before its body was complete")
        self.left -= len(piece)
        if not self._pace.holds(len(piece)):
            raise too_slow()
        return piece

    def into(self, room: memoryview) -> int:
        """The next bytes into `room`, which is filled unless the body ends before; how many, 0 at the end. AwsError
        as `next`."""
        wanted = min(self.left, len(room))
        at = 0
        while at < wanted:
            try:
                count = self._connection.recv_into(room[at:wanted])
            except TimeoutError:
                raise timed_out(self._patience) from None
            except OSError:
                count = 0
            if not count:
                raise AwsError("IncompleteBody", "The client went away before its body was complete")
            at += count
            self.left -= count
            if not self._pace.holds(count):
                raise too_slow()
        return at

    def close(self) -> None:
        """Let go of the socket."""
        self._connection.close()


def send_file(connection: socket.socket, body: FileRange, patience: float, pace: Pace) -> None:
    """Send a range of a file, on the thread that asks for it. ClientGone; OSError if the file is shorter, or cannot be
    read.

    From a mapping of it: sendfile(2) gives a loopback connection page after page, which takes its reader longer than
    one copy in large pieces takes here. The kernel copies, so a page that cannot be read is its error and no signal's.
    """
    end = body.offset + body.length
    if os.fstat(body.descriptor).st_size < end:
        raise OSError(f"a file of an answer ends before {end}, at {os.fstat(body.descriptor).st_size}")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PIECE)
    _without_pacing(connection)
    poll = select.poll()
    poll.register(connection, select.POLLOUT)
    at = body.offset
    while at < end:
        first = at - at % mmap.ALLOCATIONGRANULARITY
        until = min(first + _WINDOW, end)
        with (
            mmap.mmap(body.descriptor, until - first, prot=mmap.PROT_READ, offset=first) as window,
            memoryview(window) as view,
        ):
            while at < until:
                with view[at - first : min(at - first + _PIECE, until - first)] as piece:
                    sent = _send(connection, piece, poll, patience)
                if not pace.holds(sent):
                    raise ClientGone
                at += sent


def _without_pacing(connection: socket.socket) -> None:
    """Let a peer on this very host have bytes as fast as it takes them. Where the host's congestion control is BBR,
    they would be sent at a rate that is guessed of a line, which takes half as long again; here there is no line. Reno,
    which every Linux has and lets anybody choose, does not pace."""
    with contextlib.suppress(OSError):  # the peer is gone, as sending will tell; or a host that has only its own
        own, peer = (
            str(name[0]).removeprefix("::ffff:") for name in (connection.getsockname(), connection.getpeername())
        )
        if own == peer or ipaddress.ip_address(peer).is_loopback:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")


def _send(connection: socket.socket, piece: memoryview, poll: select.poll, patience: float) -> int:
    while True:
        try:
            return connection.send(piece)
        except BlockingIOError:
            if not poll.poll(patience * 1000):
                raise ClientGone from None
        except ConnectionError:
            raise ClientGone from None
