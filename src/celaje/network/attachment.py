"""An attached interface, with everything that belongs to it: its flows, its ports on the host, its rules, its link.

What messages say in text becomes numbers here; what is no address, network or MAC address is refused by name.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable

import msgspec

from celaje.errors import InputError
from celaje.network import ipv4, messages
from celaje.network.buffers import Buffer
from celaje.network.destinations import DNS_LINK_LOCAL, DNS_PORT, METADATA, METADATA_PORT, Opened
from celaje.network.interface import Interface, InterfaceConfig
from celaje.network.link import Link
from celaje.network.messages import Attach, Bandwidth, HostPort, MetadataFacts, PublicPort, Service, Update
from celaje.network.metadata import InstanceFacts, MetadataHandler, metadata_service
from celaje.network.nat import InterfaceFlows, Nat
from celaje.network.network import Network, NetworkConfig, check_bandwidth
from celaje.network.public_pool import PublicPool
from celaje.network.public_ports import AdmittedPorts, PublicPorts, admitted_ports
from celaje.network.security_group import Rule, SecurityGroup
from celaje.network.stream_service import ServiceMaker, dns_over_tcp
from celaje.network.subnet import Subnet

_PROTOCOLS = {"tcp": ipv4.TCP, "udp": ipv4.UDP, "icmp": ipv4.ICMP, "any": None}


def address_number(text: str) -> int:
    """An IPv4 address as a number. InputError if it is none."""
    try:
        return int(ipaddress.IPv4Address(text))
    except ValueError as error:
        raise InputError(f"{text!r} is no IPv4 address; write one such as 10.77.0.10") from error


def network_of(text: str) -> ipaddress.IPv4Network:
    """`a.b.c.d/n`. InputError if it is none."""
    try:
        return ipaddress.IPv4Network(text, strict=False)
    except ValueError as error:
        raise InputError(f"{text!r} is no IPv4 network; write one such as 10.77.0.0/16") from error


def mac_bytes(text: str) -> bytes:
    """Six hexadecimal pairs. InputError if it is something else."""
    try:
        mac = bytes.fromhex(text.replace(":", ""))
    except ValueError:
        mac = b""
    if len(mac) != 6 or text.count(":") != 5:
        raise InputError(f"{text!r} is no MAC address; write one such as 52:54:00:12:34:56")
    return mac


def network_config(settings: messages.NetworkSettings) -> NetworkConfig:
    """The core's, from a message's. InputError if it is none."""
    if not settings.blocks:
        raise InputError(f"the network {settings.name!r} has no block of addresses; give it one such as 10.77.0.0/16")
    first, *further = map(subnet_of, settings.blocks)
    return NetworkConfig(
        subnet=first.first,
        prefix_length=first.prefix_length,
        further=tuple(further),
        domain=settings.domain,
        mtu=settings.mtu,
    )


def subnet_of(text: str) -> Subnet:
    """`a.b.c.d/n`, which begins at its first address. InputError if it does not, or is something else."""
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as error:
        raise InputError(
            f"{text!r} is no subnet ({error}); write one such as 10.77.0.0/16, which begins at its first address"
        ) from error
    return Subnet(int(network[0]), network.prefixlen)


def security_group(group: messages.SecurityGroup) -> SecurityGroup:
    """The core's, from a message's. A group without outward rules admits nothing outward."""
    inward = tuple(_rule(rule) for rule in group.rules if rule.direction == "in")
    outward = tuple(_rule(rule) for rule in group.rules if rule.direction == "out")
    return SecurityGroup(group.name, inward, outward)


def _rule(rule: messages.Rule) -> Rule:
    remote: tuple[int, int] | str
    if rule.remote.startswith("group:"):
        remote = rule.remote[len("group:") :]
    else:
        network = network_of(rule.remote)
        remote = (int(network[0]), network.prefixlen)
    if not 0 <= rule.first_port <= rule.last_port <= 65_535:
        raise InputError(f"a rule's ports must be from 0 to 65535 in order, and are {rule.first_port}-{rule.last_port}")
    ports = (rule.first_port, rule.last_port)
    return Rule(_PROTOCOLS[rule.protocol], remote, ports, rule.icmp_type, rule.icmp_code)


class Attachment:
    """Made from an Attach; InputError or HostError if it cannot be had, and then nothing of it is left. Frames flow
    from `start` on."""

    def __init__(
        self,
        network: Network,
        config: NetworkConfig,
        nat: Nat,
        metadata: MetadataHandler | None,
        pool: PublicPool | None,
        request: Attach,
    ) -> None:
        self._network = network
        self._config = config
        self._nat = nat
        self._metadata = metadata
        self._pool = pool
        self.request = request
        self._link: Link | None = None
        groups = [security_group(one) for one in (*request.other_groups, *request.groups)]
        admitted = self._admitted(request.groups)
        subnet = config.blocks[0] if request.subnet is None else subnet_of(request.subnet)
        opened = self._opened(subnet, request.host_ports, request.services)
        interface = InterfaceConfig(
            name=request.interface,
            mac=mac_bytes(request.mac),
            host_name=request.host_name,
            address=None if request.address is None else address_number(request.address),
            subnet=None if request.subnet is None else subnet,
            groups=tuple(group.name for group in request.groups),
            to_guest=request.bandwidth.to_guest,
            from_guest=request.bandwidth.from_guest,
        )
        self.interface: Interface = network.attach(interface, self._transmit)
        # Of others' flows, by rules that come with this one for groups that they are in.
        self.cut = network.set_security_groups(groups)
        self.flows: InterfaceFlows = nat.attached(self.interface)
        self.flows.opened = opened
        try:
            self._set_services()
            self._set_metadata(self._metadata_service(request.metadata, request.groups))
            is_real = self._join_pool()
            self.ports = PublicPorts(self.flows, request.public_address, request.forwards, admitted, is_real)
        except BaseException:
            self._leave()
            raise

    def _join_pool(self) -> bool:
        """Whether the public address is one of the pool's, and this interface's now."""
        public = self.request.public_address
        if self._pool is None or public is None or not self._pool.has(address_number(public)):
            return False
        self.flows.exit = self._pool.add(address_number(public), self.interface)
        return True

    def _leave(self) -> None:
        if self._pool is not None:
            self._pool.remove(self.interface)
        self._nat.detached(self.interface)
        self._network.detach(self.interface)

    def start(self, connection: socket.socket, received: Callable[[], None], closed: Callable[[], None]) -> None:
        """From now on `connection` carries frames. `received` follows each batch of them; `closed` is called when the
        machine has gone."""
        nat = self._nat
        receive, interface = self._network.receive, self.interface

        def batch() -> float:
            nat.settle()
            received()
            return interface.resume_at

        self._link = Link(
            nat.loop, connection, lambda message: receive(interface, message), batch, self._congested, closed
        )
        # The link takes messages without us between from now on.
        self.interface.transmit = self._link.transmit

    def has_ended(self) -> bool:
        """Whether the machine has gone, though nobody was told yet."""
        return self._link is not None and self._link.has_ended()

    def close(self) -> None:
        """Detached: nothing of it is left but its address."""
        self.ports.close()
        self._leave()
        if self._link is not None:
            self._link.close()

    def _transmit(self, _parts: list[Buffer]) -> bool:
        return False  # nobody is told anything before Attached

    def _congested(self, waits: bool) -> None:
        if waits:
            self.flows.congested = True
        else:
            self.flows.relieve()

    # What can change.

    def update(self, request: Update) -> int:
        """As Update promises; how many flows were cut. InputError or HostError if it cannot be; what was stays."""
        groups = None if request.groups is None else [security_group(one) for one in request.groups]
        others = [security_group(one) for one in request.other_groups or ()]
        was = self.request
        opened = self._opened(
            self.interface.subnet,
            was.host_ports if request.host_ports is None else request.host_ports,
            was.services if request.services is None else request.services,
        )
        admitted = None if request.groups is None else self._admitted(request.groups)
        facts = was.metadata if request.metadata is None else request.metadata
        metadata = self._metadata_service(facts, was.groups if request.groups is None else request.groups)
        if request.bandwidth is not None:
            check_bandwidth(request.bandwidth.to_guest, request.bandwidth.from_guest)
        if request.forwards is not None:
            self.ports.set_forwards(request.forwards)
        cut = self._nat.set_opened(self.flows, opened)
        if others:
            cut += self._network.set_security_groups(others)
        if groups is not None:
            cut += self._network.set_security_groups(groups)
            cut += self._network.set_groups(self.interface, tuple(group.name for group in groups))
        if admitted is not None:
            self.ports.set_admitted(admitted)
        if request.bandwidth is not None:
            self._network.set_bandwidth(self.interface, request.bandwidth.to_guest, request.bandwidth.from_guest)
        self._set_metadata(metadata)
        self.request = _updated(was, request)
        return cut

    def _admitted(self, groups: Iterable[messages.SecurityGroup]) -> AdmittedPorts:
        return admitted_ports((rule for group in groups for rule in group.rules), self._network.blocks)

    @staticmethod
    def _opened(subnet: Subnet, host_ports: Iterable[HostPort], services: Iterable[Service]) -> Opened:
        ports = {}
        for one in host_ports:
            key = (_PROTOCOLS[one.protocol] or 0, subnet.router, one.port or one.host_port)
            ports[key] = (ipv4.text(address_number(one.host_address)), one.host_port)
        for service in services:
            key = (ipv4.TCP, address_number(service.address), service.port)
            ports[key] = (ipv4.text(address_number(service.host_address)), service.host_port)
        return Opened(ports)

    def _set_services(self) -> None:
        services = self.flows.services
        interface = self.interface
        dns = dns_over_tcp(lambda query, answer: self._network.resolve(interface, query, answer))
        services[self._config.dns, DNS_PORT] = dns
        services[DNS_LINK_LOCAL, DNS_PORT] = dns

    def _metadata_service(
        self, facts: MetadataFacts | None, groups: Iterable[messages.SecurityGroup]
    ) -> ServiceMaker | None:
        if facts is None or self._metadata is None:
            return None
        about = InstanceFacts(
            facts,
            self.request.mac,
            self.address,
            str(self.interface.subnet),
            self.request.public_address,
            tuple(group.name for group in groups),
        )
        return metadata_service(about, self._metadata)

    def _set_metadata(self, service: ServiceMaker | None) -> None:
        if service is not None:
            self.flows.services[METADATA, METADATA_PORT] = service

    def reconsider(self) -> None:
        """Rules have changed, perhaps those of a group that this interface is in."""
        self._nat.reconsider(self.flows)

    # What can be asked.

    def is_called(self, name: str) -> bool:
        """Whether a person means this interface."""
        return name in (self.request.interface, self.request.host_name, self.address, self.request.public_address)

    @property
    def address(self) -> str:
        return ipv4.text(self.interface.address)

    def attached(self) -> messages.Attached:
        """The answer to Attach."""
        return messages.Attached(
            address=self.address,
            prefix_length=self.interface.subnet.prefix_length,
            router=ipv4.text(self.interface.subnet.router),
            dns=ipv4.text(self._config.dns),
            mtu=self._config.mtu,
            public_address=self.request.public_address,
            ports=self.listed_ports(),
        )

    def listed_ports(self) -> tuple[PublicPort, ...]:
        return self.ports.listed()

    def listed(self) -> messages.Interface:
        """For the list."""
        request = self.request
        return messages.Interface(
            interface=request.interface,
            host_name=request.host_name,
            mac=request.mac,
            address=self.address,
            public_address=request.public_address,
            ports=self.listed_ports(),
        )

    def counters(self) -> dict[str, int]:
        """For statistics."""
        return {
            **self.interface.statistics.counters(),
            "tracked flows": self._network.flows(self.interface),
            "TCP connections": len(self.flows.streams),
            "UDP flows": len(self.flows.datagrams),
            "waiting messages": self._link.waiting if self._link is not None else 0,
        }


def _updated(was: Attach, request: Update) -> Attach:
    """What an Attach would say now."""
    bandwidth: Bandwidth = was.bandwidth if request.bandwidth is None else request.bandwidth
    return msgspec.structs.replace(
        was,
        groups=was.groups if request.groups is None else request.groups,
        other_groups=was.other_groups if request.other_groups is None else request.other_groups,
        forwards=was.forwards if request.forwards is None else request.forwards,
        host_ports=was.host_ports if request.host_ports is None else request.host_ports,
        services=was.services if request.services is None else request.services,
        bandwidth=bandwidth,
        metadata=was.metadata if request.metadata is None else request.metadata,
    )
