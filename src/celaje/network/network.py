"""A network: switch, router, firewall, DHCP and DNS for any number of machines, without I/O.

    guest's frames --receive--> Network --Interface.transmit--> guests' frames
                                |     ^
                 Outside.packet |     | deliver, answers of Outside.resolve
                                v     |
                      NAT, services, the host's resolvers

Frames between guests are passed on untouched, 64 KiB ones included. Nothing that a guest sends raises; what is wrong
is counted in its interface's statistics and dropped. Everything happens on the caller's thread, and time is what the
caller's clock says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from celaje.errors import InputError
from celaje.network import ethernet, ipv4
from celaje.network.address_pool import AddressPool, Assignment
from celaje.network.bandwidth import Shaper, bucket
from celaje.network.buffers import Buffer
from celaje.network.dhcp import DhcpServer, DhcpSettings
from celaje.network.dns import Names, NameServer
from celaje.network.firewall import Firewall
from celaje.network.forwarding import Plan
from celaje.network.interface import Interface, InterfaceConfig, Transmit
from celaje.network.outside import Outside, Packet
from celaje.network.router import Router
from celaje.network.security_group import Direction, SecurityGroup
from celaje.network.statistics import Drop
from celaje.network.subnet import Blocks, Subnet, Subnets, check_address
from celaje.network.switch import Switch

_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_ADDRESS_NAME = re.compile(r"ip-([0-9]{1,3})-([0-9]{1,3})-([0-9]{1,3})-([0-9]{1,3})")


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """What a network is. The defaults are those of `celaje vm`: 10.77.0.0/16, router .0.1, DNS server .0.2."""

    subnet: int = 0x0A4D0000  # the first block: DNS is its second address, and machines are in it if nobody says where
    prefix_length: int = 16
    further: tuple[Subnet, ...] = ()  # more blocks
    mtu: int = 1500  # bytes of an IP packet, 576 to 9001
    domain: str = "celaje.internal"
    lease_seconds: int = 3600
    # On-link addresses of 169.254/16 besides the metadata service's and the DNS server's second one
    # (169.254.169.253).
    services: tuple[int, ...] = (0xA9FEA9FA,)  # 169.254.169.250
    first_lease: int = 10  # the first address that is given out, counted from the subnet's
    flows: int = 32768  # tracked connections of one interface; more make it forget the oldest

    @property
    def blocks(self) -> tuple[Subnet, ...]:
        """All addresses of the network."""
        return (Subnet(self.subnet, self.prefix_length), *self.further)

    @property
    def router(self) -> int:
        """The router's address in the first block: its first."""
        return self.subnet + 1

    @property
    def dns(self) -> int:
        """The DNS server's address: the first block's second."""
        return self.subnet + 2


