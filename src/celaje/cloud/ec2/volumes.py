"""Volumes: made, described, modified, deleted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.filters import Filters
from celaje.cloud.aws.pagination import page
from celaje.cloud.aws.tag_specifications import tags_for
from celaje.cloud.ec2 import quotas, volume_kinds
from celaje.cloud.ec2.identifiers import checked_id
from celaje.cloud.ec2.quotas import refuse_beyond
from celaje.cloud.state.identifiers import new_id
from celaje.cloud.state.permissions import is_granted
from celaje.cloud.state.prepared import IDENTIFIERS, owned, rows_of
from celaje.cloud.state.snapshots import Snapshot
from celaje.cloud.state.tags import answered_tags, set_tags, tags_of
from celaje.cloud.state.volumes import Volume, VolumeAttachment, VolumeModification
from celaje.cloud.state.zones import zone_id, zone_of_id

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")
CONTROLLER = "volumes"
_ACTIVE = ("modifying", "optimizing")


def found(call: Call, identifier: str) -> Volume:
    """The caller's volume of that identifier. AwsError InvalidVolumeID.Malformed, InvalidVolume.NotFound."""
    volume = call.session.get(Volume, checked_id(identifier, "vol", "InvalidVolumeID"))
    if volume is None or (volume.account, volume.region) != (call.account, call.region):
        raise AwsError("InvalidVolume.NotFound", f"The volume '{identifier}' does not exist.")
    return volume


def readable_snapshot(call: Call, identifier: str, region: str | None = None) -> Snapshot:
    """A snapshot, of the request's region unless one is said, that the caller may make volumes of: an own one, a public
    one, or one that is shared with the caller's account. AwsError."""
    snapshot = call.session.get(Snapshot, checked_id(identifier, "snap", "InvalidSnapshotID"))
    if (
        snapshot is None
        or snapshot.region != (region or call.region)
        or snapshot.state == "deleting"
        or not may_read(call, snapshot)
    ):
        raise AwsError("InvalidSnapshot.NotFound", f"The snapshot '{identifier}' does not exist.")
    return snapshot


def may_read(call: Call, snapshot: Snapshot) -> bool:
    """Whether the caller may make volumes of it."""
    return (
        snapshot.account == call.account
        or snapshot.public
        or is_granted(call.session, snapshot.id, call.account)
    )


def checked_zone(call: Call, zone: str | None) -> str:
    """The name of a zone of the call's region. AwsError."""
    if not zone:
        raise AwsError("MissingParameter", "The request must contain the parameter zone")
    if zone not in {call.region + letter for letter in call.settings.regions[call.region]}:
        raise AwsError("InvalidZone.NotFound", f"The zone '{zone[:100]}' does not exist.")
    return zone


def refuse_encryption(encrypted: bool | None) -> None:
    """What is on the host's disk is not encrypted by celaje, and nobody shall believe that it is."""
    if encrypted:
        raise AwsError(
            "UnsupportedOperation",
            "Volumes of this cloud are not encrypted; leave Encrypted out, and encrypt the disk of the host instead.",
        )


def add(
    call: Call,
    *,
    zone: str,
    size: int | None,
    kind: str | None,
    iops: int | None,
    throughput: int | None,
    snapshot: Snapshot | None,
) -> Volume:
    """A new volume's row, in the state creating; the controller makes it. AwsError where it may not be so."""
    if size is None:
        if snapshot is None:
            raise AwsError("MissingParameter", "The request must contain the parameter size/snapshot")
        size = snapshot.size
    if snapshot is not None:
        if snapshot.state != "completed":
            raise AwsError("IncorrectState", f"Snapshot '{snapshot.id}' is not 'completed'.")
        if size < snapshot.size:
            raise AwsError(
                "InvalidParameterValue",
                f"Volume of {size}GiB is smaller than snapshot '{snapshot.id}', expect size >= {snapshot.size}GiB",
            )
    performance = volume_kinds.checked(kind or volume_kinds.DEFAULT, size, iops, throughput)
    refuse_beyond(call.session, call, Volume, quotas.VOLUMES, "volumes", "VolumeLimitExceeded")
    quotas.refuse_storage_beyond(call, size)
    volume = Volume(
        id=new_id("vol"),
        account=call.account,
        region=call.region,
        created=call.now,
        zone=zone,
        size=size,
        kind=performance.kind,
        iops=performance.iops,
        throughput=performance.throughput,
        snapshot=snapshot.id if snapshot else "",
        state="creating",
    )
    call.session.add(volume)
    call.wake(CONTROLLER)
    return volume


