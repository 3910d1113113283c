"""NAT gateways: what lets instances without public addresses out of their VPC, and nobody in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.filters import Filters
from celaje.cloud.aws.tag_specifications import tags_for
from celaje.cloud.ec2 import quotas
from celaje.cloud.ec2.addresses import ADDRESSES
from celaje.cloud.ec2.kinds import Kind, Tagged
from celaje.cloud.ec2.network_interfaces import GATEWAYS_ATTACHMENT, allocate
from celaje.cloud.ec2.subnets import SUBNETS
from celaje.cloud.state.identifiers import new_id
from celaje.cloud.state.networks import NatGateway, Subnet
from celaje.cloud.state.tags import answered_tags, set_tags

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")
NAT_GATEWAYS = Kind(NatGateway, "nat", "InvalidNatGatewayID", "NatGatewayNotFound", "NAT gateway")

FAILED = "failed"
DESCRIPTION = "Interface for NAT Gateway "

_FILTERS = Filters[Tagged[NatGateway]](
    {
        "nat-gateway-id": lambda gateway: gateway.row.id,
        "state": lambda gateway: gateway.row.state,
        "subnet-id": lambda gateway: gateway.row.subnet,
        "vpc-id": lambda gateway: gateway.row.vpc,
    },
    tags=lambda gateway: gateway.tags,
)


@ACTIONS.action
def create_nat_gateway(call: Call, request: ec2.CreateNatGatewayRequestTypeDef) -> Answer:
    """One in a subnet, which has an interface there, and an elastic address if it is public: that one fails, as at AWS,
    where the VPC has no internet gateway."""
    if request.get("AvailabilityMode", "zonal") != "zonal" or request.get("VpcId"):
        raise AwsError("UnsupportedOperation", "NAT gateways here are in one subnet: leave out availabilityMode")
    for member in (
        *("SecondaryAllocationIds", "SecondaryPrivateIpAddresses", "SecondaryPrivateIpAddressCount"),
        "AvailabilityZoneAddresses",
    ):
        if request.get(member):
            raise AwsError("UnsupportedOperation", f"A NAT gateway here has one address; leave out {member}")
    if not request.get("SubnetId"):
        raise AwsError("MissingParameter", "The request must contain the parameter subnetId")
    subnet = SUBNETS.find(call, request["SubnetId"])
    is_public = request.get("ConnectivityType", "public") == "public"
    allocation = request.get("AllocationId")
    if is_public and not allocation:
        raise AwsError("MissingParameter", "The request must contain the parameter allocationId")
    if allocation and not is_public:
        raise AwsError("InvalidParameterCombination", "A private NAT gateway has no elastic address: omit allocationId")
    tags = tags_for(request.get("TagSpecifications"), "natgateway")
    _refuse_beyond(call, subnet)
    address = ADDRESSES.find(call, allocation) if allocation else None
    if address is not None and address.interface:
        raise AwsError(
            "Resource.AlreadyAssociated",
            f"Elastic IP address [{address.id}] is already associated",
        )
    identifier = new_id("nat")
    interface = allocate(
        call.session,
        account=call.account,
        region=call.region,
        subnet=subnet,
        groups=(),
        private_address=request.get("PrivateIpAddress"),
        description=DESCRIPTION + identifier,
        now=call.now,
    )
    interface.attachment = new_id(GATEWAYS_ATTACHMENT)
    interface.attachment_state, interface.attached = "attached", call.now
    interface.source_dest_check = False
    gateway = NAT_GATEWAYS.new(
        call,
        vpc=subnet.vpc,
        subnet=subnet.id,
        interface=interface.id,
        private_address=interface.private_address,
    )
    gateway.id = identifier
    gateway.state = "pending"
    if address is not None:
        address.interface, address.association = interface.id, new_id("eipassoc")
        gateway.allocation, gateway.association = address.id, address.association
        gateway.public_address = address.address
    call.session.flush()
    set_tags(call.session, gateway.id, "natgateway", call.account, call.region, tags)
    call.wake("networks")
    return {"ClientToken": request.get("ClientToken"), "NatGateway": _described(Tagged(gateway, tags))}


def _refuse_beyond(call: Call, subnet: Subnet) -> None:
    there = (
        select(func.count())
        .select_from(NatGateway)
        .join(Subnet, Subnet.id == NatGateway.subnet)
        .where(NatGateway.account == call.account, NatGateway.state.in_(("pending", "available", "deleting")))
        .where(Subnet.zone == subnet.zone)
    )
    if (call.session.scalar(there) or 0) >= quotas.NAT_GATEWAYS_PER_ZONE:
        raise AwsError(
            "NatGatewayLimitExceeded",
            f"Performing this operation would exceed the limit of {quotas.NAT_GATEWAYS_PER_ZONE} NAT gateways",
        )


@ACTIONS.action
def delete_nat_gateway(call: Call, request: ec2.DeleteNatGatewayRequestTypeDef) -> Answer:
    """Nobody goes out by it any more; its elastic address is free soon. Routes to it become black holes."""
    gateway = NAT_GATEWAYS.find(call, request["NatGatewayId"])
    if gateway.state == FAILED:
        gateway.state = "deleted"
    elif gateway.state in ("pending", "available"):
        gateway.state = "deleting"
        gateway.deleted = call.now
        call.wake("networks")
    return {"NatGatewayId": gateway.id}


@ACTIONS.action
def describe_nat_gateways(call: Call, request: ec2.DescribeNatGatewaysRequestTypeDef) -> Answer:
    """The account's NAT gateways, those that were deleted within the last hour too."""
    asked = {**request, "Filters": request.get("Filter") or dict(request).get("Filters")}
    found, token = NAT_GATEWAYS.listed(call, asked, request.get("NatGatewayIds"), _FILTERS)
    return {"NatGateways": [_described(gateway) for gateway in found], "NextToken": token}


def _described(gateway: Tagged[NatGateway]) -> dict[str, object]:
    row = gateway.row
    return {
        "AvailabilityMode": "zonal",
        "ConnectivityType": "public" if row.allocation else "private",
        "CreateTime": row.created,
        "FailureCode": "Gateway.NotAttached" if row.state == FAILED else None,
        "FailureMessage": f"Network {row.vpc} has no Internet gateway attached" if row.state == FAILED else None,
        "DeleteTime": row.deleted,
        "NatGatewayAddresses": [
            {
                "AllocationId": row.allocation or None,
                "AssociationId": row.association or None,
                "IsPrimary": True,
                "NetworkInterfaceId": row.interface,
                "PrivateIp": row.private_address,
                "PublicIp": row.public_address or None,
                "Status": "failed" if row.state == FAILED else "succeeded",
            }
        ],
        "NatGatewayId": row.id,
        "State": row.state,
        "SubnetId": row.subnet,
        "Tags": answered_tags(gateway.tags),
        "VpcId": row.vpc,
    }
