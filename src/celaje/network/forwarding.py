"""Where packets go that leave their subnet, and whether access lists let them: a planned network's topology, compiled.

    guest -> border of its subnet (access list out) -> route table: longest prefix
        local, address:…   -> border of the receiver's subnet (in) -> interface
        internet           -> outside, if the interface has a public address
        nat:…              -> border of the gateway's subnet (in) -> gateway -> the same border (out) -> its own
                              subnet's route, which must be `internet` -> outside

Nothing here knows connections: routes and lists hold for each packet. A flow keeps what was decided for its packets,
with the number of the plan that it was decided by, so that a packet costs one comparison until something changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from celaje.network import ipv4
from celaje.network.access_list import NOTHING, AccessList
from celaje.network.buffers import Buffer
from celaje.network.dhcp import DhcpSettings
from celaje.network.interface import Interface
from celaje.network.statistics import Drop
from celaje.network.subnet import Blocks, Subnet


class Fixed(Enum):
    """Targets of routes that need no more words."""

    LOCAL = "local"
    INTERNET = "internet"
    NOWHERE = "nowhere"


# `int` is the address of an interface, `str` the name of a NAT gateway.
Target = Fixed | int | str


class Way:
    """What becomes of a packet: `peer` gets it, or the outside where that is None, unless `drop` says why nobody does.
    Good as long as `version` is the plan's."""

    __slots__ = ("drop", "peer", "version")

    def __init__(self, version: int, peer: Interface | None, drop: Drop | None = None) -> None:
        self.version = version
        self.peer = peer
        self.drop = drop


class RouteTable:
    """Routes by the length of their prefix."""

    __slots__ = ("_by_length",)

    def __init__(self, routes: Iterable[tuple[Subnet, Target]]) -> None:
        by_length: dict[int, dict[int, Target]] = {}
        for destination, target in routes:
            by_length.setdefault(destination.prefix_length, {})[destination.first] = target
        self._by_length = tuple(
            (0xFFFFFFFF << (32 - length) & 0xFFFFFFFF, by_length[length]) for length in sorted(by_length, reverse=True)
        )

    def target(self, destination: int) -> Target:
        """Where a packet to `destination` goes."""
        for mask, targets in self._by_length:
            found = targets.get(destination & mask)
            if found is not None:
                return found
        return Fixed.NOWHERE


@dataclass(frozen=True, slots=True)
class Border:
    """Of a subnet: its routes, and its access list both ways."""

    routes: RouteTable
    inward: AccessList
    outward: AccessList


@dataclass(frozen=True, slots=True)
class Gateway:
    """A NAT gateway. Without a public address it has no way out."""

    subnet: Subnet
    public_address: str | None


@dataclass(frozen=True, slots=True)
class Plan:
    """A topology, compiled (plan_of in topology_plan.py). `blocks` None: those that attachments say."""

    blocks: tuple[Subnet, ...] | None = None
    borders: Mapping[Subnet, Border] = field(default_factory=dict)
    gateways: Mapping[str, Gateway] = field(default_factory=dict)
    dhcp: DhcpSettings = field(default_factory=DhcpSettings)
    dns: bool = True


