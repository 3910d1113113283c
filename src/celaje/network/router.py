"""The router: what is said to the network itself, what leaves it, and what comes in from outside.

Its own addresses are each subnet's first (router, DHCP server), the second of the network's first block (DNS server),
and link-local ones: 169.254.169.254 (metadata), 169.254.169.253 (DNS again, as in EC2) and the configuration's
services. All have the router's MAC, on the link by ARP and by way of the router alike. Names and addresses are served
here; anything else for them goes to `Outside`: for the router's own address through the firewall, as if it were another
network, for the services without it (no security group can take metadata or DNS from a guest, nor in EC2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from celaje.network import arp, dhcp, dns, ethernet, icmp, ipv4, ipv6, offload, udp
from celaje.network.buffers import Buffer
from celaje.network.checksum import checksum, is_correct, pseudo_header_sum
from celaje.network.firewall import Firewall
from celaje.network.flow import UDP_SUFFIX, Flow, State, four_tuple
from celaje.network.forwarding import Way, rule_port
from celaje.network.interface import Interface
from celaje.network.outside import Outside, Packet
from celaje.network.statistics import Drop
from celaje.network.subnet import Subnet
from celaje.network.switch import IP, TRANSPORT, Switch

METADATA = 0xA9FEA9FE  # 169.254.169.254
SECOND_DNS = 0xA9FEA9FD  # 169.254.169.253

_ETHERNET = offload.SIZE  # where a frame begins in a message
_CSUM_OFFSETS = {ipv4.TCP: offload.TCP_CSUM_OFFSET, ipv4.UDP: offload.UDP_CSUM_OFFSET}
_SYN_FIN_RST = 7


class Router:
    """`address` is the router's in the network's first block, `services` are the link-local ones."""

    def __init__(
        self,
        *,
        address: int,
        dns_address: int,
        services: Sequence[int],
        mtu: int,
        switch: Switch,
        firewall: Firewall,
        name_server: dns.NameServer,
        outside: Outside,
        clock: Callable[[], float],
    ) -> None:
        self.mac = b"\x02\x00" + address.to_bytes(4, "big")  # locally administered
        self._dns = frozenset((dns_address, SECOND_DNS))
        self._services = frozenset((dns_address, SECOND_DNS, METADATA, *services))
        self._own = set(self._services)
        self._dhcp: dict[Subnet, dhcp.DhcpServer] = {}
        self._mtu = mtu
        self._switch = switch
        self._firewall = firewall
        self._name_server = name_server
        self._outside = outside
        self._ipv6 = ipv6.Ipv6Router(self.mac, mtu)
        self._clock = clock
        self._identification = 0  # of the last datagram that was sent in fragments
        switch.router = self

    def add_subnet(self, subnet: Subnet, dhcp_server: dhcp.DhcpServer) -> None:
        """The router has an address in it from now on, and serves DHCP there."""
        self._own.add(subnet.router)
        self._dhcp[subnet] = dhcp_server

    def set_dhcp_server(self, subnet: Subnet, dhcp_server: dhcp.DhcpServer) -> None:
        """Another one serves there from now on."""
        self._dhcp[subnet] = dhcp_server

    def remove_subnet(self, subnet: Subnet) -> None:
        """No more."""
        self._own.discard(subnet.router)
        del self._dhcp[subnet]

    def is_own(self, address: int) -> bool:
        """Whether the network itself has this address."""
        return address in self._own

    def is_service(self, address: int) -> bool:
        """Whether it is a service's, which is beyond rules."""
        return address in self._services

    # From the guest to the network itself.

    def arp(self, interface: Interface, message: memoryview) -> None:
        """Answers for the network's own addresses on the link and for every interface of its subnet; a guest's probes
        and announcements of its own address have no answer."""
        request = arp.parse(message[IP:])
        if request is None:
            interface.statistics.drop(Drop.MALFORMED)
            return
        own = (interface.address, *interface.others)
        if request.sender_mac != interface.mac or request.sender not in (0, *own):
            interface.statistics.drop(Drop.SPOOFED)
            return
        if request.operation != arp.REQUEST or request.target in own:
            return
        subnet = interface.subnet
        if request.target == subnet.router or (
            request.target in self._services and (subnet.has(request.target) or ipv4.is_link_local(request.target))
        ):
            mac = self.mac
        else:
            other = self._switch.by_address.get(request.target)
            if other is None or other.subnet is not subnet:
                return
            mac = other.mac
        reply = arp.reply(mac, request.target, request.sender_mac, request.sender)
        self._send(interface, interface.mac, mac, ethernet.ARP, reply)

    def hail(self, interface: Interface) -> None:
        """Asks the guest for its MAC address, so that it says something."""
        question = arp.request(self.mac, interface.subnet.router, interface.address)
        self._send(interface, ethernet.BROADCAST, self.mac, ethernet.ARP, question)

    def ipv6(self, interface: Interface, message: memoryview) -> None:
        """Neighbour discovery and echo on the link; other packets go nowhere."""
        if not self._may_ask(interface):
            return
        answer = self._ipv6.answer(message[IP:])
        if answer is None:
            interface.statistics.drop(Drop.MALFORMED)
        elif answer:
            multicast = answer[24] == 0xFF
            mac = ipv6.multicast_mac(answer[24:40]) if multicast else interface.mac
            self._send(interface, mac, self.mac, ethernet.IPV6, answer)
        else:
            interface.statistics.drop(Drop.UNSUPPORTED)

    def foreign(self, interface: Interface, message: memoryview, source: int, destination: int, total: int) -> None:
        """What does not come from the interface's address may only be DHCP: a client that has none yet, or another
        network's."""
        transport = message[TRANSPORT : IP + total]
        if message[35] == ipv4.UDP and udp.ports(transport) == (dhcp.CLIENT_PORT, dhcp.SERVER_PORT):
            self._serve_dhcp(interface, message, source, destination, transport)
        else:
            interface.statistics.drop(Drop.SPOOFED)

    def own_packet(
        self,
        interface: Interface,
        message: memoryview,
        source: int,
        destination: int,
        protocol: int,
        total: int,
        now: float,
    ) -> None:
        """A packet from the interface's address to one of the network's own, or to everybody."""
        transport = message[TRANSPORT : IP + total]
        if protocol == ipv4.ICMP and transport[0] == icmp.ECHO_REQUEST:
            self._answer_echo(interface, destination, transport)
            return
        if protocol == ipv4.UDP:
            port = udp.ports(transport)[1]
            if port == dhcp.SERVER_PORT and destination in (interface.subnet.router, ipv4.BROADCAST):
                self._serve_dhcp(interface, message, source, destination, transport)
                return
            if port == dns.PORT and destination in self._dns:
                self._serve_dns(interface, message, source, destination, transport)
                return
        if destination == ipv4.BROADCAST:
            interface.statistics.drop(Drop.MULTICAST)
        elif destination in self._services or self._firewall.track(
            protocol, interface, None, source, destination, transport, now
        ):
            self.outward(interface, message, source, destination, protocol, total)
        else:
            interface.statistics.drop(Drop.FIREWALL)

    def _may_ask(self, interface: Interface) -> bool:
        """Whether the interface has a request left of those that a second allows."""
        if interface.requests.take(1, self._clock()):
            return True
        interface.statistics.drop(Drop.RATE)
        return False

    def _answer_echo(self, interface: Interface, destination: int, transport: memoryview) -> None:
        if not is_correct(transport):
            interface.statistics.drop(Drop.CHECKSUM)
            return
        self._send_ipv4(interface, destination, interface.address, ipv4.ICMP, icmp.echo_reply(transport))

    def _datagram(
        self, interface: Interface, message: memoryview, source: int, destination: int, transport: memoryview
    ) -> memoryview | None:
        """The data of a UDP datagram to the network; None if it was dropped."""
        if not self._is_correct(message, source, destination, ipv4.UDP, transport):
            interface.statistics.drop(Drop.CHECKSUM)
            return None
        data = udp.data(transport)
        if data is None:
            interface.statistics.drop(Drop.TRUNCATED)
        return data

    def _serve_dhcp(
        self, interface: Interface, message: memoryview, source: int, destination: int, transport: memoryview
    ) -> None:
        data = self._datagram(interface, message, source, destination, transport)
        if data is None:
            return
        if not self._may_ask(interface):
            return
        request = dhcp.parse(data)
        if request is None:
            interface.statistics.drop(Drop.MALFORMED)
            return
        if request.mac != interface.mac:
            interface.statistics.drop(Drop.SPOOFED)
            return
        reply = self._dhcp[interface.subnet].answer(request, interface.address, interface.host_name)
        if reply is not None:
            self._send_datagram(
                interface,
                reply.mac,
                interface.subnet.router,
                dhcp.SERVER_PORT,
                reply.destination,
                dhcp.CLIENT_PORT,
                reply.message,
            )

    def _serve_dns(
        self, interface: Interface, message: memoryview, source: int, destination: int, transport: memoryview
    ) -> None:
        data = self._datagram(interface, message, source, destination, transport)
        if data is None:
            return
        if not self._may_ask(interface):
            return
        port = udp.ports(transport)[0]

        def respond(response: bytes) -> None:
            if self._switch.by_address.get(interface.address) is interface:  # still attached
                self._send_datagram(interface, interface.mac, destination, dns.PORT, interface.address, port, response)

        most = self._mtu - ipv4.HEADER - udp.HEADER
        if not self._name_server.answer(interface.name, bytes(data), most, respond):
            interface.statistics.drop(Drop.MALFORMED)

    # Out of the network.

    def outward(
        self, interface: Interface, message: memoryview, source: int, destination: int, protocol: int, total: int
    ) -> None:
        """Hands a packet to the outside, verified."""
        datagram = message[IP : IP + total]
        payload = datagram[20:]
        if message[0] & offload.NEEDS_CSUM:
            # The guest left this checksum to be computed, and none but the packet's own can be trusted.
            offset = _CSUM_OFFSETS.get(protocol)
            if message[6:10] != offload.CSUM_START.to_bytes(2, "little") + (offset or 0).to_bytes(2, "little"):
                interface.statistics.drop(Drop.OFFLOAD)
                return
        elif not self._is_correct(message, source, destination, protocol, payload):
            interface.statistics.drop(Drop.CHECKSUM)
            return
        gso_size = message[4] | message[5] << 8 if message[1] else 0
        ttl = message[34] - (destination not in self._own)
        self._outside.packet(
            interface, Packet(source, destination, protocol, message[27], ttl, gso_size, datagram, payload)
        )

    @staticmethod
    def _is_correct(message: memoryview, source: int, destination: int, protocol: int, transport: memoryview) -> bool:
        """Whether the transport's checksum is correct, or left to be computed, or of a protocol whose checksums are
        its receiver's affair."""
        if message[0] & offload.NEEDS_CSUM:
            return True
        if protocol == ipv4.TCP:
            return is_correct(transport, initial=pseudo_header_sum(source, destination, protocol, len(transport)))
        if protocol == ipv4.UDP:
            if not transport[6] and not transport[7]:  # the sender computed none (RFC 768)
                return True
            return is_correct(transport, initial=pseudo_header_sum(source, destination, protocol, len(transport)))
        return protocol != ipv4.ICMP or is_correct(transport)

    # Into the network.

    def deliver(
        self,
        interface: Interface,
        source: int,
        destination: int,
        protocol: int,
        parts: Sequence[Buffer],
        gso_size: int,
        ttl: int,
        tos: int,
    ) -> bool:
        """A packet from outside to the guest; as Network.deliver says."""
        now = self._clock()
        first = parts[0]
        length = sum(map(len, parts))
        data = 0
        if destination != interface.address:
            interface.statistics.drop(Drop.UNKNOWN_DESTINATION)
            return False
        if protocol == 6:
            header_length = (first[12] >> 4) * 4
            data = length - header_length
            link = offload.tcp_segments(header_length, gso_size) if 0 < gso_size < data else offload.TCP_NEEDS_CSUM
        else:
            link = offload.UDP_NEEDS_CSUM if protocol == 17 else offload.VALID
        fits = length + 20 <= (ipv4.LONGEST if 0 < gso_size < data else self._mtu)
        if not fits and (protocol == 6 or length + 20 > ipv4.LONGEST):
            interface.statistics.drop(Drop.OVERSIZED)
            return False
        if source not in self._services and not self._admitted(interface, source, destination, protocol, first, now):
            return False
        if not fits:
            return self._deliver_fragments(interface, source, protocol, parts, ttl, tos, now)
        header = ipv4.header(source, destination, protocol, length, ttl, tos)
        head = b"".join((link, ethernet.header.pack(interface.mac, self.mac, ethernet.IPV4), header))
        return self._switch.send(interface, [head, *parts], TRANSPORT + length, now)

    def _deliver_fragments(
        self,
        interface: Interface,
        source: int,
        protocol: int,
        parts: Sequence[Buffer],
        ttl: int,
        tos: int,
        now: float,
    ) -> bool:
        """A datagram that is longer than the MTU, such as a DNS answer from elsewhere. Nothing can be left to be
        computed of its checksum, which is in one fragment and about all of them."""
        transport = b"".join(parts)
        if protocol == ipv4.UDP:
            sum_ = checksum(transport[:6], b"\0\0", transport[8:], initial=int.from_bytes(transport[6:8], "big"))
            transport = transport[:6] + (sum_ or 0xFFFF).to_bytes(2, "big") + transport[8:]
        self._identification = self._identification % 0xFFFF + 1
        frame = offload.VALID + ethernet.header.pack(interface.mac, self.mac, ethernet.IPV4)
        sent = True
        for packet in ipv4.fragments(
            source, interface.address, protocol, transport, self._mtu, ttl, tos, self._identification
        ):
            sent = self._switch.send(interface, [frame, packet], len(frame) + len(packet), now) and sent
        return sent

    def _admitted(
        self, interface: Interface, source: int, destination: int, protocol: int, transport: Buffer, now: float
    ) -> bool:
        """Whether a packet from outside may go to the guest; counted if not."""
        key = b""
        if protocol == 6 or protocol == 17:
            key = four_tuple.pack(
                destination, source, transport[2] << 8 | transport[3], transport[0] << 8 | transport[1]
            )
            if protocol == 17:
                key += UDP_SUFFIX
        flow = interface.flows.get(key)
        way = None if flow is None else (flow.back if flow.initiator is interface else flow.there)
        if way is None or way.version != self._switch.forwarding.version:
            way = self._way_in(interface, flow, source, protocol, transport)
        if way.drop is not None:
            interface.statistics.drop(way.drop)
            return False
        if (
            flow is not None
            and flow.state is State.ESTABLISHED
            and not (protocol == 6 and transport[13] & _SYN_FIN_RST)
        ):
            flow.last = now
            return True
        if self._firewall.track(protocol, None, interface, source, destination, memoryview(transport), now):
            return True
        interface.statistics.drop(Drop.FIREWALL)
        return False

    def _way_in(
        self, interface: Interface, flow: Flow | None, source: int, protocol: int, transport: Buffer
    ) -> Way:
        """The way of a packet from outside, and of all others of its flow from now on."""
        forwarding = self._switch.forwarding
        begun = flow is not None and flow.initiator is interface
        if flow is not None:
            source = flow.server if begun else flow.client
        if (flow is not None and flow.beside_routes) or source in self._own:
            way = Way(forwarding.version, None)
        else:
            way = forwarding.inward(interface, source, protocol, rule_port(protocol, transport))
        if flow is not None:
            if begun:
                flow.back = way
            else:
                flow.there = way
        return way

    def unreachable(
        self, interface: Interface, quote: bytes, code: int, source: int | None = None, mtu: int = 0
    ) -> None:
        """As Network.unreachable says."""
        self._send_error(interface, icmp.UNREACHABLE, code, quote, source, mtu)

    def time_exceeded(self, interface: Interface, quote: bytes, source: int | None = None) -> None:
        """As Network.time_exceeded says."""
        self._send_error(interface, icmp.TIME_EXCEEDED, 0, quote, source, 0)

    def _send_error(
        self, interface: Interface, kind: int, code: int, quote: bytes, source: int | None, mtu: int
    ) -> None:
        if not icmp.may_be_told(quote):
            return
        if not interface.errors.take(1, self._clock()):
            interface.statistics.drop(Drop.RATE)
            return
        error = icmp.error(kind, code, quote, mtu)
        teller = interface.subnet.router if source is None else source
        self._send_ipv4(interface, teller, interface.address, ipv4.ICMP, error)

    def _send_datagram(
        self, interface: Interface, mac: bytes, source: int, source_port: int, destination: int, port: int, data: bytes
    ) -> None:
        datagram = udp.header(source, source_port, destination, port, len(data)) + data
        packet = ipv4.header(source, destination, ipv4.UDP, len(datagram)) + datagram
        self._send(interface, mac, self.mac, ethernet.IPV4, packet, offload.UDP_NEEDS_CSUM)

    def _send_ipv4(self, interface: Interface, source: int, destination: int, protocol: int, transport: bytes) -> None:
        packet = ipv4.header(source, destination, protocol, len(transport)) + transport
        self._send(interface, interface.mac, self.mac, ethernet.IPV4, packet)

    def _send(
        self,
        interface: Interface,
        mac: bytes,
        source_mac: bytes,
        ethertype: int,
        packet: bytes,
        link: bytes = offload.VALID,
    ) -> None:
        message = b"".join((link, ethernet.header.pack(mac, source_mac, ethertype), packet))
        self._switch.send(interface, [message], len(message), self._clock())
