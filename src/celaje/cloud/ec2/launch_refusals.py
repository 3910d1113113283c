"""What RunInstances knows at AWS and this cloud does not have: refused by name, never silently left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from celaje.cloud.aws.errors import AwsError
from celaje.cloud.ec2.instance_types import InstanceType

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

_UNKNOWN = {
    "KernelId": "an image brings its kernel",
    "RamdiskId": "an image brings its initial RAM disk",
    "ElasticGpuSpecification": "AWS has ended it too",
    "ElasticInferenceAccelerators": "AWS has ended it too",
    "InstanceMarketOptions": "every instance here is on demand",
    "LicenseSpecifications": "there are no licences here",
    "Ipv6AddressCount": "networks have IPv4 addresses only",
    "Ipv6Addresses": "networks have IPv4 addresses only",
    "EnablePrimaryIpv6": "networks have IPv4 addresses only",
    "SecondaryInterfaces": "an instance has one interface",
    "Operator": "no service operates instances here",
}
_INTERFACE = dict.fromkeys(
    ("Ipv6AddressCount", "Ipv6Addresses", "Ipv6Prefixes", "Ipv6PrefixCount", "Ipv4Prefixes", "Ipv4PrefixCount"),
    "an interface here has single IPv4 addresses",
) | {
    "PrimaryIpv6": "networks have IPv4 addresses only",
    "AssociateCarrierIpAddress": "there are no carriers",
    "ConnectionTrackingSpecification": "how long connections are tracked is fixed",
}
_PLACEMENT = {
    "GroupName": "there are no placement groups",
    "GroupId": "there are no placement groups",
    "PartitionNumber": "there are no placement groups",
    "HostId": "there are no dedicated hosts",
    "HostResourceGroupArn": "there are no dedicated hosts",
    "Affinity": "there are no dedicated hosts",
    "SpreadDomain": "there are no placement groups",
}


def refuse_what_is_not_here(request: ec2.RunInstancesRequestTypeDef) -> None:
    """AwsError for what would have to be kept, and cannot."""
    _refuse(request, _UNKNOWN, "")
    placement: Mapping[str, Any] = request.get("Placement") or {}
    _refuse(placement, _PLACEMENT, "Placement.")
    if placement.get("Tenancy", "default") != "default":
        raise AwsError(
            "Unsupported",
            f"The tenancy {placement['Tenancy']} is not supported: instances share the host; leave it out.",
        )
    if (request.get("HibernationOptions") or {}).get("Configured"):
        raise AwsError("UnsupportedHibernationConfiguration", "Instances cannot hibernate here; leave it out.")
    if (request.get("EnclaveOptions") or {}).get("Enabled"):
        raise AwsError("Unsupported", "Enclaves are not supported; leave them out.")
    reservation = request.get("CapacityReservationSpecification") or {}
    if reservation.get("CapacityReservationTarget"):
        raise AwsError("Unsupported", "Capacity reservations are not supported; leave the target out.")
    names: Mapping[str, Any] = request.get("PrivateDnsNameOptions") or {}
    refuse_other_names(names.get("HostnameType"), names)
    options: Mapping[str, Any] = request.get("CpuOptions") or {}
    if options.get("AmdSevSnp") == "enabled" or options.get("NestedVirtualization") == "enabled":
        raise AwsError("Unsupported", "AmdSevSnp and NestedVirtualization are not supported; leave them out.")


def refuse_other_interfaces(given: Mapping[str, Any]) -> None:
    """AwsError for an interface that is not an ordinary one with IPv4 addresses."""
    _refuse(given, _INTERFACE, "NetworkInterfaces.")
    if given.get("InterfaceType", "interface") != "interface":
        raise AwsError("Unsupported", "Interfaces here are of the type interface; leave InterfaceType out.")


def refuse_other_cpus(kind: InstanceType, options: Mapping[str, object]) -> None:
    """AwsError for other cores than a type has, or another number of threads of each."""
    own = {"CoreCount": kind.cores, "ThreadsPerCore": kind.threads_per_core}
    if any(options.get(name, number) != number for name, number in own.items()):
        raise AwsError(
            "Unsupported",
            f"An instance has the CPUs of its type: {kind.name} has CoreCount {kind.cores} and ThreadsPerCore "
            f"{kind.threads_per_core}. Say these, or leave CpuOptions out.",
        )


def refuse_other_names(kind: str | None, options: Mapping[str, object]) -> None:
    """AwsError for names of instances that are not made of their addresses."""
    if (kind or "ip-name") != "ip-name":
        raise AwsError("Unsupported", "Instances are named by their addresses here; HostnameType must be ip-name.")
    for member in ("EnableResourceNameDnsARecord", "EnableResourceNameDnsAAAARecord"):
        if options.get(member):
            raise AwsError("Unsupported", f"Instances have no names of their identifiers here; {member} must be false.")


def _refuse(given: Mapping[str, Any], refused: Mapping[str, str], prefix: str) -> None:
    for member, why in refused.items():
        if given.get(member):
            raise AwsError("Unsupported", f"The parameter {prefix}{member} is not supported: {why}. Leave it out.")