class Forwarding:
    """`plan` None: one route everywhere, and no access lists. `by_address` is the switch's."""

    def __init__(self, blocks: Blocks, by_address: Mapping[int, Interface]) -> None:
        self.plan: Plan | None = None
        self.version = 0
        """Changes whenever ways may."""
        self._blocks = blocks
        self._by_address = by_address

    def set_plan(self, plan: Plan | None) -> None:
        """From the next packet on."""
        self.plan = plan
        self.version += 1

    def changed(self) -> None:
        """Interfaces have come, gone, or got other public addresses."""
        self.version += 1

    def outward(self, interface: Interface, source: int, destination: int, protocol: int, port: int) -> Way:
        """The way of a guest's packet out of its subnet. `port` as AccessList.admits has it."""
        version, plan = self.version, self.plan
        if plan is None:
            if self._blocks.has(destination):
                return self._found(destination)
            return Way(version, None, None if source == interface.address else Drop.SPOOFED)
        border = plan.borders.get(interface.subnet)
        if border is None:
            return Way(version, None, Drop.NO_ROUTE)
        target = border.routes.target(destination)
        if target is Fixed.NOWHERE:
            return Way(version, None, Drop.NO_ROUTE)
        peer: Interface | None = None
        inward: AccessList | None = None
        if target is Fixed.LOCAL:
            way = self._found(destination)
            if way.peer is None:
                return way
            peer = way.peer
        elif isinstance(target, int):
            peer = self._by_address.get(target)
            if peer is None or peer is interface:
                return Way(version, None, Drop.NO_ROUTE)
            if peer.source_dest_check and destination != peer.address:
                return Way(version, None, Drop.NOT_ITS_OWN)
        if peer is not None:
            if peer.subnet is interface.subnet:
                return Way(version, peer)
            there = plan.borders.get(peer.subnet)
            inward = NOTHING if there is None else there.inward
        elif source != interface.address:
            return Way(version, None, Drop.SPOOFED)
        elif target is Fixed.INTERNET and interface.public_address is None:
            return Way(version, None, Drop.NO_PUBLIC_ADDRESS)
        if not border.outward.admits(protocol, destination, port):
            return Way(version, None, Drop.ACCESS_LIST)
        if inward is not None and not inward.admits(protocol, source, port):
            return Way(version, None, Drop.ACCESS_LIST)
        if isinstance(target, str):
            return Way(version, None, self._through(plan, target, interface, destination, protocol, port))
        return Way(version, peer)

    def inward(self, interface: Interface, source: int, protocol: int, port: int) -> Way:
        """The way of a packet from outside to the guest. The route to where it comes from says by which way it
        came."""
        version, plan = self.version, self.plan
        if plan is None:
            return Way(version, None)
        border = plan.borders.get(interface.subnet)
        target = Fixed.NOWHERE if border is None else border.routes.target(source)
        if border is None or target in (Fixed.NOWHERE, Fixed.LOCAL) or isinstance(target, int):
            return Way(version, None, Drop.NO_ROUTE)
        if target is Fixed.INTERNET and interface.public_address is None:
            return Way(version, None, Drop.NO_PUBLIC_ADDRESS)
        if isinstance(target, str):
            gateway = plan.gateways.get(target)
            there = None if gateway is None else plan.borders.get(gateway.subnet)
            if gateway is None or there is None:
                return Way(version, None, Drop.NO_ROUTE)
            if not there.inward.admits(protocol, source, port):
                return Way(version, None, Drop.ACCESS_LIST)
            if gateway.subnet == interface.subnet:
                return Way(version, None)
            if not there.outward.admits(protocol, interface.address, port):
                return Way(version, None, Drop.ACCESS_LIST)
        admitted = border.inward.admits(protocol, source, port)
        return Way(version, None, None if admitted else Drop.ACCESS_LIST)

    def welcomes(
        self, interface: Interface, client: int, protocol: int, client_port: int, port: int
    ) -> Drop | None:
        """Why a client from outside does not reach the guest's `port`, or would hear nothing of it; None if it may.
        Only an internet gateway lets anybody in."""
        plan = self.plan
        if plan is None:
            return None
        border = plan.borders.get(interface.subnet)
        if border is None or border.routes.target(client) is not Fixed.INTERNET:
            return Drop.NO_ROUTE
        into = self.inward(interface, client, protocol, port)
        return into.drop or self.outward(interface, interface.address, client, protocol, client_port).drop

    def leaves_as(self, interface: Interface, destination: int) -> str | None:
        """The public address in whose name the interface's packets to somewhere outside go; None: in nobody's."""
        plan = self.plan
        if plan is None or (border := plan.borders.get(interface.subnet)) is None:
            return None
        target = border.routes.target(destination)
        if isinstance(target, str):
            gateway = plan.gateways.get(target)
            return None if gateway is None else gateway.public_address
        return interface.public_address if target is Fixed.INTERNET else None

    def _found(self, destination: int) -> Way:
        peer = self._by_address.get(destination)
        return Way(self.version, peer, Drop.UNKNOWN_DESTINATION if peer is None else None)

    def _through(
        self, plan: Plan, name: str, interface: Interface, destination: int, protocol: int, port: int
    ) -> Drop | None:
        """Why the NAT gateway does not let the interface's packet out, which has left its subnet."""
        gateway = plan.gateways.get(name)
        border = None if gateway is None else plan.borders.get(gateway.subnet)
        if gateway is None or border is None or protocol not in (ipv4.TCP, ipv4.UDP, ipv4.ICMP):
            return Drop.NO_ROUTE
        if gateway.public_address is None or border.routes.target(destination) is not Fixed.INTERNET:
            return Drop.NO_ROUTE
        if gateway.subnet != interface.subnet and not border.inward.admits(protocol, interface.address, port):
            return Drop.ACCESS_LIST
        return None if border.outward.admits(protocol, destination, port) else Drop.ACCESS_LIST


def rule_port(protocol: int, transport: Buffer) -> int:
    """What access lists look at as a packet's port; `transport` has at least 4 bytes."""
    if protocol in (ipv4.TCP, ipv4.UDP):
        return int(transport[2]) << 8 | int(transport[3])
    return int(transport[0]) << 8 | int(transport[1]) if protocol == ipv4.ICMP else 0