@ACTIONS.action
def create_volume(call: Call, request: ec2.CreateVolumeRequestTypeDef) -> Answer:
    """A volume, empty or over a snapshot."""
    refuse_encryption(request.get("Encrypted") or bool(request.get("KmsKeyId")))
    if request.get("MultiAttachEnabled"):
        raise AwsError("UnsupportedOperation", "A volume of this cloud is attached to one instance at a time.")
    if request.get("OutpostArn"):
        raise AwsError("UnsupportedOperation", "This cloud has no Outposts; name an AvailabilityZone.")
    zone, identifier = request.get("AvailabilityZone"), request.get("AvailabilityZoneId")
    if zone and identifier:
        raise AwsError("InvalidParameterCombination", "Give either availabilityZone or availabilityZoneId")
    if identifier:
        zone = zone_of_id(call.region, call.settings.regions[call.region], identifier) or identifier
    given = request.get("SnapshotId")
    volume = add(
        call,
        zone=checked_zone(call, zone),
        size=request.get("Size"),
        kind=request.get("VolumeType"),
        iops=request.get("Iops"),
        throughput=request.get("Throughput"),
        snapshot=readable_snapshot(call, given) if given else None,
    )
    tags = tags_for(request.get("TagSpecifications"), "volume")
    set_tags(call.session, volume.id, "volume", call.account, call.region, tags)
    return described(volume, None, tags) | {"Tags": answered_tags(tags)}  # as of a snapshot that is made


@ACTIONS.action
def delete_volume(call: Call, request: ec2.DeleteVolumeRequestTypeDef) -> Answer:
    """It may not be attached to anything."""
    volume = found(call, request["VolumeId"])
    attachment = call.session.get(VolumeAttachment, volume.id)
    if attachment is not None:
        raise AwsError("VolumeInUse", f"Volume {volume.id} is currently attached to {attachment.instance}")
    volume.state = "deleting"
    call.wake(CONTROLLER)
    return {}


@dataclass(frozen=True, slots=True)
class _Found:
    volume: Volume
    attachment: VolumeAttachment | None
    tags: dict[str, str]


_FILTERS = Filters[_Found](
    {
        "volume-id": lambda one: one.volume.id,
        "size": lambda one: one.volume.size,
        "status": lambda one: one.volume.state,
        "volume-type": lambda one: one.volume.kind,
        "availability-zone": lambda one: one.volume.zone,
        "availability-zone-id": lambda one: zone_id(one.volume.region, one.volume.zone),
        "snapshot-id": lambda one: one.volume.snapshot,
        "create-time": lambda one: one.volume.created,
        "encrypted": lambda one: False,
        "fast-restored": lambda one: False,
        "operator.managed": lambda one: False,
        "multi-attach-enabled": lambda one: False,
        "attachment.instance-id": lambda one: one.attachment.instance if one.attachment else None,
        "attachment.device": lambda one: one.attachment.device if one.attachment else None,
        "attachment.status": lambda one: one.attachment.state if one.attachment else None,
        "attachment.attach-time": lambda one: one.attachment.since if one.attachment else None,
        "attachment.delete-on-termination": lambda one: (
            one.attachment.delete_on_termination if one.attachment else None
        ),
    },
    tags=lambda one: one.tags,
)


@ACTIONS.action
def describe_volumes(call: Call, request: ec2.DescribeVolumesRequestTypeDef) -> Answer:
    """The caller's volumes and what they are attached to."""
    wanted = request.get("VolumeIds")
    if wanted and request.get("MaxResults") is not None:
        raise AwsError(
            "InvalidParameterCombination",
            "The parameter volumeIds cannot be used with the parameter maxResults",
        )
    matches = _FILTERS.matcher(request.get("Filters"))
    rows = _visible(call, wanted)
    joined = [one for one in _joined(call.session, rows) if matches(one)]
    shown, token = page(call, request, joined, lambda one: one.volume.id)
    return {
        "Volumes": [described(one.volume, one.attachment, one.tags) for one in shown],
        "NextToken": token,
    }


def _visible(call: Call, wanted: Sequence[str] | None) -> Sequence[Volume]:
    """All volumes of the caller, or those wanted. AwsError for one that is not there."""
    if not wanted:
        return owned(call.session, Volume, call.account, call.region)
    for identifier in wanted:
        checked_id(identifier, "vol", "InvalidVolumeID")
    query = select(Volume).where(Volume.account == call.account, Volume.region == call.region)
    rows = call.session.scalars(query.where(Volume.id.in_(list(wanted)))).all()
    missing = set(wanted) - {row.id for row in rows}
    if missing:
        raise AwsError("InvalidVolume.NotFound", f"The volume '{min(missing)}' does not exist.")
    return rows


