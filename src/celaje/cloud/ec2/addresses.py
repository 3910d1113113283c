"""Elastic addresses: public addresses that an account keeps, and moves between its interfaces."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from sqlalchemy import select

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.filters import Filters
from celaje.cloud.aws.pagination import page
from celaje.cloud.aws.tag_specifications import tags_for
from celaje.cloud.ec2.internet_gateways import refuse_without_gateway
from celaje.cloud.ec2.kinds import Kind
from celaje.cloud.ec2.network_interfaces import INTERFACES, of_instances, refuse_a_gateways
from celaje.cloud.ec2.private_addresses import secondary_addresses
from celaje.cloud.ec2.public_addresses import (
    assign_public,
    elastic_address,
    give_back,
    release_public,
    take_address,
)
from celaje.cloud.state.addresses import ElasticAddress
from celaje.cloud.state.identifiers import new_id
from celaje.cloud.state.instances import PENDING, RUNNING, STOPPED, STOPPING, TERMINATED, Instance
from celaje.cloud.state.networks import NetworkInterface
from celaje.cloud.state.tags import answered_tags, remove_tags, set_tags, tags_of

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")
ADDRESSES = Kind(
    ElasticAddress, "eipalloc", "InvalidElasticIpID", "InvalidAllocationID.NotFound", "allocation ID"
)
INSTANCES = Kind(Instance, "i", "InvalidInstanceID", "InvalidInstanceID.NotFound", "instance ID")
ADDRESSES_PER_REGION = 100
_ASSOCIABLE = (RUNNING, STOPPING, STOPPED)


@ACTIONS.action
def allocate_address(call: Call, request: ec2.AllocateAddressRequestTypeDef) -> Answer:
    """An address of this cloud's pool, the account's until it is released. The domain `standard`, which older clients
    ask for, is of an EC2 before VPCs: as at AWS today, they get an address of a VPC too."""
    for member in ("Address", "PublicIpv4Pool", "CustomerOwnedIpv4Pool", "IpamPoolId"):
        if request.get(member):
            raise AwsError(
                "InvalidParameterCombination",
                f"This cloud has one pool of public addresses and chooses from it; leave out {member}",
            )
    if request.get("NetworkBorderGroup", call.region) != call.region:
        raise AwsError(
            "InvalidParameterValue", f"The network border group of this region is {call.region}, and no other"
        )
    tags = tags_for(request.get("TagSpecifications"), "elastic-ip")
    if len(ADDRESSES.rows(call)) >= ADDRESSES_PER_REGION:
        raise AwsError("AddressLimitExceeded", "The maximum number of addresses has been reached.")
    allocation = new_id("eipalloc")
    address = ElasticAddress(
        id=allocation,
        account=call.account,
        region=call.region,
        created=call.now,
        address=take_address(call.session, call.settings.public_pool, allocation),
    )
    call.session.add(address)
    set_tags(call.session, allocation, "elastic-ip", call.account, call.region, tags)
    return {
        "AllocationId": allocation,
        "Domain": "vpc",
        "NetworkBorderGroup": call.region,
        "PublicIp": address.address,
        "PublicIpv4Pool": "amazon",
    }


def _by_address(call: Call, public: str) -> ElasticAddress | None:
    query = select(ElasticAddress).where(
        ElasticAddress.address == public,
        ElasticAddress.account == call.account,
        ElasticAddress.region == call.region,
    )
    return call.session.scalars(query).one_or_none()


def _named(call: Call, allocation: str | None, public: str | None) -> ElasticAddress:
    if allocation and public:
        raise AwsError("InvalidParameterCombination", "You may specify public IP or allocation id, but not both")
    if allocation:
        return ADDRESSES.find(call, allocation)
    if not public:
        raise AwsError("MissingParameter", "Either public IP or allocation id must be specified")
    address = _by_address(call, public)
    if address is None:
        raise AwsError("AuthFailure", f"The address '{public}' does not belong to you.", 403)
    return address


def _target(call: Call, instance_id: str | None, interface_id: str | None) -> NetworkInterface:
    """The interface that a request names, itself or by its instance."""
    if interface_id:
        interface = INTERFACES.find(call, interface_id)
        if instance_id and INSTANCES.find(call, instance_id).id != interface.instance:
            raise AwsError(
                "InvalidParameterCombination",
                f"The network interface {interface_id} is not attached to the instance {instance_id}",
            )
        return interface
    if not instance_id:
        raise AwsError("MissingParameter", "Either network interface or instance id must be specified")
    instance = INSTANCES.find(call, instance_id)
    if instance.state == TERMINATED:
        raise INSTANCES.missing(instance_id)
    if instance.state not in _ASSOCIABLE:
        raise AwsError(
            "InvalidInstanceID",
            f"The {instance.state} instance '{instance_id}' is not in a valid state for this operation.",
        )
    interfaces = of_instances(call.session, [instance_id])[instance_id]
    if len(interfaces) != 1:
        raise AwsError(
            "InvalidInstanceID",
            f"There are multiple interfaces attached to instance '{instance_id}'. "
            "Please specify an interface ID for the operation instead.",
        )
    return interfaces[0]


@ACTIONS.action
def associate_address(call: Call, request: ec2.AssociateAddressRequestTypeDef) -> Answer:
    """Reach an interface at the address; one that it has already, elastic or not, goes. An address that is associated
    elsewhere moves, unless AllowReassociation is given as false."""
    address = _named(call, request.get("AllocationId"), request.get("PublicIp"))
    interface = _target(call, request.get("InstanceId"), request.get("NetworkInterfaceId"))
    private = request.get("PrivateIpAddress") or interface.private_address
    if private == interface.private_address:
        private = ""  # the first one
    elif private not in secondary_addresses(call.session, [interface.id])[interface.id]:
        raise AwsError(
            "InvalidParameterValue", f"The private address {private} is not one of the interface {interface.id}"
        )
    may_move = request.get("AllowReassociation", True)
    if address.interface == interface.id and address.private_address == private:
        return {"AssociationId": address.association}
    if address.interface and not may_move:
        raise AwsError(
            "Resource.AlreadyAssociated",
            f"resource {address.id} is already associated with associate-id {address.association}",
        )
    former = elastic_address(call.session, interface.id, private)
    if former is not None:
        if not may_move:
            raise AwsError(
                "Resource.AlreadyAssociated",
                f"resource {interface.id} is already associated with associate-id {former.association}",
            )
        former.leave()
    refuse_a_gateways(interface)
    if address.interface:
        refuse_a_gateways(call.session.get_one(NetworkInterface, address.interface))
    refuse_without_gateway(call, interface.vpc)
    _leave(call, address)
    if not private:
        release_public(call.session, interface)
    address.interface, address.association = interface.id, new_id("eipassoc")
    address.private_address = private
    call.wake("networks")
    return {"AssociationId": address.association}


def _leave(call: Call, address: ElasticAddress) -> None:
    """The address is associated with nothing; an interface that had an own public address before has one again
    while its instance runs, if the pool has one: what the client asked for does not fail for want of that."""
    if not address.interface:
        return
    interface = call.session.get_one(NetworkInterface, address.interface)
    address.leave()
    call.session.flush()
    instance = call.session.get(Instance, interface.instance) if interface.instance else None
    if interface.wants_public and instance is not None and instance.state in (PENDING, RUNNING):
        with contextlib.suppress(AwsError):
            assign_public(call.session, interface, call.settings.public_pool)
    call.wake("networks")


@ACTIONS.action
def disassociate_address(call: Call, request: ec2.DisassociateAddressRequestTypeDef) -> Answer:
    """By the association's id or by the address."""
    association, public = request.get("AssociationId"), request.get("PublicIp")
    if association:
        of_account = select(ElasticAddress).where(
            ElasticAddress.account == call.account,
            ElasticAddress.region == call.region,
            ElasticAddress.association == association,
        )
        address = call.session.scalars(of_account).one_or_none()
        if address is None:
            raise AwsError("InvalidAssociationID.NotFound", f"The association ID '{association}' does not exist")
    else:
        address = _named(call, None, public)
    if address.interface:
        refuse_a_gateways(call.session.get_one(NetworkInterface, address.interface))
    _leave(call, address)
    return {}


