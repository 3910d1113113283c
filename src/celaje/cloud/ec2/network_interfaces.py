"""Network interfaces: an address and a MAC in a subnet, which an instance is plugged into."""

from __future__ import annotations

import datetime
import ipaddress
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from celaje.cloud.aws.errors import AwsError
from celaje.cloud.ec2.kinds import Kind
from celaje.cloud.ec2.public_addresses import elastic_address, release_public
from celaje.cloud.ec2.zones import private_name, public_name, zone_id
from celaje.cloud.state.addresses import ElasticAddress
from celaje.cloud.state.identifiers import new_id
from celaje.cloud.state.networks import InterfaceGroup, NetworkInterface, Subnet
from celaje.cloud.state.prepared import IDENTIFIERS, rows_of, values_of
from celaje.cloud.state.security_groups import SecurityGroup
from celaje.cloud.state.tags import answered_tags, remove_tags, tags_of

RESERVED_AT_START = 4  # the network's address, its router's, the DNS server's, and one that AWS keeps
RESERVED_AT_END = 1
INTERFACES = Kind(
    NetworkInterface,
    "eni",
    "InvalidNetworkInterfaceId",
    "InvalidNetworkInterfaceID.NotFound",
    "networkInterface ID",
)
GATEWAYS_ATTACHMENT = "ela-attach"
_GUESSES = 8
_OF_INSTANCES = (
    select(NetworkInterface)
    .where(NetworkInterface.instance.in_(IDENTIFIERS))
    .order_by(NetworkInterface.device_index)
)
_GROUPS = (
    select(InterfaceGroup.interface, SecurityGroup.id, SecurityGroup.name)
    .join(SecurityGroup, SecurityGroup.id == InterfaceGroup.security_group)
    .where(InterfaceGroup.interface.in_(IDENTIFIERS))
    .order_by(InterfaceGroup.interface, InterfaceGroup.position)
)
_ELASTIC = select(ElasticAddress).where(ElasticAddress.interface.in_(IDENTIFIERS))
_USED = (
    select(NetworkInterface.subnet, func.count())
    .where(NetworkInterface.subnet.in_(IDENTIFIERS))
    .group_by(NetworkInterface.subnet)
)


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
        private_address=_chosen(session, subnet, private_address) if private_address else _free(session, subnet),
        mac=_new_mac(session, subnet.vpc),
        description=description,
    )
    session.add(interface)
    set_groups(session, interface.id, groups)
    session.flush()
    return interface


def free_addresses(session: Session, subnets: Sequence[Subnet]) -> dict[str, int]:
    """How many addresses each subnet could still give, by its id."""
    used: dict[str, int] = {subnet.id: 0 for subnet in subnets}
    for subnet_id, count in values_of(session, _USED, list(used)):
        used[subnet_id] = count
    return {
        subnet.id: ipaddress.IPv4Network(subnet.cidr).num_addresses
        - RESERVED_AT_START
        - RESERVED_AT_END
        - used[subnet.id]
        for subnet in subnets
    }


def _chosen(session: Session, subnet: Subnet, address: str) -> str:
    network = ipaddress.IPv4Network(subnet.cidr)
    try:
        wanted = ipaddress.IPv4Address(address)
    except ValueError as error:
        raise AwsError(
            "InvalidParameterValue",
            f"Value ({address}) for parameter privateIpAddress is invalid. Invalid IPv4 address: {error}",
        ) from error
    offset = int(wanted) - int(network[0])
    if wanted not in network:
        raise AwsError("InvalidParameterValue", f"Address {wanted} does not fall within the subnet's address range")
    if offset < RESERVED_AT_START or offset >= network.num_addresses - RESERVED_AT_END:
        raise AwsError("InvalidParameterValue", f"Address {wanted} is in subnet's reserved address range")
    if _in_use(session, subnet, str(wanted)):
        raise AwsError("InvalidIPAddress.InUse", f"Address {wanted} is in use.")
    return str(wanted)


def _in_use(session: Session, subnet: Subnet, address: str) -> bool:
    found = select(NetworkInterface.id).where(
        NetworkInterface.subnet == subnet.id, NetworkInterface.private_address == address
    )
    return session.scalars(found).first() is not None


