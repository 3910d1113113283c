"""The HTTP server: an ASGI application on uvicorn, between sockets and the gateway.

Each request is answered on a thread of a bounded pool. Bodies of S3 stream to it and from it; those of the other
services are read whole first, up to a bound. Clients that send or take nothing for a while are let go.

    dispatcher = Dispatcher(database, wake)                     # wake: called with a controller's name
    gateway = Gateway(Registry([...]), dispatcher, StoredSigners(database), settings, token_key=...)
    server = ApiServer(Application(gateway), [bound(settings.address, settings.port)])
    server.start()
    …
    server.stop()
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from celaje.cloud.aws.body_pipe import BodyPipe
from celaje.cloud.aws.direct_transfer import ClientGone, Connection, Connections, send_file, timed_out
from celaje.cloud.aws.gateway import BODY, Gateway
from celaje.cloud.aws.message import INSIDE, HttpAnswer, HttpRequest, is_loopback
from celaje.cloud.aws.streams import PIECE, FileRange, FileRanges, Pieces
from celaje.cloud.aws.threads import Pace, Share, Threads
from celaje.errors import HostError

PATIENCE = 30.0  # seconds that a client may neither send nor take anything in the middle of a request
KEEP_ALIVE = 75.0  # seconds that a connection may be idle between requests
LONGEST_READ = 4 * BODY  # bytes of a body too large that are read for its client to see why; then it is let go
READ_AT_ONCE = 64 * BODY  # bytes of bodies held while they come in: nobody knows yet who their clients are
_SMALL = 64 << 10  # bytes of a body of S3 that is read before its thread begins
HEAD = 64 << 10  # bytes of a request's head after the piece that it begins in
CONNECTIONS = 2048  # that may be open; half of them by instances, who must not keep the owner out
_CONNECTION = "celaje.connection"  # in a request's scope: what long bodies go through directly
THREADS = 16  # for requests whose body is whole
STREAMING_THREADS = 72  # for those of S3, which may wait for their clients; at most 48 are one account's

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


log = logging.getLogger(__name__)


class _ClientGone(Exception):
    pass


class _NotRead(Exception):
    """A body that is read no further; `status` says why."""

    def __init__(self, status: int) -> None:
        self.status = status


class Application:
    """`gateway` as an ASGI application."""

    def __init__(self, gateway: Gateway, *, patience: float = PATIENCE) -> None:
        self._gateway = gateway
        self.patience = patience
        self._held = 0  # bytes of bodies that are coming in
        self._whole = ThreadPoolExecutor(THREADS, "api")
        # Of instances and of everybody else apart, and of each account its share: nobody can take all from the others.
        self._streaming = {inside: Threads(STREAMING_THREADS, "s3") for inside in (False, True)}

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"this server speaks HTTP, not {scope['type']}")
        request = _request(scope)
        loop = asyncio.get_running_loop()
        if not self._gateway.streams(request):
            try:
                request.body = await self._read(receive)
            except TimeoutError:
                answer = HttpAnswer(408, [("Connection", "close")])
            except _NotRead as error:
                answer = HttpAnswer(error.status, [("Connection", "close")])
            except _ClientGone:
                return
            else:
                answer = await loop.run_in_executor(self._whole, self._gateway.answer, request)
            await self._send(send, answer, request, self._whole)
            return
        share = self._streaming[request.inside].share(self._gateway.account_of(request))
        request.belongs_to = share.belongs_to
        if not _has_body(request):
            answer = await loop.run_in_executor(share, self._gateway.answer, request)
            await self._send(send, answer, request, share, scope.get(_CONNECTION))
            return
        connection: Connection | None = scope.get(_CONNECTION)
        length = _length(request)
        if length is not None and length <= _SMALL and request.header("expect") is None:
            await self._answer_small(receive, send, request, share, connection)
            return
        pace = Pace(self.patience, share.crowded)
        pipe = BodyPipe(loop, receive, self.patience, pace, connection if length else None, length or 0)
        try:
            answer = await loop.run_in_executor(share, self._gateway.answer, request, pipe.next, pipe.into)
            if not pipe.finished:
                # What of the body is still to come, or was never sent for want of a 100 Continue, must not be taken for
                # the next request, nor the next request for it.
                answer.headers.append(("Connection", "close"))
        finally:
            pipe.close()
        await self._send(send, answer, request, share, connection)

    async def _answer_small(
        self, receive: _Receive, send: _Send, request: HttpRequest, share: Share, connection: Connection | None
    ) -> None:
        """Read a small body first: handing it over piece by piece costs more than the wait."""
        try:
            pieces = iter([await self._read(receive)])
        except _ClientGone:
            return
        except _NotRead as error:
            busy = HttpAnswer(error.status, [("Connection", "close")])
            await self._send(send, busy, request, share, connection)
            return
        except TimeoutError:
            pieces = None

        def source() -> bytes:
            if pieces is None:
                raise timed_out(self.patience)
            return next(pieces, b"")

        answer = await asyncio.get_running_loop().run_in_executor(share, self._gateway.answer, request, source)
        if pieces is None:
            answer.headers.append(("Connection", "close"))
        await self._send(send, answer, request, share, connection)

    async def _read(self, receive: _Receive) -> bytes:
        """The whole body, or a byte more than is allowed."""
        pieces: list[bytes] = []
        held = size = 0
        try:
            while True:
                async with asyncio.timeout(self.patience):
                    message = await receive()
                if message["type"] != "http.request":
                    raise _ClientGone
                piece = message.get("body", b"")
                size += len(piece)
                if held <= BODY:
                    pieces.append(piece)
                    held += len(piece)
                    self._held += len(piece)
                if not message.get("more_body", False):
                    return b"".join(pieces)
                if size > LONGEST_READ:
                    raise _NotRead(413)
                if self._held > READ_AT_ONCE:
                    raise _NotRead(503)
        finally:
            self._held -= held

    async def _send(
        self,
        send: _Send,
        answer: HttpAnswer,
        request: HttpRequest,
        pool: ThreadPoolExecutor | Share,
        connection: Connection | None = None,
    ) -> None:
        body = answer.body
        headers = answer.headers
        length = len(body) if isinstance(body, bytes) else body.length
        if request.method == "HEAD" and not length:
            # What GET would have had: said by the action, where there is no body to count.
            stated = [value for name, value in headers if name.lower() == "content-length"]
            length = int(stated[0]) if stated else length
        headers = [pair for pair in headers if pair[0].lower() != "content-length"]
        if length is not None and answer.status not in (204, 304):
            headers.append(("Content-Length", str(length)))
        encoded = [(name.lower().encode("latin-1"), _header_bytes(value)) for name, value in headers]
        start = {"type": "http.response.start", "status": answer.status, "headers": encoded}
        if isinstance(body, bytes):
            await send(start)
            await send({"type": "http.response.body", "body": b"" if request.method == "HEAD" else body})
            return
        try:
            await send(start)
            if request.method != "HEAD":
                if connection is not None and isinstance(pool, Share) and isinstance(body, FileRange | FileRanges):
                    await self._send_files(connection, body, pool)
                else:
                    await self._stream(send, body, pool, connection)
            await send({"type": "http.response.body", "body": b""})
        finally:
            await asyncio.get_running_loop().run_in_executor(pool, body.close)

    async def _send_files(self, connection: Connection, body: FileRange | FileRanges, share: Share) -> None:
        """Have the kernel send files, one after the other."""
        try:
            await connection.drained(self.patience)
            with connection.socket() as shared:
                pace = Pace(self.patience, share.crowded)
                await asyncio.get_running_loop().run_in_executor(share, _send_each, shared, body, self.patience, pace)
        except ClientGone:
            connection.lost()
        except OSError:
            log.exception("an answer was broken off")
            connection.lost()
        else:
            connection.sent(body.length or 0)

    async def _stream(
        self, send: _Send, body: FileRange | Pieces, pool: Executor, connection: Connection | None
    ) -> None:
        loop = asyncio.get_running_loop()
        at = 0
        # The server takes what is sent to nobody without a word.
        while connection is None or not connection.gone:
            if isinstance(body, FileRange):
                piece = await loop.run_in_executor(pool, body.read, at, PIECE)
            else:
                piece = await loop.run_in_executor(pool, body.next)
            if not piece:
                return
            at += len(piece)
            await send({"type": "http.response.body", "body": piece, "more_body": True})

    def close(self) -> None:
        """Let threads go; requests under way are finished first."""
        self._whole.shutdown()
        for threads in self._streaming.values():
            threads.shutdown()


def _request(scope: _Scope) -> HttpRequest:
    client = scope.get("client")
    source = client[0] if client else "127.0.0.1"
    return HttpRequest(
        method=scope["method"],
        path=(scope.get("raw_path") or scope["path"].encode("utf-8")).partition(b"?")[0].decode("latin-1"),
        query=scope["query_string"].decode("latin-1"),
        headers=[(name.decode("latin-1"), _header_text(value)) for name, value in scope["headers"]],
        source=source,
        secure=scope.get("scheme") == "https" or is_loopback(source),
        inside=(scope.get("server") or ("",))[0].removeprefix("::ffff:") == INSIDE,
    )


def _header_text(value: bytes) -> str:
    """S3's clients send metadata as UTF-8; anything else is what HTTP says it is."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _header_bytes(value: str) -> bytes:
    return value.encode("utf-8")


