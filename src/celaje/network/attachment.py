"""An attached interface, with everything that belongs to it: its flows, its ports on the host, its rules, its link.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterable

import msgspec

from celaje.errors import HostError
from celaje.network import ipv4, messages
from celaje.network.buffers import Buffer
from celaje.network.destinations import DNS_LINK_LOCAL, DNS_PORT, METADATA, METADATA_PORT, Opened
from celaje.network.fingerprint import fingerprint
from celaje.network.group_file import check_groups
from celaje.network.group_rules import GroupRules
from celaje.network.interface import Interface, InterfaceConfig
from celaje.network.link import Link
from celaje.network.messages import Attach, HostPort, PublicPort, Service, Update
from celaje.network.metadata import InstanceFacts, MetadataHandler, MetadataService
from celaje.network.nat import InterfaceFlows, Nat
from celaje.network.network import Network, NetworkConfig, check_bandwidth, check_domain
from celaje.network.notation import PROTOCOLS, address_number, mac_bytes, subnet_of
from celaje.network.public_pool import PublicPool
from celaje.network.public_ports import LOOPBACK, AdmittedPorts, PublicPorts
from celaje.network.stream_service import dns_over_tcp
from celaje.network.subnet import Subnet

log = logging.getLogger(__name__)


class Attachment:
    """Made from an Attach; InputError or HostError if it cannot be had, and then nothing of it is left. Frames flow
    from `start` on."""

    def __init__(
        self,
        network: Network,
        config: NetworkConfig,
        nat: Nat,
        rules: GroupRules,
        metadata: MetadataHandler | None,
        pool: PublicPool | None,
        request: Attach,
    ) -> None:
        self._network = network
        self._config = config
        self._nat = nat
        self._rules = rules
        self._metadata = metadata
        self._pool = pool
        self.request = request
        self._link: Link | None = None
        self._service: MetadataService | None = None
        self._heard = (0, 0.0)  # frames of the guest's when they were last found to be more, and when that was
        said = (*request.other_groups, *request.groups)
        check_groups(dict.fromkeys(said))
        subnet = config.blocks[0] if request.subnet is None else subnet_of(request.subnet)
        opened = self._opened(subnet, request.host_ports, request.services)
        interface = InterfaceConfig(
            name=request.interface,
            mac=mac_bytes(request.mac),
            host_name=request.host_name,
            address=None if request.address is None else address_number(request.address),
            subnet=None if request.subnet is None else subnet,
            groups=_names(request),
            to_guest=request.bandwidth.to_guest,
            from_guest=request.bandwidth.from_guest,
        )
        self.interface: Interface = network.attach(interface, self._transmit)
        rules.say(said)
        self.flows: InterfaceFlows = nat.attached(self.interface)
        self.flows.opened = opened
        try:
            self._set_services()
            self._changed_metadata(request)()
            network.set_public_name(self.interface, request.public_name)
            is_real = self._join_pool(request.public_address)
            admitted = self._admitted(request.public_address)
            self.ports = PublicPorts(self.flows, request.public_address, request.forwards, admitted, is_real)
        except BaseException:
            self._leave()
            raise

    def _join_pool(self, public: str | None) -> bool:
        """Whether the public address is one of the pool's, and this interface's now."""
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
        was, now = self.request, _updated(self.request, request)
        opened = self._opened(self.interface.subnet, now.host_ports, now.services)
        said = (*(request.other_groups or ()), *(request.groups or ()))
        check_groups(dict.fromkeys(said))
        tell = self._changed_metadata(now)
        if now.public_name is not None:
            check_domain(now.public_name)
        check_bandwidth(now.bandwidth.to_guest, now.bandwidth.from_guest)
        cut = self._set_public_address(was.public_address, now.public_address)
        try:
            self.ports.set_forwards(now.forwards)
        except HostError:
            self._set_public_address(now.public_address, was.public_address)
            raise
        cut += self._nat.set_opened(self.flows, opened)
        cut += self._rules.say(said)
        if _names(now) != self.interface.groups:
            cut += self._network.set_groups(self.interface, _names(now))
        if now.bandwidth != was.bandwidth:
            self._network.set_bandwidth(self.interface, now.bandwidth.to_guest, now.bandwidth.from_guest)
        if now.public_name != was.public_name:
            self._network.set_public_name(self.interface, now.public_name)
        tell()
        self.request = now
        self.rules_changed()
        return cut

    def rules_changed(self) -> None:
        """Of groups that this interface is in, perhaps: its ports and NAT's flows follow."""
        try:
            self.ports.set_admitted(self._admitted(self.request.public_address))
        except HostError as error:
            # The rules hold all the same; what is missing is a place on the host.
            log.warning("%s: %s", self.request.interface, error)
        self._nat.reconsider(self.flows)

    def _admitted(self, public: str | None) -> AdmittedPorts:
        """What the interface's rules admit at a public address."""
        clients = LOOPBACK if public is not None and LOOPBACK.has(address_number(public)) else None
        return self._rules.admitted(self.interface.groups, clients)

    def _set_public_address(self, was: str | None, now: str | None) -> int:
        """The interface has the public address `now`; how many flows of the former one were cut. HostError if it
        cannot have it: then it has the former one."""
        if now == was:
            return 0
        former_exit = self.flows.exit
        is_real = self._join_pool(now)
        try:
            cut = self.ports.set_address(now, is_real, self._admitted(now))
        except HostError:
            self.flows.exit = former_exit
            self._leave_pool(now if is_real else None)
            self.ports.set_address(was, former_exit is not None, self._admitted(was))
            raise
        if not is_real:
            self.flows.exit = None
        self._leave_pool(was if former_exit is not None else None)
        return cut

    def _leave_pool(self, public: str | None) -> None:
        if self._pool is not None and public is not None:
            self._pool.remove_address(address_number(public))

    @staticmethod
    def _opened(subnet: Subnet, host_ports: Iterable[HostPort], services: Iterable[Service]) -> Opened:
        ports = {}
        for one in host_ports:
            key = (PROTOCOLS[one.protocol] or 0, subnet.router, one.port or one.host_port)
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

    def _changed_metadata(self, request: Attach) -> Callable[[], None]:
        """What makes the metadata service tell what `request` says. InputError, now, if that cannot be told."""
        facts = request.metadata
        if facts is None or self._metadata is None:
            return lambda: None
        about = InstanceFacts(
            facts,
            request.mac,
            self.address,
            str(self.interface.subnet),
            request.public_address,
            _names(request),
        )
        if self._service is not None:
            return self._service.changed(about)
        service = MetadataService(about, self._metadata)

        def begin() -> None:
            self._service = service
            self.flows.services[METADATA, METADATA_PORT] = service.serve

        return begin

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

    @property
    def fingerprint(self) -> str:
        """Of what it has."""
        return fingerprint(self.request)

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

    def hail(self, now: float) -> float | None:
        """Asks the guest whether it is there; how many seconds ago it was last found to have said something."""
        sent = self.interface.statistics.sent_frames
        if sent != self._heard[0]:
            self._heard = sent, now
        self._network.hail(self.interface)
        return now - self._heard[1] if sent else None

    def counters(self) -> dict[str, int]:
        """For statistics."""
        return {
            **self.interface.statistics.counters(),
            "tracked flows": self._network.flows(self.interface),
            "TCP connections": len(self.flows.streams),
            "UDP flows": len(self.flows.datagrams),
            "waiting messages": self._link.waiting if self._link is not None else 0,
        }


def _names(request: Attach) -> tuple[str, ...]:
    return tuple(group.name for group in request.groups)


def _updated(was: Attach, request: Update) -> Attach:
    """What an Attach would say now."""
    said = {
        name: value
        for name in ("groups", "other_groups", "forwards", "host_ports", "services", "bandwidth", "metadata")
        if (value := getattr(request, name)) is not None
    }
    for name in ("public_address", "public_name"):
        if getattr(request, name) is not msgspec.UNSET:
            said[name] = getattr(request, name)
    return msgspec.structs.replace(was, **said)
