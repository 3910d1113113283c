"""Where a guest may go through NAT.

NAT connects with the host's own sockets, so a guest would reach whatever the host does: its loopback services, itself
by any of its addresses, a cloud's real metadata service with the host's credentials. All of that is refused, before a
socket is made, unless the owner opened it. What is left is what any machine behind a router reaches.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from celaje.errors import HostError
from celaje.network.routing_table import RouteType
from celaje.network.subnet import Blocks

METADATA = 0xA9FEA9FE  # 169.254.169.254
METADATA_PORT = 80
DNS_LINK_LOCAL = 0xA9FEA9FD  # 169.254.169.253
DNS_PORT = 53


class Refusal(StrEnum):
    """Why a destination is refused."""

    LOOPBACK = "the host's loopback"
    THIS_NETWORK = "0.0.0.0/8, which means this host"
    LINK_LOCAL = "link-local, the host's real metadata service included"
    PROVIDER = "a cloud provider's service for the host"
    MULTICAST = "multicast"
    RESERVED = "reserved, or broadcast"
    HOST = "an address of the host's own"
    UNKNOWN = "an address of which the host's kernel does not say whose it is"
    INSIDE = "an address of the network's that nobody has"


# Networks that no guest reaches through the host, whatever its routes say: first address, last address, why.
_REFUSED: tuple[tuple[int, int, Refusal], ...] = tuple(
    (int(network[0]), int(network[-1]), refusal)
    for network, refusal in (
        (ipaddress.IPv4Network("0.0.0.0/8"), Refusal.THIS_NETWORK),
        (ipaddress.IPv4Network("127.0.0.0/8"), Refusal.LOOPBACK),
        (ipaddress.IPv4Network("169.254.0.0/16"), Refusal.LINK_LOCAL),
        (ipaddress.IPv4Network("224.0.0.0/4"), Refusal.MULTICAST),
        (ipaddress.IPv4Network("240.0.0.0/4"), Refusal.RESERVED),
        # Metadata and platform services that providers put outside link-local: Alibaba, Azure, Oracle.
        (ipaddress.IPv4Network("100.100.100.200/32"), Refusal.PROVIDER),
        (ipaddress.IPv4Network("168.63.129.16/32"), Refusal.PROVIDER),
        (ipaddress.IPv4Network("192.0.0.192/32"), Refusal.PROVIDER),
    )
)

_REFUSED_ROUTES = {
    RouteType.UNKNOWN: Refusal.UNKNOWN,
    RouteType.LOCAL: Refusal.HOST,
    RouteType.ANYCAST: Refusal.HOST,
    RouteType.BROADCAST: Refusal.RESERVED,
    RouteType.MULTICAST: Refusal.MULTICAST,
}


@dataclass(frozen=True, slots=True)
class Opened:
    """What the owner opened to an interface: (protocol, address, port) to the host's (address, port), as sockets want
    it."""

    ports: dict[tuple[int, int, int], tuple[str, int]]

    def find(self, protocol: int, address: int, port: int) -> tuple[str, int] | None:
        return self.ports.get((protocol, address, port)) if self.ports else None


class Destinations:
    """Decides about addresses. `inside` are the network's own."""

    def __init__(self, inside: Blocks, route: Callable[[int], RouteType]):
        self._inside = inside
        self._route = route

    def is_routable(self, address: int) -> bool:
        """Whether a guest's answer to this address would come back to NAT: then it may see a client by it."""
        if self._inside.has(address):
            return False
        return not any(first <= address <= last for first, last, _ in _REFUSED)

    def refusal(self, address: int) -> Refusal | None:
        """Why the address is refused, None if it is not. Asks the host's routing table anew each time: the host's
        addresses change, and what is cached would be a hole."""
        if self._inside.has(address):
            return Refusal.INSIDE
        for first, last, refusal in _REFUSED:
            if first <= address <= last:
                return refusal
        try:
            return _REFUSED_ROUTES.get(self._route(address))
        except (HostError, OSError):
            return Refusal.UNKNOWN
