"""From a machine of one planned network to the public address of another network's on this host, and back.

What the host's kernel calls its own no guest reaches through NAT, and these addresses are the host's own. So the
networks' processes pass such packets to each other, as internet gateways would: each network turns its half, as
hairpin.py turns both.

    x, known as X -> network of x:  from X to Y  ── message ──>  network of y:  from X to y, who is known as Y

Whose a public address is says a symbolic link in the runtime directory, made by the network that has the address;
it leads to the socket at which that network listens. Links of a process that was killed lead to one that refuses. A
network connects to another with its first packet for it; the connection carries packets one way, as a machine's link
carries frames (link.py).

    public/A.B.C.D -> ../net-NAME.peer

    0        4             8         9    10   11   12        14
    | source | destination | protocol | tos | ttl | 0 | gso_size | transport header and data, the checksum left out

The directory is its owner's alone, so what comes in at the socket is another network's of the same person. It is
looked at as a packet from outside all the same: rules, routes and access lists see X.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from celaje import paths
from celaje.network import ipv4
from celaje.network.buffers import Buffer
from celaje.network.checksum import pseudo_header_sum
from celaje.network.event_loop import READ, EventLoop
from celaje.network.hairpin import CHECKSUM_AT, SHORTEST, translated_error, with_checksum
from celaje.network.interface import Interface
from celaje.network.link import Link
from celaje.network.network import Network
from celaje.network.outside import Packet
from celaje.network.spawn import checked_name

DIRECTORY = "public"
GOOD_SECONDS = 1.0  # how long a look at a link is good for
MOST_KNOWN = 4_096  # looks that are remembered
PAUSE_SECONDS = 0.1  # until who could not be accepted is accepted
BUFFER = 1 << 20
BACKLOG = 128

log = logging.getLogger(__name__)

_head = struct.Struct("!IIBBBxH")


def peer_path(name: str) -> Path:
    """The socket at which the network `name` takes other networks' packets."""
    return paths.runtime_directory() / f"net-{checked_name(name)}.peer"


def _seqpacket() -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    return made


class Exchange:
    """The place of the network `name` in it. HostError or OSError if the runtime directory cannot be used."""

    def __init__(self, loop: EventLoop, network: Network, name: str, counters: Counter[str]) -> None:
        self._loop = loop
        self._network = network
        self._counters = counters
        self._directory = paths.made(paths.runtime_directory() / DIRECTORY)
        self._path = peer_path(name)
        self._known: dict[int, tuple[float, str | None]] = {}  # address -> until when, whose it is
        self._outward: dict[str, Link] = {}  # by the names of others' sockets
        self._inward: set[Link] = set()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()  # of a process that was killed: this one has the network's lock
        self._socket = _seqpacket()
        self._socket.bind(str(self._path))
        self._socket.listen(BACKLOG)
        network.on_public = self._public
        self._pause = loop.timer(self._go_on)
        self._go_on()

    def close(self) -> None:
        """The network is reached no more, and its addresses are nobody's."""
        self._network.on_public = None
        for address in self._network.publics:
            self._public(address, False)
        for link in (*self._outward.values(), *self._inward):
            link.close()
        self._outward.clear()
        self._inward.clear()
        self._loop.discard(self._pause)
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

    # Whose an address is.

    def _public(self, address: int, has: bool) -> None:
        """The network has this public address now, or has it no more: unless another one has it already."""
        link = self._directory / ipv4.text(address)
        target = f"../{self._path.name}"
        if has:
            aside = link.with_name(f"{link.name}.{os.getpid()}")
            try:
                with self._alone():
                    aside.unlink(missing_ok=True)
                    aside.symlink_to(target)
                    aside.replace(link)
            except OSError as error:
                log.warning("machines of other networks do not reach %s: %s", ipv4.text(address), error)
            return
        with contextlib.suppress(OSError), self._alone():
            if os.readlink(link) == target:
                link.unlink()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """No other network changes a link inside: what was looked at is what is taken away. OSError."""
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            yield
        finally:
            os.close(directory)

    def _owner(self, address: int) -> str | None:
        """The name of the socket of another network which has this address."""
        known = self._known.get(address)
        now = self._loop.now
        if known is not None and known[0] > now:
            return known[1]
        found: str | None = None
        with contextlib.suppress(OSError):
            target = os.readlink(self._directory / ipv4.text(address)).removeprefix("../")
            if target != self._path.name and "/" not in target:
                found = target
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known[address] = (now + GOOD_SECONDS, found)
        return found

    # Packets.

    def took(self, interface: Interface, packet: Packet) -> bool:
        """Whether the packet was another network's, and has been taken there, or dropped on the way."""
        public = interface.public_address
        if public is None or (owner := self._owner(packet.destination)) is None:
            return False
        if self._network.leaves_as(interface, packet.destination) != public:
            return False
        protocol, payload = packet.protocol, packet.payload
        if protocol not in SHORTEST or len(payload) < SHORTEST[protocol]:
            return False
        source = ipv4.number(public)
        if protocol == ipv4.ICMP:
            payload = memoryview(translated_error(payload, interface.address, source, source_side=False))
        head = _head.pack(source, packet.destination, protocol, packet.tos, max(packet.ttl - 1, 1), packet.gso_size)
        link = self._outward.get(owner) or self._connected(owner)
        if link is None:  # it has gone
            self._known[packet.destination] = (self._loop.now + GOOD_SECONDS, None)
            return False
        if not link.transmit([head, payload]):
            self._counters["packets that another network did not take in time"] += 1
        return True

    def _connected(self, owner: str) -> Link | None:
        made = _seqpacket()
        try:
            made.connect(str(self._path.with_name(owner)))
        except OSError:
            made.close()
            return None
        link = self._outward[owner] = Link(
            self._loop, made, lambda _message: None, lambda: 0.0, lambda _waits: None, lambda: self._left(owner)
        )
        return link

    def _left(self, owner: str) -> None:
        self._outward.pop(owner).close()

    def _go_on(self) -> None:
        self._loop.watch(self._socket.fileno(), READ, self._accept)

    def _accept(self, _events: int) -> None:
        try:
            connection, _ = self._socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:  # no descriptor is left
            log.warning("another network waits: %s", error.strerror)
            self._loop.unwatch(self._socket.fileno())  # or it would be announced over and over
            self._loop.set(self._pause, self._loop.now + PAUSE_SECONDS)
            return
        connection.setblocking(False)
        link = Link(self._loop, connection, self._arrived, lambda: 0.0, lambda _waits: None, lambda: self._gone(link))
        self._inward.add(link)

    def _gone(self, link: Link) -> None:
        self._inward.discard(link)
        link.close()

    def _arrived(self, message: memoryview) -> None:
        payload = message[_head.size :]
        protocol = message[8] if len(message) >= _head.size else 0
        if protocol not in SHORTEST or len(payload) < SHORTEST[protocol]:
            self._counters["malformed packets of other networks"] += 1
            return
        source, destination, protocol, tos, ttl, gso_size = _head.unpack_from(message)
        peer = self._network.publics.get(destination)
        if peer is None:
            self._counters["packets of other networks to nobody"] += 1
            return
        if protocol == ipv4.ICMP:
            parts: list[Buffer] = [translated_error(payload, destination, peer.address, source_side=True)]
        else:
            pseudo = pseudo_header_sum(source, peer.address, protocol, len(payload))
            parts = with_checksum(payload, CHECKSUM_AT[protocol], pseudo)
        self._network.deliver(peer, source, peer.address, protocol, parts, gso_size, ttl, tos)
