"""The other end of a control socket: a thread a connection, requests answered one after the other.

Other users are refused, by the mode of the directory that the socket is in and by asking the kernel who connects. Bytes
that are no message are answered, and never raise past their connection.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable

from celaje.host import messages
from celaje.host.control import peer
from celaje.host.messages import Answer, Refused, Request

log = logging.getLogger(__name__)

MOST_CONNECTIONS = 100
BACKLOG = 64
SHORTAGE_SECONDS = 0.1  # until a host that could not give a descriptor is asked again
LAST_WORDS_SECONDS = 5.0  # for the answers to what was asked before the end


class Connection:
    """One client. Messages may be sent from any thread."""

    def __init__(self, held: socket.socket) -> None:
        self._socket = held
        self._sending = threading.Lock()

    def send(self, answer: Answer) -> None:
        """Waits until the client has room for it. OSError if it has gone."""
        with self._sending:
            self._socket.send(messages.encoded(answer))

    def receive(self) -> Request | None:
        """The next request, None at the connection's end. What is no request is answered here."""
        while True:
            try:
                data = self._socket.recv(messages.LONGEST_MESSAGE + 1)
            except OSError:
                return None
            if not data:
                return None
            try:
                return messages.decoded_request(data)
            except messages.Unreadable as error:
                self.send(error.answer)

    @property
    def gone(self) -> bool:
        """Whether the client has closed its end, and left nothing to read."""
        try:
            return not self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def hear_no_more(self) -> None:
        """What the client has sent by now is the last that `receive` returns."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)

    def close(self) -> None:
        """End it, and let whoever waits on it go."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


Serve = Callable[[Request, Connection], Answer | None]
"""Gives the answer to a request, or None where it has sent its answers, or has none, itself. What it raises is told."""


class ControlServer:
    """Serves connections to `listener`, a listening SOCK_SEQPACKET socket, which it closes in the end."""

    def __init__(self, listener: socket.socket, serve: Serve) -> None:
        self._listener = listener
        self._serve = serve
        self._lock = threading.Lock()
        self._connections: dict[Connection, threading.Thread] = {}
        self._closing = False
        self._acceptor = threading.Thread(target=self._accept, name="control", daemon=True)

    def start(self) -> None:
        """From here on requests are answered."""
        self._acceptor.start()

    def close(self) -> None:
        """Refuse whoever comes, answer what was asked before, within reason, and end all connections. Not from a thread
        of the server's own."""
        with self._lock:
            self._closing = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()  # it takes in those who have connected by now
        self._listener.close()
        with self._lock:
            connections = dict(self._connections)
        # A thread may not have come to read what its client has sent long ago.
        for connection in connections:
            connection.hear_no_more()
        until = time.monotonic() + LAST_WORDS_SECONDS
        for thread in connections.values():
            thread.join(max(0.0, until - time.monotonic()))
        for connection in connections:
            connection.close()
        for thread in connections.values():
            thread.join(1.0)

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError as error:
                if self._closing:
                    return
                # The host is short of descriptors or memory. A machine that nobody can reach could only be killed.
                log.error("nobody can connect just now: %s", error)
                time.sleep(SHORTAGE_SECONDS)
                continue
            connection = Connection(accepted)
            reason = self._refused(accepted)
            if reason is not None:
                with contextlib.suppress(OSError):
                    connection.send(reason)
                connection.close()
                continue
            thread = threading.Thread(target=self._converse, args=(connection,), name="control client", daemon=True)
            with self._lock:
                self._connections[connection] = thread
            try:
                thread.start()
            except RuntimeError as error:  # the host has no more threads
                log.error("a connection was refused: %s", error)
                with self._lock:
                    del self._connections[connection]
                connection.close()

    def _refused(self, accepted: socket.socket) -> Refused | None:
        process, user = peer(accepted)
        if user != os.getuid():
            log.warning("process %d of user %d was refused", process, user)
            return Refused(cause="host", reason=f"this machine is another user's, not user {user}'s")
        if len(self._connections) >= MOST_CONNECTIONS:
            return Refused(
                cause="state", reason=f"the machine serves {MOST_CONNECTIONS} connections already; close some consoles"
            )
        return None

    def _converse(self, connection: Connection) -> None:
        try:
            while (request := connection.receive()) is not None:
                try:
                    answer = self._serve(request, connection)
                except Exception as error:  # the edge: whoever asked is told, and the machine goes on
                    answer = messages.refusal(error)
                    if answer.cause == "mistake":
                        log.exception("a request failed")
                if answer is not None:
                    connection.send(answer)
        except OSError:
            return  # the client has gone
        finally:
            with self._lock:
                self._connections.pop(connection, None)
            connection.close()
