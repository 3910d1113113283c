"""Where a launch puts its instances: subnet, security groups, addresses, in whichever way a request says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select

from celaje.cloud.aws.action import Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.ec2.identifiers import checked_id
from celaje.cloud.ec2.instance_types import InstanceType
from celaje.cloud.ec2.interface_attachments import MOST_CARDS
from celaje.cloud.ec2.launch_refusals import refuse_other_interfaces
from celaje.cloud.ec2.network_interface_actions import checked_description
from celaje.cloud.ec2.private_addresses import said_addresses, secondary_addresses
from celaje.cloud.ec2.security_groups import checked_groups
from celaje.cloud.ec2.vpcs import default_vpc
from celaje.cloud.state.networks import NetworkInterface, Subnet
from celaje.cloud.state.zones import zone_of_id

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2


@dataclass(frozen=True, slots=True)
class LaunchNetwork:
    """One interface of each instance. `interface` is one that exists, and then the rest of it is as it is; `public`: it
    gets a public address; `count` secondary addresses beside those that are said."""

    subnet: Subnet
    groups: Sequence[str]
    private_address: str | None = None
    secondary: Sequence[str] = ()
    count: int = 0
    device_index: int = 0
    public: bool = False
    description: str = ""
    delete_on_termination: bool = True
    interface: str | None = None


def chosen_networks(
    call: Call, request: ec2.RunInstancesRequestTypeDef, kind: InstanceType, most: int
) -> list[LaunchNetwork]:
    """What the request says, checked, the first interface first. AwsError."""
    given = request.get("NetworkInterfaces") or []
    if not given:
        if request.get("SubnetId") and request.get("SecurityGroups"):
            raise AwsError(
                "InvalidParameterCombination", "The parameter groupName cannot be used with the parameter subnet"
            )
        subnet = _subnet(call, request.get("SubnetId"), request)
        groups = checked_groups(
            call.session,
            call.account,
            call.region,
            subnet.vpc,
            request.get("SecurityGroupIds") or (),
            request.get("SecurityGroups") or (),
        )
        address = _address_of_one(request.get("PrivateIpAddress"), most)
        return [LaunchNetwork(subnet, groups, address, public=subnet.public_addresses)]
    for member, what in (("SubnetId", "subnet ID"), ("SecurityGroupIds", "security groups")):
        if request.get(member):
            raise AwsError(
                "InvalidParameterCombination",
                f"Network interfaces and an instance-level {what} may not be specified on the same request",
            )
    if request.get("SecurityGroups") or request.get("PrivateIpAddress"):
        raise AwsError(
            "InvalidParameterCombination",
            "Network interfaces and instance-level security groups or private addresses may not be specified on the "
            "same request",
        )
    chosen = sorted(
        (_of_interface(call, request, one, most, alone=len(given) == 1) for one in given),
        key=lambda one: one.device_index,
    )
    _check_together(kind, chosen)
    return chosen


def _check_together(kind: InstanceType, chosen: Sequence[LaunchNetwork]) -> None:
    indexes = [one.device_index for one in chosen]
    if indexes[0] != 0:
        raise AwsError("InvalidParameterValue", "The primary network interface must have the device index 0")
    if len(set(indexes)) != len(indexes):
        raise AwsError("InvalidParameterValue", "Each network interface requires a device index of its own")
    named = [one.interface for one in chosen if one.interface is not None]
    if len(set(named)) != len(named):
        raise AwsError("InvalidParameterValue", "A network interface was given twice")
    if len(chosen) > min(kind.interfaces, MOST_CARDS):
        raise AwsError("AttachmentLimitExceeded", f"Interface count {len(chosen)} exceeds the limit for {kind.name}")
    if strange := next((one for one in chosen if one.subnet.zone != chosen[0].subnet.zone), None):
        raise AwsError(
            "InvalidParameterCombination",
            f"The subnets {chosen[0].subnet.id} and {strange.subnet.id} of the network interfaces are in different "
            "availability zones",
        )
    for one in chosen:
        if len(one.secondary) + one.count + 1 > kind.addresses_per_interface:
            raise AwsError(
                "PrivateIpAddressLimitExceeded",
                f"An interface of a {kind.name} has at most {kind.addresses_per_interface} private addresses",
            )


def _of_interface(
    call: Call,
    request: ec2.RunInstancesRequestTypeDef,
    given: ec2.InstanceNetworkInterfaceSpecificationUnionTypeDef,
    most: int,
    alone: bool,
) -> LaunchNetwork:
    index = given.get("DeviceIndex")
    if index is None:
        if not alone:
            raise AwsError("InvalidParameterValue", "Each network interface requires a device index.")
        index = 0
    refuse_other_interfaces(given)
    deleted = given.get("DeleteOnTermination")
    public = given.get("AssociatePublicIpAddress")
    if public is not None and not alone:
        raise AwsError(
            "InvalidParameterCombination",
            "The associatePublicIPAddress parameter cannot be specified when launching with multiple network "
            "interfaces.",
        )
    if given.get("NetworkInterfaceId"):
        return _existing(call, request, given, most, index)
    subnet = _subnet(call, given.get("SubnetId"), request)
    said = said_addresses(given.get("PrivateIpAddress"), given.get("PrivateIpAddresses") or (), given)
    for address in (said.primary, *said.secondary):
        _address_of_one(address, most)
    return LaunchNetwork(
        subnet,
        checked_groups(call.session, call.account, call.region, subnet.vpc, given.get("Groups") or ()),
        said.primary,
        said.secondary,
        said.count,
        index,
        alone and (subnet.public_addresses if public is None else public),
        checked_description(given.get("Description")),
        True if deleted is None else deleted,
    )


def _existing(
    call: Call,
    request: ec2.RunInstancesRequestTypeDef,
    given: ec2.InstanceNetworkInterfaceSpecificationUnionTypeDef,
    most: int,
    index: int,
) -> LaunchNetwork:
    named = given["NetworkInterfaceId"]
    for member in ("SubnetId", "Groups", "PrivateIpAddress", "PrivateIpAddresses", "SecondaryPrivateIpAddressCount"):
        if given.get(member):
            raise AwsError(
                "InvalidParameterCombination",
                f"A network interface ID and {member} may not be specified together: {named} has its own",
            )
    if most > 1:
        raise AwsError(
            "InvalidParameterCombination", "A network interface can be given to one instance: maxCount must be 1"
        )
    interface = call.session.get(NetworkInterface, checked_id(named, "eni", "InvalidNetworkInterfaceID"))
    if interface is None or (interface.account, interface.region) != (call.account, call.region):
        raise AwsError("InvalidNetworkInterfaceID.NotFound", f"The networkInterface ID '{named}' does not exist")
    if interface.attachment:
        raise AwsError("InvalidNetworkInterface.InUse", f"Interface: [{named}] in use.")
    return LaunchNetwork(
        _subnet(call, interface.subnet, request),
        (),
        secondary=secondary_addresses(call.session, [interface.id])[interface.id],
        device_index=index,
        delete_on_termination=bool(given.get("DeleteOnTermination")),
        interface=interface.id,
    )


def _address_of_one(address: str | None, most: int) -> str | None:
    if address and most > 1:
        raise AwsError(
            "InvalidParameterCombination", "A private address can be given to one instance: maxCount must be 1"
        )
    return address or None


def _zone(call: Call, request: ec2.RunInstancesRequestTypeDef) -> str | None:
    """The zone that a request's placement says, by its name or its id."""
    placement = request.get("Placement") or {}
    zone, identifier = placement.get("AvailabilityZone"), placement.get("AvailabilityZoneId")
    letters = call.settings.regions[call.region]
    if zone and identifier:
        raise AwsError("InvalidParameterCombination", "Give either availabilityZone or availabilityZoneId")
    if identifier:
        zone = zone_of_id(call.region, letters, identifier)
    if (zone or identifier) and zone not in {call.region + letter for letter in letters}:
        raise AwsError("InvalidParameterValue", f"Invalid availability zone: [{(identifier or zone or '')[:64]}]")
    return zone


