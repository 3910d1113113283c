"""Internet gateways: what public addresses are reached through."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.filters import Filters
from celaje.cloud.ec2.kinds import Kind, Tagged
from celaje.cloud.state.networks import InternetGateway
from celaje.cloud.state.tags import answered_tags

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
