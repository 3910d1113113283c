"""Block device mappings: what an image has, what a launch asks for, and the volumes that come of both."""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from celaje.cloud.aws.action import Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.ec2 import volumes
from celaje.cloud.state.images import BlockDevice, Image
from celaje.cloud.state.snapshots import Snapshot
from celaje.cloud.state.tags import set_tags
from celaje.cloud.state.volumes import Volume, VolumeAttachment

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

MOST = 32  # volumes at one instance; the SCSI controller has more targets than that
_DEVICE = re.compile(r"(?:/dev/)?(?:sd|xvd|hd)[a-z]{1,2}[0-9]{0,2}")
_INSTANCE_STORE = re.compile(r"ephemeral([0-9]|1[0-9]|2[0-3])")


@dataclass(frozen=True, slots=True)
class Disk:
    """A volume that a launch makes. `size` in GiB, None: that of the snapshot."""

    device: str
    snapshot: str
    size: int | None
    kind: str | None
    iops: int | None
    throughput: int | None
    delete_on_termination: bool


def checked_device(device: str | None) -> str:
    """`device`, if disks may be called so. AwsError."""
    if not device or not _DEVICE.fullmatch(device):
        raise AwsError(
            "InvalidParameterValue",
            f"Value ({(device or '')[:100]}) for parameter device is invalid. {(device or '')[:100]} is not a valid "
            "EBS device name, such as /dev/sdf or xvdf.",
        )
    return device


def disks_of(devices: Iterable[BlockDevice], mappings: Sequence[ec2.BlockDeviceMappingTypeDef] | None) -> list[Disk]:
    """What a launch of an image with `devices` makes when it asks for `mappings`: the image's volumes, each as the
    request changes it, without those that it takes away, and the request's own. AwsError where it contradicts."""
    found = {one.device: _of_image(one) for one in devices if not one.virtual}
    seen: set[str] = set()
    for mapping in mappings or ():
        device = checked_device(mapping.get("DeviceName"))
        if device in seen:
            raise AwsError(
                "InvalidBlockDeviceMapping", f"The device '{device}' is used in more than one block-device mapping"
            )
        seen.add(device)
        virtual, asked = mapping.get("VirtualName"), mapping.get("Ebs")
        if mapping.get("NoDevice") is not None:
            found.pop(device, None)
        elif virtual is not None and asked is None:
            if not _INSTANCE_STORE.fullmatch(virtual):
                raise AwsError("InvalidParameterValue", f"The virtual name {virtual} must be ephemeral0 to 23")
            found.pop(device, None)  # the type's own disks are there whatever is mapped, as NVMe ones are at AWS
        elif asked is None:
            raise AwsError(
                "MissingParameter", f"The block device mapping of {device} must contain Ebs, VirtualName or NoDevice"
            )
        else:
            found[device] = _changed(found.get(device), device, asked)
    return list(found.values())


def _of_image(one: BlockDevice) -> Disk:
    return Disk(
        one.device, one.snapshot, one.size or None, one.kind, one.iops, one.throughput, one.delete_on_termination
    )


def _changed(image: Disk | None, device: str, asked: ec2.EbsBlockDeviceTypeDef) -> Disk:
    volumes.refuse_encryption(asked.get("Encrypted") or bool(asked.get("KmsKeyId")))
    snapshot = asked.get("SnapshotId")
    if image is not None:
        if snapshot and snapshot != image.snapshot:
            raise AwsError(
                "InvalidBlockDeviceMapping", f"The snapshotId of the device {device} is the image's and cannot change"
            )
        kind = asked.get("VolumeType")
        return dataclasses.replace(
            image,
            size=asked.get("VolumeSize", image.size),
            kind=kind or image.kind,
            iops=asked.get("Iops", None if kind and kind != image.kind else image.iops),
            throughput=asked.get("Throughput", None if kind and kind != image.kind else image.throughput),
            delete_on_termination=asked.get("DeleteOnTermination", image.delete_on_termination),
        )
    return Disk(
        device,
        snapshot or "",
        asked.get("VolumeSize"),
        asked.get("VolumeType"),
        asked.get("Iops"),
        asked.get("Throughput"),
        asked.get("DeleteOnTermination", True),
    )


def at_launch(
    call: Call,
    instance: str,
    zone: str,
    mappings: Sequence[ec2.BlockDeviceMappingTypeDef] | None,
    image: Image,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Make the rows of a new instance's volumes and attachments; `tags` are for each volume. AwsError."""
    disks = disks_of(image.devices, mappings)
    if not any(disk.device == image.root_device for disk in disks):
        raise AwsError("InvalidBlockDeviceMapping", f"The root device {image.root_device} cannot be left out")
    if len(disks) > MOST:
        raise AwsError("AttachmentLimitExceeded", f"An instance has at most {MOST} volumes, and {len(disks)} are asked")
    for disk in disks:
        volume = volumes.add(
            call,
            zone=zone,
            size=disk.size,
            kind=disk.kind,
            iops=disk.iops,
            throughput=disk.throughput,
            snapshot=_snapshot(call, disk, image) if disk.snapshot else None,
        )
        volume.state = "creating"
        call.session.add(
            VolumeAttachment(
                volume=volume.id,
                instance=instance,
                account=call.account,
                region=call.region,
                device=disk.device,
                is_root=disk.device == image.root_device,
                delete_on_termination=disk.delete_on_termination,
                state="attaching",
                since=call.now,
            )
        )
        if tags:
            set_tags(call.session, volume.id, "volume", call.account, call.region, tags)


def _snapshot(call: Call, disk: Disk, image: Image) -> Snapshot:
    """Who may launch an image may use its snapshots."""
    if any(one.snapshot == disk.snapshot for one in image.devices):
        return call.session.get_one(Snapshot, disk.snapshot)
    return volumes.readable_snapshot(call, disk.snapshot)


def release(session: Session, instance: str, now: datetime.datetime) -> None:
    """The instance is terminated: its volumes go, or are available again. Wake "volumes" after the commit."""
    for attachment in session.scalars(select(VolumeAttachment).where(VolumeAttachment.instance == instance)):
        volume = session.get(Volume, attachment.volume)
        if volume is not None:
            gone = attachment.delete_on_termination or volume.state in ("deleting", "error")
            volume.state = "deleting" if gone else "available" if volume.made else "creating"
        session.delete(attachment)
