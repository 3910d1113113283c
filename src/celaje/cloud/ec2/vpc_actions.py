"""Actions that make, change and end VPCs."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from sqlalchemy import delete, select

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.tag_specifications import tags_for
from celaje.cloud.ec2 import quotas
from celaje.cloud.ec2.cidr_blocks import refuse_beside, vpc_cidr
from celaje.cloud.ec2.kinds import Tagged
from celaje.cloud.ec2.vpcs import VPCS, cidrs_of, default_acl, described, described_cidr, main_table, new_vpc
from celaje.cloud.state.identifiers import new_id
from celaje.cloud.state.networks import (
    CidrAssociation,
    InternetGateway,
    NatGateway,
    NetworkAcl,
    NetworkInterface,
    Route,
    RouteTable,
    Subnet,
    Vpc,
)
from celaje.cloud.state.security_groups import DEFAULT_NAME, SecurityGroup, SecurityGroupRule
from celaje.cloud.state.tags import remove_tags, set_tags

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")

_IPV6 = ("AmazonProvidedIpv6CidrBlock", "Ipv6Pool", "Ipv6CidrBlock", "Ipv6IpamPoolId", "Ipv6NetmaskLength")
_POOLS = ("Ipv4IpamPoolId", "Ipv4NetmaskLength")


def _refuse(request: object, members: tuple[str, ...]) -> None:
    assert isinstance(request, dict)
    for member in members:
        if request.get(member):
            raise AwsError(
                "UnsupportedOperation", f"VPCs here have IPv4 addresses that the request says; leave out {member}"
            )


@ACTIONS.action
def create_vpc(call: Call, request: ec2.CreateVpcRequestTypeDef) -> Answer:
    """A VPC with a main route table, an access list and a security group; without subnets or gateways."""
    _refuse(request, (*_IPV6, *_POOLS))
    encryption = request.get("VpcEncryptionControl")
    if encryption and encryption.get("Mode"):
        raise AwsError("UnsupportedOperation", "Traffic inside a VPC is not encrypted; leave VpcEncryptionControl out")
    if request.get("InstanceTenancy", "default") != "default":
        raise AwsError("UnsupportedOperation", "Instances here share their host: the tenancy is default")
    if not request.get("CidrBlock"):
        raise AwsError("MissingParameter", "The request must contain the parameter cidrBlock")
    network = vpc_cidr(request["CidrBlock"])
    tags = tags_for(request.get("TagSpecifications"), "vpc")
    quotas.refuse_beyond(call.session, call, Vpc, quotas.VPCS, "VPCs", "VpcLimitExceeded")
    vpc = new_vpc(call.session, call.account, call.region, str(network), call.now)
    set_tags(call.session, vpc.id, "vpc", call.account, call.region, tags)
    return {"Vpc": {**described(Tagged(vpc, tags)), "State": "pending"}}


@ACTIONS.action
def delete_vpc(call: Call, request: ec2.DeleteVpcRequestTypeDef) -> Answer:
    """A VPC in which nothing is left but what it was born with, which goes too. AwsError DependencyViolation."""
    vpc = VPCS.find(call, request["VpcId"])
    session = call.session
    others = (
        select(Subnet.id).where(Subnet.vpc == vpc.id),
        select(InternetGateway.id).where(InternetGateway.vpc == vpc.id),
        select(NatGateway.id).where(NatGateway.vpc == vpc.id, NatGateway.state.not_in(("deleted", "failed"))),
        select(NetworkInterface.id).where(NetworkInterface.vpc == vpc.id),
        select(RouteTable.id).where(RouteTable.vpc == vpc.id, ~RouteTable.main),
        select(NetworkAcl.id).where(NetworkAcl.vpc == vpc.id, ~NetworkAcl.is_default),
        select(SecurityGroup.id).where(SecurityGroup.vpc == vpc.id, SecurityGroup.name != DEFAULT_NAME),
    )
    if any(session.scalars(query).first() is not None for query in others):
        raise AwsError(
            "DependencyViolation", f"The vpc '{vpc.id}' has dependencies and cannot be deleted."
        )
    group = session.scalars(select(SecurityGroup).where(SecurityGroup.vpc == vpc.id)).one()
    rules = select(SecurityGroupRule.id).where(SecurityGroupRule.security_group == group.id)
    for rule in session.scalars(rules).all():
        remove_tags(session, rule)
    session.execute(delete(SecurityGroupRule).where(SecurityGroupRule.security_group == group.id))
    for gone in session.scalars(select(NatGateway).where(NatGateway.vpc == vpc.id)).all():
        remove_tags(session, gone.id)
        session.delete(gone)
    for row in (group, main_table(session, vpc.id), default_acl(session, vpc.id), vpc):
        remove_tags(session, row.id)
        session.delete(row)
    call.wake("networks")
    return {}


@ACTIONS.action
def modify_vpc_attribute(call: Call, request: ec2.ModifyVpcAttributeRequestTypeDef) -> Answer:
    """Whether its name server answers, and whether its instances have public names. One attribute at a time."""
    vpc = VPCS.find(call, request["VpcId"])
    asked = sorted(name for name in request if name not in ("VpcId", "DryRun"))
    if len(asked) != 1:
        raise AwsError(
            "InvalidParameterCombination",
            f"One attribute must be given at a time; given: {', '.join(asked) or 'none'}",
        )
    if "EnableDnsSupport" in request:
        vpc.dns_support = bool(request["EnableDnsSupport"].get("Value"))
    elif "EnableDnsHostnames" in request:
        vpc.dns_host_names = bool(request["EnableDnsHostnames"].get("Value"))
    elif request["EnableNetworkAddressUsageMetrics"].get("Value"):
        raise AwsError("UnsupportedOperation", "This cloud counts no address usage: leave the attribute at false")
    call.wake("networks")
    return {}


@ACTIONS.action
def associate_vpc_cidr_block(call: Call, request: ec2.AssociateVpcCidrBlockRequestTypeDef) -> Answer:
    """One more network of the VPC's, from now on local to all of its route tables."""
    vpc = VPCS.find(call, request["VpcId"])
    _refuse(request, (*_IPV6, *_POOLS, "Ipv6CidrBlockNetworkBorderGroup"))
    if not request.get("CidrBlock"):
        raise AwsError("MissingParameter", "The request must contain the parameter cidrBlock")
    network = vpc_cidr(request["CidrBlock"])
    there = [ipaddress.IPv4Network(one.cidr) for one in cidrs_of(vpc)]
    if any(network.overlaps(one) for one in there):
        raise AwsError("InvalidVpc.Range", f"The CIDR '{network}' conflicts with another CIDR of {vpc.id}.")
    refuse_beside(network, there)
    if len(there) >= quotas.CIDRS_PER_VPC:
        raise AwsError(
            "CidrLimitExceeded",
            f"This network {vpc.id} has met its maximum number of allowed CIDRs: {quotas.CIDRS_PER_VPC}",
        )
    tables = call.session.scalars(select(RouteTable).where(RouteTable.vpc == vpc.id)).all()
    for table in tables:
        if any(ipaddress.IPv4Network(route.destination).subnet_of(network) for route in table.routes):
            raise AwsError(
                "InvalidVpc.Range",
                f"The CIDR '{network}' is as wide as a route in {table.id}, or wider; delete that route first",
            )
    made = CidrAssociation(new_id("vpc-cidr-assoc"), str(network))
    vpc.further_cidrs = [*vpc.further_cidrs, made]
    for table in tables:
        local = [route for route in table.routes if route.target == "local"]
        others = [route for route in table.routes if route.target != "local"]
        table.routes = [*local, Route(str(network), "local", "CreateRouteTable"), *others]
    call.wake("networks")
    return {"VpcId": vpc.id, "CidrBlockAssociation": described_cidr(made, "associating")}


