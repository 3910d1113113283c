"""The server's side of HTTP/1.1 (RFC 9110, RFC 9112), without I/O, for small services inside a network.

Requests may be pipelined and connections are kept. HTTP/1.0 is spoken with those who speak it. A client is a guest and
so hostile: sizes are bounded, and what is not a request is answered with 400 (or 413, 414, 431, 501, 505) and the
connection's end. No body is accepted in chunks, and none is sent so.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from urllib.parse import unquote, urlsplit

LONGEST_LINE = 8 << 10
LONGEST_HEAD = 32 << 10
MOST_FIELDS = 100
LONGEST_BODY = 64 << 10

_HEAD_END = re.compile(rb"\r?\n\r?\n")
_LINE_END = re.compile(rb"\r?\n")
_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\x00\r\n]*?)[ \t]*")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """`path` is decoded and without the query; names of header fields are in lower case."""

    method: str
    path: str
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """`headers` besides those that the server adds: Content-Length, Content-Type, Date, Connection. `hops`: how far the
    answer may go, None: anywhere."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain"
    headers: dict[str, str] = field(default_factory=dict)
    hops: int | None = None


Handler = Callable[[HttpRequest], HttpResponse]


def failure(status: int, headers: dict[str, str] | None = None) -> HttpResponse:
    """A response that says no more than its status."""
    return HttpResponse(status, f"{status} - {HTTPStatus(status).phrase}\n".encode(), headers=headers or {})


class _Refused(Exception):
    """What came is not a request that this server takes."""

    def __init__(self, status: int) -> None:
        self.status = status


@dataclass(frozen=True, slots=True)
class _Head:
    request: HttpRequest
    body_bytes: int
    keeps: bool  # the connection
    continues: bool  # the client waits for 100 before it sends the body


class HttpServer:
    """One connection. `clock` is the time of day, for the Date field."""

    __slots__ = ("_clock", "_handler", "_head", "_received", "_searched", "finished", "hops")

    def __init__(self, handler: Handler, clock: Callable[[], float] = time.time) -> None:
        self._handler = handler
        self._clock = clock
        self._received = bytearray()
        self._searched = 0  # bytes in which no head ends
        self._head: _Head | None = None  # its body is to come
        self.hops: int | None = None  # what the last answer that said a number said
        self.finished = False  # after what `receive` returned the connection is to be closed

    def receive(self, data: bytes) -> bytes:
        """Take bytes from the client (b"": there will be no more); returns what to send."""
        if self.finished:
            return b""
        if not data:
            self.finished = True
            return b""
        self._received += data
        answers = []
        try:
            while not self.finished and (answer := self._next()) is not None:
                answers.append(answer)
        except _Refused as refused:
            self.finished = True
            answers.append(self._written(failure(refused.status), "", False))
        if self.finished:
            self._received.clear()
        return b"".join(answers)

    def _next(self) -> bytes | None:
        """The answer to the next request; None if it is not whole yet."""
        received = self._received
        head = self._head
        if head is None:
            head = self._read_head()
            if head is None:
                return None
            self._head = head
            if head.continues and len(received) < head.body_bytes:
                return b"HTTP/1.1 100 Continue\r\n\r\n"
        if len(received) < head.body_bytes:
            return None
        request = head.request
        if head.body_bytes:
            body = bytes(received[: head.body_bytes])
            del received[: head.body_bytes]
            request = HttpRequest(request.method, request.path, request.query, request.headers, body)
        self._head = None
        self.finished = not head.keeps
        try:
            response = self._handler(request)
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            response = failure(HTTPStatus.INTERNAL_SERVER_ERROR)
        if response.hops is not None:
            self.hops = response.hops
        return self._written(response, request.method, head.keeps)

    def _read_head(self) -> _Head | None:
        received = self._received
        empty = 0
        while empty < len(received) and received[empty] in b"\r\n":  # RFC 9112, 2.2: empty lines before a request
            empty += 1
        if empty:
            del received[:empty]
            self._searched = 0
        end = _HEAD_END.search(received, max(self._searched - 3, 0))
        if end is None:
            self._searched = len(received)
            if len(received) > LONGEST_LINE and b"\n" not in received:
                raise _Refused(HTTPStatus.REQUEST_URI_TOO_LONG)
            if len(received) > LONGEST_HEAD:
                raise _Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return None
        lines = _LINE_END.split(bytes(received[: end.start()]))
        del received[: end.end()]
        self._searched = 0
        return _head(lines)

    def _written(self, response: HttpResponse, method: str, keeps: bool) -> bytes:
        fields = {
            "Content-Type": response.content_type,
            "Content-Length": str(len(response.body)),
            "Date": formatdate(self._clock(), usegmt=True),
            "Server": "celaje",
            "Connection": "keep-alive" if keeps else "close",
            **response.headers,
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        head = f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}\r\n{lines}\r\n"
        return head.encode("latin-1") + (b"" if method == "HEAD" else response.body)


def _head(lines: list[bytes]) -> _Head:
    if max(map(len, lines)) > LONGEST_LINE or len(lines) > MOST_FIELDS + 1:
        raise _Refused(
            HTTPStatus.REQUEST_URI_TOO_LONG
            if len(lines[0]) > LONGEST_LINE
            else HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        )
    first = _REQUEST_LINE.fullmatch(lines[0])
    if first is None:
        raise _Refused(HTTPStatus.BAD_REQUEST)
    method, target, major, minor = (group.decode("ascii") for group in first.groups())
    if major != "1":
        raise _Refused(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
    headers = _fields(lines[1:])
    if minor != "0" and ("host" not in headers or "," in headers["host"]):
        raise _Refused(HTTPStatus.BAD_REQUEST)  # RFC 9112, 3.2
    options = {option.strip().lower() for option in headers.get("connection", "").split(",")}
    return _Head(
        _request(method, target, headers),
        _body_bytes(headers),
        "keep-alive" in options if minor == "0" else "close" not in options,
        minor != "0" and headers.get("expect", "").lower() == "100-continue",
    )


def _fields(lines: list[bytes]) -> dict[str, str]:
    """Header fields; those that come more than once are joined (RFC 9110, 5.3). Folded lines are refused."""
    headers: dict[str, str] = {}
    for line in lines:
        found = _FIELD.fullmatch(line)
        if found is None:
            raise _Refused(HTTPStatus.BAD_REQUEST)
        name, value = found[1].decode("ascii").lower(), found[2].decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _request(method: str, target: str, headers: dict[str, str]) -> HttpRequest:
    """From a target in origin, absolute or asterisk form (RFC 9112, 3.2)."""
    if target.lower().startswith(("http://", "https://")):
        try:
            parts = urlsplit(target)
        except ValueError as error:
            raise _Refused(HTTPStatus.BAD_REQUEST) from error
        return HttpRequest(method, unquote(parts.path) or "/", parts.query, headers)
    if not target.startswith("/") and target != "*":
        raise _Refused(HTTPStatus.BAD_REQUEST)
    path, _, query = target.partition("#")[0].partition("?")
    return HttpRequest(method, unquote(path), query, headers)


def _body_bytes(headers: dict[str, str]) -> int:
    if "transfer-encoding" in headers:
        # With a length besides, somebody between us and the client may read another request than we do (RFC 9112, 6.1).
        raise _Refused(HTTPStatus.BAD_REQUEST if "content-length" in headers else HTTPStatus.NOT_IMPLEMENTED)
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise _Refused(HTTPStatus.BAD_REQUEST)
    if len(length) > 9 or int(length) > LONGEST_BODY:
        raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    return int(length)
