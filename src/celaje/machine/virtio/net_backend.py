"""What a network device is plugged into.

The other end of the wire takes and gives link messages: a virtio header of 12 bytes and an Ethernet frame without its
check sequence, up to `segmentation.LARGEST_MESSAGE` bytes together. Checksums may be missing and TCP frames may be
large in both directions, as the header says; the device sees to what its driver cannot do.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from typing import Protocol

SOCKET_BUFFER = 4 << 20
"""Bytes asked of the host for what is under way in each direction. It may give less: 64 large frames are enough."""


class LinkLost(Exception):
    """The other end is gone."""


class NetBackend(Protocol):
    """One wire. Nothing here waits; the device waits with poll(2) on `fileno`. Used by one thread at a time."""

    def fileno(self) -> int:
        """A descriptor that is readable when `receive_into` has something, writable when `send` takes something."""

    def send(self, buffers: Sequence[bytes | memoryview]) -> bool:
        """Send the message that the buffers make, put end to end. False if there is no room now. Raises LinkLost."""

    def receive_into(self, buffer: bytearray) -> int | None:
        """Bytes of the next message, now in `buffer`; more than it holds if it was cut off. None: nothing has come.

        Raises LinkLost.
        """

    def close(self) -> None:
        """Pull the plug."""


class SocketBackend:
    """A connected socket that keeps messages apart (AF_UNIX SOCK_SEQPACKET), which it owns and sets non-blocking."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
        self._socket = connection
        self._sendmsg = connection.sendmsg
        self._receive = connection.recv_into

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, buffers: Sequence[bytes | memoryview]) -> bool:
        try:
            self._sendmsg(buffers)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                return False
            if error.errno == errno.EMSGSIZE:  # more than the host ever takes at once: lost, as on any wire
                return True
            raise LinkLost(str(error)) from None
        return True

    def receive_into(self, buffer: bytearray) -> int | None:
        try:
            length = self._receive(buffer)
        except BlockingIOError:
            return None
        except OSError as error:
            raise LinkLost(str(error)) from None
        if not length:  # an empty message is not one of the link's
            raise LinkLost("the other end has closed the connection")
        return length

    def close(self) -> None:
        self._socket.close()
