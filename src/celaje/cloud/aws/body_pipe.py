"""A request's body on its way from the event loop to the thread that reads it.

The loop takes what the client sends until half a megabyte waits, then lets the client wait (TCP does the rest) until
the thread has taken it. Nothing is taken before the thread first asks, so a request that is refused by its headers is
never sent its `100 Continue`. The rest of a long body goes past the loop (direct_transfer.py).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from celaje.cloud.aws.direct_transfer import DIRECT_FROM, Connection, DirectBody, timed_out, too_slow
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.threads import Pace

HIGH_WATER = 512 << 10
Receive = Callable[[], Awaitable[Mapping[str, Any]]]


class BodyPipe:
    """`patience`: seconds in which a client that is to send something must send some of it; `pace`: and how much of it
    where others wait.

    `connection`: what a long body, of `length` bytes on the wire, is received from directly once it has begun.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        receive: Receive,
        patience: float,
        pace: Pace,
        connection: Connection | None = None,
        length: int = 0,
    ) -> None:
        self._loop = loop
        self._receive = receive
        self._patience = patience
        self._pace = pace
        self._ready = threading.Condition()
        self._waiting: list[bytes] = []
        self._size = 0
        self._ended = False
        self._complete = False
        self._problem: AwsError | None = None
        self._connection = connection
        self._length = length
        self._taken = 0
        self._direct: DirectBody | None = None
        self._room = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None
        self._started = False

    @property
    def finished(self) -> bool:
        """Whether the client has sent all there is."""
        return self._complete

    def next(self) -> bytes:
        """What has come since the last time, at least one byte; waits for it. b"" at the end. On any thread but the
        loop's. AwsError RequestTimeout if the client does not go on, IncompleteBody if it went away.
        """
        if not self._started:
            self._started = True
            self._loop.call_soon_threadsafe(self._start)
        with self._ready:
            while not self._waiting and not self._ended and self._direct is None:
                self._ready.wait()
            pieces, self._waiting = self._waiting, []
            full, self._size = self._size >= HIGH_WATER, 0
        if full:
            self._loop.call_soon_threadsafe(self._room.set)
        if pieces:
            piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            if not self._pace.holds(len(piece)):
                raise too_slow()
            return piece
        if self._problem is not None:
            raise self._problem
        if self._direct is not None and not self._complete:
            return self._next_directly(self._direct)
        return b""

    def _next_directly(self, direct: DirectBody) -> bytes:
        piece = direct.next()
        if not piece:
            self._finish_directly()
        return piece

    def _finish_directly(self) -> None:
        self._complete = True
        assert self._connection is not None
        self._loop.call_soon_threadsafe(self._connection.give_back)

    def into(self, room: memoryview) -> int | None:
        """As `next`, straight into `room`, which is filled unless the body ends before: how many bytes. None where
        that is not possible, or not yet: ask `next`."""
        with self._ready:
            if self._waiting or self._direct is None or self._complete:
                return None
        count = self._direct.into(room)
        if not count:
            self._finish_directly()
        return count

    def close(self) -> None:
        """Take no more. On the loop."""
        if self._pump is not None:
            self._pump.cancel()
        self._end(None)
        if self._direct is not None:
            self._direct.close()

    def _start(self) -> None:
        self._pump = self._loop.create_task(self._take())

    async def _take(self) -> None:
        try:
            while True:
                message = await asyncio.wait_for(self._receive(), self._patience)
                if message["type"] != "http.request":
                    self._end(AwsError("IncompleteBody", "The client went away before its body was complete"))
                    return
                piece = message.get("body", b"")
                more = message.get("more_body", False)
                with self._ready:
                    if piece:
                        self._waiting.append(piece)
                        self._size += len(piece)
                    full = self._size >= HIGH_WATER
                    if full:
                        self._room.clear()
                    if not more:
                        self._complete = self._ended = True
                    self._ready.notify_all()
                if not more:
                    return
                self._taken += len(piece)
                if self._connection is not None and self._length - self._taken >= DIRECT_FROM:
                    if self._take_over(self._connection):
                        return
                    self._connection = None
                if full:
                    await self._room.wait()
        except TimeoutError:
            self._end(timed_out(self._patience))

    def _take_over(self, connection: Connection) -> bool:
        """Have the thread receive the rest itself."""
        rest = connection.take_over()
        if rest is None:
            return False
        direct = DirectBody(connection.socket(), self._length - self._taken - len(rest), self._patience, self._pace)
        with self._ready:
            if rest:
                self._waiting.append(rest)
            self._direct = direct
            self._ready.notify_all()
        return True

    def _end(self, problem: AwsError | None) -> None:
        with self._ready:
            if not self._ended:
                self._ended = True
                self._problem = problem
            self._ready.notify_all()