@ACTIONS.action
def disassociate_vpc_cidr_block(call: Call, request: ec2.DisassociateVpcCidrBlockRequestTypeDef) -> Answer:
    """One network less: none of its first, and none in which there are subnets."""
    association = request["AssociationId"]
    rows = VPCS.rows(call)
    if any(cidrs_of(vpc)[0].id == association for vpc in rows):
        raise AwsError(
            "OperationNotPermitted",
            f"The vpc CIDR block with association ID {association} may not be disassociated. It is the primary IPv4 "
            "CIDR block of the VPC",
        )
    found = next(((vpc, one) for vpc in rows for one in vpc.further_cidrs if one.id == association), None)
    if found is None:
        raise AwsError(
            "InvalidVpcCidrBlockAssociationID.NotFound",
            f"The vpc CIDR block association ID '{association}' does not exist",
        )
    vpc, gone = found
    network = ipaddress.IPv4Network(gone.cidr)
    subnets = call.session.scalars(select(Subnet.cidr).where(Subnet.vpc == vpc.id))
    if any(ipaddress.IPv4Network(cidr).subnet_of(network) for cidr in subnets):
        raise AwsError(
            "InvalidCidrBlock.InUse",
            f"The vpc CIDR block with association ID {association} may not be disassociated because it has subnets "
            "in it: delete these first",
        )
    vpc.further_cidrs = [one for one in vpc.further_cidrs if one.id != association]
    for table in call.session.scalars(select(RouteTable).where(RouteTable.vpc == vpc.id)).all():
        table.routes = [route for route in table.routes if (route.destination, route.target) != (gone.cidr, "local")]
    call.wake("networks")
    return {"VpcId": vpc.id, "CidrBlockAssociation": described_cidr(gone, "disassociating")}
