"""DHCP options: what a VPC's machines are told with their addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.filters import Filters
from celaje.cloud.ec2.kinds import Kind, Tagged
from celaje.cloud.state.networks import DhcpOptions
from celaje.cloud.state.tags import answered_tags

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")
DHCP_OPTIONS = Kind(
    DhcpOptions, "dopt", "InvalidDhcpOptionsId", "InvalidDhcpOptionID.NotFound", "dhcpOption ID"
)

_FILTERS = Filters[Tagged[DhcpOptions]](
    {
        "dhcp-options-id": lambda options: options.row.id,
        "key": lambda options: options.row.options.keys(),
        "owner-id": lambda options: options.row.account,
        "value": lambda options: [value for values in options.row.options.values() for value in values],
    },
    tags=lambda options: options.tags,
)


@ACTIONS.action
def describe_dhcp_options(call: Call, request: ec2.DescribeDhcpOptionsRequestTypeDef) -> Answer:
    """The account's DHCP options."""
    found, token = DHCP_OPTIONS.listed(call, request, request.get("DhcpOptionsIds"), _FILTERS)
    return {"DhcpOptions": [_described(options) for options in found], "NextToken": token}


def _described(options: Tagged[DhcpOptions]) -> dict[str, object]:
    row = options.row
    return {
        "DhcpConfigurations": [
            {"Key": key, "Values": [{"Value": value} for value in values]} for key, values in row.options.items()
        ],
        "DhcpOptionsId": row.id,
        "OwnerId": row.account,
        "Tags": answered_tags(options.tags),
    }
