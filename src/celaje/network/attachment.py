"""An attached interface, with everything that belongs to it: its flows, its ports on the host, its rules, its link."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterable

import msgspec

from celaje.errors import HostError, InputError
from celaje.network import ipv4, messages
from celaje.network.buffers import Buffer
from celaje.network.destinations import DNS_LINK_LOCAL, DNS_PORT, METADATA, METADATA_PORT, Opened
from celaje.network.fingerprint import fingerprint
from celaje.network.group_file import check_groups
from celaje.network.group_rules import GroupRules
from celaje.network.held_address import HeldAddress
from celaje.network.interface import Interface, InterfaceConfig
from celaje.network.link import Link
from celaje.network.messages import Attach, Forward, HostPort, PublicPort, SecondaryAddress, Service, Update
from celaje.network.metadata import InstanceFacts, MetadataHandler, MetadataService
from celaje.network.nat import InterfaceFlows, Nat
from celaje.network.network import Network, NetworkConfig, check_bandwidth, check_domain
from celaje.network.notation import PROTOCOLS, address_number, mac_bytes, subnet_of
from celaje.network.public_pool import PublicPool
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
            source_dest_check=request.source_dest_check,
        )
        self.interface: Interface = network.attach(interface, self._transmit)
        rules.say(said)
        self._others: dict[str, HeldAddress] = {}  # its secondary addresses
        try:
            self._first = self._held(self.interface, request.public_address, opened, request.forwards)
        except BaseException:
            network.detach(self.interface)
            raise
        try:
            self._set_services(self._first)
            self._changed_metadata(request)()
            network.set_public_name(self.interface, request.public_name)
            self._set_secondary(request.secondary, opened)
        except BaseException:
            self._leave()
            raise

    def _held(
        self, interface: Interface, public: str | None, opened: Opened, forwards: Iterable[Forward] = ()
    ) -> HeldAddress:
        return HeldAddress(interface, self._nat, self._rules, self._pool, public, forwards, opened)

    def _leave(self) -> None:
        for held in (self._first, *self._others.values()):
            held.close()
        self._network.detach(self.interface)

    @property
    def flows(self) -> InterfaceFlows:
        """Those of the first address."""
        return self._first.flows

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
        for one in (interface, *interface.others.values()):
            one.transmit = self._link.transmit

    def has_ended(self) -> bool:
        """Whether the machine has gone, though nobody was told yet."""
        return self._link is not None and self._link.has_ended()

    def close(self) -> None:
        """Detached: nothing of it is left but its address."""
        self._leave()
        if self._link is not None:
            self._link.close()

    def _transmit(self, _parts: list[Buffer]) -> bool:
        return False  # nobody is told anything before Attached

    def _congested(self, waits: bool) -> None:
        for held in (self._first, *self._others.values()):
            if waits:
                held.flows.congested = True
            else:
                held.flows.relieve()

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
        former = self._first.public_address
        cut = self._first.set_public_address(now.public_address)
        try:
            self._first.ports.set_forwards(now.forwards)
            cut += self._set_secondary(now.secondary, opened)
        except (HostError, InputError):
            self._first.ports.set_forwards(was.forwards)
            self._first.set_public_address(former)
            self._set_secondary(was.secondary, self._first.flows.opened)
            raise
        for held in (self._first, *self._others.values()):
            cut += self._nat.set_opened(held.flows, opened)
        cut += self._rules.say(said)
        if _names(now) != self.interface.groups:
            cut += self._network.set_groups(self.interface, _names(now))
        if now.bandwidth != was.bandwidth:
            self._network.set_bandwidth(self.interface, now.bandwidth.to_guest, now.bandwidth.from_guest)
        if now.public_name != was.public_name:
            self._network.set_public_name(self.interface, now.public_name)
        self._network.set_source_dest_check(self.interface, now.source_dest_check)
        tell()
        self.request = now
        self.rules_changed()
        return cut

    def rules_changed(self) -> None:
        """Of groups that this interface is in, perhaps: its ports and NAT's flows follow."""
        for held in (self._first, *self._others.values()):
            held.rules_changed()

    def routes_changed(self) -> None:
        """What it has begun, and would now begin in another public address's name, ends."""
        for held in (self._first, *self._others.values()):
            self._nat.reconsider(held.flows)

    def _set_secondary(self, wanted: Iterable[SecondaryAddress], opened: Opened) -> int:
        """These are the secondary addresses; how many flows of clients who came by other public ones were cut.
        InputError or HostError for one that cannot be had: those before it are there then."""
        said = {one.address: one for one in wanted}
        for address in [one for one in self._others if one not in said]:
            held = self._others.pop(address)
            held.close()
            self._network.remove_address(self.interface, held.interface)
        cut = 0
        for address, one in said.items():
            known = self._others.get(address)
            if known is None:
                known = self._add_secondary(one, opened)
            else:
                cut += known.set_public_address(one.public_address)
            self._network.set_public_name(known.interface, one.public_name)
        return cut

    def _add_secondary(self, said: SecondaryAddress, opened: Opened) -> HeldAddress:
        other = self._network.add_address(self.interface, address_number(said.address))
        try:
            held = self._held(other, said.public_address, opened)
        except BaseException:
            self._network.remove_address(self.interface, other)
            raise
        self._set_services(held)
        held.flows.services.update(self._first.flows.services)
        held.flows.congested = self._first.flows.congested
        self._others[said.address] = held
        return held

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

    def _set_services(self, held: HeldAddress) -> None:
        services, interface = held.flows.services, held.interface
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
            for held in (self._first, *self._others.values()):
                held.flows.services[METADATA, METADATA_PORT] = service.serve

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
        return tuple(port for held in (self._first, *self._others.values()) for port in held.ports.listed())

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
            "tracked flows": sum(map(self._network.flows, (self.interface, *self.interface.others.values()))),
            "TCP connections": sum(len(held.flows.streams) for held in (self._first, *self._others.values())),
            "UDP flows": sum(len(held.flows.datagrams) for held in (self._first, *self._others.values())),
            "waiting messages": self._link.waiting if self._link is not None else 0,
        }


_CHANGED = (
    *("groups", "other_groups", "forwards", "host_ports", "services", "bandwidth", "metadata"),
    *("secondary", "source_dest_check"),
)


def _names(request: Attach) -> tuple[str, ...]:
    return tuple(group.name for group in request.groups)


def _updated(was: Attach, request: Update) -> Attach:
    """What an Attach would say now."""
    said = {name: value for name in _CHANGED if (value := getattr(request, name)) is not None}
    for name in ("public_address", "public_name"):
        if getattr(request, name) is not msgspec.UNSET:
            said[name] = getattr(request, name)
    return msgspec.structs.replace(was, **said)
