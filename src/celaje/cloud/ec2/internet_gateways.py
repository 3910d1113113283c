"""Internet gateways: what public addresses are reached through."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import or_, select

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.filters import Filters
from celaje.cloud.aws.tag_specifications import tags_for
from celaje.cloud.ec2 import quotas
from celaje.cloud.ec2.kinds import Kind, Tagged
from celaje.cloud.ec2.vpcs import VPCS
from celaje.cloud.state.addresses import ElasticAddress
from celaje.cloud.state.networks import InternetGateway, NetworkInterface, Vpc
from celaje.cloud.state.tags import answered_tags, remove_tags, set_tags

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")
GATEWAYS = Kind(
    InternetGateway,
    "igw",
    "InvalidInternetGatewayId",
    "InvalidInternetGatewayID.NotFound",
    "internetGateway ID",
)

_FILTERS = Filters[Tagged[InternetGateway]](
    {
        "attachment.state": lambda gateway: "available" if gateway.row.vpc else None,
        "attachment.vpc-id": lambda gateway: gateway.row.vpc or None,
        "internet-gateway-id": lambda gateway: gateway.row.id,
        "owner-id": lambda gateway: gateway.row.account,
    },
    tags=lambda gateway: gateway.tags,
)


@ACTIONS.action
def describe_internet_gateways(call: Call, request: ec2.DescribeInternetGatewaysRequestTypeDef) -> Answer:
    """The account's internet gateways."""
    found, token = GATEWAYS.listed(call, request, request.get("InternetGatewayIds"), _FILTERS)
    return {"InternetGateways": [_described(gateway) for gateway in found], "NextToken": token}


def _described(gateway: Tagged[InternetGateway]) -> dict[str, object]:
    row = gateway.row
    return {
        "Attachments": [{"State": "available", "VpcId": row.vpc}] if row.vpc else [],
        "InternetGatewayId": row.id,
        "OwnerId": row.account,
        "Tags": answered_tags(gateway.tags),
    }


@ACTIONS.action
def create_internet_gateway(call: Call, request: ec2.CreateInternetGatewayRequestTypeDef) -> Answer:
    """A gateway that is attached to no VPC."""
    tags = tags_for(request.get("TagSpecifications"), "internet-gateway")
    quotas.refuse_beyond(
        call.session,
        call,
        InternetGateway,
        quotas.INTERNET_GATEWAYS,
        "internet gateways",
        "InternetGatewayLimitExceeded",
    )
    gateway = GATEWAYS.new(call, vpc="")
    set_tags(call.session, gateway.id, "internet-gateway", call.account, call.region, tags)
    return {"InternetGateway": _described(Tagged(gateway, tags))}


@ACTIONS.action
def attach_internet_gateway(call: Call, request: ec2.AttachInternetGatewayRequestTypeDef) -> Answer:
    """From now on the VPC's routes to it lead outside."""
    gateway = GATEWAYS.find(call, request["InternetGatewayId"])
    vpc = VPCS.find(call, request["VpcId"])
    if gateway.vpc:
        raise AwsError(
            "Resource.AlreadyAssociated", f"resource {gateway.id} is already attached to network {gateway.vpc}"
        )
    if gateway_of(call, vpc.id) is not None:
        raise AwsError("InvalidParameterValue", f"Network {vpc.id} already has an internet gateway attached")
    gateway.vpc = vpc.id
    call.wake("networks")
    return {}


@ACTIONS.action
def detach_internet_gateway(call: Call, request: ec2.DetachInternetGatewayRequestTypeDef) -> Answer:
    """From a VPC in which nothing has a public address. Routes to the gateway lead nowhere from now on."""
    gateway = GATEWAYS.find(call, request["InternetGatewayId"])
    vpc = VPCS.find(call, request["VpcId"])
    if gateway.vpc != vpc.id:
        raise AwsError("Gateway.NotAttached", f"resource {gateway.id} is not attached to network {vpc.id}")
    if _has_public_addresses(call, vpc):
        raise AwsError(
            "DependencyViolation",
            f"Network {vpc.id} has some mapped public address(es). Please unmap those public address(es) before "
            "detaching the gateway.",
        )
    gateway.vpc = ""
    call.wake("networks")
    return {}


@ACTIONS.action
def delete_internet_gateway(call: Call, request: ec2.DeleteInternetGatewayRequestTypeDef) -> Answer:
    """A gateway that is attached to no VPC."""
    gateway = GATEWAYS.find(call, request["InternetGatewayId"])
    if gateway.vpc:
        raise AwsError(
            "DependencyViolation", f"The internetGateway '{gateway.id}' has dependencies and cannot be deleted."
        )
    remove_tags(call.session, gateway.id)
    call.session.delete(gateway)
    return {}


def gateway_of(call: Call, vpc: str) -> InternetGateway | None:
    """The gateway that is attached to a VPC."""
    return call.session.scalars(select(InternetGateway).where(InternetGateway.vpc == vpc)).one_or_none()


def refuse_without_gateway(call: Call, vpc: str) -> None:
    """AwsError Gateway.NotAttached if nothing in the VPC can have a public address of its own."""
    if gateway_of(call, vpc) is None:
        raise AwsError("Gateway.NotAttached", f"Network {vpc} is not attached to any internet gateway")


def _has_public_addresses(call: Call, vpc: Vpc) -> bool:
    query = (
        select(NetworkInterface.id)
        .outerjoin(ElasticAddress, ElasticAddress.interface == NetworkInterface.id)
        .where(NetworkInterface.vpc == vpc.id)
        .where(or_(NetworkInterface.public_address != "", ElasticAddress.id.is_not(None)))
    )
    return call.session.scalars(query).first() is not None