class Network:
    """`clock`: seconds, never going back. `assignments`: those of an earlier Network of the same network, to be
    kept. `blocks`: the configuration's, if others are to know them too."""

    def __init__(
        self,
        config: NetworkConfig,
        outside: Outside,
        clock: Callable[[], float],
        assignments: Iterable[Assignment] = (),
        blocks: Blocks | None = None,
    ) -> None:
        _check_config(config)
        self.config = config
        self.blocks = blocks or Blocks(config.blocks)
        self._clock = clock
        self._interfaces: dict[str, Interface] = {}
        self._by_mac: dict[bytes, Interface] = {}
        self._by_host_name: dict[str, dict[str, Interface]] = {}  # in lower case; by their names
        self._by_public_name: dict[str, Interface] = {}
        self.publics: dict[int, Interface] = {}
        """Interfaces by their public addresses."""
        self.on_public: Callable[[int, bool], None] | None = None
        """Is told of each public address that is an interface's from now on, or (False) no more."""
        self._subnets = Subnets(self.blocks)
        self._dhcp_settings = DhcpSettings()
        self._own_names = {config.router: "router", config.dns: "dns"}
        self._pool = AddressPool(config.subnet, config.prefix_length, config.first_lease, assignments)
        self._firewall = Firewall(config.flows)
        self._switch = Switch(self.blocks, config.mtu, self._firewall, clock)
        self._name_server = NameServer(
            domain=config.domain,
            is_inside=self.blocks.has,
            names=Names(self._addresses_of, self._host_name_of, self._of_public_name),
            resolve=outside.resolve,
            clock=clock,
        )
        self._router = Router(
            address=config.router,
            dns_address=config.dns,
            services=config.services,
            mtu=config.mtu,
            switch=self._switch,
            firewall=self._firewall,
            name_server=self._name_server,
            outside=outside,
            clock=clock,
        )
        # One message of the link from the guest (virtio_net_hdr, Ethernet frame). Never raises.
        self.receive: Callable[[Interface, memoryview], None] = self._switch.receive

    def attach(self, config: InterfaceConfig, transmit: Transmit) -> Interface:
        """A new interface. InputError if the name, the MAC address or the address is taken, or the address is none of
        the subnet's, or the subnet has no free one, or is none that can be. Messages for the guest may be transmitted
        from now on."""
        now = self._clock()
        self._check(config)
        subnet = self._subnets.found(config.subnet or self.config.blocks[0])
        if config.subnet is None:
            address = self._pool.assign(config.name, config.mac, config.address, self._switch.by_address)
        else:
            address = self._said_address(config, subnet)
        interface = Interface(config, address, subnet, transmit, now)
        self._interfaces[config.name] = interface
        self._by_mac[config.mac] = interface
        self._by_host_name.setdefault(interface.host_name.lower(), {})[config.name] = interface
        self._switch.by_address[address] = interface
        self._switch.forwarding.changed()
        if self._subnets.enter(subnet):
            self._router.add_subnet(subnet, self._dhcp_server(subnet))
        self._firewall.attach(interface, config.groups)
        self.set_bandwidth(interface, config.to_guest, config.from_guest)
        return interface

    def detach(self, interface: Interface) -> None:
        """The interface and all its flows are gone; its address stays assigned to it."""
        if self._interfaces.get(interface.name) is not interface:
            return
        del self._interfaces[interface.name]
        del self._by_mac[interface.mac]
        host_name = interface.host_name.lower()
        del self._by_host_name[host_name][interface.name]
        if not self._by_host_name[host_name]:
            del self._by_host_name[host_name]
        for other in tuple(interface.others.values()):
            self.remove_address(interface, other)
        self.set_public_name(interface, None)
        self.set_public_address(interface, None)
        del self._switch.by_address[interface.address]
        self._switch.forwarding.changed()
        if self._subnets.leave(interface.subnet):
            self._router.remove_subnet(interface.subnet)
        self._switch.waiting.discard(interface)
        self._firewall.detach(interface)

    def add_address(self, interface: Interface, address: int) -> Interface:
        """One more address of the interface's, of its subnet and nobody's: what stands for it (see Interface).
        InputError where it cannot be had."""
        self._check_free(interface.subnet, address)
        other = interface.further(address, self._clock())
        interface.others[address] = self._switch.by_address[address] = other
        self._firewall.attach(other, interface.groups)
        self._switch.forwarding.changed()
        return other

    def remove_address(self, interface: Interface, other: Interface) -> None:
        """That address is nobody's any more, and its flows are gone."""
        if interface.others.pop(other.address, None) is not other:
            return
        self.set_public_name(other, None)
        self.set_public_address(other, None)
        del self._switch.by_address[other.address]
        self._switch.forwarding.changed()
        self._switch.waiting.discard(other)
        self._firewall.detach(other)

    @property
    def interfaces(self) -> tuple[Interface, ...]:
        """Those that are attached, in the order they came."""
        return tuple(self._interfaces.values())

    @property
    def assignments(self) -> tuple[Assignment, ...]:
        """Which addresses belong to whom; changes only in `attach`."""
        return self._pool.assignments

    def deliver(
        self,
        interface: Interface,
        source: int,
        destination: int,
        protocol: int,
        parts: Sequence[Buffer],
        gso_size: int = 0,
        ttl: int = 64,
        tos: int = 0,
    ) -> bool:
        """Sends an IPv4 packet from outside to the guest: `parts` are its transport header and data, whose pieces are
        not joined.

        TCP's and UDP's checksum field holds the pseudo header's sum (checksum.pseudo_header_sum; the guest or its
        device does the rest), any other protocol's is complete. With `gso_size`, TCP only, data longer than that is
        cut into segments by the guest's device; without, a segment must fit the MTU. A datagram that does not travels
        in fragments.

        False if it was dropped (and counted): the firewall does not admit it, or the guest does not read. A packet of
        a flow that is not known yet is admitted as `admit` says, its client being `source`; services' packets always
        are.
        """
        return self._router.deliver(interface, source, destination, protocol, parts, gso_size, ttl, tos)

    def set_plan(self, plan: Plan | None) -> None:
        """Routes, access lists, DHCP options and so on are these from the next packet on; None: one route everywhere
        and no access lists."""
        if plan is not None and plan.blocks is not None:
            self.blocks.replace(plan.blocks)
        self._switch.forwarding.set_plan(plan)
        self._name_server.refuses = plan is not None and not plan.dns
        settings = DhcpSettings() if plan is None else plan.dhcp
        if settings != self._dhcp_settings:
            self._dhcp_settings = settings
            for subnet in self._subnets:
                self._router.set_dhcp_server(subnet, self._dhcp_server(subnet))

    def set_public_address(self, interface: Interface, address: str | None) -> None:
        """That it is known by outside: without one, a route to an internet gateway leads it nowhere."""
        if interface.public_address == address:
            return
        former = interface.public_address
        if former is not None and self.publics.get(number := ipv4.number(former)) is interface:
            del self.publics[number]
            if self.on_public is not None:
                self.on_public(number, False)
        interface.public_address = address
        if address is not None:
            self.publics[ipv4.number(address)] = interface
            if self.on_public is not None:
                self.on_public(ipv4.number(address), True)
        self._switch.forwarding.changed()

    def leaves_as(self, interface: Interface, destination: int) -> str | None:
        """The public address in whose name the interface's packets to somewhere outside go; None: in nobody's."""
        return None if self._router.is_own(destination) else self._switch.forwarding.leaves_as(interface, destination)

    def admit(
        self,
        interface: Interface,
        protocol: int,
        client: int,
        source: int,
        source_port: int,
        port: int,
        beside_routes: bool = False,
    ) -> bool:
        """Whether the guest's rules let `client` (the real address, on the host's side) connect to its `port` (TCP or
        UDP; ICMP: the echo identifier in both ports). If so, the flow is tracked from now on: packets that are
        delivered from `source`:`source_port` to `port` are the client's, and the guest's answers are admitted.
        `beside_routes`: neither routes nor access lists are asked, now or later."""
        if not beside_routes:
            drop = self._switch.forwarding.welcomes(interface, client, protocol, source_port, port)
            if drop is not None:
                interface.statistics.drop(drop)
                return False
        return self._firewall.admit(
            interface, protocol, client, source, source_port, port, self._clock(), beside_routes
        )

    def admits(
        self, interface: Interface, direction: Direction, protocol: int, remote: int, port: int, code: int = 0
    ) -> bool:
        """What the rules say now, tracking nothing. `port` as in Rule.ports; for ICMP its type, and `code` its
        code."""
        return self._firewall.admits(
            interface, direction, protocol, remote, port << 8 | code if protocol == ipv4.ICMP else port
        )

    def is_service(self, address: int) -> bool:
        """Whether the address is a service's, which no rules are about."""
        return self._router.is_service(address)

    def forget(self, interface: Interface, protocol: int, remote: int, remote_port: int, port: int) -> None:
        """A flow between the guest's `port` and outside is over (its connection is closed): it need not time out.
        Does nothing if there is none."""
        self._firewall.forget(interface, protocol, remote, remote_port, port)

    def set_security_groups(self, groups: Iterable[SecurityGroup]) -> int:
        """Adds groups, or puts other rules in the place of those with the same name; answers how many flows were cut
        because nothing admits them any more. A group that is mentioned and was never set admits nothing, and has its
        members all the same."""
        return self._firewall.set_security_groups(groups)

    def remove_security_groups(self, names: Iterable[str]) -> int:
        """These have no rules any more; answers how many flows were cut."""
        return self._firewall.remove_security_groups(names)

    def set_groups(self, interface: Interface, groups: tuple[str, ...]) -> int:
        """The interface is in these groups now, with all its addresses; answers how many flows were cut."""
        return sum(self._firewall.set_groups(one, groups) for one in (interface, *interface.others.values()))

    def set_source_dest_check(self, interface: Interface, checked: bool) -> None:
        """Whether the guest may only send from its own addresses, and is only sent what is for them."""
        for one in (interface, *interface.others.values()):
            one.source_dest_check = checked
        self._switch.forwarding.changed()

    def set_bandwidth(self, interface: Interface, to_guest: int | None, from_guest: int | None) -> None:
        """Bytes a second, at least 1,000; None: no limit."""
        check_bandwidth(to_guest, from_guest)
        now = self._clock()
        interface.from_guest = None if from_guest is None else bucket(from_guest, now)
        interface.resume_at = 0.0
        waited = [] if interface.to_guest is None else interface.to_guest.all()
        interface.to_guest = None if to_guest is None else Shaper(to_guest, now)
        for other in interface.others.values():
            other.to_guest = interface.to_guest
        for message in waited:
            self._switch.send(interface, [message], len(message), now)

    def hail(self, interface: Interface) -> None:
        """Asks the guest to say something, by ARP: any that runs does."""
        self._router.hail(interface)

    def set_public_name(self, interface: Interface, name: str | None) -> None:
        """A full name, of any domain, by which the network's DNS knows the interface too; None: no such name any more.
        InputError if it can be none."""
        if name is not None:
            check_domain(name)
        for former in [one for one, whose in self._by_public_name.items() if whose is interface]:
            del self._by_public_name[former]
        if name is not None:
            self._by_public_name[name.lower()] = interface

    def resolve(self, interface: Interface, query: bytes, answer: Callable[[bytes], None]) -> bool:
        """A DNS query that came over TCP, without its length; `answer` is called with the response, now or later. False
        if it never will be: the query is beyond an answer, or one more than a second allows."""
        if not interface.requests.take(1, self._clock()):
            interface.statistics.drop(Drop.RATE)
            return False
        if not self._name_server.answer(interface.name, query, None, answer):
            interface.statistics.drop(Drop.MALFORMED)
            return False
        return True

    def unreachable(
        self, interface: Interface, quote: bytes, code: int, source: int | None = None, mtu: int = 0
    ) -> None:
        """Tells the guest that its packet (Packet.quote) did not arrive: ICMP destination unreachable with a code of
        icmp.py, from `source` (None: the router). With FRAGMENTATION_NEEDED, `mtu` is what would fit. Limited in
        rate."""
        self._router.unreachable(interface, quote, code, source, mtu)

    def time_exceeded(self, interface: Interface, quote: bytes, source: int | None = None) -> None:
        """Tells the guest that its packet's TTL ran out on the way, at `source` (None: the router). Limited in
        rate."""
        self._router.time_exceeded(interface, quote, source)

    def poll(self, now: float) -> float | None:
        """Does what is due (flows time out, queued frames go on, DNS questions are given up). Answers when to be
        called again at the latest; sooner does no harm, and `receive` or `deliver` may make it sooner: ask again
        after them."""
        self._firewall.flows.expire(now)
        self._name_server.expire(now)
        self._switch.send_due(now)
        deadlines = (self._firewall.flows.deadline, self._name_server.deadline, self._switch.deadline)
        return min((at for at in deadlines if at is not None), default=None)

    def flows(self, interface: Interface) -> int:
        """How many flows are tracked."""
        return len(interface.flows)

    def _check(self, config: InterfaceConfig) -> None:
        """Raises InputError if nothing can be attached so."""
        name, mac = config.name, config.mac
        if name in self._interfaces:
            raise InputError(
                f"an interface {name!r} is attached already; `celaje vm ls` shows whose it is; stop that first"
            )
        if not ethernet.is_unicast(mac) or mac == self._router.mac:
            raise InputError(
                f"the MAC address {ethernet.text(mac)} of {name!r} must be one of a single interface, and not the "
                "router's; leave it out to have one chosen"
            )
        other = self._by_mac.get(mac)
        if other is not None:
            raise InputError(
                f"the MAC address {ethernet.text(mac)} of {name!r} is that of {other.name!r}, which is attached; "
                "give one of them another, or plug it into another network: --network user,network=NAME"
            )
        if not _HOST_NAME.fullmatch(config.host_name or name):
            raise InputError(
                f"the host name {config.host_name or name!r} must be letters, digits and hyphens, at most 63, with no "
                "hyphen at either end (RFC 1123)"
            )
        check_bandwidth(config.to_guest, config.from_guest)

    def _said_address(self, config: InterfaceConfig, subnet: Subnet) -> int:
        """The address of an interface whose subnet is said. InputError if it cannot have it."""
        address = config.address
        if address is None:
            raise InputError(
                f"the interface {config.name!r} in the subnet {subnet} has no address; say one, or no subnet"
            )
        self._check_free(subnet, address)
        return address

    def _check_free(self, subnet: Subnet, address: int) -> None:
        check_address(subnet, address)
        other = self._switch.by_address.get(address)
        if other is not None:
            raise InputError(
                f"the address {ipv4.text(address)} belongs to {other.name!r}, which is attached; choose another one"
            )

    def _dhcp_server(self, subnet: Subnet) -> DhcpServer:
        config = self.config
        return DhcpServer(
            router=subnet.router,
            dns=config.dns,
            subnet=subnet.first,
            prefix_length=subnet.prefix_length,
            mtu=config.mtu,
            domain=config.domain,
            lease_seconds=config.lease_seconds,
            settings=self._dhcp_settings,
        )

    def _addresses_of(self, host_name: str) -> list[int]:
        found = [one.address for one in self._by_host_name.get(host_name, {}).values()]
        if not found and host_name in self._interfaces:
            found = [self._interfaces[host_name].address]
        if not found:
            address = address_in(host_name)
            found = [] if address is None or address not in self._switch.by_address else [address]
        return found or [address for address, name in self._own_names.items() if name == host_name]

    def _of_public_name(self, name: str) -> int | None:
        interface = self._by_public_name.get(name)
        return None if interface is None else interface.address

    def _host_name_of(self, address: int) -> str | None:
        interface = self._switch.by_address.get(address)
        return self._own_names.get(address) if interface is None else interface.host_name


