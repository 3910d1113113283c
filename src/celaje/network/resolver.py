"""DNS questions that the network cannot answer, asked of the host's resolvers: those of /etc/resolv.conf, read again
whenever it has changed. Caching is theirs.

Each question has a socket of its own, connected, with a source port of the kernel's choice, and an answer counts only
with the question's identifier, from that resolver. A truncated one is asked for again over TCP (RFC 7766).
"""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
from pathlib import Path

from celaje.network.event_loop import READ, WRITE, EventLoop
from celaje.network.outside import Answer

RESOLV_CONF = Path("/etc/resolv.conf")
PORT = 53
ROUND_SECONDS = 2.0  # for one resolver to answer
ROUNDS = 2  # times that all of them are asked
MOST_RESOLVERS = 3  # as the C library has it
MOST_QUESTIONS = 1024
_TRUNCATED = 0x02  # in the third byte (RFC 1035, 4.1.1)
_ANSWERED_BADLY = {2, 5}  # SERVFAIL and REFUSED: another resolver may do better

log = logging.getLogger(__name__)


class HostResolvers:
    """The addresses in resolv.conf. Without any, the host itself is asked, as resolv.conf(5) has it."""

    def __init__(self, path: Path = RESOLV_CONF) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._addresses: list[str] = ["127.0.0.1"]

    def addresses(self) -> list[str]:
        try:
            status = os.stat(self._path)
            stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
            if stamp != self._stamp:
                self._addresses = _nameservers(self._path.read_text(errors="replace")) or ["127.0.0.1"]
                self._stamp = stamp
        except OSError:
            self._stamp = None
            self._addresses = ["127.0.0.1"]
        return self._addresses


def _nameservers(text: str) -> list[str]:
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                ipaddress.ip_address(words[1].partition("%")[0])
            except ValueError:
                continue
            found.append(words[1])
    return found[:MOST_RESOLVERS]


class Resolver:
    """Asks them. `port` is 53 but in tests."""

    def __init__(self, loop: EventLoop, resolvers: HostResolvers, port: int = PORT) -> None:
        self.loop = loop
        self.questions: set[_Question] = set()
        self._resolvers = resolvers
        self._port = port

    def resolve(self, query: bytes, answer: Answer) -> None:
        """As Outside.resolve promises."""
        if len(query) < 12 or len(self.questions) >= MOST_QUESTIONS:
            answer(None)
            return
        places = [(address, self._port) for address in self._resolvers.addresses()] * ROUNDS
        question = _Question(self, query, answer, places)
        self.questions.add(question)
        question.next()

    def close(self) -> None:
        for question in tuple(self.questions):
            question.end(None)


class _Question:
    def __init__(self, resolver: Resolver, query: bytes, answer: Answer, places: list[tuple[str, int]]) -> None:
        self._resolver = resolver
        self._query = query
        self._answer = answer
        self._places = places
        self._place = places[0]
        self._timer = resolver.loop.timer(self.next)
        self._socket: socket.socket | None = None
        self._received = bytearray()
        self._worse: bytes | None = None  # an answer that is an error, should nobody have a better one

    def next(self) -> None:
        """Ask the next resolver."""
        while self._places:
            self._place = self._places.pop(0)
            if self._ask(socket.SOCK_DGRAM):
                return
        self.end(self._worse)

    def _ask(self, kind: int) -> bool:
        """Whether the question is on its way."""
        self._close()
        loop = self._resolver.loop
        family = socket.AF_INET6 if ":" in self._place[0] else socket.AF_INET
        try:
            opened = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        except OSError as error:
            log.warning("no socket for a DNS question: %s", error.strerror)
            return False
        self._socket = opened
        try:
            if kind == socket.SOCK_DGRAM:
                opened.connect(self._place)
                opened.send(self._query)
                loop.watch(opened.fileno(), READ, self._datagram)
            else:
                opened.connect_ex(self._place)
                self._received.clear()
                loop.watch(opened.fileno(), WRITE, self._stream_connected)
        except OSError:
            self._close()
            return False
        loop.set(self._timer, loop.now + ROUND_SECONDS)
        return True

    def _datagram(self, _events: int) -> None:
        try:
            assert self._socket is not None
            data = self._socket.recv(65_535)
        except BlockingIOError:
            return
        except OSError:
            self.next()  # nobody listens there
            return
        if not self._is_mine(data):
            return
        if data[2] & _TRUNCATED:
            if not self._ask(socket.SOCK_STREAM):
                self.next()
            return
        self._came(data)

    def _is_mine(self, data: bytes | bytearray) -> bool:
        return len(data) >= 12 and data[:2] == self._query[:2] and bool(data[2] & 0x80)

    def _came(self, data: bytes) -> None:
        if data[3] & 0x0F in _ANSWERED_BADLY:
            self._worse = data
            self.next()
        else:
            self.end(data)

    def _stream_connected(self, _events: int) -> None:
        opened = self._socket
        assert opened is not None
        message = len(self._query).to_bytes(2, "big") + self._query
        try:
            if opened.send(message) < len(message):
                raise OSError("a new connection takes no kilobyte")
        except BlockingIOError:
            return
        except OSError:
            self.next()
            return
        loop = self._resolver.loop
        loop.unwatch(opened.fileno())
        loop.watch(opened.fileno(), READ, self._stream)

    def _stream(self, _events: int) -> None:
        try:
            assert self._socket is not None
            data = self._socket.recv(65_537)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        received = self._received
        received += data
        if len(received) >= 2 and len(received) >= 2 + int.from_bytes(received[:2], "big"):
            whole = bytes(received[2 : 2 + int.from_bytes(received[:2], "big")])
            if self._is_mine(whole):
                self._came(whole)
            else:
                self.next()
        elif not data:
            self.next()

    def end(self, data: bytes | None) -> None:
        """The answer, or none, is given; once."""
        self._close()
        self._resolver.loop.set(self._timer, None)
        if self in self._resolver.questions:
            self._resolver.questions.discard(self)
            self._answer(data)

    def _close(self) -> None:
        if self._socket is not None:
            self._resolver.loop.unwatch(self._socket.fileno())
            self._socket.close()
            self._socket = None
