"""Actions on network interfaces: made, described, changed, deleted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.filters import Filters
from celaje.cloud.aws.pagination import page
from celaje.cloud.aws.tag_specifications import tags_for
from celaje.cloud.ec2 import quotas
from celaje.cloud.ec2.network_interfaces import (
    INTERFACES,
    Described,
    allocate,
    described,
    is_gateways,
    refuse_a_gateways,
    release,
    set_groups,
)
from celaje.cloud.ec2.private_addresses import add_secondary, said_addresses
from celaje.cloud.ec2.quotas import refuse_beyond
from celaje.cloud.ec2.security_groups import checked_groups
from celaje.cloud.ec2.subnets import SUBNETS
from celaje.cloud.state.networks import NetworkInterface
from celaje.cloud.state.tags import set_tags, tags_of
from celaje.cloud.state.zones import private_name, zone_id

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")
LONGEST_DESCRIPTION = 255


def change_groups(call: Call, interface: NetworkInterface, group_ids: Sequence[str]) -> None:
    """Put an interface into these groups, all of its VPC, and no others. AwsError as checked_groups."""
    if not group_ids:
        raise AwsError("InvalidParameterValue", "An interface must be in at least one security group; none was given")
    groups = checked_groups(call.session, call.account, call.region, interface.vpc, group_ids)
    set_groups(call.session, interface.id, groups)
    call.wake("networks")


def checked_description(text: str | None) -> str:
    """An interface's. AwsError InvalidParameterValue for one that is too long."""
    if text is not None and len(text) > LONGEST_DESCRIPTION:
        raise AwsError(
            "InvalidParameterValue",
            f"A network interface's description has at most {LONGEST_DESCRIPTION} characters; given: {len(text)}",
        )
    return text or ""


def refuse_another(call: Call) -> None:
    """AwsError NetworkInterfaceLimitExceeded if the caller has as many interfaces as there may be."""
    most = quotas.NETWORK_INTERFACES
    refuse_beyond(call.session, call, NetworkInterface, most, "network interfaces", "NetworkInterfaceLimitExceeded")


_NOT_HERE = (
    *("Ipv4Prefixes", "Ipv4PrefixCount", "Ipv6Prefixes", "Ipv6PrefixCount", "Ipv6Addresses", "Ipv6AddressCount"),
    *("EnablePrimaryIpv6", "ConnectionTrackingSpecification"),
)


@ACTIONS.action
def create_network_interface(call: Call, request: ec2.CreateNetworkInterfaceRequestTypeDef) -> Answer:
    """An interface, attached to nothing."""
    for member in _NOT_HERE:
        if request.get(member):
            raise AwsError("UnsupportedOperation", f"An interface here has single IPv4 addresses; leave out {member}")
    if request.get("InterfaceType", "interface") != "interface":
        raise AwsError("UnsupportedOperation", "Interfaces here are of the type interface")
    subnet = SUBNETS.find(call, request["SubnetId"])
    groups = checked_groups(call.session, call.account, call.region, subnet.vpc, request.get("Groups") or ())
    said = said_addresses(request.get("PrivateIpAddress"), request.get("PrivateIpAddresses") or (), request)
    tags = tags_for(request.get("TagSpecifications"), "network-interface")
    refuse_another(call)
    interface = allocate(
        call.session,
        account=call.account,
        region=call.region,
        subnet=subnet,
        groups=groups,
        private_address=said.primary,
        description=checked_description(request.get("Description")),
        now=call.now,
    )
    add_secondary(call.session, interface, said.secondary, said.count)
    set_tags(call.session, interface.id, "network-interface", call.account, call.region, tags)
    call.session.flush()
    return {"NetworkInterface": described(call.session, [interface])[interface.id].network_interface}


@ACTIONS.action
def delete_network_interface(call: Call, request: ec2.DeleteNetworkInterfaceRequestTypeDef) -> Answer:
    """An interface that is attached to nothing."""
    interface = INTERFACES.find(call, request["NetworkInterfaceId"])
    if interface.attachment:
        raise AwsError("InvalidParameterValue", f"Network interface '{interface.id}' is currently in use.")
    release(call.session, interface.id)
    return {}


class _Found:
    """An interface, its description and its tags, for filters."""

    def __init__(self, row: NetworkInterface, description: Described, tags: dict[str, str]) -> None:
        self.row = row
        self.description = description
        self.tags = tags

    def association(self, member: str) -> str | None:
        """A member of its public address's association."""
        found = self.description.network_interface["Association"]
        value = found.get(member) if isinstance(found, dict) else None
        return None if value is None else str(value)


