"""An interface of a network: what a machine's network device is attached to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from celaje.network.statistics import Statistics

Buffer = bytes | bytearray | memoryview

# Sends one message of the link (virtio_net_hdr, Ethernet frame) in pieces, at once and without waiting. False: it was
# dropped, since the machine does not read; the network counts it. Pieces are not changed afterwards, but may be views
# of a receive buffer: whoever sends later sends a copy.
Transmit = Callable[[list[Buffer]], bool]


@dataclass(frozen=True, slots=True)
class InterfaceConfig:
    """What an interface is to be. `name` is nobody else's in the network; machines ask DNS for `host_name`."""

    name: str
    mac: bytes  # 6 bytes, a unicast address
    host_name: str = ""  # "": the interface's name
    address: int | None = None  # None: the network chooses, and stays with it for this name and MAC
    groups: tuple[str, ...] = ()  # identifiers of security groups; in none, nothing is admitted inward
    to_guest: int | None = None  # bandwidth in bytes a second; None: no limit
    from_guest: int | None = None


class Interface:
    """An attached interface. What is public may be read by anybody and is written by the network."""

    __slots__ = ("address", "config", "mac", "name", "resume_at", "statistics", "transmit")

    def __init__(self, config: InterfaceConfig, address: int, transmit: Transmit) -> None:
        self.config = config
        self.name = config.name
        self.mac = config.mac
        self.address = address
        self.transmit = transmit
        self.statistics = Statistics()
        # Backpressure for a guest that sends faster than its bandwidth: whoever reads its messages stops until the
        # clock says this (0: no need to). Messages that are received sooner all the same are dropped when too many.
        self.resume_at = 0.0
