"""Where a launch puts its instances: subnet, security groups, addresses, in whichever way a request says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select

from celaje.cloud.aws.action import Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.ec2.identifiers import checked_id
from celaje.cloud.ec2.security_groups import checked_groups
from celaje.cloud.ec2.vpcs import default_vpc
from celaje.cloud.state.networks import NetworkInterface, Subnet

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2


@dataclass(frozen=True, slots=True)
class LaunchNetwork:
    """`interface` is one that exists, and then the rest of it is as it is; `public`: it gets a public address."""

    subnet: Subnet
    groups: Sequence[str]
    private_address: str | None = None
    public: bool = False
    description: str = ""
    delete_on_termination: bool = True
    interface: str | None = None


def chosen_network(call: Call, request: ec2.RunInstancesRequestTypeDef, most: int) -> LaunchNetwork:
    """What the request says, checked. AwsError."""
    given = request.get("NetworkInterfaces") or []
    if not given:
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
        return LaunchNetwork(subnet, groups, address, subnet.public_addresses)
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
    if len(given) > 1:
        raise AwsError(
            "Unsupported",
            f"{len(given)} network interfaces were given, and an instance of this cloud has one; leave out the others.",
        )
    return _of_interface(call, request, given[0], most)


def _of_interface(
    call: Call,
    request: ec2.RunInstancesRequestTypeDef,
    given: ec2.InstanceNetworkInterfaceSpecificationUnionTypeDef,
    most: int,
) -> LaunchNetwork:
    if given.get("DeviceIndex", 0) != 0:
        raise AwsError("InvalidParameterValue", "The primary network interface must have the device index 0")
    for member in ("SecondaryPrivateIpAddressCount", "Ipv6AddressCount", "Ipv6Addresses", "Ipv4Prefixes"):
        if given.get(member):
            raise AwsError("Unsupported", f"{member} is not supported: an interface here has one IPv4 address.")
    deleted = given.get("DeleteOnTermination")
    if named := given.get("NetworkInterfaceId"):
        if most > 1:
            raise AwsError(
                "InvalidParameterCombination", "A network interface can be given to one instance: maxCount must be 1"
            )
        interface = call.session.get(NetworkInterface, checked_id(named, "eni", "InvalidNetworkInterfaceID"))
        if interface is None or (interface.account, interface.region) != (call.account, call.region):
            raise AwsError("InvalidNetworkInterfaceID.NotFound", f"The networkInterface ID '{named}' does not exist")
        if interface.instance:
            raise AwsError("InvalidNetworkInterface.InUse", f"Interface: [{named}] in use.")
        return LaunchNetwork(
            call.session.get_one(Subnet, interface.subnet),
            (),
            delete_on_termination=bool(deleted),
            interface=interface.id,
        )
    subnet = _subnet(call, given.get("SubnetId"), request)
    addresses = [one for one in given.get("PrivateIpAddresses") or () if one.get("PrivateIpAddress")]
    if len(addresses) > 1:
        raise AwsError("Unsupported", "Secondary private addresses are not supported: an interface here has one.")
    address = given.get("PrivateIpAddress") or (addresses[0].get("PrivateIpAddress") if addresses else None)
    public = given.get("AssociatePublicIpAddress")
    return LaunchNetwork(
        subnet,
        checked_groups(call.session, call.account, call.region, subnet.vpc, given.get("Groups") or ()),
        _address_of_one(address, most),
        subnet.public_addresses if public is None else public,
        given.get("Description") or "",
        True if deleted is None else deleted,
    )


def _address_of_one(address: str | None, most: int) -> str | None:
    if address and most > 1:
        raise AwsError(
            "InvalidParameterCombination", "A private address can be given to one instance: maxCount must be 1"
        )
    return address or None


def _subnet(call: Call, identifier: str | None, request: ec2.RunInstancesRequestTypeDef) -> Subnet:
    zone = (request.get("Placement") or {}).get("AvailabilityZone")
    if zone and zone not in {call.region + letter for letter in call.settings.regions[call.region]}:
        raise AwsError("InvalidParameterValue", f"Invalid availability zone: [{zone[:64]}]")
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
