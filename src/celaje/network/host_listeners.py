"""Listening on the host's addresses, and what is in the way of it.

A port below 1024 takes a right (CAP_NET_BIND_SERVICE), and where a program of the host listens on a port of every
address, it would answer in a machine's place. Both show when binding; a port that cannot be had is served at another
one of the same address, always the same for the same port, so that it can be told and written into a configuration.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from celaje.errors import HostError
from celaje.network.messages import Transport

BACKLOG = 512
_STEP = 10_000  # 22 is served at 10022, and so on
_LISTENING = "0A"  # TCP_LISTEN in /proc/net/tcp
_UNCONNECTED = "07"  # and of a UDP socket that anybody may send to
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_FAMILIES = {"tcp": ("tcp", "tcp6"), "udp": ("udp", "udp6")}


@dataclass(frozen=True, slots=True)
class Listening:
    """A socket that is bound, and listens if it is a stream's. `reason` says why it is at another port, if it is;
    `may_pass`: because somebody else has exactly that address and port, who may let go of it."""

    socket: socket.socket
    port: int
    reason: str
    may_pass: bool = False


def listening(protocol: Transport, address: str, port: int) -> socket.socket:
    """A non-blocking socket at exactly this address and port. OSError as the host has it."""
    flags = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    made = socket.socket(socket.AF_INET, _KINDS[protocol] | flags)
    try:
        if protocol == "tcp":
            # Connections of a process that ended are no reason to refuse (TIME_WAIT); a listener is, all the same.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what is accepted inherits it
            made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        made.bind((address, port))
        if protocol == "tcp":
            made.listen(BACKLOG)
    except BaseException:
        made.close()
        raise
    return made


def nearest_listening(protocol: Transport, address: str, port: int) -> Listening:
    """The same, or at the first of the port's substitutes that is free. HostError if none is."""
    reason = ""
    may_pass = False
    for candidate in (port, *_substitutes(port)):
        try:
            return Listening(listening(protocol, address, candidate), candidate, reason, may_pass)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EADDRINUSE, errno.EPERM):
                raise HostError(f"cannot listen on {protocol} {address}:{candidate}: {error.strerror}") from error
            if not reason:
                everywhere = port in wildcard_ports(protocol)
                may_pass = error.errno == errno.EADDRINUSE and not everywhere
                reason = _reason(protocol, port, error, everywhere)
    raise HostError(f"cannot listen on {protocol} {address}:{port}, nor on any port in its place: {reason}")


def _substitutes(port: int) -> Iterator[int]:
    for step in range(1, 7):
        substitute = port + step * _STEP
        if substitute < 65_536:
            yield substitute
    for step in range(16):
        yield 20_000 + (port * 7 + step * 1_009) % 12_000  # below the ports that Linux gives to clients


def _reason(protocol: Transport, port: int, error: OSError, everywhere: bool) -> str:
    if everywhere:
        return f"a program of the host has {protocol} port {port} of every address"
    if error.errno == errno.EADDRINUSE:
        return f"another program has {protocol} port {port} of this address"
    return (
        f"{protocol} port {port} takes the right CAP_NET_BIND_SERVICE (or a lower net.ipv4.ip_unprivileged_port_start)"
    )


def wildcard_ports(protocol: Transport, proc: Path = Path("/proc/net")) -> set[int]:
    """Ports that somebody on this host listens on at every address (/proc/net/tcp and the like)."""
    found = set()
    state = _LISTENING if protocol == "tcp" else _UNCONNECTED
    for name in _FAMILIES[protocol]:
        try:
            lines = (proc / name).read_text().splitlines()[1:]
        except OSError:
            continue  # a host without IPv6
        for line in lines:
            words = line.split()
            address, _, port = words[1].partition(":")
            if words[3] == state and not address.strip("0"):
                found.add(int(port, 16))
    return found
