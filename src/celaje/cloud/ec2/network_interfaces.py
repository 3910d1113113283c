"""Network interfaces: an address and a MAC in a subnet, which an instance is plugged into."""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from celaje.cloud.aws.errors import AwsError
from celaje.cloud.ec2.kinds import Kind
from celaje.cloud.ec2.private_addresses import (
    chosen_address,
    free_address,
    remove_secondary,
    secondary_addresses,
)
from celaje.cloud.ec2.public_addresses import elastic_addresses, release_public
from celaje.cloud.state.addresses import ElasticAddress
from celaje.cloud.state.identifiers import new_id
from celaje.cloud.state.networks import InterfaceGroup, NetworkInterface, Subnet, Vpc
from celaje.cloud.state.prepared import IDENTIFIERS, rows_of, values_of
from celaje.cloud.state.security_groups import SecurityGroup
from celaje.cloud.state.tags import answered_tags, remove_tags, tags_of
from celaje.cloud.state.zones import private_name, public_name, zone_id

INTERFACES = Kind(
    NetworkInterface,
    "eni",
    "InvalidNetworkInterfaceId",
    "InvalidNetworkInterfaceID.NotFound",
    "networkInterface ID",
)
GATEWAYS_ATTACHMENT = "ela-attach"
_OF_INSTANCES = (
    select(NetworkInterface).where(NetworkInterface.instance.in_(IDENTIFIERS)).order_by(NetworkInterface.device_index)
)
_GROUPS = (
    select(InterfaceGroup.interface, SecurityGroup.id, SecurityGroup.name)
    .join(SecurityGroup, SecurityGroup.id == InterfaceGroup.security_group)
    .where(InterfaceGroup.interface.in_(IDENTIFIERS))
    .order_by(InterfaceGroup.interface, InterfaceGroup.position)
)
_NAMED = select(Vpc.id).where(Vpc.id.in_(IDENTIFIERS), Vpc.dns_host_names, Vpc.dns_support)
_ELASTIC = select(ElasticAddress).where(ElasticAddress.interface.in_(IDENTIFIERS))


def allocate(
    session: Session,
    *,
    account: str,
    region: str,
    subnet: Subnet,
    groups: Sequence[str],
    private_address: str | None = None,
    description: str = "",
    now: datetime.datetime,
) -> NetworkInterface:
    """A new interface in `subnet`, attached to nothing, in the groups of those ids (see checked_groups). AwsError
    InsufficientFreeAddressesInSubnet, InvalidIPAddress.InUse, or InvalidParameterValue for an address that the subnet
    does not give.
    """
    interface = NetworkInterface(
        id=new_id("eni"),
        account=account,
        region=region,
        created=now,
        vpc=subnet.vpc,
        subnet=subnet.id,
        zone=subnet.zone,
        private_address=(
            chosen_address(session, subnet, private_address) if private_address else free_address(session, subnet)
        ),
        mac=_new_mac(session, subnet.vpc),
        description=description,
    )
    session.add(interface)
    set_groups(session, interface.id, groups)
    session.flush()
    return interface


def _new_mac(session: Session, vpc: str) -> str:
    while True:
        mac = "02:" + secrets.token_bytes(5).hex(":")
        found = select(NetworkInterface.id).where(NetworkInterface.vpc == vpc, NetworkInterface.mac == mac)
        if session.scalars(found).first() is None:
            return mac


def attach(
    interface: NetworkInterface,
    instance: str,
    device_index: int,
    delete_on_termination: bool,
    now: datetime.datetime,
    card: int = 0,
) -> None:
    """Plug the interface into an instance, as its machine's network card `card`; `attaching` until who runs it says
    that it is attached."""
    interface.instance = instance
    interface.attachment = new_id("eni-attach")
    interface.attachment_state = "attaching"
    interface.device_index = device_index
    interface.card = card
    interface.delete_on_termination = delete_on_termination
    interface.attached = now


