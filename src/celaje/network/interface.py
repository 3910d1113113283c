"""An interface of a network: what a machine's network device is attached to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from celaje.network.bandwidth import Shaper, TokenBucket
from celaje.network.buffers import Buffer
from celaje.network.firewall import NOTHING, Policy
from celaje.network.flow import Flow
from celaje.network.statistics import Statistics
from celaje.network.subnet import Subnet

# Sends one message of the link (virtio_net_hdr, Ethernet frame) in pieces, at once and without waiting. False: it was
# dropped, since the machine does not read; the network counts it. Pieces are not changed afterwards, but may be views
# of a receive buffer: whoever sends later sends a copy.
Transmit = Callable[[list[Buffer]], bool]

# ICMP errors to a guest: so many at once, and so many a second.
ERROR_BURST = 50
ERRORS_A_SECOND = 100

# DNS, DHCP and neighbour discovery, each of which costs the network more than a packet (EC2's limit for DNS).
REQUESTS_A_SECOND = 1024


@dataclass(frozen=True, slots=True)
class InterfaceConfig:
    """What an interface is to be. `name` is nobody else's in the network; machines ask DNS for `host_name`."""

    name: str
    mac: bytes  # 6 bytes, a unicast address
    host_name: str = ""  # "": the interface's name
    address: int | None = None  # None: the network chooses, and stays with it for this name and MAC
    subnet: Subnet | None = None  # None: the network's first block as a whole; one that is said has said addresses
    groups: tuple[str, ...] = ()  # names of security groups; in none, nothing is admitted inward, everything outward
    to_guest: int | None = None  # bandwidth in bytes a second; None: no limit
    from_guest: int | None = None
    source_dest_check: bool = True  # False: the guest is a router, and may send from addresses that are not its own


class Interface:
    """An attached interface. What is public may be read by anybody and is written by the network.

    Each further address that the same guest's card has is an Interface of its own in `others`: with its own flows and
    rules' members, but the first one's MAC, link, bandwidth and statistics. So whoever has an
    interface has one address.
    """

    __slots__ = (
        "address",
        "config",
        "errors",
        "flows",
        "from_guest",
        "groups",
        "host_name",
        "inward",
        "mac",
        "name",
        "others",
        "outward",
        "public_address",
        "requests",
        "resume_at",
        "source_dest_check",
        "statistics",
        "subnet",
        "tentative",
        "to_guest",
        "transmit",
    )

    def __init__(self, config: InterfaceConfig, address: int, subnet: Subnet, transmit: Transmit, now: float) -> None:
        self.config = config
        self.name = config.name
        self.host_name = config.host_name or config.name
        self.mac = config.mac
        self.address = address
        self.subnet = subnet  # the same object for all that are in it
        self.others: dict[int, Interface] = {}  # by address
        self.source_dest_check = config.source_dest_check
        self.transmit = transmit
        self.public_address: str | None = None
        self.statistics = Statistics()
        # Backpressure for a guest that sends faster than its bandwidth: whoever reads its messages stops until the
        # clock says this (0: no need to). Messages that are received sooner all the same are dropped when too many.
        self.resume_at = 0.0
        self.from_guest: TokenBucket | None = None
        self.to_guest: Shaper | None = None
        self.errors = TokenBucket(ERRORS_A_SECOND, ERROR_BURST, now)
        self.requests = TokenBucket(REQUESTS_A_SECOND, REQUESTS_A_SECOND, now)
        # The firewall's: groups, what they come to, and tracked flows (see flow.py for the keys).
        self.groups: tuple[str, ...] = ()
        self.inward: Policy = NOTHING
        self.outward: Policy = NOTHING
        self.flows: dict[bytes, Flow] = {}
        self.tentative: dict[bytes, Flow] = {}  # those of them that are not established

    def further(self, address: int, now: float) -> Interface:
        """One for a further address of the same card, in nobody's hands yet."""
        other = Interface(self.config, address, self.subnet, self.transmit, now)
        other.source_dest_check = self.source_dest_check
        other.statistics, other.errors, other.requests = self.statistics, self.errors, self.requests
        other.to_guest = self.to_guest
        return other
