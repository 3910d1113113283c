"""Route tables: where a subnet's packets go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.filters import Filters
from celaje.cloud.aws.pagination import page
from celaje.cloud.ec2.kinds import Kind, Tagged
from celaje.cloud.state.networks import InternetGateway, NatGateway, NetworkInterface, Route, RouteTable
from celaje.cloud.state.tags import answered_tags, tags_of

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")
ROUTE_TABLES = Kind(
    RouteTable, "rtb", "InvalidRouteTableId", "InvalidRouteTableID.NotFound", "routeTable ID"
)


@dataclass(frozen=True, slots=True)
class _Found(Tagged[RouteTable]):
    """A table with the descriptions of its routes, for filters."""

    routes: list[dict[str, object]]

    def of_routes(self, member: str) -> list[str]:
        """A member of each route that has it."""
        return [str(value) for route in self.routes if (value := route.get(member)) is not None]


def _targets_of(table: _Found, *kinds: str) -> list[str]:
    return [route.target for route in table.row.routes if route.target.startswith(kinds)]


_FILTERS = Filters[_Found](
    {
        "association.main": lambda table: [not each.subnet for each in table.row.associations],
        "association.route-table-association-id": lambda table: [each.id for each in table.row.associations],
        "association.route-table-id": lambda table: table.row.id if table.row.associations else None,
        "association.subnet-id": lambda table: [each.subnet or None for each in table.row.associations],
        "owner-id": lambda table: table.row.account,
        "route-table-id": lambda table: table.row.id,
        "route.destination-cidr-block": lambda table: [route.destination for route in table.row.routes],
        "route.gateway-id": lambda table: _targets_of(table, "igw-", "local"),
        "route.nat-gateway-id": lambda table: _targets_of(table, "nat-"),
        "route.instance-id": lambda table: table.of_routes("InstanceId"),
        "route.network-interface-id": lambda table: _targets_of(table, "eni-"),
        "route.state": lambda table: table.of_routes("State"),
        "route.origin": lambda table: [route.origin for route in table.row.routes],
        "vpc-id": lambda table: table.row.vpc,
    },
    tags=lambda table: table.tags,
    never=(
        "association.gateway-id",
        "route.destination-ipv6-cidr-block",
        "route.destination-prefix-list-id",
        "route.egress-only-internet-gateway-id",
        "route.transit-gateway-id",
        "route.vpc-peering-connection-id",
    ),
)


@ACTIONS.action
def describe_route_tables(call: Call, request: ec2.DescribeRouteTablesRequestTypeDef) -> Answer:
    """The account's route tables. A subnet without one of its own has its VPC's main table."""
    ids = request.get("RouteTableIds")
    if ids and request.get("MaxResults") is not None:
        raise AwsError(
            "InvalidParameterCombination",
            "The parameter rtb-ids and the parameter maxResults cannot be used together.",
        )
    matches = _FILTERS.matcher(request.get("Filters"))
    rows = ROUTE_TABLES.rows(call, ids)
    tags = tags_of(call.session, [row.id for row in rows])
    found = [one for one in _with_routes(call, [Tagged(row, tags[row.id]) for row in rows]) if matches(one)]
    answered, token = page(
        call, request, found, key=lambda one: f"{one.row.created:%Y%m%d%H%M%S%f} {one.row.id}"
    )
    return {"RouteTables": [_described(table) for table in answered], "NextToken": token}


def described(call: Call, tables: Sequence[Tagged[RouteTable]]) -> list[dict[str, object]]:
    """Route tables as their descriptions have them."""
    return [_described(table) for table in _with_routes(call, tables)]


def _with_routes(call: Call, tables: Sequence[Tagged[RouteTable]]) -> list[_Found]:
    targets = _Targets(call.session, [route for table in tables for route in table.row.routes])
    return [
        _Found(table.row, table.tags, [targets.described(table.row, route) for route in table.row.routes])
        for table in tables
    ]


def _described(table: _Found) -> dict[str, object]:
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
        "Routes": table.routes,
        "Tags": answered_tags(table.tags),
        "VpcId": row.vpc,
    }


class _Targets:
    """What routes lead to, as far as it is there."""

    def __init__(self, session: Session, routes: Sequence[Route]) -> None:
        ids = sorted({route.target for route in routes})
        of_gateways = select(InternetGateway).where(InternetGateway.id.in_(ids))
        of_nats = select(NatGateway.id).where(NatGateway.id.in_(ids), NatGateway.state.in_(("pending", "available")))
        self._gateways = {one.id: one.vpc for one in session.scalars(of_gateways)}
        self._nats = set(session.scalars(of_nats))
        of_interfaces = select(NetworkInterface).where(NetworkInterface.id.in_(ids))
        self._interfaces = {one.id: one for one in session.scalars(of_interfaces)}

    def is_active(self, vpc: str, target: str) -> bool:
        """Whether packets get there: otherwise the route is a black hole."""
        return (
            target == "local"
            or self._gateways.get(target) == vpc
            or target in self._nats
            or (target in self._interfaces and bool(self._interfaces[target].instance))
        )

    def described(self, table: RouteTable, route: Route) -> dict[str, object]:
        """A route as its table's description has it."""
        answer: dict[str, object] = {
            "DestinationCidrBlock": route.destination,
            "Origin": route.origin,
            "State": "active" if self.is_active(table.vpc, route.target) else "blackhole",
        }
        if route.target.startswith("nat-"):
            return answer | {"NatGatewayId": route.target}
        if not route.target.startswith("eni-"):
            return answer | {"GatewayId": route.target}
        interface = self._interfaces.get(route.target)
        if interface is not None and interface.instance:
            answer |= {"InstanceId": interface.instance, "InstanceOwnerId": interface.account}
        return answer | {"NetworkInterfaceId": route.target}
