"""Actions that make and end route tables, and say which subnets go by which."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.tag_specifications import tags_for
from celaje.cloud.ec2 import quotas
from celaje.cloud.ec2.kinds import Tagged
from celaje.cloud.ec2.route_tables import ROUTE_TABLES, described
from celaje.cloud.ec2.subnets import SUBNETS
from celaje.cloud.ec2.vpcs import VPCS, cidrs_of, main_table
from celaje.cloud.state.identifiers import new_id
from celaje.cloud.state.networks import Route, RouteTable, RouteTableAssociation
from celaje.cloud.state.tags import remove_tags, set_tags

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")

_ASSOCIATED = {"State": "associated"}


@ACTIONS.action
def create_route_table(call: Call, request: ec2.CreateRouteTableRequestTypeDef) -> Answer:
    """A table that leads to the VPC's own networks, and that no subnet goes by."""
    vpc = VPCS.find(call, request["VpcId"])
    tags = tags_for(request.get("TagSpecifications"), "route-table")
    quotas.refuse_beyond_in_vpc(
        call.session, RouteTable, vpc.id, quotas.ROUTE_TABLES_PER_VPC, "route tables", "RouteTableLimitExceeded"
    )
    table = ROUTE_TABLES.new(
        call,
        vpc=vpc.id,
        main=False,
        routes=[Route(one.cidr, "local", "CreateRouteTable") for one in cidrs_of(vpc)],
        associations=[],
    )
    set_tags(call.session, table.id, "route-table", call.account, call.region, tags)
    return {"RouteTable": described(call, [Tagged(table, tags)])[0]}


@ACTIONS.action
def delete_route_table(call: Call, request: ec2.DeleteRouteTableRequestTypeDef) -> Answer:
    """A table that no subnet goes by, and that is not its VPC's main one."""
    table = ROUTE_TABLES.find(call, request["RouteTableId"])
    if table.main or table.associations:
        raise AwsError(
            "DependencyViolation", f"The routeTable '{table.id}' has dependencies and cannot be deleted."
        )
    remove_tags(call.session, table.id)
    call.session.delete(table)
    call.wake("networks")
    return {}


@ACTIONS.action
def associate_route_table(call: Call, request: ec2.AssociateRouteTableRequestTypeDef) -> Answer:
    """The subnet goes by this table instead of the main one."""
    table = ROUTE_TABLES.find(call, request["RouteTableId"])
    if request.get("GatewayId") or request.get("PublicIpv4Pool"):
        raise AwsError("UnsupportedOperation", "Route tables here are for subnets; leave out gatewayId")
    if not request.get("SubnetId"):
        raise AwsError("MissingParameter", "The request must contain the parameter subnetId")
    subnet = SUBNETS.find(call, request["SubnetId"])
    if subnet.vpc != table.vpc:
        raise AwsError(
            "InvalidParameterValue",
            f"Route table {table.id} and subnet {subnet.id} belong to different networks",
        )
    former = next(
        (
            (other, one)
            for other in ROUTE_TABLES.rows(call)
            for one in other.associations
            if one.subnet == subnet.id
        ),
        None,
    )
    if former is not None and former[0].id != table.id:
        raise AwsError(
            "Resource.AlreadyAssociated",
            f"the specified association for route table {table.id} conflicts with an existing association",
        )
    if former is not None:
        return {"AssociationId": former[1].id, "AssociationState": _ASSOCIATED}
    made = RouteTableAssociation(new_id("rtbassoc"), subnet.id)
    table.associations = [*table.associations, made]
    call.wake("networks")
    return {"AssociationId": made.id, "AssociationState": _ASSOCIATED}


@ACTIONS.action
def disassociate_route_table(call: Call, request: ec2.DisassociateRouteTableRequestTypeDef) -> Answer:
    """The subnet goes by the main table again."""
    table, association = _found(call, request["AssociationId"])
    if not association.subnet:
        raise AwsError(
            "InvalidParameterValue", f"cannot disassociate the main route table association {association.id}"
        )
    table.associations = [one for one in table.associations if one.id != association.id]
    call.wake("networks")
    return {}


@ACTIONS.action
def replace_route_table_association(
    call: Call, request: ec2.ReplaceRouteTableAssociationRequestTypeDef
) -> Answer:
    """The subnet goes by another table of its VPC; or that one becomes the main one, if the association is the main
    table's."""
    table, association = _found(call, request["AssociationId"])
    other = ROUTE_TABLES.find(call, request["RouteTableId"])
    if other.vpc != table.vpc:
        raise AwsError(
            "InvalidParameterValue", f"Route table {other.id} and the association belong to different networks"
        )
    if other.id == table.id:
        return {"NewAssociationId": association.id, "AssociationState": _ASSOCIATED}
    made = RouteTableAssociation(new_id("rtbassoc"), association.subnet)
    table.associations = [one for one in table.associations if one.id != association.id]
    other.associations = [*other.associations, made]
    if not association.subnet:
        main_table(call.session, table.vpc).main = False
        other.main = True
    call.wake("networks")
    return {"NewAssociationId": made.id, "AssociationState": _ASSOCIATED}


def _found(call: Call, identifier: str) -> tuple[RouteTable, RouteTableAssociation]:
    for table in ROUTE_TABLES.rows(call):
        for one in table.associations:
            if one.id == identifier:
                return table, one
    raise AwsError("InvalidAssociationID.NotFound", f"The association ID '{identifier}' does not exist")


def _no_such_gateway(call: Call, table: str, gateway: str) -> AwsError:
    """What is answered about a virtual private gateway: none can be made here, so there is none."""
    ROUTE_TABLES.find(call, table)
    return AwsError("InvalidGatewayID.NotFound", f"The gateway ID '{gateway[:64]}' does not exist")


@ACTIONS.action
def enable_vgw_route_propagation(call: Call, request: ec2.EnableVgwRoutePropagationRequestTypeDef) -> Answer:
    """AwsError InvalidGatewayID.NotFound."""
    raise _no_such_gateway(call, request["RouteTableId"], request["GatewayId"])


@ACTIONS.action
def disable_vgw_route_propagation(call: Call, request: ec2.DisableVgwRoutePropagationRequestTypeDef) -> Answer:
    """AwsError InvalidGatewayID.NotFound."""
    raise _no_such_gateway(call, request["RouteTableId"], request["GatewayId"])
