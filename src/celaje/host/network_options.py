"""What a person says about a machine's network. Plain dataclasses, as the machine's other options are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Transport = Literal["tcp", "udp"]
DEFAULT_NETWORK = "default"


@dataclass(frozen=True, slots=True)
class ForwardOption:
    """Who connects to `address`:`port` of the host reaches the guest's port. Port 0: the host chooses."""

    protocol: Transport
    address: str
    port: int
    guest_port: int


@dataclass(frozen=True, slots=True)
class HostPortOption:
    """The guest reaches the host's `port` at its router, under `router_port`."""

    protocol: Transport
    port: int
    router_port: int


@dataclass(frozen=True, slots=True)
class AllowOption:
    """Ports of the guest that anybody may connect to."""

    protocol: Transport
    first_port: int
    last_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkOptions:
    """A card in the network `network`. `mac` None: one that follows from the machine's name. `bandwidth` is in bytes a
    second each way, None is no limit. `public` is the machine's public address in a pool of the owner's, as
    ADDRESS/PREFIX_LENGTH; None: it has one of 127/8."""

    network: str = DEFAULT_NETWORK
    forwards: tuple[ForwardOption, ...] = ()
    host_ports: tuple[HostPortOption, ...] = ()
    allowed: tuple[AllowOption, ...] = ()
    mac: str | None = None
    bandwidth: int | None = None
    public: str | None = None