@ACTIONS.action
def release_address(call: Call, request: ec2.ReleaseAddressRequestTypeDef) -> Answer:
    """Back to the pool, from where anybody may get it next. Not while it is associated."""
    address = _named(call, request.get("AllocationId"), request.get("PublicIp"))
    if address.interface:
        raise AwsError("InvalidIPAddress.InUse", f"Address {address.address} is in use.")
    give_back(call.session, address.address)
    remove_tags(call.session, address.id)
    call.session.delete(address)
    return {}


class _Found:
    """An elastic address with its tags and its interface, for filters."""

    def __init__(self, address: ElasticAddress, tags: dict[str, str], interface: NetworkInterface | None) -> None:
        self.address = address
        self.tags = tags
        self.interface = interface


_FILTERS = Filters[_Found](
    {
        "allocation-id": lambda found: found.address.id,
        "association-id": lambda found: found.address.association or None,
        "domain": lambda found: "vpc",
        "instance-id": lambda found: (found.interface.instance or None) if found.interface else None,
        "network-border-group": lambda found: found.address.region,
        "network-interface-id": lambda found: found.address.interface or None,
        "network-interface-owner-id": lambda found: found.address.account if found.interface else None,
        "private-ip-address": lambda found: _private(found.address, found.interface) if found.interface else None,
        "public-ip": lambda found: found.address.address,
    },
    tags=lambda found: found.tags,
)