def address_in(host_name: str) -> int | None:
    """The address in a name of EC2's form, ip-10-0-0-5; None if it is no such name."""
    matched = _ADDRESS_NAME.fullmatch(host_name)
    octets = [] if matched is None else [int(octet) for octet in matched.groups()]
    return int.from_bytes(bytes(octets), "big") if octets and max(octets) < 256 else None


def _check_config(config: NetworkConfig) -> None:
    """Raises InputError if there can be no such network."""
    Blocks(config.blocks)
    if not 576 <= config.mtu <= 9001:
        raise InputError(f"an MTU must be 576 to 9001 bytes, not {config.mtu}; 1500 is the usual one")
    check_domain(config.domain)


def check_domain(name: str) -> None:
    """InputError if it is no domain's name."""
    if len(name) > 200 or not all(_HOST_NAME.fullmatch(label) for label in name.split(".")):
        raise InputError(f"the domain {name!r} must be names with dots between them, like celaje.internal")


def check_bandwidth(to_guest: int | None, from_guest: int | None) -> None:
    """InputError if an interface cannot have these limits."""
    for what, rate in (("to", to_guest), ("from", from_guest)):
        if rate is not None and rate < 1000:
            raise InputError(f"a bandwidth {what} a guest must be at least 1,000 bytes a second, not {rate}")


__all__ = [
    "Assignment",
    "Interface",
    "InterfaceConfig",
    "Network",
    "NetworkConfig",
    "Outside",
    "Packet",
    "check_bandwidth",
]
