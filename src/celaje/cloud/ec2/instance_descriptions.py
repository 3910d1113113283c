"""Instances as DescribeInstances shows them, and by which facts they are found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.filters import Fact, Filters
from celaje.cloud.aws.pagination import page
from celaje.cloud.ec2.instance_lookup import find_instances, state_of
from celaje.cloud.ec2.instance_types import TYPES
from celaje.cloud.ec2.network_interfaces import Described, described, of_instances
from celaje.cloud.state.instances import CODES, Instance
from celaje.cloud.state.networks import NetworkInterface
from celaje.cloud.state.prepared import owned
from celaje.cloud.state.tags import answered_tags, tags_of
from celaje.cloud.state.volumes import VolumeAttachment, attached_to
from celaje.cloud.state.zones import zone_id

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")
FactOf = Callable[["InstanceView"], Fact | Iterable[Fact]]
_OPERATION = "RunInstances"
_PLATFORM = "Linux/UNIX"


@dataclass(slots=True)
class InstanceView:
    """An instance, and what belongs to it. `interfaces` is empty once it is terminated."""

    row: Instance
    interfaces: list[tuple[NetworkInterface, Described]]
    volumes: list[VolumeAttachment]
    tags: Mapping[str, str]

    @property
    def primary(self) -> Described | None:
        return self.interfaces[0][1] if self.interfaces else None

    def group_facts(self, name: str) -> list[str]:
        """Ids or names (GroupId, GroupName) of the security groups of all interfaces."""
        return [group[name] for _, description in self.interfaces for group in description.groups]


def views(session: Session, rows: Sequence[Instance]) -> list[InstanceView]:
    """What is to be shown of `rows`, in their order; a fixed number of queries however many they are."""
    ids = [row.id for row in rows]
    interfaces = of_instances(session, ids)
    descriptions = described(session, [one for held in interfaces.values() for one in held])
    volumes = attached_to(session, ids)
    tags = tags_of(session, ids)
    return [
        InstanceView(
            row,
            [(one, descriptions[one.id]) for one in interfaces[row.id]],
            volumes[row.id],
            tags[row.id],
        )
        for row in rows
    ]


_ROW_FIELDS: dict[str, str] = {
    "availability-zone": "zone",
    "client-token": "client_token",
    "image-id": "image",
    "instance-id": "id",
    "instance-state-name": "state",
    "instance-type": "instance_type",
    "architecture": "architecture",
    "key-name": "key_name",
    "launch-time": "launched",
    "owner-id": "account",
    "reason": "transition_reason",
    "requester-id": "account",
    "reservation-id": "reservation",
    "root-device-name": "root_device",
    "state-reason-code": "reason_code",
    "state-reason-message": "reason",
    "subnet-id": "subnet",
    "vpc-id": "vpc",
}
_CONSTANTS: dict[str, Fact] = {
    "affinity": None,
    "boot-mode": "uefi",
    "current-instance-boot-mode": "uefi",
    "capacity-reservation-id": None,
    "hibernation-options.configured": False,
    "enclave-options.enabled": False,
    "host-id": None,
    "hypervisor": "xen",
    "instance-lifecycle": None,
    "kernel-id": None,
    "metadata-options.state": "applied",
    "outpost-arn": None,
    "placement-group-name": None,
    "placement-partition-number": None,
    "platform": None,
    "platform-details": _PLATFORM,
    "product-code": None,
    "product-code.type": None,
    "private-dns-name-options.enable-resource-name-dns-a-record": False,
    "private-dns-name-options.enable-resource-name-dns-aaaa-record": False,
    "private-dns-name-options.hostname-type": "ip-name",
    "ramdisk-id": None,
    "root-device-type": "ebs",
    "spot-instance-request-id": None,
    "tenancy": "default",
    "usage-operation": _OPERATION,
    "virtualization-type": "hvm",
    "metadata-options.http-protocol-ipv4": "enabled",
    "network-interface.outpost-arn": None,
    "network-interface.ipv6-addresses.ipv6-address": None,
    "ipv6-address": None,
}
_INTERFACE_ROWS: dict[str, str] = {
    "network-interface.attachment.attachment-id": "attachment",
    "network-interface.attachment.delete-on-termination": "delete_on_termination",
    "network-interface.attachment.device-index": "device_index",
    "network-interface.attachment.attach-time": "attached",
    "network-interface.attachment.instance-id": "instance",
    "network-interface.attachment.status": "attachment_state",
    "network-interface.addresses.private-ip-address": "private_address",
    "network-interface.private-ip-address": "private_address",
    "network-interface.availability-zone": "zone",
    "network-interface.description": "description",
    "network-interface.mac-address": "mac",
    "network-interface.network-interface-id": "id",
    "network-interface.owner-id": "account",
    "network-interface.source-dest-check": "source_dest_check",
    "network-interface.subnet-id": "subnet",
    "network-interface.vpc-id": "vpc",
}


def _of_row(attribute: str) -> FactOf:
    return lambda view: getattr(view.row, attribute) or None


def _of_interfaces(attribute: str) -> FactOf:
    return lambda view: [getattr(one, attribute) for one, _ in view.interfaces]


def _constant(value: Fact) -> FactOf:
    return lambda view: value


def _associations(view: InstanceView, member: str) -> list[str]:
    found = []
    for _, description in view.interfaces:
        association = description.network_interface.get("Association")
        if isinstance(association, dict) and association.get(member):
            found.append(str(association[member]))
    return found


FILTERS = Filters[InstanceView](
    {
        **{name: _constant(value) for name, value in _CONSTANTS.items()},
        **{name: _of_row(attribute) for name, attribute in _ROW_FIELDS.items()},
        **{name: _of_interfaces(attribute) for name, attribute in _INTERFACE_ROWS.items()},
        "availability-zone-id": lambda view: zone_id(view.row.region, view.row.zone),
        "block-device-mapping.attach-time": lambda view: [one.since for one in view.volumes],
        "block-device-mapping.delete-on-termination": lambda view: [one.delete_on_termination for one in view.volumes],
        "block-device-mapping.device-name": lambda view: [one.device for one in view.volumes],
        "block-device-mapping.status": lambda view: [one.state for one in view.volumes],
        "block-device-mapping.volume-id": lambda view: [one.volume for one in view.volumes],
        "dns-name": lambda view: view.primary.public_name if view.primary else None,
        "iam-instance-profile.arn": lambda view: view.row.profile or None,
        "iam-instance-profile.id": lambda view: view.row.profile_id or None,
        "iam-instance-profile.name": lambda view: view.row.profile.rpartition("/")[2] or None,
        "ebs-optimized": lambda view: view.row.ebs_optimized,
        "ena-support": lambda view: view.row.ena_support,
        "instance-state-code": lambda view: CODES[view.row.state],
        "launch-index": lambda view: view.row.launch_index,
        "instance.group-id": lambda view: view.group_facts("GroupId"),
        "instance.group-name": lambda view: view.group_facts("GroupName"),
        "group-id": lambda view: view.group_facts("GroupId"),
        "group-name": lambda view: view.group_facts("GroupName"),
        "ip-address": lambda view: view.primary.public_address if view.primary else None,
        "maintenance-options.auto-recovery": lambda view: view.row.auto_recovery,
        "metadata-options.http-endpoint": lambda view: view.row.metadata_options.http_endpoint,
        "metadata-options.http-protocol-ipv6": lambda view: view.row.metadata_options.http_protocol_ipv6,
        "metadata-options.http-put-response-hop-limit": lambda view: (
            view.row.metadata_options.http_put_response_hop_limit
        ),
        "metadata-options.http-tokens": lambda view: view.row.metadata_options.http_tokens,
        "metadata-options.instance-metadata-tags": lambda view: view.row.metadata_options.instance_metadata_tags,
        "monitoring-state": lambda view: _monitoring(view.row),
        "network-interface.addresses.association.allocation-id": lambda view: _associations(view, "AllocationId"),
        "network-interface.addresses.association.association-id": lambda view: _associations(view, "AssociationId"),
        "network-interface.addresses.association.ip-owner-id": lambda view: _associations(view, "IpOwnerId"),
        "network-interface.addresses.association.public-ip": lambda view: _associations(view, "PublicIp"),
        "network-interface.addresses.association.public-dns-name": lambda view: _associations(view, "PublicDnsName"),
        "network-interface.addresses.private-dns-name": lambda view: [one.private_name for _, one in view.interfaces],
        "network-interface.addresses.primary": lambda view: [True for _ in view.interfaces],
        "network-interface.association.allocation-id": lambda view: _associations(view, "AllocationId"),
        "network-interface.association.association-id": lambda view: _associations(view, "AssociationId"),
        "network-interface.association.carrier-ip": lambda view: None,
        "network-interface.association.ip-owner-id": lambda view: _associations(view, "IpOwnerId"),
        "network-interface.association.public-dns-name": lambda view: _associations(view, "PublicDnsName"),
        "network-interface.association.public-ip": lambda view: _associations(view, "PublicIp"),
        "network-interface.attachment.instance-owner-id": lambda view: [one.account for one, _ in view.interfaces],
        "network-interface.group-id": lambda view: view.group_facts("GroupId"),
        "network-interface.group-name": lambda view: view.group_facts("GroupName"),
        "network-interface.private-dns-name": lambda view: [one.private_name for _, one in view.interfaces],
        "network-interface.requester-managed": lambda view: [False for _ in view.interfaces],
        "network-interface.status": lambda view: ["in-use" for _ in view.interfaces],
        "private-dns-name": lambda view: view.primary.private_name if view.primary else None,
        "private-ip-address": lambda view: [one.private_address for one, _ in view.interfaces],
        "source-dest-check": lambda view: [one.source_dest_check for one, _ in view.interfaces][:1],
        "usage-operation-update-time": lambda view: view.row.created,
    },
    tags=lambda view: view.tags,
    never=(
        "capacity-reservation-specification.capacity-reservation-target.capacity-reservation-id",
        "capacity-reservation-specification.capacity-reservation-target.capacity-reservation-resource-group-arn",
        "network-interface.addresses.association.carrier-ip",
        "network-interface.addresses.association.customer-owned-ip",
        "network-interface.association.customer-owned-ip",
        "network-interface.ipv4-prefixes.ipv4-prefix",
        "network-interface.ipv6-address",
        "network-interface.ipv6-addresses.is-primary-ipv6",
        "network-interface.ipv6-prefixes.ipv6-prefix",
        "network-interface.operator.principal",
        "network-interface.requester-id",
        "operator.principal",
        "tpm-support",
    ),
)


@ACTIONS.action
def describe_instances(call: Call, request: ec2.DescribeInstancesRequestTypeDef) -> Answer:
    """Instances by reservation."""
    identifiers = request.get("InstanceIds")
    if identifiers and request.get("MaxResults") is not None:
        raise AwsError(
            "InvalidParameterCombination",
            "The parameter instancesSet cannot be used with the parameter maxResults",
        )
    rows = find_instances(call, identifiers) if identifiers else _candidates(call, request)
    matches = FILTERS.matcher(request.get("Filters"))
    if request.get("Filters"):
        shown, token = page(
            call, request, filter(matches, views(call.session, rows)), key=lambda view: _order(view.row)
        )
    else:
        paged, token = page(call, request, rows, key=_order)
        shown = views(call.session, paged)
    return {"Reservations": reservations(shown), "NextToken": token}


def _candidates(call: Call, request: ec2.DescribeInstancesRequestTypeDef) -> Sequence[Instance]:
    """Those of the caller that the filters may match; what can be asked of the database is."""
    if not request.get("Filters"):
        return owned(call.session, Instance, call.account, call.region)
    query = select(Instance).where(Instance.account == call.account, Instance.region == call.region)
    for name, column in (
        ("instance-id", Instance.id),
        ("instance-state-name", Instance.state),
        ("reservation-id", Instance.reservation),
        ("vpc-id", Instance.vpc),
        ("subnet-id", Instance.subnet),
    ):
        if (values := FILTERS.wanted(request.get("Filters"), name)) is not None:
            query = query.where(column.in_(values))
    return call.session.scalars(query).all()


def _order(row: Instance) -> str:
    return f"{row.created:%Y%m%d%H%M%S%f} {row.reservation} {row.launch_index:06} {row.id}"


def reservations(shown: Iterable[InstanceView]) -> list[dict[str, object]]:
    """Instances that were launched together, as answers have them. Those of one reservation stand together."""
    return [
        {
            "ReservationId": reservation,
            "OwnerId": account,
            "Groups": [],
            "Instances": [instance_of(view) for view in together],
        }
        for (reservation, account), together in groupby(shown, lambda view: (view.row.reservation, view.row.account))
    ]


def _monitoring(row: Instance) -> str:
    return "enabled" if row.monitoring else "disabled"


def instance_of(view: InstanceView) -> dict[str, object]:
    """One instance as answers have it."""
    row, primary, kind = view.row, view.primary, TYPES[view.row.instance_type]
    options = row.metadata_options
    answer: dict[str, object] = {
        "AmiLaunchIndex": row.launch_index,
        "Architecture": row.architecture,
        "BlockDeviceMappings": [_device(one) for one in view.volumes],
        "BootMode": "uefi",
        "CapacityReservationSpecification": {"CapacityReservationPreference": "open"},
        "ClientToken": row.client_token,
        "CpuOptions": {
            "CoreCount": kind.cores,
            "ThreadsPerCore": kind.threads_per_core,
        },
        "CurrentInstanceBootMode": "uefi",
        "EbsOptimized": row.ebs_optimized,
        "EnaSupport": row.ena_support,
        "EnclaveOptions": {"Enabled": False},
        "HibernationOptions": {"Configured": False},
        "Hypervisor": "xen",
        "IamInstanceProfile": {"Arn": row.profile, "Id": row.profile_id} if row.profile else None,
        "ImageId": row.image,
        "InstanceId": row.id,
        "InstanceType": row.instance_type,
        "KeyName": row.key_name or None,
        "LaunchTime": row.launched,
        "MaintenanceOptions": {"AutoRecovery": row.auto_recovery, "RebootMigration": "default"},
        "MetadataOptions": {
            "State": "applied",
            "HttpTokens": options.http_tokens,
            "HttpPutResponseHopLimit": options.http_put_response_hop_limit,
            "HttpEndpoint": options.http_endpoint,
            "HttpProtocolIpv6": options.http_protocol_ipv6,
            "InstanceMetadataTags": options.instance_metadata_tags,
        },
        "Monitoring": {"State": _monitoring(row)},
        "NetworkInterfaces": [description.instance_network_interface for _, description in view.interfaces],
        "Placement": {
            "AvailabilityZone": row.zone,
            "AvailabilityZoneId": zone_id(row.region, row.zone),
            "GroupName": "",
            "Tenancy": "default",
        },
        "PlatformDetails": _PLATFORM,
        "PrivateDnsName": primary.private_name if primary else "",
        "PrivateDnsNameOptions": {
            "HostnameType": "ip-name",
            "EnableResourceNameDnsARecord": False,
            "EnableResourceNameDnsAAAARecord": False,
        },
        "ProductCodes": [],
        "PublicDnsName": (primary and primary.public_name) or "",
        "RootDeviceName": row.root_device,
        "RootDeviceType": "ebs",
        "SecurityGroups": primary.groups if primary else [],
        "State": state_of(row.state),
        "StateReason": {"Code": row.reason_code, "Message": row.reason} if row.reason_code else None,
        "StateTransitionReason": row.transition_reason,
        "Tags": answered_tags(view.tags) or None,
        "UsageOperation": _OPERATION,
        "UsageOperationUpdateTime": row.created,
        "VirtualizationType": "hvm",
    }
    if view.interfaces:
        interface = view.interfaces[0][0]
        answer |= {
            "PrivateIpAddress": interface.private_address,
            "PublicIpAddress": primary.public_address if primary else None,
            "SourceDestCheck": interface.source_dest_check,
            "SubnetId": row.subnet,
            "VpcId": row.vpc,
        }
    return answer


def _device(one: VolumeAttachment) -> dict[str, object]:
    return {
        "DeviceName": one.device,
        "Ebs": {
            "AttachTime": one.since,
            "DeleteOnTermination": one.delete_on_termination,
            "Status": one.state,
            "VolumeId": one.volume,
        },
    }