_ATTACHMENTS = select(VolumeAttachment).where(VolumeAttachment.volume.in_(IDENTIFIERS))


def _joined(session: Session, volumes: Iterable[Volume]) -> list[_Found]:
    volumes = list(volumes)
    identifiers = [volume.id for volume in volumes]
    attachments: dict[str, VolumeAttachment] = {
        row.volume: row for (row,) in rows_of(session, _ATTACHMENTS, identifiers)
    }
    tags = tags_of(session, identifiers)
    return [_Found(volume, attachments.get(volume.id), tags[volume.id]) for volume in volumes]


def described(volume: Volume, attachment: VolumeAttachment | None, tags: dict[str, str]) -> dict[str, object]:
    """A volume as EC2 describes it."""
    return {
        "VolumeId": volume.id,
        "Size": volume.size,
        "SnapshotId": volume.snapshot,
        "AvailabilityZone": volume.zone,
        "State": volume.state,
        "CreateTime": volume.created,
        "Attachments": [] if attachment is None else [described_attachment(attachment)],
        "Encrypted": False,
        "VolumeType": volume.kind,
        "Iops": volume.iops,
        "Throughput": volume.throughput,
        "MultiAttachEnabled": False,
        "Tags": answered_tags(tags) or None,
    }


def described_attachment(attachment: VolumeAttachment) -> dict[str, object]:
    """An attachment as EC2 describes it at the volume."""
    return {
        "VolumeId": attachment.volume,
        "InstanceId": attachment.instance,
        "Device": attachment.device,
        "State": attachment.state,
        "AttachTime": attachment.since,
        "DeleteOnTermination": attachment.delete_on_termination,
    }


_STATUS_FILTERS = Filters[Volume](
    {
        "volume-status.status": lambda volume: _status(volume),
        "availability-zone": lambda volume: volume.zone,
        "volume-status.details-name": lambda volume: "io-enabled",
        "volume-status.details-status": lambda volume: "passed" if volume.state != "error" else "failed",
    },
    never=(
        "action.code",
        "action.description",
        "action.event-id",
        "event.description",
        "event.event-id",
        "event.event-type",
        "event.not-after",
        "event.not-before",
    ),
)


@ACTIONS.action
def describe_volume_status(call: Call, request: ec2.DescribeVolumeStatusRequestTypeDef) -> Answer:
    """Whether volumes can be used."""
    matches = _STATUS_FILTERS.matcher(request.get("Filters"))
    rows = [row for row in _visible(call, request.get("VolumeIds")) if matches(row)]
    shown, token = page(call, request, rows, lambda volume: volume.id)
    return {"VolumeStatuses": [_described_status(volume) for volume in shown], "NextToken": token}


def _status(volume: Volume) -> str:
    return "impaired" if volume.state == "error" else "ok" if volume.made else "insufficient-data"


def _described_status(volume: Volume) -> dict[str, object]:
    enabled = {"Name": "io-enabled", "Status": "failed" if volume.state == "error" else "passed"}
    return {
        "VolumeId": volume.id,
        "AvailabilityZone": volume.zone,
        "VolumeStatus": {
            "Status": _status(volume),
            "Details": [enabled, {"Name": "io-performance", "Status": "not-applicable"}],
        },
        "Actions": [],
        "Events": [],
    }


@ACTIONS.action
def describe_volume_attribute(call: Call, request: ec2.DescribeVolumeAttributeRequestTypeDef) -> Answer:
    """I/O of a volume of this cloud is never disabled; there are no product codes."""
    volume = found(call, request["VolumeId"])
    attribute = request["Attribute"]
    if attribute == "autoEnableIO":
        return {"VolumeId": volume.id, "AutoEnableIO": {"Value": False}}
    if attribute == "productCodes":
        return {"VolumeId": volume.id, "ProductCodes": []}
    raise AwsError("InvalidParameterValue", "The attribute must be autoEnableIO or productCodes")


@ACTIONS.action
def modify_volume_attribute(call: Call, request: ec2.ModifyVolumeAttributeRequestTypeDef) -> Answer:
    """AutoEnableIO, to what it is."""
    volume = found(call, request["VolumeId"])
    if (request.get("AutoEnableIO") or {}).get("Value"):
        raise AwsError(
            "UnsupportedOperation",
            f"I/O of the volume {volume.id} is never disabled in this cloud, so it cannot be enabled automatically; "
            "leave AutoEnableIO at false.",
        )
    return {}


