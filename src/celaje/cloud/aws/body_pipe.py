"""A request's body on its way from the event loop to the thread that reads it.

The loop takes what the client sends until half a megabyte waits, then lets the client wait (TCP does the rest) until
the thread has taken it. Nothing is taken before the thread first asks, so a request that is refused by its headers is
never sent its `100 Continue`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from celaje.cloud.aws.errors import AwsError

HIGH_WATER = 512 << 10
Receive = Callable[[], Awaitable[Mapping[str, Any]]]


class BodyPipe:
    """`patience`: seconds in which a client that is to send something must send some of it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, receive: Receive, patience: float) -> None:
        self._loop = loop
        self._receive = receive
        self._patience = patience
        self._ready = threading.Condition()
        self._waiting: list[bytes] = []
        self._size = 0
        self._ended = False
        self._complete = False
        self._problem: AwsError | None = None
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
            while not self._waiting and not self._ended:
                self._ready.wait()
            pieces, self._waiting = self._waiting, []
            full, self._size = self._size >= HIGH_WATER, 0
        if full:
            self._loop.call_soon_threadsafe(self._room.set)
        if pieces:
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if self._problem is not None:
            raise self._problem
        return b""

    def close(self) -> None:
        """Take no more. On the loop."""
        if self._pump is not None:
            self._pump.cancel()
        self._end(None)

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
                if full:
                    await self._room.wait()
        except TimeoutError:
            self._end(
                AwsError(
                    "RequestTimeout",
                    f"Nothing of the body came for {self._patience:g} seconds. Idle connections will be closed.",
                )
            )

    def _end(self, problem: AwsError | None) -> None:
        with self._ready:
            if not self._ended:
                self._ended = True
                self._problem = problem
            self._ready.notify_all()
