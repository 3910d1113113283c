"""Interfaces at instances, and their secondary private addresses: attached, detached, assigned, unassigned.

An instance's machine has room for as many network cards as its type has interfaces; which card an interface is follows
from what is free, and its device index is only how the client calls it. Attaching and detaching are intent: the
controller of interfaces does them, and says when they are done.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlalchemy import select

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.ec2.instance_lookup import NETWORKS, find_instance
from celaje.cloud.ec2.instance_types import TYPES
from celaje.cloud.ec2.network_interfaces import (
    GATEWAYS_ATTACHMENT,
    INTERFACES,
    attach,
    is_gateways,
    of_instances,
    refuse_a_gateways,
)
from celaje.cloud.ec2.private_addresses import add_secondary, remove_secondary, secondary_addresses
from celaje.cloud.ec2.public_addresses import elastic_addresses
from celaje.cloud.state.instances import RUNNING, STOPPED, Instance
from celaje.cloud.state.networks import NetworkInterface, SecondaryAddress

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")
CARDS = "interfaces"
MOST_CARDS = 15  # that a machine has room for, the first included
MOST_ADDRESSES = 50  # of an interface that is attached to nothing


def most_interfaces(instance_type: str) -> int:
    """How many an instance of the type can have."""
    return min(TYPES[instance_type].interfaces, MOST_CARDS)


def free_card(instance: Instance, held: Sequence[NetworkInterface]) -> int:
    """The number of the machine's network card that the next interface is. AwsError AttachmentLimitExceeded."""
    most = most_interfaces(instance.instance_type)
    if len(held) >= most:
        raise AwsError(
            "AttachmentLimitExceeded", f"Interface count {len(held) + 1} exceeds the limit for {instance.instance_type}"
        )
    taken = {one.card for one in held}
    return next(number for number in range(1, most + 1) if number not in taken)


def fit_into(call: Call, instance: Instance, instance_type: str) -> None:
    """A stopped instance becomes one of another type: its interfaces are that one's cards. AwsError
    AttachmentLimitExceeded, PrivateIpAddressLimitExceeded where there are too many, or one has too many addresses."""
    held = of_instances(call.session, [instance.id])[instance.id]
    for addresses in secondary_addresses(call.session, [one.id for one in held]).values():
        _check_addresses(instance_type, len(addresses))
    if len(held) > most_interfaces(instance_type):
        raise AwsError("AttachmentLimitExceeded", f"Interface count {len(held)} exceeds the limit for {instance_type}")
    for card, interface in enumerate(sorted(held, key=lambda one: one.card)):
        interface.card = card


@ACTIONS.action
def attach_network_interface(call: Call, request: ec2.AttachNetworkInterfaceRequestTypeDef) -> Answer:
    """To an instance that runs, which has it at once, or that is stopped, which has it from its next start on."""
    interface = INTERFACES.find(call, request["NetworkInterfaceId"])
    instance = find_instance(call, request["InstanceId"])
    index = request["DeviceIndex"]
    if request.get("NetworkCardIndex"):
        raise AwsError("InvalidParameterValue", "Instances here have the network card 0 only")
    if interface.attachment:
        raise AwsError("InvalidNetworkInterface.InUse", f"Interface: [{interface.id}] in use.")
    if instance.state not in (RUNNING, STOPPED):
        raise AwsError(
            "IncorrectInstanceState",
            f"The instance '{instance.id}' is {instance.state}; an interface is attached to one that is running or "
            "stopped.",
        )
    if interface.zone != instance.zone:
        raise AwsError(
            "InvalidParameterCombination",
            "You may not attach a network interface to an instance if they are not in the same availability zone",
        )
    held = of_instances(call.session, [instance.id])[instance.id]
    if index < 0 or any(one.device_index == index for one in held):
        raise AwsError(
            "InvalidParameterValue",
            f"Instance '{instance.id}' already has an interface attached at device index '{index}'."
            if index >= 0
            else f"Value ({index}) for parameter deviceIndex is invalid. It must not be negative.",
        )
    card = free_card(instance, held)
    _check_addresses(instance.instance_type, len(secondary_addresses(call.session, [interface.id])[interface.id]))
    attach(interface, instance.id, index, False, call.now, card)
    call.session.flush()
    call.wake(CARDS)
    return {"AttachmentId": interface.attachment, "NetworkCardIndex": 0}


def _check_addresses(instance_type: str | None, secondary: int) -> None:
    most = MOST_ADDRESSES if instance_type is None else TYPES[instance_type].addresses_per_interface
    if secondary + 1 > most:
        raise AwsError(
            "PrivateIpAddressLimitExceeded",
            f"Number of private addresses will exceed limit: {secondary + 1}, and at most {most} are possible",
        )


