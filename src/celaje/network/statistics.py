"""What an interface counts: frames and bytes both ways, and what was dropped, by cause."""

from __future__ import annotations

from enum import StrEnum


class Drop(StrEnum):
    """Why a frame went no further."""

    TRUNCATED = "truncated"  # shorter than its headers say
    OFFLOAD = "offload"  # a virtio_net_hdr that contradicts its frame
    OVERSIZED = "oversized"  # longer than the network's MTU, and not to be segmented
    HEADER_CHECKSUM = "header checksum"
    CHECKSUM = "checksum"  # of the transport header and data, where the network is the end or the edge
    IP_OPTIONS = "IP options"
    FRAGMENT = "fragment"
    SPOOFED = "spoofed source"  # MAC, IP address or ARP sender of somebody else
    UNSUPPORTED = "unsupported protocol"  # neither ARP, IPv4 nor IPv6's neighbour discovery
    MULTICAST = "multicast"  # and broadcast: the network has none, beyond ARP, DHCP and neighbour discovery
    UNKNOWN_DESTINATION = "unknown destination"
    TTL = "TTL exceeded"
    NO_ROUTE = "no route"  # its subnet's route table has none, or one to what is no more
    NO_PUBLIC_ADDRESS = "no public address"  # a route to an internet gateway, which knows only who has one
    NOT_ITS_OWN = "not its own"  # a route to an interface that takes only what is for it
    ACCESS_LIST = "access list"  # of the subnet that it leaves, or of the one that it would enter
    FIREWALL = "firewall"
    BANDWIDTH = "bandwidth"
    QUEUE_FULL = "queue full"  # the machine does not read, or its bandwidth's queue has no room
    MALFORMED = "malformed"  # ARP, DHCP, DNS, ICMP or neighbour discovery that makes no sense
    RATE = "rate"  # an answer or error of the network's own that the interface asked for too often


class Statistics:
    """Counters of an interface; they only grow. `sent` is what the guest sent, `received` what was sent to it."""

    __slots__ = ("dropped", "received_bytes", "received_frames", "sent_bytes", "sent_frames")

    def __init__(self) -> None:
        self.sent_frames = 0
        self.sent_bytes = 0  # of Ethernet frames, without the link's header
        self.received_frames = 0
        self.received_bytes = 0
        self.dropped: dict[Drop, int] = {}

    def drop(self, cause: Drop) -> None:
        self.dropped[cause] = self.dropped.get(cause, 0) + 1

    def counters(self) -> dict[str, int]:
        """All of them by name, for people and for control messages."""
        return {
            "sent frames": self.sent_frames,
            "sent bytes": self.sent_bytes,
            "received frames": self.received_frames,
            "received bytes": self.received_bytes,
            **{f"dropped, {cause}": count for cause, count in sorted(self.dropped.items())},
        }