def _free(session: Session, subnet: Subnet) -> str:
    network = ipaddress.IPv4Network(subnet.cidr)
    first = int(network[0]) + RESERVED_AT_START
    count = network.num_addresses - RESERVED_AT_START - RESERVED_AT_END
    for _ in range(_GUESSES):
        guess = str(ipaddress.IPv4Address(first + secrets.randbelow(count)))
        if not _in_use(session, subnet, guess):
            return guess
    taken = set(session.scalars(select(NetworkInterface.private_address).where(NetworkInterface.subnet == subnet.id)))
    for at in range(count):
        if (candidate := str(ipaddress.IPv4Address(first + at))) not in taken:
            return candidate
    raise AwsError(
        "InsufficientFreeAddressesInSubnet",
        f"The specified subnet does not have enough free addresses to satisfy the request: {subnet.id} has none",
    )


def _new_mac(session: Session, vpc: str) -> str:
    while True:
        mac = "02:" + secrets.token_bytes(5).hex(":")
        found = select(NetworkInterface.id).where(NetworkInterface.vpc == vpc, NetworkInterface.mac == mac)
        if session.scalars(found).first() is None:
            return mac


def attach(
    interface: NetworkInterface, instance: str, device_index: int, delete_on_termination: bool, now: datetime.datetime
) -> None:
    """Plug the interface into an instance; `attaching` until who runs it says that it is attached."""
    interface.instance = instance
    interface.attachment = new_id("eni-attach")
    interface.attachment_state = "attaching"
    interface.device_index = device_index
    interface.delete_on_termination = delete_on_termination
    interface.attached = now


def is_gateways(interface: NetworkInterface) -> bool:
    """Whether it is a NAT gateway's: then nobody else disposes of it."""
    return interface.attachment.startswith(GATEWAYS_ATTACHMENT)


def release(session: Session, interface_id: str) -> None:
    """The interface is gone: its addresses are free, an elastic one is associated with nothing."""
    interface = session.get(NetworkInterface, interface_id)
    if interface is None:
        return
    release_public(session, interface)
    if (elastic := elastic_address(session, interface_id)) is not None:
        elastic.interface = elastic.association = ""
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
    `instance_network_interface` by DescribeInstances'. `public_address` is the one that it is reached at."""

    network_interface: dict[str, object]
    instance_network_interface: dict[str, object]
    groups: list[dict[str, str]]
    public_address: str | None
    private_name: str
    public_name: str | None


def described(session: Session, interfaces: Sequence[NetworkInterface]) -> dict[str, Described]:
    """Descriptions by the interfaces' ids."""
    ids = [interface.id for interface in interfaces]
    groups, tags, elastic = groups_of(session, ids), tags_of(session, ids), _elastic_of(session, ids)
    return {
        interface.id: _describe(interface, groups[interface.id], tags[interface.id], elastic.get(interface.id))
        for interface in interfaces
    }


def _elastic_of(session: Session, interface_ids: Sequence[str]) -> dict[str, ElasticAddress]:
    return {address.interface: address for (address,) in rows_of(session, _ELASTIC, interface_ids)}


def _describe(
    interface: NetworkInterface,
    groups: list[tuple[str, str]],
    tags: dict[str, str],
    elastic: ElasticAddress | None,
) -> Described:
    name = private_name(interface.region, interface.private_address)
    public = elastic.address if elastic else interface.public_address or None
    association: dict[str, object] | None = None
    if public:
        association = {
            "IpOwnerId": elastic.account if elastic else "amazon",
            "PublicDnsName": public_name(public),
            "PublicIp": public,
        }
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
        "Association": association,
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
        "PrivateIpAddresses": [
            {
                "Association": association,
                "Primary": True,
                "PrivateDnsName": name,
                "PrivateIpAddress": interface.private_address,
            }
        ],
        "SourceDestCheck": interface.source_dest_check,
        "Status": "in-use" if interface.attachment else "available",
        "SubnetId": interface.subnet,
        "VpcId": interface.vpc,
    }
    allocation = {"AllocationId": elastic.id, "AssociationId": elastic.association} if elastic else {}
    long_association = association | allocation if association else None
    return Described(
        network_interface=common
        | {
            "Association": long_association,
            "Attachment": {"InstanceId": interface.instance, "InstanceOwnerId": interface.account, **attachment}
            if interface.instance and attachment
            else attachment,
            "AvailabilityZone": interface.zone,
            "AvailabilityZoneId": zone_id(interface.region, interface.zone),
            "PrivateIpAddresses": [
                {
                    "Association": long_association,
                    "Primary": True,
                    "PrivateDnsName": name,
                    "PrivateIpAddress": interface.private_address,
                }
            ],
            "RequesterManaged": is_gateways(interface),
            "TagSet": answered_tags(tags),
        },
        instance_network_interface=common,
        groups=answered_groups,
        public_address=public,
        private_name=name,
        public_name=public_name(public) if public else None,
    )