@ACTIONS.action
def modify_volume(call: Call, request: ec2.ModifyVolumeRequestTypeDef) -> Answer:
    """A larger size, another type or other performance, also while it is in use."""
    volume = found(call, request["VolumeId"])
    if volume.state not in ("available", "in-use"):
        raise AwsError("IncorrectState", f"Volume '{volume.id}' is in the '{volume.state}' state.")
    if request.get("MultiAttachEnabled"):
        raise AwsError("UnsupportedOperation", "A volume of this cloud is attached to one instance at a time.")
    last = call.session.get(VolumeModification, volume.id)
    if last is not None and last.state in _ACTIVE:
        raise AwsError(
            "IncorrectModificationState",
            f"Cannot modify volume {volume.id}, currently in modification state '{last.state.upper()}'.",
        )
    size = request.get("Size", volume.size)
    kind = request.get("VolumeType", volume.kind)
    if size < volume.size:
        raise AwsError(
            "InvalidParameterValue",
            f"New size cannot be smaller than existing size: {size}GiB, and volume {volume.id} has {volume.size}GiB",
        )
    same_kind = kind == volume.kind
    keeps = volume_kinds.KINDS[volume.kind]
    iops = request.get("Iops", volume.iops if same_kind and keeps.iops else None)
    throughput = request.get("Throughput", volume.throughput if same_kind else None)
    performance = volume_kinds.checked(kind, size, iops, throughput)
    after = (size, performance.kind, performance.iops, performance.throughput)
    if after == (volume.size, volume.kind, volume.iops, volume.throughput):
        raise AwsError("InvalidParameterValue", "The volume is so already: give a Size, VolumeType, Iops or Throughput")
    quotas.refuse_storage_beyond(call, size - volume.size)
    modification = VolumeModification(
        volume=volume.id,
        account=call.account,
        region=call.region,
        state="modifying",
        progress=0,
        started=call.now,
        size=size,
        kind=performance.kind,
        iops=performance.iops,
        throughput=performance.throughput,
        original_size=volume.size,
        original_kind=volume.kind,
        original_iops=volume.iops,
        original_throughput=volume.throughput,
    )
    modification = call.session.merge(modification)
    modification.ended = None
    modification.message = ""
    call.wake(CONTROLLER)
    return {"VolumeModification": _described_modification(modification)}


_MODIFICATION_FILTERS = Filters[VolumeModification](
    {
        "volume-id": lambda one: one.volume,
        "modification-state": lambda one: one.state,
        "target-size": lambda one: one.size,
        "target-iops": lambda one: one.iops,
        "target-volume-type": lambda one: one.kind,
        "original-size": lambda one: one.original_size,
        "original-iops": lambda one: one.original_iops,
        "original-volume-type": lambda one: one.original_kind,
        "start-time": lambda one: one.started,
    }
)


@ACTIONS.action
def describe_volumes_modifications(call: Call, request: ec2.DescribeVolumesModificationsRequestTypeDef) -> Answer:
    """The last modification of each volume that has one."""
    wanted = request.get("VolumeIds")
    matches = _MODIFICATION_FILTERS.matcher(request.get("Filters"))
    query = select(VolumeModification).where(
        VolumeModification.account == call.account, VolumeModification.region == call.region
    )
    if wanted:
        _visible(call, wanted)
        query = query.where(VolumeModification.volume.in_(list(wanted)))
    rows = call.session.scalars(query).all()
    missing = set(wanted or ()) - {row.volume for row in rows}
    if missing:
        raise AwsError(
            "InvalidVolumeModification.NotFound", f"Modification for volume '{min(missing)}' does not exist."
        )
    shown, token = page(call, request, filter(matches, rows), lambda one: one.volume)
    return {"VolumesModifications": [_described_modification(one) for one in shown], "NextToken": token}


def _described_modification(one: VolumeModification) -> dict[str, object]:
    return {
        "VolumeId": one.volume,
        "ModificationState": one.state,
        "StatusMessage": one.message or None,
        "TargetSize": one.size,
        "TargetVolumeType": one.kind,
        "TargetIops": one.iops,
        "TargetThroughput": one.throughput,
        "TargetMultiAttachEnabled": False,
        "OriginalSize": one.original_size,
        "OriginalVolumeType": one.original_kind,
        "OriginalIops": one.original_iops,
        "OriginalThroughput": one.original_throughput,
        "OriginalMultiAttachEnabled": False,
        "Progress": one.progress,
        "StartTime": one.started,
        "EndTime": one.ended,
    }
