"""Virtual private clouds and what lies in them: subnets, gateways, routes, access lists, DHCP options, interfaces."""

from __future__ import annotations

import datetime

import msgspec
from sqlalchemy import Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from celaje.cloud.state.base import Base, Resource, Structure


class CidrAssociation(msgspec.Struct, frozen=True):
    """A further IPv4 network of a VPC's."""

    id: str
    cidr: str


class Vpc(Resource, Base):
    """`cidr` is its first IPv4 network, `further_cidrs` are those that came later. Its network's name on a host is its
    id. `dhcp_options` "default": guests are told nothing but their address and router."""

    __tablename__ = "vpcs"

    cidr: Mapped[str]
    further_cidrs: Mapped[list[CidrAssociation]] = mapped_column(
        Structure(list[CidrAssociation]), default=list, server_default="[]"
    )
    dhcp_options: Mapped[str] = mapped_column(index=True)
    is_default: Mapped[bool] = mapped_column(default=False)
    dns_support: Mapped[bool] = mapped_column(default=True)
    dns_host_names: Mapped[bool] = mapped_column(default=False)


class Subnet(Resource, Base):
    """A part of a VPC in one zone, such as us-east-1a. `public_addresses`: instances are given one at launch unless
    they ask otherwise."""

    __tablename__ = "subnets"

    vpc: Mapped[str] = mapped_column(index=True)
    zone: Mapped[str]
    cidr: Mapped[str]
    is_default: Mapped[bool] = mapped_column(default=False)
    public_addresses: Mapped[bool] = mapped_column(default=False)


class InternetGateway(Resource, Base):
    """`vpc` "": attached to none."""

    __tablename__ = "internet_gateways"

    vpc: Mapped[str] = mapped_column(default="", index=True)


class NatGateway(Resource, Base):
    """Lets a VPC's instances out in its own name. `state` goes from pending to available, or to failed where a public
    one finds no internet gateway, and from deleting to deleted; failed and deleted ones (`deleted` is when that came)
    are listed for an hour more. `allocation` is the elastic address of a public one, "" of a private one."""

    __tablename__ = "nat_gateways"

    vpc: Mapped[str] = mapped_column(index=True)
    subnet: Mapped[str] = mapped_column(index=True)
    interface: Mapped[str]
    private_address: Mapped[str]
    allocation: Mapped[str] = mapped_column(default="")
    association: Mapped[str] = mapped_column(default="")
    public_address: Mapped[str] = mapped_column(default="")
    state: Mapped[str] = mapped_column(default="pending")
    deleted: Mapped[datetime.datetime | None]


class Route(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where packets to `destination` (a network) go: `target` is the id of a gateway or an interface, or `local`. A
    target that is no more makes a black hole of the route."""

    destination: str
    target: str
    origin: str = "CreateRoute"


class RouteTableAssociation(msgspec.Struct, frozen=True):
    """`subnet` "": this is the main table of its VPC."""

    id: str
    subnet: str = ""


class RouteTable(Resource, Base):
    """`main`: of the subnets that name no other."""

    __tablename__ = "route_tables"

    vpc: Mapped[str] = mapped_column(index=True)
    main: Mapped[bool] = mapped_column(default=False)
    routes: Mapped[list[Route]] = mapped_column(Structure(list[Route]))
    associations: Mapped[list[RouteTableAssociation]] = mapped_column(Structure(list[RouteTableAssociation]))


class NetworkAclEntry(msgspec.Struct, frozen=True):
    """`protocol` is a number, or "-1" for all; TCP and UDP have ports, ICMP a type and a code, where -1 is any. Either
    `cidr` or `cidr6` is not ""."""

    number: int
    egress: bool
    allow: bool
    protocol: str = "-1"
    cidr: str = "0.0.0.0/0"
    cidr6: str = ""
    first_port: int = -1
    last_port: int = -1


class NetworkAclAssociation(msgspec.Struct, frozen=True):
    """The access list of a subnet."""

    id: str
    subnet: str


class NetworkAcl(Resource, Base):
    """An access list: it knows no connections. The default one admits everything."""

    __tablename__ = "network_acls"

    vpc: Mapped[str] = mapped_column(index=True)
    is_default: Mapped[bool] = mapped_column(default=False)
    entries: Mapped[list[NetworkAclEntry]] = mapped_column(Structure(list[NetworkAclEntry]))
    associations: Mapped[list[NetworkAclAssociation]] = mapped_column(Structure(list[NetworkAclAssociation]))


class DhcpOptions(Resource, Base):
    """What a VPC's machines are told, by option's name, such as domain-name-servers."""

    __tablename__ = "dhcp_options"

    options: Mapped[dict[str, list[str]]] = mapped_column(Structure(dict[str, list[str]]))


class NetworkInterface(Resource, Base):
    """An address in a subnet, and what it is plugged into.

    `instance` "" is attached to nothing. `attachment_state` is attaching, attached or detaching; `card` is which of the
    machine's network cards it is, 0 the first. `delete_on_termination` says what becomes of the interface when its
    instance ends. `public_address` is one that was given at a start and is taken back
    at a stop, where `wants_public`; an elastic address goes before it (state/addresses.py).
    """

    __tablename__ = "network_interfaces"
    __table_args__ = (
        UniqueConstraint("subnet", "private_address"),
        UniqueConstraint("vpc", "mac"),
    )

    vpc: Mapped[str]
    subnet: Mapped[str]
    zone: Mapped[str]
    private_address: Mapped[str]
    mac: Mapped[str]
    description: Mapped[str] = mapped_column(default="")
    source_dest_check: Mapped[bool] = mapped_column(default=True)
    wants_public: Mapped[bool] = mapped_column(default=False)
    public_address: Mapped[str] = mapped_column(default="")
    instance: Mapped[str] = mapped_column(default="", index=True)
    attachment: Mapped[str] = mapped_column(default="")
    attachment_state: Mapped[str] = mapped_column(default="")
    device_index: Mapped[int] = mapped_column(default=0)
    card: Mapped[int] = mapped_column(default=0, server_default="0")
    attached: Mapped[datetime.datetime | None]
    delete_on_termination: Mapped[bool] = mapped_column(default=True)


class SecondaryAddress(Base):
    """One more private address of an interface; `position` is the order in which they came."""

    __tablename__ = "secondary_addresses"

    subnet: Mapped[str] = mapped_column(primary_key=True)
    address: Mapped[str] = mapped_column(primary_key=True)
    interface: Mapped[str] = mapped_column(index=True)
    position: Mapped[int]


class InterfaceGroup(Base):
    """That an interface is in a security group; `position` is the order in which they were named."""

    __tablename__ = "interface_groups"
    __table_args__ = (Index("ix_interface_groups_security_group", "security_group"),)

    interface: Mapped[str] = mapped_column(primary_key=True)
    security_group: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int]
