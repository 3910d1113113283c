"""Routes of route tables: made, changed and deleted."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sqlalchemy import select

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.ec2 import quotas
from celaje.cloud.ec2.cidr_blocks import checked_cidr
from celaje.cloud.ec2.instance_lookup import find_instance
from celaje.cloud.ec2.internet_gateways import GATEWAYS
from celaje.cloud.ec2.nat_gateways import NAT_GATEWAYS
from celaje.cloud.ec2.network_interfaces import INTERFACES, of_instances
from celaje.cloud.ec2.route_tables import ROUTE_TABLES
from celaje.cloud.ec2.vpcs import VPCS, cidrs_of
from celaje.cloud.state.networks import Route, RouteTable, Subnet

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")

_TARGETS = ("GatewayId", "NatGatewayId", "NetworkInterfaceId", "InstanceId", "LocalTarget")
# What leads to other networks, of which this cloud has none.
_ABSENT = (
    *("EgressOnlyInternetGatewayId", "TransitGatewayId", "LocalGatewayId", "CarrierGatewayId", "VpcEndpointId"),
    *("VpcPeeringConnectionId", "CoreNetworkArn", "OdbNetworkArn"),
)


@ACTIONS.action
def create_route(call: Call, request: ec2.CreateRouteRequestTypeDef) -> Answer:
    """From now on packets of the table's subnets to the destination go to the target."""
    table = ROUTE_TABLES.find(call, request["RouteTableId"])
    destination = _destination(request)
    target = _target(call, table, destination, request)
    if _route(table, destination) is not None:
        raise AwsError("RouteAlreadyExists", f"The route identified by {destination} already exists.")
    if len(table.routes) >= quotas.ROUTES:
        raise AwsError("RouteLimitExceeded", f"The maximum number of routes of {table.id} has been reached")
    _set(call, table, [*table.routes, Route(str(destination), target)])
    return {"Return": True}


@ACTIONS.action
def replace_route(call: Call, request: ec2.ReplaceRouteRequestTypeDef) -> Answer:
    """Another target for a destination that there is."""
    table = ROUTE_TABLES.find(call, request["RouteTableId"])
    destination = _destination(request)
    former = _route(table, destination)
    if former is None:
        raise AwsError(
            "InvalidParameterValue",
            f"There is no route defined for '{destination}' in the route table. Use CreateRoute instead.",
        )
    if former.target == "local":
        if request.get("LocalTarget") and _is_a_vpcs_own(call, table, destination):
            return {}
        raise AwsError("InvalidParameterValue", f"The local route {destination} of {table.id} stays as it is")
    target = _target(call, table, destination, request)
    changed = Route(str(destination), target)
    _set(call, table, [changed if route is former else route for route in table.routes])
    return {}


@ACTIONS.action
def delete_route(call: Call, request: ec2.DeleteRouteRequestTypeDef) -> Answer:
    """Packets to the destination go where the next wider route says, or nowhere."""
    table = ROUTE_TABLES.find(call, request["RouteTableId"])
    destination = _destination(request)
    former = _route(table, destination)
    if former is None:
        raise AwsError(
            "InvalidRoute.NotFound",
            f"no route with destination-cidr-block {destination} in route table {table.id}",
        )
    if former.target == "local":
        raise AwsError("InvalidParameterValue", f"cannot remove local route {destination} in route table {table.id}")
    _set(call, table, [route for route in table.routes if route is not former])
    return {}


def _set(call: Call, table: RouteTable, routes: list[Route]) -> None:
    table.routes = routes
    call.wake("networks")


def _route(table: RouteTable, destination: ipaddress.IPv4Network) -> Route | None:
    return next((route for route in table.routes if route.destination == str(destination)), None)


def _destination(request: Mapping[str, object]) -> ipaddress.IPv4Network:
    """AwsError for another one than a network of IPv4."""
    for member in ("DestinationIpv6CidrBlock", "DestinationPrefixListId"):
        if request.get(member):
            raise AwsError("UnsupportedOperation", f"Routes here are for networks of IPv4; leave out {member}")
    said = request.get("DestinationCidrBlock")
    if not said:
        raise AwsError("MissingParameter", "The request must contain the parameter destinationCidrBlock")
    return checked_cidr(str(said), "destinationCidrBlock")


