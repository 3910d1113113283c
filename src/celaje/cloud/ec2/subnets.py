"""Subnets: parts of a VPC, each in one zone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.filters import Filters
from celaje.cloud.ec2.kinds import Kind, Tagged
from celaje.cloud.ec2.private_addresses import free_addresses
from celaje.cloud.state.networks import Subnet
from celaje.cloud.state.tags import answered_tags
from celaje.cloud.state.zones import zone_id

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")
SUBNETS = Kind(Subnet, "subnet", "InvalidSubnetID", "InvalidSubnetID.NotFound", "subnet ID")

_FILTERS = Filters[Tagged[Subnet]](
    {
        "availability-zone": lambda subnet: subnet.row.zone,
        "availabilityZone": lambda subnet: subnet.row.zone,
        "availability-zone-id": lambda subnet: zone_id(subnet.row.region, subnet.row.zone),
        "availabilityZoneId": lambda subnet: zone_id(subnet.row.region, subnet.row.zone),
        "cidr": lambda subnet: subnet.row.cidr,
        "cidr-block": lambda subnet: subnet.row.cidr,
        "cidrBlock": lambda subnet: subnet.row.cidr,
        "default-for-az": lambda subnet: subnet.row.is_default,
        "defaultForAz": lambda subnet: subnet.row.is_default,
        "ipv6-native": lambda subnet: False,
        "map-public-ip-on-launch": lambda subnet: subnet.row.public_addresses,
        "owner-id": lambda subnet: subnet.row.account,
        "state": lambda subnet: "available",
        "subnet-arn": lambda subnet: _arn(subnet.row),
        "subnet-id": lambda subnet: subnet.row.id,
        "vpc-id": lambda subnet: subnet.row.vpc,
        "enable-dns64": lambda subnet: False,
        "map-customer-owned-ip-on-launch": lambda subnet: False,
        "private-dns-name-options-on-launch.enable-resource-name-dns-a-record": lambda subnet: False,
        "private-dns-name-options-on-launch.enable-resource-name-dns-aaaa-record": lambda subnet: False,
        "private-dns-name-options-on-launch.hostname-type": lambda subnet: "ip-name",
    },
    tags=lambda subnet: subnet.tags,
    never=(
        "customer-owned-ipv4-pool",
        "enable-lni-at-device-index",
        "ipv6-cidr-block-association.association-id",
        "ipv6-cidr-block-association.ipv6-cidr-block",
        "ipv6-cidr-block-association.state",
        "outpost-arn",
    ),
)


@ACTIONS.action
def describe_subnets(call: Call, request: ec2.DescribeSubnetsRequestTypeDef) -> Answer:
    """The account's subnets."""
    found, token = SUBNETS.listed(
        call, request, request.get("SubnetIds"), _FILTERS, among=lambda subnet: subnet.zone
    )
    free = free_addresses(call.session, [subnet.row for subnet in found])
    return {"Subnets": [described(subnet, free[subnet.row.id]) for subnet in found], "NextToken": token}


def default_subnet(call: Call, zone: str | None = None) -> Subnet | None:
    """The caller's default subnet of a zone (us-east-1a), the first zone's if that is None."""
    query = select(Subnet).where(Subnet.account == call.account, Subnet.region == call.region, Subnet.is_default)
    rows = call.session.scalars(query.order_by(Subnet.zone))
    return next((subnet for subnet in rows if zone in (None, subnet.zone)), None)


def _arn(subnet: Subnet) -> str:
    return f"arn:aws:ec2:{subnet.region}:{subnet.account}:subnet/{subnet.id}"


def described(subnet: Tagged[Subnet], free: int) -> dict[str, object]:
    """A subnet as its description has it; `free` is how many addresses it could still give."""
    row = subnet.row
    return {
        "AssignIpv6AddressOnCreation": False,
        "AvailabilityZone": row.zone,
        "AvailabilityZoneId": zone_id(row.region, row.zone),
        "AvailableIpAddressCount": free,
        "BlockPublicAccessStates": {"InternetGatewayBlockMode": "off"},
        "CidrBlock": row.cidr,
        "DefaultForAz": row.is_default,
        "EnableDns64": False,
        "Ipv6CidrBlockAssociationSet": [],
        "Ipv6Native": False,
        "MapCustomerOwnedIpOnLaunch": False,
        "MapPublicIpOnLaunch": row.public_addresses,
        "OwnerId": row.account,
        "PrivateDnsNameOptionsOnLaunch": {
            "EnableResourceNameDnsAAAARecord": False,
            "EnableResourceNameDnsARecord": False,
            "HostnameType": "ip-name",
        },
        "State": "available",
        "SubnetArn": _arn(row),
        "SubnetId": row.id,
        "Tags": answered_tags(subnet.tags),
        "VpcId": row.vpc,
    }
