"""Network address translation, over the host's ordinary sockets.

What leaves the network is not rewritten and passed on, since that takes privileges: TCP ends here (a TcpConnection
towards the guest, a socket towards the world, a Bridge between), UDP and ICMP echo become datagrams of sockets, one a
flow. Inward it is the same the other way round. To the guest it looks like a router; to the host, like a program that
makes connections.

Tables are an interface's own and bounded, so a guest can exhaust nobody's but its own.
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter, deque
from collections.abc import Callable

from celaje.network import icmp, ipv4, udp
from celaje.network.bridge import Bridge, Remainder
from celaje.network.buffers import Buffer
from celaje.network.checksum import pseudo_header_sum
from celaje.network.datagram_flow import ClientFlow, DatagramFlow, EchoFlow, SocketFlow
from celaje.network.destinations import Destinations, Opened, Refusal
from celaje.network.event_loop import EventLoop
from celaje.network.guest_stream import GuestStream, stream_key
from celaje.network.hairpin import turned
from celaje.network.host_sockets import NO_RESOURCES, UNREACHABLE_CODES, HostSocket, HostSockets
from celaje.network.interface import Interface
from celaje.network.network import Network, NetworkConfig
from celaje.network.outside import Answer, Packet
from celaje.network.security_group import Direction
from celaje.network.stream_service import ServiceMaker, ServiceStream
from celaje.network.tcp import InitialSequences, TcpSettings
from celaje.network.tcp_segment import ACK, HEADER_BYTES, RST, SYN, TcpSegment, header, reset_for

MOST_STREAMS = 12_288  # TCP connections of one interface
MOST_AMPLE = 256  # of these, the first ones; those that are opened beside as many hold less (`InterfaceFlows.settings`)
MOST_OPENING = 1_024  # of these, outward ones that the other side has not answered
MOST_DATAGRAM_FLOWS = 1_024
MOST_ECHO_FLOWS = 64
DATAGRAM_SWEEP_SECONDS = 5.0
STREAM_SWEEP_SECONDS = 30.0
_FIRST_EPHEMERAL, _LAST_EPHEMERAL = 32_768, 65_535

# Asks the host's resolvers; Outside.resolve says how.
Resolve = Callable[[bytes, Answer], None]
# Takes a segment of the guest's that belongs to no connection; whether it was expected.
Expected = Callable[[TcpSegment], bool]

log = logging.getLogger(__name__)


class InterfaceFlows:
    """What NAT keeps for one interface."""

    __slots__ = (
        "congested",
        "datagrams",
        "echoes",
        "exit",
        "expected",
        "interface",
        "nat",
        "next_port",
        "opened",
        "opening",
        "remainders",
        "services",
        "serving",
        "stalled",
        "streams",
    )  # fmt: skip

    def __init__(self, nat: Nat, interface: Interface) -> None:
        self.nat = nat
        self.interface = interface
        self.streams: dict[int, GuestStream] = {}
        self.datagrams: dict[int, DatagramFlow] = {}
        self.echoes: dict[int, DatagramFlow] = {}
        self.remainders: set[Remainder] = set()
        self.opened = Opened({})
        self.services: dict[tuple[int, int], ServiceMaker] = {}  # (address, port) of TCP that is answered here
        self.congested = False  # the machine does not read its link fast enough: nothing more is fetched for it
        self.stalled: set[Bridge] = set()  # those that wait for that to end
        self.exit: Callable[[Packet], bool] | None = None  # takes packets for other networks, if they may go there
        self.expected: Expected | None = None
        self.serving: deque[ServiceStream] = deque()  # those whose guest has asked, in turn
        self.opening = 0  # streams outward that are being connected
        self.next_port = _FIRST_EPHEMERAL

    @property
    def router(self) -> int:
        """The router's address in the interface's subnet."""
        return self.interface.subnet.router

    @property
    def settings(self) -> TcpSettings:
        """Those of a connection that is made now."""
        return self.nat.ample if len(self.streams) < MOST_AMPLE else self.nat.frugal

    def relieve(self) -> None:
        """The machine reads again."""
        self.congested = False
        stalled, self.stalled = self.stalled, set()
        for bridge in stalled:
            bridge.wake()

    def serve_later(self, stream: ServiceStream) -> None:
        """Its guest has asked something. One question, or few, are answered a round, whatever a guest asks on however
        many connections."""
        self.serving.append(stream)
        if len(self.serving) == 1:
            self.nat.loop.soon(self._serve)

    def _serve(self) -> None:
        stream = self.serving.popleft()
        if self.serving:
            self.nat.loop.soon(self._serve)
        stream.waits = False
        if not stream.ended:
            stream.serve()

    def close(self) -> None:
        """End everything, without a word to the guest, which is gone."""
        for stream in tuple(self.streams.values()):
            stream.cut()
        for table in (self.datagrams, self.echoes):
            for flow in tuple(table.values()):
                self.drop(table, flow)
        for remainder in tuple(self.remainders):
            remainder.close()

    def drop(self, table: dict[int, DatagramFlow], flow: DatagramFlow) -> None:
        """A datagram flow is over."""
        del table[flow.key]
        flow.close()
        self.nat.network.forget(self.interface, flow.protocol, flow.remote[0], flow.remote[1], flow.port)


class Nat:
    """The network's Outside. `attached` is called for each interface, `detached` when it goes; `settle` after every
    batch of messages that the network received."""

    def __init__(
        self, loop: EventLoop, sockets: HostSockets, destinations: Destinations, resolve: Resolve, config: NetworkConfig
    ):
        self.loop = loop
        self.network: Network  # set by whoever makes both, before the first packet
        self.beyond: Callable[[Interface, Packet], bool] | None = None  # takes packets to other networks of this host
        # For the first connections of an interface, and for those that are opened beside many others: a guest with all
        # the connections that it may have, none of which takes its bytes, must not hold gigabytes of the host's.
        self.ample = TcpSettings(mss=config.mtu - 40)
        self.frugal = TcpSettings(mss=config.mtu - 40, send_capacity=1 << 16, receive_capacity=1 << 15)
        self.initial_sequence = InitialSequences(secrets.token_bytes(16))
        self.unsettled: list[GuestStream] = []
        self.counters: Counter[str] = Counter()
        self.sockets = sockets
        self.probing: set[object] = set()  # whose guests are asked for their ports
        self._destinations = destinations
        self._resolve = resolve
        self._flows: dict[Interface, InterfaceFlows] = {}
        self._packet: Packet | None = None  # the one that is being taken
        self._settling = False  # the end of this round will settle
        self._said: set[str] = set()
        self._datagram_sweep = loop.timer(self._sweep_datagrams)
        self._stream_sweep = loop.timer(self._sweep_streams)
        loop.set(self._datagram_sweep, loop.now + DATAGRAM_SWEEP_SECONDS)
        loop.set(self._stream_sweep, loop.now + STREAM_SWEEP_SECONDS)

    def attached(self, interface: Interface) -> InterfaceFlows:
        flows = self._flows[interface] = InterfaceFlows(self, interface)
        return flows

    def detached(self, interface: Interface) -> None:
        flows = self._flows.pop(interface, None)
        if flows is not None:
            flows.close()

    def count(self, what: str) -> None:
        """One more of these."""
        self.counters[what] += 1

    def count_and_say_once(self, what: str, why: str) -> None:
        """The same, and a line in the log the first time."""
        self.counters[what] += 1
        if what not in self._said:
            self._said.add(what)
            log.warning("%s: %s (said once; statistics count them)", what, why)

    def tables(self) -> dict[str, int]:
        """The sizes of all tables."""
        flows = self._flows.values()
        return {
            "TCP connections": sum(len(one.streams) for one in flows),
            "TCP remainders": sum(len(one.remainders) for one in flows),
            "UDP flows": sum(len(one.datagrams) for one in flows),
            "echo flows": sum(len(one.echoes) for one in flows),
        }

    # From the guest.

    def packet(self, interface: Interface, packet: Packet) -> None:
        flows = self._flows.get(interface)
        if flows is None:
            return
        protocol = packet.protocol
        network = self.network
        if flows.exit is None and interface.public_address is not None:
            if packet.destination in network.publics and turned(network, interface, packet):
                return
            if self.beyond is not None and self.beyond(interface, packet):
                return
        if protocol == ipv4.TCP:
            segment = TcpSegment.parse(packet.payload)
            if segment is None:
                self.count("malformed TCP segments")
                return
            stream = flows.streams.get(packet.destination << 32 | segment.destination_port << 16 | segment.source_port)
            self._packet = packet
            if stream is not None:
                stream.segment(segment)
            elif flows.exit is None or not self._leaves(flows, packet, segment.destination_port):
                self._stray(flows, packet, segment)
        elif protocol == ipv4.UDP:
            if len(packet.payload) >= udp.HEADER:
                self._datagram(flows, packet)
        elif protocol == ipv4.ICMP:
            if len(packet.payload) >= icmp.HEADER:
                self._echo(flows, packet)
        elif flows.exit is None or not self._leaves(flows, packet, 0):
            self.network.unreachable(interface, packet.quote, icmp.PROTOCOL_UNREACHABLE, packet.destination)
            self.count("packets of protocols that NAT does not know")

    def resolve(self, query: bytes, answer: Answer) -> None:
        self._resolve(query, answer)

    def settle(self) -> None:
        """Act on what came in since the last time."""
        self._settling = False
        self._packet = None
        while self.unsettled:
            batch, self.unsettled = self.unsettled, []
            for stream in batch:
                stream.settle()

    def settle_soon(self) -> None:
        """Settle at the end of this round."""
        if not self._settling:
            self._settling = True
            self.loop.soon(self.settle)

    def _leaves(self, flows: InterfaceFlows, packet: Packet, port: int) -> bool:
        """Whether the packet went out by the interface's own exit. What may not go there is told as everybody is
        told."""
        address = packet.destination
        if (address, port) in flows.services or flows.opened.find(packet.protocol, address, port) is not None:
            return False
        return flows.exit is not None and flows.exit(packet)

    # TCP.

    def _stray(self, flows: InterfaceFlows, packet: Packet, segment: TcpSegment) -> None:
        """A segment of no connection: a new one's first, an answer to a probe, or a mistake."""
        if segment.flags & (SYN | ACK | RST) == SYN:
            self.new_stream(flows, (packet.destination, segment.destination_port), segment)
        elif flows.expected is None or not flows.expected(segment):
            self.answer_with_reset(flows, packet.destination, segment)

    def answer_with_reset(self, flows: InterfaceFlows, remote: int, segment: TcpSegment) -> None:
        """As a host does that knows nothing of a connection."""
        answer = reset_for(segment)
        if answer is None:
            return
        sequence, acknowledgment, flags = answer
        far = (remote, segment.destination_port)
        self.send_control(flows, far, segment.source_port, sequence, acknowledgment, flags)

    def send_control(
        self, flows: InterfaceFlows, remote: tuple[int, int], port: int, sequence: int, acknowledgment: int, flags: int
    ) -> None:
        """A segment of a header alone, from `remote` to the guest's `port`."""
        guest = flows.interface.address
        pseudo = pseudo_header_sum(remote[0], guest, ipv4.TCP, HEADER_BYTES)
        parts: list[Buffer] = [header(remote[1], port, sequence, acknowledgment, flags, 0, pseudo)]
        self.network.deliver(flows.interface, remote[0], guest, ipv4.TCP, parts)

    def new_stream(self, flows: InterfaceFlows, remote: tuple[int, int], syn: TcpSegment) -> None:
        """The guest opens a connection."""
        address, port = remote
        quote = self._packet.quote if self._packet is not None else b""
        if len(flows.streams) >= MOST_STREAMS:
            self.count_and_say_once("TCP connections beyond the limit", f"{flows.interface.name} has {MOST_STREAMS:,}")
            self.answer_with_reset(flows, address, syn)
            return
        maker = flows.services.get(remote)
        if maker is not None:
            ServiceStream(flows, remote, syn, maker)
            return
        host = flows.opened.find(ipv4.TCP, address, port)
        if host is None:
            refusal = self._destinations.refusal(address)
            if refusal is Refusal.INSIDE:
                self.answer_with_reset(flows, address, syn)
                return
            if refusal is not None:
                self._refuse(flows, quote, refusal)
                return
            host = (ipv4.text(address), port)
        if flows.opening >= MOST_OPENING:
            self.count("TCP connections put off, too many are being opened")
            return  # the guest asks again
        try:
            public = self.network.leaves_as(flows.interface, address)
            made = self.sockets.connect_tcp(*host, public)
        except OSError as error:
            self._no_stream(flows, address, syn, quote, error)
            return
        bridge = Bridge(flows, remote, syn.source_port, made, False, quote)
        bridge.leaves_as = public
        bridge.connect(syn)

    def _no_stream(self, flows: InterfaceFlows, address: int, syn: TcpSegment, quote: bytes, error: OSError) -> None:
        if error.errno in NO_RESOURCES:
            self.count_and_say_once("TCP connections without a socket", str(error.strerror))
        code = UNREACHABLE_CODES.get(error.errno or 0)
        if code is None:
            self.answer_with_reset(flows, address, syn)
        else:
            self.network.unreachable(flows.interface, quote, code, None)

    def connect_inward(
        self,
        flows: InterfaceFlows,
        stream: HostSocket,
        client: tuple[int, int],
        port: int,
        beside_routes: bool = False,
    ) -> Bridge | None:
        """Carry a client's connection on to the guest's `port`. None, with the stream untouched, if rules, routes,
        access lists or limits do not admit the client: its real address is what they are about. `beside_routes`: the
        client is in the network as far as routes and access lists are concerned."""
        if len(flows.streams) >= MOST_STREAMS:
            self.count_and_say_once("TCP connections beyond the limit", f"{flows.interface.name} has {MOST_STREAMS:,}")
            return None
        remote = self.presented(flows, flows.streams, client, port)
        if remote is None or not self.network.admit(
            flows.interface, ipv4.TCP, client[0], remote[0], remote[1], port, beside_routes
        ):
            self.count("clients refused")
            return None
        bridge = Bridge(flows, remote, port, stream, True)
        bridge.client = client[0]
        bridge.open()
        return bridge

    def presented(
        self,
        flows: InterfaceFlows,
        table: dict[int, GuestStream] | dict[int, DatagramFlow],
        client: tuple[int, int],
        port: int,
    ) -> tuple[int, int] | None:
        """The address and port that the guest sees of a client: the client's own if the guest could answer there, the
        router's otherwise. None if the router has no port left."""
        if self._destinations.is_routable(client[0]) and stream_key(*client, port) not in table:
            return client
        router = flows.router
        for _ in range(_LAST_EPHEMERAL - _FIRST_EPHEMERAL + 1):
            mine = flows.next_port
            flows.next_port = mine + 1 if mine < _LAST_EPHEMERAL else _FIRST_EPHEMERAL
            if stream_key(router, mine, port) not in table:
                return router, mine
        return None

    # Datagrams.

    def _datagram(self, flows: InterfaceFlows, packet: Packet) -> None:
        payload = packet.payload
        source_port, port = udp.ports(payload)
        key = stream_key(packet.destination, port, source_port)
        flow = flows.datagrams.get(key)
        if flow is None:
            if flows.exit is not None and self._leaves(flows, packet, port):
                return
            flow = self._new_datagram_flow(flows, packet, key, source_port, port)
            if flow is None:
                return
        flow.from_guest(packet)

    def _new_datagram_flow(
        self, flows: InterfaceFlows, packet: Packet, key: int, source_port: int, port: int
    ) -> DatagramFlow | None:
        address = packet.destination
        host = flows.opened.find(ipv4.UDP, address, port)
        if host is None:
            refusal = self._destinations.refusal(address)
            if refusal is Refusal.INSIDE:
                self.network.unreachable(flows.interface, packet.quote, icmp.PORT_UNREACHABLE, address)
                return None
            if refusal is not None:
                self._refuse(flows, packet.quote, refusal)
                return None
            host = (ipv4.text(address), port)
        self._make_room(flows, flows.datagrams, MOST_DATAGRAM_FLOWS)
        try:
            public = self.network.leaves_as(flows.interface, address)
            made = self.sockets.connect_udp(*host, public)
        except OSError as error:
            self._no_socket(flows, packet, error)
            return None
        flow = flows.datagrams[key] = SocketFlow(flows, key, (address, port), source_port, made)
        flow.leaves_as = public
        return flow

    def _echo(self, flows: InterfaceFlows, packet: Packet) -> None:
        payload = packet.payload
        if flows.exit is not None and self._leaves(flows, packet, 0):
            return
        if payload[0] != icmp.ECHO_REQUEST or payload[1] != 0:
            self.count("ICMP messages that NAT does not pass on")
            return
        identifier = int.from_bytes(payload[4:6], "big")
        key = stream_key(packet.destination, identifier, identifier)
        flow = flows.echoes.get(key)
        if flow is None:
            refusal = self._destinations.refusal(packet.destination)
            if refusal is not None:
                self._refuse(flows, packet.quote, refusal)
                return
            self._make_room(flows, flows.echoes, MOST_ECHO_FLOWS)
            try:
                public = self.network.leaves_as(flows.interface, packet.destination)
                made = self.sockets.connect_echo(ipv4.text(packet.destination), public)
            except PermissionError:
                self.count_and_say_once(
                    "echo requests that the host refuses",
                    "guests ping in their network only; `sysctl net.ipv4.ping_group_range='0 2147483647'` allows more",
                )
                self.network.unreachable(flows.interface, packet.quote, icmp.ADMINISTRATIVELY_PROHIBITED, None)
                return
            except OSError as error:
                self._no_socket(flows, packet, error)
                return
            flow = flows.echoes[key] = EchoFlow(flows, key, (packet.destination, identifier), identifier, made)
            flow.leaves_as = public
        flow.from_guest(packet)

    def datagram_inward(
        self,
        flows: InterfaceFlows,
        data: bytes,
        client: tuple[int, int],
        port: int,
        answer: Callable[[memoryview], None],
        known: dict[tuple[int, int], ClientFlow],
    ) -> None:
        """A client's datagram for the guest's `port`; `answer` sends one back to it. `known` are the flows of the
        socket that it came by: kept here."""
        flow = known.get(client)
        if flow is None or flows.datagrams.get(flow.key) is not flow:
            remote = self.presented(flows, flows.datagrams, client, port)
            if remote is None or not self.network.admit(
                flows.interface, ipv4.UDP, client[0], remote[0], remote[1], port
            ):
                self.count("clients refused")
                return
            self._make_room(flows, flows.datagrams, MOST_DATAGRAM_FLOWS)
            key = stream_key(*remote, port)
            flow = ClientFlow(flows, key, remote, port, client[0], answer, lambda: known.pop(client, None))
            known[client] = flow
            flows.datagrams[key] = flow
        flow.active = self.loop.now
        flow.deliver_datagram(data)

    def _no_socket(self, flows: InterfaceFlows, packet: Packet, error: OSError) -> None:
        if error.errno in NO_RESOURCES:
            self.count_and_say_once("datagram flows without a socket", str(error.strerror))
        code = UNREACHABLE_CODES.get(error.errno or 0, icmp.HOST_UNREACHABLE)
        self.network.unreachable(flows.interface, packet.quote, code, None)

    @staticmethod
    def _make_room(flows: InterfaceFlows, table: dict[int, DatagramFlow], most: int) -> None:
        """Where the table is full, forget the eighth of it that has been idle for longest."""
        if len(table) >= most:
            flows.nat.counters["datagram flows that gave way to others"] += most // 8
            for flow in sorted(table.values(), key=lambda one: one.active)[: most // 8]:
                flows.drop(table, flow)

    def _refuse(self, flows: InterfaceFlows, quote: bytes, refusal: Refusal) -> None:
        self.count_and_say_once(
            f"packets refused: {refusal}",
            f"{flows.interface.name} tried; the owner opens single ports with `host=tcp:PORT`",
        )
        self.network.unreachable(flows.interface, quote, icmp.ADMINISTRATIVELY_PROHIBITED, None)

    # Rules and time.

    def set_opened(self, flows: InterfaceFlows, opened: Opened) -> int:
        """From now on this is opened to the interface; how many flows to what is no more were cut."""
        cut = 0
        was, flows.opened = flows.opened, opened
        for stream in tuple(flows.streams.values()):
            if not stream.inward and was.find(ipv4.TCP, *stream.remote) != opened.find(ipv4.TCP, *stream.remote):
                stream.cut()
                cut += 1
        for flow in tuple(flows.datagrams.values()):
            if not flow.inward and was.find(ipv4.UDP, *flow.remote) != opened.find(ipv4.UDP, *flow.remote):
                flows.drop(flows.datagrams, flow)
                cut += 1
        return cut

    def reconsider(self, flows: InterfaceFlows) -> None:
        """Cut what the rules, as they are now, do not admit. The network has cut it already, and has counted it; here
        the host's side learns of it."""
        interface = flows.interface
        for stream in tuple(flows.streams.values()):
            if not self.network.is_service(stream.remote[0]) and (
                not self._admitted(interface, ipv4.TCP, stream) or self._leaves_otherwise(interface, stream)
            ):
                stream.cut()
        for flow in tuple(flows.datagrams.values()):
            if not self._admitted(interface, ipv4.UDP, flow) or self._leaves_otherwise(interface, flow):
                flows.drop(flows.datagrams, flow)
        for flow in tuple(flows.echoes.values()):
            admitted = self.network.admits(
                interface, Direction.OUTWARD, ipv4.ICMP, flow.client, icmp.ECHO_REQUEST
            )
            if not admitted or self._leaves_otherwise(interface, flow):
                flows.drop(flows.echoes, flow)

    def _admitted(self, interface: Interface, protocol: int, flow: GuestStream | DatagramFlow) -> bool:
        if flow.inward:
            return self.network.admits(interface, Direction.INWARD, protocol, flow.client, flow.port)
        return self.network.admits(interface, Direction.OUTWARD, protocol, *flow.remote)

    def _leaves_otherwise(self, interface: Interface, flow: GuestStream | DatagramFlow) -> bool:
        """Whether what the guest began would now go out in another public address's name. Where it has no way out at
        all it need not end: it goes on if the way comes back in time."""
        if flow.inward:
            return False
        now = self.network.leaves_as(interface, flow.remote[0])
        return now is not None and now != flow.leaves_as

    def _sweep_datagrams(self) -> None:
        now = self.loop.now
        self.loop.set(self._datagram_sweep, now + DATAGRAM_SWEEP_SECONDS)
        for flows in self._flows.values():
            for table in (flows.datagrams, flows.echoes):
                for flow in [one for one in table.values() if now - one.active > one.patience()]:
                    flows.drop(table, flow)

    def _sweep_streams(self) -> None:
        now = self.loop.now
        self.loop.set(self._stream_sweep, now + STREAM_SWEEP_SECONDS)
        for flows in self._flows.values():
            for stream in tuple(flows.streams.values()):
                stream.expire(now)
            for remainder in [one for one in flows.remainders if now - one.active > Remainder.PATIENCE_SECONDS]:
                remainder.close()