def is_gateways(interface: NetworkInterface) -> bool:
    """Whether it is a NAT gateway's: then nobody else disposes of it."""
    return interface.attachment.startswith(GATEWAYS_ATTACHMENT)


def refuse_a_gateways(interface: NetworkInterface) -> None:
    """AwsError if the interface is a NAT gateway's: it and its addresses are as they are as long as that is there."""
    if is_gateways(interface):
        raise AwsError(
            "AuthFailure",
            f"You do not have permission to access the specified resource: {interface.id} is a NAT gateway's, and so "
            "are its addresses as long as that is there.",
            403,
        )


def release(session: Session, interface_id: str) -> None:
    """The interface is gone: its addresses are free, an elastic one is associated with nothing."""
    interface = session.get(NetworkInterface, interface_id)
    if interface is None:
        return
    release_public(session, interface)
    for elastic in elastic_addresses(session, interface_id):
        elastic.leave()
    remove_secondary(session, interface_id)
    session.execute(delete(InterfaceGroup).where(InterfaceGroup.interface == interface_id))
    remove_tags(session, interface_id)
    session.delete(interface)
    session.flush()


def detach(session: Session, interface: NetworkInterface) -> None:
    """The interface's instance is gone, the interface stays."""
    release_public(session, interface)
    interface.wants_public = False
    interface.instance = interface.attachment = interface.attachment_state = ""
    interface.attached = None
    interface.device_index = interface.card = 0


def of_instances(session: Session, instance_ids: Iterable[str]) -> dict[str, list[NetworkInterface]]:
    """The interfaces that are attached to each instance, by device index."""
    found: dict[str, list[NetworkInterface]] = {instance: [] for instance in instance_ids}
    for (interface,) in rows_of(session, _OF_INSTANCES, list(found)):
        found[interface.instance].append(interface)
    return found


def groups_of(session: Session, interface_ids: Iterable[str]) -> dict[str, list[tuple[str, str]]]:
    """(id, name) of the groups that each interface is in, in the order in which they were named."""
    found: dict[str, list[tuple[str, str]]] = {interface: [] for interface in interface_ids}
    for interface, group_id, name in values_of(session, _GROUPS, list(found)):
        found[interface].append((group_id, name))
    return found


def set_groups(session: Session, interface_id: str, group_ids: Sequence[str]) -> None:
    """Put the interface into these groups and no others (see checked_groups). Wake "networks" afterwards."""
    session.execute(delete(InterfaceGroup).where(InterfaceGroup.interface == interface_id))
    session.add_all(
        InterfaceGroup(interface=interface_id, security_group=group_id, position=position)
        for position, group_id in enumerate(group_ids)
    )


@dataclass(frozen=True, slots=True)
class Described:
    """An interface as descriptions have it: `network_interface` by DescribeNetworkInterfaces' members,
    `instance_network_interface` by DescribeInstances'. `public_address` is the one that it is reached at,
    `secondary` are its further private addresses, each with an elastic one or None."""

    network_interface: dict[str, object]
    instance_network_interface: dict[str, object]
    groups: list[dict[str, str]]
    public_address: str | None
    private_name: str
    public_name: str | None
    secondary: list[tuple[str, str | None]]


def described(session: Session, interfaces: Sequence[NetworkInterface]) -> dict[str, Described]:
    """Descriptions by the interfaces' ids."""
    ids = [interface.id for interface in interfaces]
    groups, tags, elastic = groups_of(session, ids), tags_of(session, ids), _elastic_of(session, ids)
    secondary = secondary_addresses(session, ids)
    named = {vpc for (vpc,) in values_of(session, _NAMED, sorted({one.vpc for one in interfaces}))}
    return {
        interface.id: _describe(
            interface,
            groups[interface.id],
            tags[interface.id],
            secondary[interface.id],
            elastic.get(interface.id, {}),
            interface.vpc in named,
        )
        for interface in interfaces
    }


