"""Actions that make, change and end subnets."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from sqlalchemy import select

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.tag_specifications import tags_for
from celaje.cloud.ec2 import quotas
from celaje.cloud.ec2.cidr_blocks import subnet_cidr
from celaje.cloud.ec2.kinds import Tagged
from celaje.cloud.ec2.private_addresses import free_addresses
from celaje.cloud.ec2.subnets import SUBNETS, default_subnet, described
from celaje.cloud.ec2.vpcs import VPCS, cidrs_of, default_acl, default_vpc
from celaje.cloud.state.identifiers import new_id
from celaje.cloud.state.networks import NetworkAcl, NetworkAclAssociation, NetworkInterface, RouteTable, Subnet, Vpc
from celaje.cloud.state.tags import remove_tags, set_tags
from celaje.cloud.state.zones import zone_id

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")

_DEFAULT_PREFIX = 20


@ACTIONS.action
def create_subnet(call: Call, request: ec2.CreateSubnetRequestTypeDef) -> Answer:
    """A part of one of the VPC's networks, in a zone; it goes by the main route table and the default access list."""
    vpc = VPCS.find(call, request["VpcId"])
    for member in ("Ipv6CidrBlock", "Ipv6Native", "Ipv6IpamPoolId", "Ipv4IpamPoolId", "OutpostArn"):
        if request.get(member):
            raise AwsError("UnsupportedOperation", f"Subnets here have IPv4 addresses; leave out {member}")
    if not request.get("CidrBlock"):
        raise AwsError("MissingParameter", "The request must contain the parameter cidrBlock")
    network = subnet_cidr(request["CidrBlock"])
    zone = _zone(call, request.get("AvailabilityZone"), request.get("AvailabilityZoneId"))
    if not any(network.subnet_of(ipaddress.IPv4Network(one.cidr)) for one in cidrs_of(vpc)):
        raise AwsError("InvalidSubnet.Range", f"The CIDR '{network}' is invalid.")
    _refuse_conflict(call, vpc, network)
    tags = tags_for(request.get("TagSpecifications"), "subnet")
    quotas.refuse_beyond_in_vpc(
        call.session, Subnet, vpc.id, quotas.SUBNETS_PER_VPC, "subnets", "SubnetLimitExceeded"
    )
    subnet = _made(call, vpc, network, zone)
    set_tags(call.session, subnet.id, "subnet", call.account, call.region, tags)
    return {"Subnet": _answered(call, Tagged(subnet, tags))}


@ACTIONS.action
def create_default_subnet(call: Call, request: ec2.CreateDefaultSubnetRequestTypeDef) -> Answer:
    """That of a zone, where an account has none any more."""
    zone = _zone(call, request.get("AvailabilityZone"), request.get("AvailabilityZoneId"))
    vpc = default_vpc(call.session, call.account, call.region)
    if vpc is None:
        raise AwsError(
            "DefaultVpcDoesNotExist", "No default VPC found for this account; make one with CreateDefaultVpc"
        )
    if (there := default_subnet(call, zone)) is not None:
        raise AwsError(
            "DefaultSubnetAlreadyExistsInAvailabilityZone", f"'{there.id}' is already the default subnet in {zone}."
        )
    cidrs = call.session.scalars(select(Subnet.cidr).where(Subnet.vpc == vpc.id)).all()
    taken = [ipaddress.IPv4Network(cidr) for cidr in cidrs]
    parts = ipaddress.IPv4Network(vpc.cidr).subnets(new_prefix=_DEFAULT_PREFIX)
    free = next((part for part in parts if not any(part.overlaps(one) for one in taken)), None)
    if free is None:
        raise AwsError("InvalidSubnet.Conflict", f"{vpc.id} has no room for another subnet of /{_DEFAULT_PREFIX}")
    subnet = _made(call, vpc, free, zone)
    subnet.is_default = subnet.public_addresses = True
    return {"Subnet": _answered(call, Tagged(subnet, {}))}


def _made(call: Call, vpc: Vpc, network: ipaddress.IPv4Network, zone: str) -> Subnet:
    subnet = SUBNETS.new(call, vpc=vpc.id, zone=zone, cidr=str(network), is_default=False, public_addresses=False)
    access = default_acl(call.session, vpc.id)
    access.associations = [*access.associations, NetworkAclAssociation(new_id("aclassoc"), subnet.id)]
    call.session.flush()
    call.wake("networks")
    return subnet