_FILTERS = Filters[_Found](
    {
        "addresses.association.owner-id": lambda one: one.association("IpOwnerId"),
        "addresses.association.public-ip": lambda one: one.association("PublicIp"),
        "addresses.primary": lambda one: [True, False] if one.description.secondary else True,
        "addresses.private-ip-address": lambda one: [
            one.row.private_address,
            *(address for address, _ in one.description.secondary),
        ],
        "association.allocation-id": lambda one: one.association("AllocationId"),
        "association.association-id": lambda one: one.association("AssociationId"),
        "association.ip-owner-id": lambda one: one.association("IpOwnerId"),
        "association.public-dns-name": lambda one: one.association("PublicDnsName"),
        "association.public-ip": lambda one: one.association("PublicIp"),
        "attachment.attach-time": lambda one: one.row.attached,
        "attachment.attachment-id": lambda one: one.row.attachment or None,
        "attachment.delete-on-termination": lambda one: one.row.delete_on_termination if one.row.instance else None,
        "attachment.device-index": lambda one: one.row.device_index if one.row.instance else None,
        "attachment.instance-id": lambda one: one.row.instance or None,
        "attachment.instance-owner-id": lambda one: one.row.account if one.row.instance else None,
        "attachment.status": lambda one: one.row.attachment_state or None,
        "availability-zone": lambda one: one.row.zone,
        "availability-zone-id": lambda one: zone_id(one.row.region, one.row.zone),
        "description": lambda one: one.row.description,
        "group-id": lambda one: [group["GroupId"] for group in one.description.groups],
        "group-name": lambda one: [group["GroupName"] for group in one.description.groups],
        "interface-type": lambda one: "nat_gateway" if is_gateways(one.row) else "interface",
        "mac-address": lambda one: one.row.mac,
        "network-interface-id": lambda one: one.row.id,
        "owner-id": lambda one: one.row.account,
        "private-dns-name": lambda one: private_name(one.row.region, one.row.private_address),
        "private-ip-address": lambda one: one.row.private_address,
        "requester-id": lambda one: None,
        "requester-managed": lambda one: is_gateways(one.row),
        "source-dest-check": lambda one: one.row.source_dest_check,
        "status": lambda one: "in-use" if one.row.attachment else "available",
        "subnet-id": lambda one: one.row.subnet,
        "vpc-id": lambda one: one.row.vpc,
    },
    tags=lambda one: one.tags,
    never=("ipv6-addresses.ipv6-address",),
)


@ACTIONS.action
def describe_network_interfaces(call: Call, request: ec2.DescribeNetworkInterfacesRequestTypeDef) -> Answer:
    """The account's interfaces."""
    ids = request.get("NetworkInterfaceIds")
    if ids and request.get("MaxResults") is not None:
        raise AwsError(
            "InvalidParameterCombination",
            "The parameters networkInterfaceIds and maxResults cannot be used together.",
        )
    matches = _FILTERS.matcher(request.get("Filters"))
    rows = INTERFACES.rows(call, ids)
    descriptions, tags = described(call.session, rows), tags_of(call.session, [row.id for row in rows])
    found = [one for row in rows if matches(one := _Found(row, descriptions[row.id], tags[row.id]))]
    answered, token = page(call, request, found, key=lambda one: one.row.id)
    return {"NetworkInterfaces": [one.description.network_interface for one in answered], "NextToken": token}


@ACTIONS.action
def describe_network_interface_attribute(
    call: Call, request: ec2.DescribeNetworkInterfaceAttributeRequestTypeDef
) -> Answer:
    """One attribute of an interface."""
    interface = INTERFACES.find(call, request["NetworkInterfaceId"])
    full = described(call.session, [interface])[interface.id].network_interface
    members: dict[str, tuple[str, object]] = {
        "attachment": ("Attachment", full["Attachment"]),
        "description": ("Description", {"Value": interface.description}),
        "groupSet": ("Groups", full["Groups"]),
        "sourceDestCheck": ("SourceDestCheck", {"Value": interface.source_dest_check}),
        "associatePublicIpAddress": ("AssociatePublicIpAddress", interface.wants_public),
    }
    attribute = request.get("Attribute")
    if attribute not in members:
        raise AwsError(
            "InvalidParameterCombination", f"One attribute must be given, one of {', '.join(sorted(members))}"
        )
    member, value = members[attribute]
    return {"NetworkInterfaceId": interface.id, member: value}


@ACTIONS.action
def modify_network_interface_attribute(
    call: Call, request: ec2.ModifyNetworkInterfaceAttributeRequestTypeDef
) -> Answer:
    """One attribute: its groups, its description, whether it goes when its instance ends."""
    interface = INTERFACES.find(call, request["NetworkInterfaceId"])
    refuse_a_gateways(interface)
    possible = {"Groups", "Description", "SourceDestCheck", "Attachment"}
    asked = sorted(name for name in request if name not in ("NetworkInterfaceId", "DryRun"))
    if len(asked) != 1 or asked[0] not in possible:
        raise AwsError(
            "InvalidParameterCombination",
            f"One attribute must be given, one of {', '.join(sorted(possible))}; given: {', '.join(asked) or 'none'}",
        )
    if "Groups" in request:
        change_groups(call, interface, request["Groups"])
    if "Description" in request:
        interface.description = checked_description(request["Description"].get("Value"))
    if "SourceDestCheck" in request:
        interface.source_dest_check = bool(request["SourceDestCheck"].get("Value", True))
        call.wake("networks")
    if "Attachment" in request:
        change = request["Attachment"]
        if not interface.attachment or change.get("AttachmentId") != interface.attachment:
            raise AwsError(
                "InvalidAttachmentID.NotFound",
                f"The attachment ID '{change.get('AttachmentId', '')}' does not exist",
            )
        interface.delete_on_termination = bool(change.get("DeleteOnTermination", interface.delete_on_termination))
    return {}


@ACTIONS.action
def reset_network_interface_attribute(
    call: Call, request: ec2.ResetNetworkInterfaceAttributeRequestTypeDef
) -> Answer:
    """The source/destination check is as it was at first: it is done."""
    interface = INTERFACES.find(call, request["NetworkInterfaceId"])
    refuse_a_gateways(interface)
    if not request.get("SourceDestCheck"):
        raise AwsError("InvalidParameterCombination", "One attribute must be given: sourceDestCheck")
    interface.source_dest_check = True
    call.wake("networks")
    return {}
