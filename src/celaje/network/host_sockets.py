"""The host's sockets, as NAT uses them: a seam, so that its conversations can be tested without a host."""

from __future__ import annotations

import errno
import os
import resource
import socket
import struct
import sys
from collections.abc import Sequence
from typing import Protocol

from celaje.network import icmp
from celaje.network.buffers import Buffer


class HostSocket(Protocol):
    """What NAT asks of a socket. All of them are non-blocking."""

    def fileno(self) -> int: ...

    def recv(self, size: int, /) -> bytes: ...

    def send(self, data: Buffer, /) -> int: ...

    def sendmsg(self, parts: Sequence[Buffer], /) -> int: ...

    def shutdown(self, how: int, /) -> None: ...

    def setsockopt(self, level: int, option: int, value: int | bytes, /) -> None: ...

    def getpeername(self) -> object: ...

    def getsockopt(self, level: int, option: int, /) -> int: ...

    def close(self) -> None: ...


class HostSockets(Protocol):
    """Makes sockets. Each raises OSError as the host does."""

    def keep(self, made: socket.socket) -> socket.socket:
        """A socket that was accepted; OSError, and it is closed, if the process has too many already."""

    def connect_tcp(self, address: str, port: int, public: str | None = None) -> HostSocket:
        """A stream socket that is being connected; it becomes writable once it is decided, and SO_ERROR says how. It
        talks in the name of the host's address `public` where it can: loopback talks to loopback only."""

    def connect_udp(self, address: str, port: int, public: str | None = None) -> HostSocket:
        """A datagram socket that talks to this address and port only, in the name of `public` as above."""

    def connect_echo(self, address: str, public: str | None = None) -> HostSocket:
        """A ping socket (icmp(7)): sends echo requests to the address, receives the replies without their IP header; in
        the name of `public` as above."""


# In the middle of a connection only resets are of interest, so an error of these is one.
RESETS = {errno.ECONNRESET, errno.EPIPE, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN}

# What the guest is told where the host's kernel says this of a destination.
UNREACHABLE_CODES = {
    errno.ENETUNREACH: icmp.NET_UNREACHABLE,
    errno.ENETDOWN: icmp.NET_UNREACHABLE,
    errno.EHOSTUNREACH: icmp.HOST_UNREACHABLE,
    errno.EHOSTDOWN: icmp.HOST_UNREACHABLE,
    errno.ETIMEDOUT: icmp.HOST_UNREACHABLE,
    errno.EACCES: icmp.ADMINISTRATIVELY_PROHIBITED,
    errno.EPERM: icmp.ADMINISTRATIVELY_PROHIBITED,
}
NO_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EAGAIN}

_BIND_ADDRESS_NO_PORT = 24  # ip(7), IP_BIND_ADDRESS_NO_PORT
_LINGER_NOT = struct.pack("ii", 1, 0)


def close_with_reset(stream: HostSocket) -> None:
    """Close a stream socket so that its other end sees a reset, not an end."""
    try:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    finally:
        stream.close()


class KernelSockets:
    """The real ones. The last RESERVED descriptors that the process may open are kept for machines and callers, so
    that no guest's connections shut them out: for sockets of NAT's they are not there (EMFILE)."""

    RESERVED = 512

    def __init__(self) -> None:
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        unlimited = limit == resource.RLIM_INFINITY
        # Linux gives the lowest number that is free, so a number says how many are in use.
        self._most = sys.maxsize if unlimited else max(limit - self.RESERVED, limit // 2)

    def keep(self, made: socket.socket) -> socket.socket:
        """`made`, unless it is one too many: then it is closed, and EMFILE raised."""
        if made.fileno() >= self._most:
            made.close()
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return made

    def connect_tcp(self, address: str, port: int, public: str | None = None) -> HostSocket:
        flags = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        made = self.keep(socket.socket(socket.AF_INET, socket.SOCK_STREAM | flags))
        try:
            tune(made)
            _bind(made, public, address)
            error = made.connect_ex((address, port))
            if error not in (0, errno.EINPROGRESS):
                raise OSError(error, os.strerror(error))
        except BaseException:
            made.close()
            raise
        return made

    def connect_udp(self, address: str, port: int, public: str | None = None) -> HostSocket:
        flags = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        made = self.keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM | flags))
        return _connected(made, (address, port), public)

    def connect_echo(self, address: str, public: str | None = None) -> HostSocket:
        flags = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        made = self.keep(socket.socket(socket.AF_INET, flags, socket.IPPROTO_ICMP))
        return _connected(made, (address, 0), public)


def _bind(made: socket.socket, public: str | None, address: str) -> None:
    """Talk to `address` in the name of `public`. The kernel lets an address of loopback talk to others of it only, and
    what is on loopback is not to be told the host's other addresses."""
    if public is not None and _is_loopback(public) == _is_loopback(address):
        made.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)  # or each takes a port from all destinations
        made.bind((public, 0))


def _is_loopback(address: str) -> bool:
    return address.startswith("127.")


def _connected(made: socket.socket, address: tuple[str, int], public: str | None) -> socket.socket:
    try:
        _bind(made, public, address[0])
        made.connect(address)
    except BaseException:
        made.close()
        raise
    return made


def tune(stream: socket.socket) -> None:
    """What every TCP socket of NAT's has: no delay of small segments, and a probe when the other end has been
    silent."""
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
