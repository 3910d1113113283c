"""Route tables: where a subnet's packets go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.filters import Filters
from celaje.cloud.ec2.kinds import Kind, Tagged
from celaje.cloud.state.networks import Route, RouteTable
from celaje.cloud.state.tags import answered_tags

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")
ROUTE_TABLES = Kind(
    RouteTable, "rtb", "InvalidRouteTableId", "InvalidRouteTableID.NotFound", "routeTable ID"
)

_FILTERS = Filters[Tagged[RouteTable]](
    {
        "association.main": lambda table: [not each.subnet for each in table.row.associations],
        "association.route-table-association-id": lambda table: [each.id for each in table.row.associations],
        "association.route-table-id": lambda table: table.row.id if table.row.associations else None,
        "association.subnet-id": lambda table: [each.subnet or None for each in table.row.associations],
        "association.gateway-id": lambda table: None,
        "owner-id": lambda table: table.row.account,
        "route-table-id": lambda table: table.row.id,
        "route.destination-cidr-block": lambda table: [route.destination for route in table.row.routes],
        "route.gateway-id": lambda table: [route.target for route in table.row.routes],
        "route.origin": lambda table: [route.origin for route in table.row.routes],
        "route.state": lambda table: "active",
        "vpc-id": lambda table: table.row.vpc,
    },
    tags=lambda table: table.tags,
)


@ACTIONS.action
def describe_route_tables(call: Call, request: ec2.DescribeRouteTablesRequestTypeDef) -> Answer:
    """The account's route tables. A subnet without one of its own has its VPC's main table."""
    found, token = ROUTE_TABLES.listed(call, request, request.get("RouteTableIds"), _FILTERS)
    return {"RouteTables": [_described(table) for table in found], "NextToken": token}


def _described(table: Tagged[RouteTable]) -> dict[str, object]:
    row = table.row
    return {
        "Associations": [
            {
                "AssociationState": {"State": "associated"},
                "Main": not association.subnet,
                "RouteTableAssociationId": association.id,
                "RouteTableId": row.id,
                "SubnetId": association.subnet or None,
            }
            for association in row.associations
        ],
        "OwnerId": row.account,
        "PropagatingVgws": [],
        "RouteTableId": row.id,
        "Routes": [_described_route(route) for route in row.routes],
        "Tags": answered_tags(table.tags),
        "VpcId": row.vpc,
    }


def _described_route(route: Route) -> dict[str, object]:
    return {
        "DestinationCidrBlock": route.destination,
        "GatewayId": route.target,
        "Origin": route.origin,
        "State": "active",
    }