def _answered(call: Call, subnet: Tagged[Subnet]) -> dict[str, object]:
    return described(subnet, free_addresses(call.session, [subnet.row])[subnet.row.id])


def _zone(call: Call, name: str | None, identifier: str | None) -> str:
    """The zone that a request says, the first one if it says none. AwsError InvalidParameterValue."""
    zones = [call.region + letter for letter in call.settings.regions[call.region]]
    if name and identifier:
        raise AwsError("InvalidParameterCombination", "Give either availabilityZone or availabilityZoneId")
    found = [zone for zone in zones if zone == name or zone_id(call.region, zone) == identifier]
    if (name or identifier) and not found:
        parameter = "availabilityZone" if name else "availabilityZoneId"
        raise AwsError(
            "InvalidParameterValue",
            f"Value ({(name or identifier or '')[:64]}) for parameter {parameter} is invalid. Subnets can currently "
            f"only be created in the following availability zones: {', '.join(zones)}.",
        )
    return (found or zones)[0]


def _refuse_conflict(call: Call, vpc: Vpc, network: ipaddress.IPv4Network) -> None:
    cidrs = call.session.scalars(select(Subnet.cidr).where(Subnet.vpc == vpc.id))
    if any(network.overlaps(ipaddress.IPv4Network(cidr)) for cidr in cidrs):
        raise AwsError("InvalidSubnet.Conflict", f"The CIDR '{network}' conflicts with another subnet")


@ACTIONS.action
def delete_subnet(call: Call, request: ec2.DeleteSubnetRequestTypeDef) -> Answer:
    """A subnet in which there is no interface."""
    subnet = SUBNETS.find(call, request["SubnetId"])
    used = select(NetworkInterface.id).where(NetworkInterface.subnet == subnet.id)
    if call.session.scalars(used).first() is not None:
        raise AwsError(
            "DependencyViolation", f"The subnet '{subnet.id}' has dependencies and cannot be deleted."
        )
    for table in call.session.scalars(select(RouteTable).where(RouteTable.vpc == subnet.vpc)).all():
        if any(one.subnet == subnet.id for one in table.associations):
            table.associations = [one for one in table.associations if one.subnet != subnet.id]
    for access in call.session.scalars(select(NetworkAcl).where(NetworkAcl.vpc == subnet.vpc)).all():
        if any(one.subnet == subnet.id for one in access.associations):
            access.associations = [one for one in access.associations if one.subnet != subnet.id]
    remove_tags(call.session, subnet.id)
    call.session.delete(subnet)
    call.wake("networks")
    return {}


# What a subnet's attributes are here, where a request may only say so again.
_FIXED: dict[str, object] = {
    "AssignIpv6AddressOnCreation": False,
    "EnableDns64": False,
    "EnableResourceNameDnsAAAARecordOnLaunch": False,
    "EnableResourceNameDnsARecordOnLaunch": False,
    "MapCustomerOwnedIpOnLaunch": False,
    "PrivateDnsHostnameTypeOnLaunch": "ip-name",
}


@ACTIONS.action
def modify_subnet_attribute(call: Call, request: ec2.ModifySubnetAttributeRequestTypeDef) -> Answer:
    """Whether instances are given public addresses at launch; the other attributes are what they are."""
    subnet = SUBNETS.find(call, request["SubnetId"])
    asked = sorted(name for name in request if name not in ("SubnetId", "DryRun"))
    if len(asked) != 1:
        raise AwsError(
            "InvalidParameterCombination", f"One attribute must be given; given: {', '.join(asked) or 'none'}"
        )
    if "MapPublicIpOnLaunch" in request:
        subnet.public_addresses = bool(request["MapPublicIpOnLaunch"].get("Value"))
        return {}
    [name] = asked
    if name not in _FIXED:
        raise AwsError("InvalidParameterCombination", f"Subnets of this cloud have no attribute {name}")
    given = dict(request).get(name)
    if (given.get("Value") if isinstance(given, dict) else given) != _FIXED[name]:
        raise AwsError(
            "InvalidParameterCombination", f"{name} of a subnet is {_FIXED[name]} in this cloud and cannot change"
        )
    return {}
