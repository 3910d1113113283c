"""What is not TCP, carried through the host's sockets: UDP flows and ICMP echo.

A flow is one socket, connected, so that only the address that the guest talks to may answer, and the kernel tells when
it refuses. `key` is that of the interface's table (guest_stream.stream_key); for echo the identifier stands for the
guest's port.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

from celaje.network import icmp, udp
from celaje.network.event_loop import READ
from celaje.network.host_sockets import UNREACHABLE_CODES, HostSocket
from celaje.network.ipv4 import ICMP, UDP
from celaje.network.outside import Packet

if TYPE_CHECKING:
    from celaje.network.nat import InterfaceFlows

LONGEST_DATAGRAM = 65_507
A_TURN = 16  # datagrams read from one socket before others have their turn

UNANSWERED_SECONDS = 30.0
ANSWERED_SECONDS = 180.0
ECHO_SECONDS = 20.0


class DatagramFlow:
    """What flows of either kind have in common."""

    __slots__ = ("active", "answered", "client", "flows", "inward", "key", "leaves_as", "port", "quote", "remote")

    protocol = UDP

    def __init__(self, flows: InterfaceFlows, key: int, remote: tuple[int, int], port: int, inward: bool) -> None:
        self.flows = flows
        self.key = key
        self.remote = remote  # as the guest sees it
        self.port = port  # the guest's
        self.inward = inward
        self.client = remote[0]  # whom the firewall's rules are about
        self.leaves_as: str | None = None  # the public address in whose name it goes out, if in one's
        self.active = flows.nat.loop.now
        self.answered = False
        self.quote = b""  # of the guest's last packet, for ICMP errors about it

    def from_guest(self, packet: Packet) -> None:
        """The guest sent this."""
        raise NotImplementedError

    def patience(self) -> float:
        """Seconds that it may be idle."""
        return ANSWERED_SECONDS if self.answered else UNANSWERED_SECONDS

    def close(self) -> None:
        """Let go of what is held outside."""

    def deliver_datagram(self, data: bytes) -> None:
        """To the guest, from the remote."""
        flows = self.flows
        address, port = self.remote
        guest = flows.interface.address
        header = udp.header(address, port, guest, self.port, len(data))
        flows.nat.network.deliver(flows.interface, address, guest, UDP, [header, data])

    def failed(self, error: OSError) -> None:
        """The host's side said so, by ICMP or of its own."""
        refused = error.errno == errno.ECONNREFUSED
        code = icmp.PORT_UNREACHABLE if refused else UNREACHABLE_CODES.get(error.errno or 0)
        if error.errno == errno.EMSGSIZE:
            self.flows.nat.count("datagrams too long for the way out")
        elif code is not None and self.quote:
            self.flows.nat.network.unreachable(
                self.flows.interface, self.quote, code, self.remote[0] if refused else None
            )
        else:
            self.flows.nat.count(f"host sockets that failed ({errno.errorcode.get(error.errno or 0, 'unknown')})")


class SocketFlow(DatagramFlow):
    """A flow that the guest began, over a socket of its own."""

    __slots__ = ("_socket",)

    def __init__(self, flows: InterfaceFlows, key: int, remote: tuple[int, int], port: int, opened: HostSocket) -> None:
        super().__init__(flows, key, remote, port, inward=False)
        self._socket = opened
        flows.nat.loop.watch(opened.fileno(), READ, self.ready)

    def from_guest(self, packet: Packet) -> None:
        self.active = self.flows.nat.loop.now
        self.quote = packet.quote
        data = udp.data(packet.payload)
        if data is not None:
            self._send(data)

    def _send(self, data: memoryview) -> None:
        try:
            self._socket.send(data)
        except BlockingIOError:
            self.flows.nat.count("datagrams dropped, host's buffer full")
        except OSError as error:
            self.failed(error)
            # An error of an earlier datagram is reported instead of this one being sent.
            try:
                self._socket.send(data)
            except OSError:
                self.flows.nat.count("datagrams that the host did not send")

    def ready(self, _events: int) -> None:
        """The loop's callback: something came, or an error."""
        self.active = self.flows.nat.loop.now
        for _ in range(A_TURN):
            try:
                data = self._socket.recv(LONGEST_DATAGRAM)
            except BlockingIOError:
                return
            except OSError as error:
                self.failed(error)
                return
            self.answered = True
            self.received(data)

    def received(self, data: bytes) -> None:
        """An answer came."""
        self.deliver_datagram(data)

    def close(self) -> None:
        self.flows.nat.loop.unwatch(self._socket.fileno())
        self._socket.close()


class EchoFlow(SocketFlow):
    """Echo requests of one identifier to one address. The kernel has its own identifier in them; the guest sees its
    own."""

    __slots__ = ()

    protocol = ICMP

    def from_guest(self, packet: Packet) -> None:
        self.active = self.flows.nat.loop.now
        self.quote = packet.quote
        self._send(packet.payload)

    def received(self, data: bytes) -> None:
        if len(data) < icmp.HEADER or data[0] != icmp.ECHO_REPLY:
            return
        flows = self.flows
        reply = icmp.echo(icmp.ECHO_REPLY, self.port, int.from_bytes(data[6:8], "big"), data[icmp.HEADER :])
        flows.nat.network.deliver(flows.interface, self.remote[0], flows.interface.address, ICMP, [reply])

    def patience(self) -> float:
        return ECHO_SECONDS


class ClientFlow(DatagramFlow):
    """A flow that a client outside began, by a datagram to a socket of ours that others use too."""

    __slots__ = ("_answer", "_closed")

    def __init__(
        self,
        flows: InterfaceFlows,
        key: int,
        remote: tuple[int, int],
        port: int,
        client: int,
        answer: Callable[[memoryview], None],
        closed: Callable[[], object],
    ) -> None:
        super().__init__(flows, key, remote, port, inward=True)
        self.client = client
        self._answer = answer
        self._closed = closed

    def from_guest(self, packet: Packet) -> None:
        self.active = self.flows.nat.loop.now
        self.answered = True
        data = udp.data(packet.payload)
        if data is None:
            return
        try:
            self._answer(data)
        except BlockingIOError:
            self.flows.nat.count("datagrams dropped, host's buffer full")
        except OSError as error:
            self.quote = packet.quote
            self.failed(error)

    def close(self) -> None:
        self._closed()
