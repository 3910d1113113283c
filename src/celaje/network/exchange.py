"""From a machine of one planned network to the public address of another network's on this host, and back.

What the host's kernel calls its own no guest reaches through NAT, and these addresses are the host's own. So the
networks' processes pass such packets to each other, as internet gateways would: each network turns its half, as
hairpin.py turns both.

    x, known as X -> network of x:  from X to Y  ── datagram ──>  network of y:  from X to y, who is known as Y

Whose a public address is says a symbolic link in the runtime directory, made by the network that has the address;
it leads to that network's socket there. Links of a process that was killed lead to a socket that refuses.

    public/A.B.C.D -> ../net-NAME.peer

    0        4             8         9    10   11   12        14
    | source | destination | protocol | tos | ttl | 0 | gso_size | transport header and data, the checksum left out

The directory is its owner's alone, so what comes in at the socket is another network's of the same person. It is
looked at as a packet from outside all the same: rules, routes and access lists see X.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections import Counter
from pathlib import Path

from celaje import paths
from celaje.network import ipv4
from celaje.network.buffers import Buffer
from celaje.network.checksum import pseudo_header_sum
from celaje.network.event_loop import READ, EventLoop
from celaje.network.hairpin import CHECKSUM_AT, SHORTEST, translated_error, with_checksum
from celaje.network.interface import Interface
from celaje.network.network import Network
from celaje.network.outside import Packet
from celaje.network.spawn import checked_name

DIRECTORY = "public"
GOOD_SECONDS = 1.0  # how long a look at a link is good for
MOST_KNOWN = 4_096  # looks that are remembered
A_TURN = 64  # packets taken before others have their turn
BUFFER = 1 << 20

_head = struct.Struct("!IIBBBxH")


def peer_path(name: str) -> Path:
    """The socket at which the network `name` takes other networks' packets."""
    return paths.runtime_directory() / f"net-{checked_name(name)}.peer"


class Exchange:
    """The place of the network `name` in it. HostError or OSError if the runtime directory cannot be used."""

    def __init__(self, loop: EventLoop, network: Network, name: str, counters: Counter[str]) -> None:
        self._loop = loop
        self._network = network
        self._counters = counters
        self._directory = paths.made(paths.runtime_directory() / DIRECTORY)
        self._path = peer_path(name)
        self._known: dict[int, tuple[float, str | None]] = {}  # address -> until when, the socket of whose it is
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()  # of a process that was killed: this one has the network's lock
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        self._socket.bind(str(self._path))
        network.on_public = self._public
        loop.watch(self._socket.fileno(), READ, self._ready)

    def close(self) -> None:
        """The network is reached no more, and its addresses are nobody's."""
        self._network.on_public = None
        for address in self._network.publics:
            self._public(address, False)
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
            with contextlib.suppress(FileNotFoundError):
                aside.unlink()
            aside.symlink_to(target)
            aside.replace(link)
            return
        with contextlib.suppress(OSError):
            if os.readlink(link) == target:
                link.unlink()

    def _socket_of(self, address: int) -> str | None:
        """Where another network takes packets to this address."""
        known = self._known.get(address)
        now = self._loop.now
        if known is not None and known[0] > now:
            return known[1]
        found: str | None = None
        with contextlib.suppress(OSError):
            target = os.readlink(self._directory / ipv4.text(address)).removeprefix("../")
            if target != self._path.name and "/" not in target:
                found = str(self._path.with_name(target))
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known[address] = (now + GOOD_SECONDS, found)
        return found

    # Packets.

    def took(self, interface: Interface, packet: Packet) -> bool:
        """Whether the packet was another network's, and has been taken there, or dropped on the way."""
        public = interface.public_address
        if public is None or (there := self._socket_of(packet.destination)) is None:
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
        try:
            self._socket.sendmsg([head, payload], [], 0, there)
        except BlockingIOError:
            self._counters["packets that another network did not take in time"] += 1
        except OSError as error:
            if error.errno not in (errno.ECONNREFUSED, errno.ENOENT):
                self._counters[f"packets to other networks that failed ({errno.errorcode[error.errno or 0]})"] += 1
            self._known[packet.destination] = (self._loop.now + GOOD_SECONDS, None)
            return False
        return True

    def _ready(self, _events: int) -> None:
        for _ in range(A_TURN):
            try:
                message = memoryview(self._socket.recv(ipv4.LONGEST + _head.size))
            except BlockingIOError:
                return
            self._arrived(message)

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