def _elastic_of(session: Session, interface_ids: Sequence[str]) -> dict[str, dict[str, ElasticAddress]]:
    """By interface and private address; "" is the first one."""
    found: dict[str, dict[str, ElasticAddress]] = {}
    for (address,) in rows_of(session, _ELASTIC, interface_ids):
        found.setdefault(address.interface, {})[address.private_address] = address
    return found


def _association(
    elastic: ElasticAddress | None, public: str | None, is_named: bool
) -> tuple[dict[str, object], ...] | None:
    """As an instance's description has it, and as the interface's own has it. `is_named`: its VPC gives public
    names."""
    address = elastic.address if elastic else public
    if not address:
        return None
    short: dict[str, object] = {
        "IpOwnerId": elastic.account if elastic else "amazon",
        "PublicDnsName": public_name(address) if is_named else "",
        "PublicIp": address,
    }
    return short, short | ({"AllocationId": elastic.id, "AssociationId": elastic.association} if elastic else {})


def _describe(
    interface: NetworkInterface,
    groups: list[tuple[str, str]],
    tags: dict[str, str],
    secondary: list[str],
    elastic: dict[str, ElasticAddress],
    is_named: bool,
) -> Described:
    name = private_name(interface.region, interface.private_address)
    first = elastic.get("")
    public = first.address if first else interface.public_address or None
    addresses: tuple[list[dict[str, object]], list[dict[str, object]]] = [], []  # in short, and with associations' ids
    for private in (interface.private_address, *secondary):
        primary = private == interface.private_address
        associations = _association(
            first if primary else elastic.get(private), interface.public_address if primary else None, is_named
        )
        for index, members in enumerate(addresses):
            members.append(
                {
                    "Association": associations[index] if associations else None,
                    "Primary": primary,
                    "PrivateDnsName": private_name(interface.region, private),
                    "PrivateIpAddress": private,
                }
            )
    attachment: dict[str, object] | None = None
    if is_gateways(interface):
        attachment = {"AttachmentId": interface.attachment, "DeleteOnTermination": False, "DeviceIndex": 1}
        attachment |= {"Status": interface.attachment_state, "InstanceOwnerId": "amazon-aws"}
    elif interface.instance:
        attachment = {
            "AttachTime": interface.attached,
            "AttachmentId": interface.attachment,
            "DeleteOnTermination": interface.delete_on_termination,
            "DeviceIndex": interface.device_index,
            "NetworkCardIndex": 0,
            "Status": interface.attachment_state,
        }
    answered_groups = [{"GroupId": group_id, "GroupName": group_name} for group_id, group_name in groups]
    common: dict[str, object] = {
        "Association": addresses[0][0]["Association"],
        "Attachment": attachment,
        "Description": interface.description,
        "Groups": answered_groups,
        "InterfaceType": "nat_gateway" if is_gateways(interface) else "interface",
        "Ipv6Addresses": [],
        "MacAddress": interface.mac,
        "NetworkInterfaceId": interface.id,
        "OwnerId": interface.account,
        "PrivateDnsName": name,
        "PrivateIpAddress": interface.private_address,
        "PrivateIpAddresses": addresses[0],
        "SourceDestCheck": interface.source_dest_check,
        "Status": "in-use" if interface.attachment else "available",
        "SubnetId": interface.subnet,
        "VpcId": interface.vpc,
    }
    return Described(
        network_interface=common
        | {
            "Association": addresses[1][0]["Association"],
            "Attachment": {"InstanceId": interface.instance, "InstanceOwnerId": interface.account, **attachment}
            if interface.instance and attachment
            else attachment,
            "AvailabilityZone": interface.zone,
            "AvailabilityZoneId": zone_id(interface.region, interface.zone),
            "PrivateIpAddresses": addresses[1],
            "RequesterManaged": is_gateways(interface),
            "TagSet": answered_tags(tags),
        },
        instance_network_interface=common,
        groups=answered_groups,
        public_address=public,
        private_name=name,
        public_name=public_name(public) if public and is_named else None,
        secondary=[(one, elastic[one].address if one in elastic else None) for one in secondary],
    )