def _private(address: ElasticAddress, interface: NetworkInterface) -> str:
    return address.private_address or interface.private_address


@ACTIONS.action
def describe_addresses(call: Call, request: ec2.DescribeAddressesRequestTypeDef) -> Answer:
    """The account's elastic addresses."""
    matches = _FILTERS.matcher(request.get("Filters"))
    allocations, publics = request.get("AllocationIds"), request.get("PublicIps")
    rows = ADDRESSES.rows(call, allocations) if allocations or not publics else []
    for public in publics or ():
        address = _by_address(call, public)
        if address is None:
            raise AwsError("InvalidAddress.NotFound", f"Address '{public}' not found.")
        rows.append(address)
    tags = tags_of(call.session, [row.id for row in rows])
    found = [_Found(row, tags[row.id], _interface_of(call, row)) for row in {row.id: row for row in rows}.values()]
    found.sort(key=lambda one: (one.address.created, one.address.id))
    return {"Addresses": [_described(one) for one in found if matches(one)]}


def _interface_of(call: Call, address: ElasticAddress) -> NetworkInterface | None:
    return call.session.get(NetworkInterface, address.interface) if address.interface else None


def _described(found: _Found) -> dict[str, object]:
    address, interface = found.address, found.interface
    answer: dict[str, object] = {
        "AllocationId": address.id,
        "Domain": "vpc",
        "NetworkBorderGroup": address.region,
        "PublicIp": address.address,
        "PublicIpv4Pool": "amazon",
        "Tags": answered_tags(found.tags),
    }
    if interface is not None:
        answer |= {
            "AssociationId": address.association,
            "InstanceId": interface.instance or None,
            "NetworkInterfaceId": interface.id,
            "NetworkInterfaceOwnerId": interface.account,
            "PrivateIpAddress": _private(address, interface),
        }
    return answer


@ACTIONS.action
def describe_addresses_attribute(call: Call, request: ec2.DescribeAddressesAttributeRequestTypeDef) -> Answer:
    """Reverse names of addresses: nobody can give one here, so each has none."""
    rows = ADDRESSES.rows(call, request.get("AllocationIds"))
    found, token = page(call, request, rows, key=lambda row: row.id, least=1)
    return {
        "Addresses": [{"AllocationId": row.id, "PublicIp": row.address} for row in found],
        "NextToken": token,
    }
