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

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from celaje.network.interface import Buffer, Interface, InterfaceConfig, Transmit
from celaje.network.outside import Outside, Packet
from celaje.network.security_group import Direction, SecurityGroup


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """What a network is. The defaults are those of `celaje vm`: 10.77.0.0/16, router .0.1, DNS server .0.2."""

    subnet: int = 0x0A4D0000
    prefix_length: int = 16
    mtu: int = 1500  # bytes of an IP packet, 576 to 9001
    domain: str = "celaje.internal"
    lease_seconds: int = 3600
    # On-link addresses of 169.254/16 besides the metadata service's and the DNS server's second one
    # (169.254.169.253).
    services: tuple[int, ...] = (0xA9FEA9FA,)  # 169.254.169.250
    first_lease: int = 10  # the first address that is given out, counted from the subnet's
    flows: int = 32768  # tracked connections of one interface; more make it forget the oldest

    @property
    def router(self) -> int:
        """The router's address: the subnet's first."""
        return self.subnet + 1

    @property
    def dns(self) -> int:
        """The DNS server's address: the subnet's second."""
        return self.subnet + 2


@dataclass(frozen=True, slots=True)
class Assignment:
    """The address that belongs to an interface's name and MAC address, whether it is attached or not."""

    name: str
    mac: bytes
    address: int


class Network:
    """`clock`: seconds, never going back. `assignments`: those of an earlier Network of the same network, to be
    kept."""

    def __init__(
        self,
        config: NetworkConfig,
        outside: Outside,
        clock: Callable[[], float],
        assignments: Iterable[Assignment] = (),
    ) -> None:
        raise NotImplementedError

    def attach(self, config: InterfaceConfig, transmit: Transmit) -> Interface:
        """A new interface. InputError if the name, the MAC address or the address is taken, or the address is none of
        the subnet's, or the subnet has no free one. Messages for the guest may be transmitted from now on."""
        raise NotImplementedError

    def detach(self, interface: Interface) -> None:
        """The interface and all its flows are gone; its address stays assigned to it."""
        raise NotImplementedError

    @property
    def interfaces(self) -> tuple[Interface, ...]:
        """Those that are attached, in the order they came."""
        raise NotImplementedError

    @property
    def assignments(self) -> tuple[Assignment, ...]:
        """Which addresses belong to whom; changes only in `attach`."""
        raise NotImplementedError

    def receive(self, interface: Interface, message: memoryview) -> None:
        """One message of the link from the guest (virtio_net_hdr, Ethernet frame). Never raises."""
        raise NotImplementedError

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
        cut into segments by the guest's device; without, the packet must fit the MTU.

        False if it was dropped (and counted): the firewall does not admit it, or the guest does not read. A packet of
        a flow that is not known yet is admitted as `admit` says, its client being `source`; services' packets always
        are.
        """
        raise NotImplementedError

    def admit(
        self,
        interface: Interface,
        protocol: int,
        client: int,
        source: int,
        source_port: int,
        port: int,
    ) -> bool:
        """Whether the guest's rules let `client` (the real address, on the host's side) connect to its `port` (TCP or
        UDP; ICMP: the echo identifier in both ports). If so, the flow is tracked from now on: packets that are
        delivered from `source`:`source_port` to `port` are the client's, and the guest's answers are admitted."""
        raise NotImplementedError

    def admits(
        self, interface: Interface, direction: Direction, protocol: int, remote: int, port: int, code: int = 0
    ) -> bool:
        """What the rules say now, tracking nothing. `port` as in Rule.ports; for ICMP its type, and `code` its
        code."""
        raise NotImplementedError

    def forget(self, interface: Interface, protocol: int, remote: int, remote_port: int, port: int) -> None:
        """A flow between the guest's `port` and outside is over (its connection is closed): it need not time out.
        Does nothing if there is none."""
        raise NotImplementedError

    def set_security_groups(self, groups: Iterable[SecurityGroup]) -> int:
        """Adds groups, or puts other rules in the place of those with the same name; answers how many flows were cut
        because nothing admits them any more. A group that is mentioned and was never set admits nothing, and has its
        members all the same."""
        raise NotImplementedError

    def remove_security_groups(self, names: Iterable[str]) -> int:
        """These have no rules any more; answers how many flows were cut."""
        raise NotImplementedError

    def set_groups(self, interface: Interface, groups: tuple[str, ...]) -> int:
        """The interface is in these groups now; answers how many flows were cut."""
        raise NotImplementedError

    def set_bandwidth(self, interface: Interface, to_guest: int | None, from_guest: int | None) -> None:
        """Bytes a second; None: no limit."""
        raise NotImplementedError

    def resolve(self, interface: Interface, query: bytes, answer: Callable[[bytes], None]) -> None:
        """A DNS query that came over TCP, without its length; `answer` is called with the response, now or later, or
        never if the query is beyond an answer."""
        raise NotImplementedError

    def unreachable(
        self, interface: Interface, quote: bytes, code: int, source: int | None = None, mtu: int = 0
    ) -> None:
        """Tells the guest that its packet (Packet.quote) did not arrive: ICMP destination unreachable with a code of
        icmp.py, from `source` (None: the router). With FRAGMENTATION_NEEDED, `mtu` is what would fit. Limited in
        rate."""
        raise NotImplementedError

    def time_exceeded(self, interface: Interface, quote: bytes, source: int | None = None) -> None:
        """Tells the guest that its packet's TTL ran out on the way, at `source` (None: the router). Limited in
        rate."""
        raise NotImplementedError

    def poll(self, now: float) -> float | None:
        """Does what is due (flows time out, queued frames go on, DNS questions are given up). Answers when to be
        called again at the latest; sooner does no harm, and `receive` or `deliver` may make it sooner: ask again
        after them."""
        raise NotImplementedError

    def flows(self, interface: Interface) -> int:
        """How many flows are tracked."""
        raise NotImplementedError


__all__ = ["Assignment", "Interface", "InterfaceConfig", "Network", "NetworkConfig", "Outside", "Packet"]
