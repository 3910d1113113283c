"""Virtual private clouds, and the default one that an account has in every region from its first day."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.filters import Filters
from celaje.cloud.ec2.kinds import Kind, Tagged
from celaje.cloud.state.identifiers import new_id
from celaje.cloud.state.networks import (
    DhcpOptions,
    InternetGateway,
    NetworkAcl,
    NetworkAclAssociation,
    NetworkAclEntry,
    Route,
    RouteTable,
    RouteTableAssociation,
    Subnet,
    Vpc,
)
from celaje.cloud.state.security_groups import add_default_group
from celaje.cloud.state.tags import answered_tags

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")
VPCS = Kind(Vpc, "vpc", "InvalidVpcID", "InvalidVpcID.NotFound", "vpc ID")

DEFAULT_CIDR = "172.31.0.0/16"
_SUBNET_PREFIX = 20
_LAST_ENTRY = 32767  # of an access list: the one that nobody can remove


def default_vpc(session: Session, account: str, region: str) -> Vpc | None:
    """The account's default VPC of a region, None if it has none."""
    return session.scalars(
        select(Vpc).where(Vpc.account == account, Vpc.region == region, Vpc.is_default)
    ).one_or_none()


def ensure_default_vpc(
    session: Session, account: str, region: str, zones: Sequence[str], now: datetime.datetime
) -> Vpc:
    """The account's default VPC of a region, with a subnet a zone (`zones` are letters: a, b), made where it is
    missing: an internet gateway, a main route table with a route to it, an access list that admits all, DHCP options,
    and the group `default`.
    """
    if found := default_vpc(session, account, region):
        return found

    def common(prefix: str) -> dict[str, object]:
        return {"id": new_id(prefix), "account": account, "region": region, "created": now}

    domain = "ec2.internal" if region == "us-east-1" else f"{region}.compute.internal"
    options = DhcpOptions(
        **common("dopt"), options={"domain-name": [domain], "domain-name-servers": ["AmazonProvidedDNS"]}
    )
    vpc = Vpc(**common("vpc"), cidr=DEFAULT_CIDR, dhcp_options=options.id, is_default=True, dns_host_names=True)
    gateway = InternetGateway(**common("igw"), vpc=vpc.id)
    parts = ipaddress.IPv4Network(DEFAULT_CIDR).subnets(new_prefix=_SUBNET_PREFIX)
    subnets = [
        Subnet(
            **common("subnet"),
            vpc=vpc.id,
            zone=region + letter,
            cidr=str(part),
            is_default=True,
            public_addresses=True,
        )
        for letter, part in zip(zones, parts, strict=False)
    ]
    table = RouteTable(
        **common("rtb"),
        vpc=vpc.id,
        main=True,
        routes=[Route(DEFAULT_CIDR, "local", "CreateRouteTable"), Route("0.0.0.0/0", gateway.id)],
        associations=[RouteTableAssociation(new_id("rtbassoc"))],
    )
    access = NetworkAcl(
        **common("acl"),
        vpc=vpc.id,
        is_default=True,
        entries=[
            NetworkAclEntry(number, egress, allow)
            for egress in (True, False)
            for number, allow in ((100, True), (_LAST_ENTRY, False))
        ],
        associations=[NetworkAclAssociation(new_id("aclassoc"), subnet.id) for subnet in subnets],
    )
    session.add_all([options, vpc, gateway, table, access, *subnets])
    add_default_group(session, vpc.id, account, region, now)
    session.flush()
    return vpc


_FILTERS = Filters[Tagged[Vpc]](
    {
        "cidr": lambda vpc: vpc.row.cidr,
        "cidr-block-association.association-id": lambda vpc: _association_id(vpc.row),
        "cidr-block-association.cidr-block": lambda vpc: vpc.row.cidr,
        "cidr-block-association.state": lambda vpc: "associated",
        "dhcp-options-id": lambda vpc: vpc.row.dhcp_options,
        "is-default": lambda vpc: vpc.row.is_default,
        "isDefault": lambda vpc: vpc.row.is_default,
        "owner-id": lambda vpc: vpc.row.account,
        "state": lambda vpc: "available",
        "vpc-id": lambda vpc: vpc.row.id,
    },
    tags=lambda vpc: vpc.tags,
)


@ACTIONS.action
def describe_vpcs(call: Call, request: ec2.DescribeVpcsRequestTypeDef) -> Answer:
    """The account's VPCs."""
    found, token = VPCS.listed(call, request, request.get("VpcIds"), _FILTERS)
    return {"Vpcs": [described(vpc) for vpc in found], "NextToken": token}


def described(vpc: Tagged[Vpc]) -> dict[str, object]:
    """A VPC as its description has it."""
    row = vpc.row
    return {
        "BlockPublicAccessStates": {"InternetGatewayBlockMode": "off"},
        "CidrBlock": row.cidr,
        "CidrBlockAssociationSet": [
            {
                "AssociationId": _association_id(row),
                "CidrBlock": row.cidr,
                "CidrBlockState": {"State": "associated"},
            }
        ],
        "DhcpOptionsId": row.dhcp_options,
        "InstanceTenancy": "default",
        "Ipv6CidrBlockAssociationSet": [],
        "IsDefault": row.is_default,
        "OwnerId": row.account,
        "State": "available",
        "Tags": answered_tags(vpc.tags),
        "VpcId": row.id,
    }


def _association_id(vpc: Vpc) -> str:
    return vpc.id.replace("vpc-", "vpc-cidr-assoc-")


@ACTIONS.action
def describe_vpc_attribute(call: Call, request: ec2.DescribeVpcAttributeRequestTypeDef) -> Answer:
    """One attribute of a VPC."""
    vpc = VPCS.find(call, request["VpcId"])
    values = {
        "enableDnsSupport": ("EnableDnsSupport", vpc.dns_support),
        "enableDnsHostnames": ("EnableDnsHostnames", vpc.dns_host_names),
        "enableNetworkAddressUsageMetrics": ("EnableNetworkAddressUsageMetrics", False),
    }
    member, value = values[request["Attribute"]]
    return {"VpcId": vpc.id, member: {"Value": value}}


@ACTIONS.action
def create_default_vpc(call: Call, request: ec2.CreateDefaultVpcRequestTypeDef) -> Answer:
    """Where an account has none any more."""
    if default_vpc(call.session, call.account, call.region) is not None:
        raise AwsError(
            "DefaultVpcAlreadyExists", "A Default VPC already exists for this account in this region."
        )
    zones = call.settings.regions[call.region]
    vpc = ensure_default_vpc(call.session, call.account, call.region, zones, call.now)
    return {"Vpc": described(Tagged(vpc, {}))}
