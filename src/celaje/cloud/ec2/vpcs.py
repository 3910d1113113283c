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
    CidrAssociation,
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
from celaje.cloud.state.zones import private_domain

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")
VPCS = Kind(Vpc, "vpc", "InvalidVpcID", "InvalidVpcID.NotFound", "vpc ID")

DEFAULT_CIDR = "172.31.0.0/16"
_SUBNET_PREFIX = 20
LAST_ENTRY = 32767  # of an access list: the one that nobody can remove


def default_vpc(session: Session, account: str, region: str) -> Vpc | None:
    """The account's default VPC of a region, None if it has none."""
    return session.scalars(
        select(Vpc).where(Vpc.account == account, Vpc.region == region, Vpc.is_default)
    ).one_or_none()


def ensure_default_vpc(
    session: Session, account: str, region: str, zones: Sequence[str], now: datetime.datetime
) -> Vpc:
    """The account's default VPC of a region, with a subnet a zone (`zones` are letters: a, b), made where it is
    missing: what every VPC has, an internet gateway, and the route to it.
    """
    if found := default_vpc(session, account, region):
        return found
    vpc = new_vpc(session, account, region, DEFAULT_CIDR, now)
    vpc.is_default = vpc.dns_host_names = True
    gateway = InternetGateway(id=new_id("igw"), account=account, region=region, created=now, vpc=vpc.id)
    parts = ipaddress.IPv4Network(DEFAULT_CIDR).subnets(new_prefix=_SUBNET_PREFIX)
    subnets = [
        Subnet(
            id=new_id("subnet"),
            account=account,
            region=region,
            created=now,
            vpc=vpc.id,
            zone=region + letter,
            cidr=str(part),
            is_default=True,
            public_addresses=True,
        )
        for letter, part in zip(zones, parts, strict=False)
    ]
    session.add_all([gateway, *subnets])
    table = main_table(session, vpc.id)
    table.routes = [*table.routes, Route("0.0.0.0/0", gateway.id)]
    access = default_acl(session, vpc.id)
    access.associations = [NetworkAclAssociation(new_id("aclassoc"), subnet.id) for subnet in subnets]
    session.flush()
    return vpc


def new_vpc(session: Session, account: str, region: str, cidr: str, now: datetime.datetime) -> Vpc:
    """A VPC with what it is born with: a main route table, an access list that admits all, the group `default`, and
    DHCP options, which are those of every new VPC of the account's in the region."""

    def common(prefix: str) -> dict[str, object]:
        return {"id": new_id(prefix), "account": account, "region": region, "created": now}

    options = _options_of_new_vpcs(session, account, region)
    if options is None:
        options = DhcpOptions(**common("dopt"), options=_default_options(region))
        session.add(options)
    vpc = Vpc(**common("vpc"), cidr=cidr, dhcp_options=options.id)
    table = RouteTable(
        **common("rtb"),
        vpc=vpc.id,
        main=True,
        routes=[Route(cidr, "local", "CreateRouteTable")],
        associations=[RouteTableAssociation(new_id("rtbassoc"))],
    )
    access = NetworkAcl(
        **common("acl"),
        vpc=vpc.id,
        is_default=True,
        entries=[
            NetworkAclEntry(number, egress, allow)
            for egress in (True, False)
            for number, allow in ((100, True), (LAST_ENTRY, False))
        ],
        associations=[],
    )
    session.add_all([vpc, table, access])
    add_default_group(session, vpc.id, account, region, now)
    session.flush()
    return vpc


def _default_options(region: str) -> dict[str, list[str]]:
    return {"domain-name": [private_domain(region)], "domain-name-servers": ["AmazonProvidedDNS"]}


def _options_of_new_vpcs(session: Session, account: str, region: str) -> DhcpOptions | None:
    """The oldest ones that say what the default ones do."""
    of_account = select(DhcpOptions).where(DhcpOptions.account == account, DhcpOptions.region == region)
    rows = session.scalars(of_account.order_by(DhcpOptions.created, DhcpOptions.id))
    return next((row for row in rows if row.options == _default_options(region)), None)


def main_table(session: Session, vpc: str) -> RouteTable:
    """The route table of the VPC's subnets that name no other."""
    return session.scalars(select(RouteTable).where(RouteTable.vpc == vpc, RouteTable.main)).one()


def default_acl(session: Session, vpc: str) -> NetworkAcl:
    """The access list that new subnets of the VPC have."""
    return session.scalars(select(NetworkAcl).where(NetworkAcl.vpc == vpc, NetworkAcl.is_default)).one()


def cidrs_of(vpc: Vpc) -> list[CidrAssociation]:
    """All of a VPC's networks, the first one first."""
    return [CidrAssociation(_association_id(vpc), vpc.cidr), *vpc.further_cidrs]


_FILTERS = Filters[Tagged[Vpc]](
    {
        "cidr": lambda vpc: vpc.row.cidr,
        "cidr-block": lambda vpc: vpc.row.cidr,
        "cidrBlock": lambda vpc: vpc.row.cidr,
        "cidr-block-association.association-id": lambda vpc: [one.id for one in cidrs_of(vpc.row)],
        "cidr-block-association.cidr-block": lambda vpc: [one.cidr for one in cidrs_of(vpc.row)],
        "cidr-block-association.state": lambda vpc: "associated",
        "dhcp-options-id": lambda vpc: vpc.row.dhcp_options,
        "is-default": lambda vpc: vpc.row.is_default,
        "isDefault": lambda vpc: vpc.row.is_default,
        "owner-id": lambda vpc: vpc.row.account,
        "state": lambda vpc: "available",
        "vpc-id": lambda vpc: vpc.row.id,
    },
    tags=lambda vpc: vpc.tags,
    never=(
        "ipv6-cidr-block-association.association-id",
        "ipv6-cidr-block-association.ipv6-cidr-block",
        "ipv6-cidr-block-association.ipv6-pool",
        "ipv6-cidr-block-association.state",
    ),
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
        "CidrBlockAssociationSet": [described_cidr(one, "associated") for one in cidrs_of(row)],
        "DhcpOptionsId": row.dhcp_options,
        "InstanceTenancy": "default",
        "Ipv6CidrBlockAssociationSet": [],
        "IsDefault": row.is_default,
        "OwnerId": row.account,
        "State": "available",
        "Tags": answered_tags(vpc.tags),
        "VpcId": row.id,
    }


def described_cidr(one: CidrAssociation, state: str) -> dict[str, object]:
    """One of a VPC's networks."""
    return {"AssociationId": one.id, "CidrBlock": one.cidr, "CidrBlockState": {"State": state}}


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