def _target(
    call: Call, table: RouteTable, destination: ipaddress.IPv4Network, request: Mapping[str, object]
) -> str:
    """The id of the one target that a request names, checked to be of the table's VPC."""
    for member in _ABSENT:
        if request.get(member):
            raise AwsError("UnsupportedOperation", f"This cloud has no {member[:-2]} that a route could lead to")
    named = [member for member in _TARGETS if request.get(member)]
    if not named:
        raise AwsError("MissingParameter", f"The request must contain exactly one of {', '.join(_TARGETS[:-1])}")
    if len(named) > 1:
        raise AwsError(
            "InvalidParameterCombination",
            f"A route needs exactly one target, one of {', '.join(_TARGETS[:-1])}; given: {', '.join(named)}",
        )
    identifier = str(request[named[0]])
    if named[0] == "LocalTarget":
        raise AwsError("InvalidParameterValue", "The target local is for the VPC's own networks, which have that route")
    vpc, target = _found(call, named[0], identifier)
    if vpc != table.vpc:
        raise AwsError(
            "InvalidParameterValue",
            f"route table {table.id} and {'network gateway ' if named[0] == 'GatewayId' else ''}{identifier} belong to "
            "different networks",
        )
    if not target.startswith("eni-"):
        _refuse_within(call, table, destination)
    elif _is_within(call, table, destination) and not _is_a_subnets(call, table, destination):
        raise AwsError(
            "InvalidParameterValue",
            f"The destination CIDR block {destination} is equal to or more specific than one of this VPC's CIDR "
            "blocks, and must be that of one of its subnets as a whole",
        )
    return target


def _found(call: Call, member: str, identifier: str) -> tuple[str, str]:
    """The VPC that the target is in, and its id; an instance's is that of its interface."""
    match member:
        case "GatewayId":
            gateway = GATEWAYS.found(call, identifier)
            if gateway is None:
                raise AwsError("InvalidGatewayID.NotFound", f"The gateway ID '{identifier[:64]}' does not exist")
            return gateway.vpc, gateway.id
        case "NatGatewayId":
            nat = NAT_GATEWAYS.find(call, identifier)
            if nat.state not in ("pending", "available"):
                raise NAT_GATEWAYS.missing(identifier)
            return nat.vpc, nat.id
        case "NetworkInterfaceId":
            interface = INTERFACES.find(call, identifier)
            return interface.vpc, interface.id
    instance = find_instance(call, identifier)
    interfaces = of_instances(call.session, [instance.id])[instance.id]
    if len(interfaces) != 1:
        raise AwsError(
            "InvalidInstanceID",
            f"There are {'multiple' if interfaces else 'no'} interfaces attached to instance '{instance.id}'. "
            "Please specify an interface ID for the operation instead.",
        )
    return interfaces[0].vpc, interfaces[0].id


def _cidrs(call: Call, table: RouteTable) -> list[ipaddress.IPv4Network]:
    return [ipaddress.IPv4Network(one.cidr) for one in cidrs_of(VPCS.find(call, table.vpc))]


def _is_within(call: Call, table: RouteTable, destination: ipaddress.IPv4Network) -> bool:
    return any(destination.subnet_of(cidr) for cidr in _cidrs(call, table))


def _is_a_vpcs_own(call: Call, table: RouteTable, destination: ipaddress.IPv4Network) -> bool:
    return destination in _cidrs(call, table)


def _is_a_subnets(call: Call, table: RouteTable, destination: ipaddress.IPv4Network) -> bool:
    cidrs = call.session.scalars(select(Subnet.cidr).where(Subnet.vpc == table.vpc))
    return str(destination) in set(cidrs)


def _refuse_within(call: Call, table: RouteTable, destination: ipaddress.IPv4Network) -> None:
    """AwsError if packets to the VPC's own networks would leave it."""
    if not _is_within(call, table, destination):
        return
    if _is_a_vpcs_own(call, table, destination):
        raise AwsError("RouteAlreadyExists", f"The route identified by {destination} already exists.")
    raise AwsError(
        "InvalidParameterValue",
        f"The destination CIDR block {destination} is equal to or more specific than one of this VPC's CIDR blocks. "
        "This route can target only an interface or an instance.",
    )
