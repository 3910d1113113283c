"""What lies between a network's subnets and around it, as pure data: home()/networks/NAME.topology.json.

A network whose settings say `planned` goes by this file: route tables decide where packets leave their subnet for,
access lists what crosses a subnet's border, and there is a NAT gateway where it says so. A subnet that it does not
name, and every subnet while there is no file, lets nothing out and nothing in. Whoever keeps the network (a cloud)
replaces the file as a whole, and one small message (ReadTopology) makes a network that runs read it again; one that is
started reads it first. Networks that are not planned have one route everywhere, and no access lists.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from celaje import durable_file, paths
from celaje.errors import InputError
from celaje.network.spawn import checked_name
from celaje.typed_data import from_json

VERSION = 1


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a topology is made of. Addresses are dotted quads, networks `a.b.c.d/n`."""


class Route(_Part, frozen=True):
    """Packets to `destination` go to `target`. Of several that match the one with the longest prefix holds.

    local           whoever has the address in the network
    internet        out of the network, for interfaces with a public address
    nat:NAME        out of the network by way of that NAT gateway
    address:A.B.C.D the interface with that address, which must take what is not for it
    nowhere         nobody: they are dropped
    """

    destination: str
    target: str


class AccessRule(_Part, frozen=True):
    """Decides about the packets that it matches: the first of a list's does, and what none matches is dropped.
    `protocol` is a number, None is all; ports are the receiver's."""

    direction: Literal["in", "out"]
    allow: bool
    remote: str = "0.0.0.0/0"  # of packets inward their source, of those outward their destination
    protocol: int | None = None
    first_port: int = 0  # TCP and UDP
    last_port: int = 65535
    icmp_type: int | None = None  # None is any
    icmp_code: int | None = None


class SubnetPlan(_Part, frozen=True):
    """A subnet, by the names of its route table and its access list."""

    subnet: str
    routes: str
    access: str


class NatGateway(_Part, frozen=True):
    """Lets others out in its own name. `public_address` None: it has no way out of the network."""

    subnet: str
    address: str
    public_address: str | None = None


class DhcpOptions(_Part, frozen=True):
    """What guests are told beside their address. No servers of names: the network's own; "": no domain."""

    domain: str | None = None  # None: the network's
    name_servers: tuple[str, ...] = ()
    time_servers: tuple[str, ...] = ()
    netbios_servers: tuple[str, ...] = ()
    netbios_node: int | None = None


class Topology(_Part, frozen=True):
    """`blocks` are all of the network's. Tables, lists and gateways are by names."""

    blocks: tuple[str, ...]
    subnets: tuple[SubnetPlan, ...] = ()
    route_tables: dict[str, tuple[Route, ...]] = {}
    access_lists: dict[str, tuple[AccessRule, ...]] = {}
    gateways: dict[str, NatGateway] = {}
    dhcp: DhcpOptions = DhcpOptions()
    dns: bool = True  # whether the network's own name server answers


class _Version(msgspec.Struct):
    version: int


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    topology: Topology


_encoder = msgspec.json.Encoder(order="deterministic")


def topology_file(network: str) -> Path:
    """Where the topology of the network of this name is; it need not exist."""
    return paths.home() / "networks" / f"{checked_name(network)}.topology.json"


def read_topology(network: str) -> Topology | None:
    """What stands there, None if there is no file. InputError if it is not what it must be."""
    path = topology_file(network)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    try:
        version = from_json(data, _Version).version
        if version != VERSION:
            raise InputError(f"{path} has version {version} and must have {VERSION}; use the celaje that wrote it")
        return from_json(data, _File).topology
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} has no topology ({error}); write it anew, or remove it") from error


def keep_topology(network: str, topology: Topology) -> None:
    """This one is in the file, durably. HostError where the host cannot."""
    path = topology_file(network)
    data = _encoder.encode(_File(VERSION, topology))
    try:
        if path.read_bytes() == data:
            return
    except OSError:
        pass  # it is written below, or that says why not
    paths.made(path.parent)
    durable_file.replace(path, data)


def forget_topology(network: str) -> None:
    """There is no file any more."""
    durable_file.remove(topology_file(network))