@ACTIONS.action
def detach_network_interface(call: Call, request: ec2.DetachNetworkInterfaceRequestTypeDef) -> Answer:
    """From an instance that runs or is stopped. The network forgets it at once whether Force is said or not: a guest
    that does not let go of the card holds on to one without a cable."""
    attachment = request["AttachmentId"]
    query = select(NetworkInterface).where(
        NetworkInterface.account == call.account,
        NetworkInterface.region == call.region,
        NetworkInterface.attachment == attachment,
    )
    interface = call.session.scalars(query).first() if attachment else None
    if interface is None:
        raise AwsError("InvalidAttachmentID.NotFound", f"The attachment '{attachment}' does not exist.")
    if is_gateways(interface):
        raise AwsError("OperationNotPermitted", f"You are not allowed to manage '{GATEWAYS_ATTACHMENT}' attachments.")
    if interface.device_index == 0:
        raise AwsError("OperationNotPermitted", "The network interface at device index 0 cannot be detached.")
    instance = call.session.get_one(Instance, interface.instance)
    if instance.state not in (RUNNING, STOPPED):
        raise AwsError(
            "IncorrectInstanceState",
            f"The instance '{instance.id}' is {instance.state}; an interface is detached from one that is running or "
            "stopped.",
        )
    interface.attachment_state = "detaching"
    call.wake(CARDS)
    return {}


@ACTIONS.action
def assign_private_ip_addresses(call: Call, request: ec2.AssignPrivateIpAddressesRequestTypeDef) -> Answer:
    """Addresses that are said, or so many that are free. One that another interface has moves if that is allowed."""
    interface = INTERFACES.find(call, request["NetworkInterfaceId"])
    refuse_a_gateways(interface)
    said, count = list(request.get("PrivateIpAddresses") or ()), request.get("SecondaryPrivateIpAddressCount") or 0
    if request.get("Ipv4Prefixes") or request.get("Ipv4PrefixCount"):
        raise AwsError("UnsupportedOperation", "Interfaces here have no prefixes; leave them out")
    if bool(said) == bool(count):
        raise AwsError(
            "InvalidParameterCombination",
            "Either privateIpAddress or secondaryPrivateIpAddressCount must be given, and not both",
        )
    if count < 0:
        raise AwsError(
            "InvalidParameterValue",
            f"Value ({count}) for parameter secondaryPrivateIpAddressCount is invalid. It must not be negative.",
        )
    own = secondary_addresses(call.session, [interface.id])[interface.id]
    new = [one for one in dict.fromkeys(said) if one not in own]
    instance = call.session.get(Instance, interface.instance) if interface.instance else None
    _check_addresses(instance.instance_type if instance else None, len(own) + len(new) + count)
    if request.get("AllowReassignment"):
        _take_from_others(call, interface, new)
    given = add_secondary(call.session, interface, new, count)
    call.wake(NETWORKS)
    return {
        "AssignedPrivateIpAddresses": [{"PrivateIpAddress": one} for one in dict.fromkeys((*said, *given))],
        "NetworkInterfaceId": interface.id,
    }


def _take_from_others(call: Call, interface: NetworkInterface, addresses: Sequence[str]) -> None:
    for address in addresses:
        row = call.session.get(SecondaryAddress, (interface.subnet, address))
        if row is not None:
            _leave(call, row.interface, [address])


def _leave(call: Call, interface: str, addresses: Sequence[str]) -> None:
    for elastic in elastic_addresses(call.session, interface):
        if elastic.private_address in addresses:
            elastic.leave()
    remove_secondary(call.session, interface, addresses)


@ACTIONS.action
def unassign_private_ip_addresses(call: Call, request: ec2.UnassignPrivateIpAddressesRequestTypeDef) -> Answer:
    """Elastic addresses that are associated with them are associated with nothing then."""
    interface = INTERFACES.find(call, request["NetworkInterfaceId"])
    addresses = list(request.get("PrivateIpAddresses") or ())
    if not addresses:
        raise AwsError("MissingParameter", "The request must contain the parameter privateIpAddress")
    own = secondary_addresses(call.session, [interface.id])[interface.id]
    if interface.private_address in addresses:
        raise AwsError(
            "InvalidParameterValue",
            f"The primary address {interface.private_address} of the interface {interface.id} cannot be unassigned",
        )
    if strange := [one for one in addresses if one not in own]:
        raise AwsError(
            "InvalidParameterValue",
            f"Some of the specified addresses are not assigned to interface {interface.id}: {', '.join(strange)[:200]}",
        )
    _leave(call, interface.id, addresses)
    call.wake(NETWORKS)
    return {}