def _send_each(shared: socket.socket, body: FileRange | FileRanges, patience: float, pace: Pace) -> None:
    if isinstance(body, FileRange):
        send_file(shared, body, patience, pace)
        return
    while (part := body.next_range()) is not None:
        send_file(shared, part, patience, pace)


def _length(request: HttpRequest) -> int | None:
    """The body's length on the wire, None if it is not told in a way that the server's parser understands too."""
    text = request.header("content-length") or ""
    known = text.isascii() and text.isdigit() and len(text) < 19 and request.header("transfer-encoding") is None
    return int(text) if known else None


def _has_body(request: HttpRequest) -> bool:
    return request.header("transfer-encoding") is not None or (request.header("content-length") or "0") != "0"


class _Protocol(HttpToolsProtocol):
    """HTTP on one connection. It is closed if a head does not come in time (uvicorn's own timeout is only about the
    time between requests) or has no end, or if there are too many; and broken off if nothing of an answer is taken
    for as long."""

    patience = PATIENCE
    direct = Connections()
    _deadline: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _begun = 0  # messages
    _head: int | None = None  # bytes of a head that is not complete

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))  # uvloop's are none by their class
        inside = self.server is not None and self.server[0].removeprefix("::ffff:") == INSIDE
        if len(self.connections) > (CONNECTIONS // 2 if inside else CONNECTIONS):
            transport.close()
            return
        self._deadline = self.loop.call_later(self.patience, self._late)

    def data_received(self, data: bytes) -> None:
        begun = self._begun
        super().data_received(data)
        if self._head is None or self._begun != begun:
            return
        self._head += len(data)
        if self._head > HEAD and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\n\r\n")
            self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._begun += 1
        self._head = 0
        if self._deadline is None:  # a later request of the connection; the first one's began with it
            self._deadline = self.loop.call_later(self.patience, self._late)

    def on_headers_complete(self) -> None:
        self._head = None
        _cancel(self._deadline)
        self._deadline = None
        super().on_headers_complete()
        if self.scheme == "http":
            # The application's task has the scope, and has not run yet.
            cast(_Scope, self.scope)[_CONNECTION] = self.direct.of(self)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(self.patience, self._look, self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        _cancel(self._stalled)
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        _cancel(self._deadline)
        _cancel(self._stalled)
        super().connection_lost(exc)

    def _late(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:  # nobody reads the head meanwhile
            self._deadline = self.loop.call_later(self.patience, self._late)

    def _look(self, before: int) -> None:
        left = self.transport.get_write_buffer_size()
        if left >= before:
            self.transport.abort()
        else:
            self._stalled = self.loop.call_later(self.patience, self._look, left)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


class ApiServer:
    """The server, on a thread of its own with its own event loop. `sockets` are bound; clients may connect to them
    before `start` already.
    """

    def __init__(self, application: Application, sockets: Iterable[socket.socket]) -> None:
        self._application = application
        self._sockets = list(sockets)
        config = uvicorn.Config(
            application,
            http=type("_Patient", (_Protocol,), {"patience": application.patience, "direct": Connections()}),
            loop="auto",
            ws="none",
            lifespan="off",
            interface="asgi3",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=int(KEEP_ALIVE),
            timeout_graceful_shutdown=5,
            backlog=512,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)

    def start(self) -> None:
        """Answer requests from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Take no more requests, finish those under way (for a few seconds), close the sockets."""
        self._server.should_exit = True
        self._thread.join()
        self._application.close()

    def _run(self) -> None:
        with contextlib.closing(_Sockets(self._sockets)):
            self._server.run(sockets=self._sockets)


class _Sockets:
    def __init__(self, sockets: list[socket.socket]) -> None:
        self._sockets = sockets

    def close(self) -> None:
        for each in self._sockets:
            each.close()


def bound(address: str, port: int) -> socket.socket:
    """A socket that listens at `address`; port 0 takes any free one. HostError if that is not possible."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(512)
    except OSError as error:
        listener.close()
        raise HostError(
            f"the API cannot listen on {address}:{port}: {error.strerror}; see who does with `ss -ltnp`, or set "
            "another port in the cloud's settings.json"
        ) from error
    return listener