def _subnet(call: Call, identifier: str | None, request: ec2.RunInstancesRequestTypeDef) -> Subnet:
    zone = _zone(call, request)
    if identifier:
        subnet = call.session.get(Subnet, checked_id(identifier, "subnet", "InvalidSubnetID"))
        if subnet is None or (subnet.account, subnet.region) != (call.account, call.region):
            raise AwsError("InvalidSubnetID.NotFound", f"The subnet ID '{identifier}' does not exist")
        if zone and zone != subnet.zone:
            raise AwsError(
                "InvalidParameterValue",
                f"The availability zone {zone} is not that of the subnet {identifier}, which is {subnet.zone}",
            )
        return subnet
    vpc = default_vpc(call.session, call.account, call.region)
    if vpc is None:
        raise AwsError("VPCIdNotSpecified", "No default VPC for this user. Specify a subnet.")
    defaults = select(Subnet).where(Subnet.vpc == vpc.id, Subnet.is_default).order_by(Subnet.zone)
    subnets = [one for one in call.session.scalars(defaults) if zone in (None, "", one.zone)]
    if not subnets:
        where = f" in '{zone}'" if zone else ""
        raise AwsError(
            "MissingInput", f"No subnets found for the default VPC '{vpc.id}'{where}. Please specify a subnet."
        )
    return subnets[0]
