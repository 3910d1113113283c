"""Attaching volumes to instances and taking them away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.ec2 import volumes
from celaje.cloud.ec2.block_devices import MOST, checked_device
from celaje.cloud.ec2.instance_lookup import find_instance
from celaje.cloud.state.instances import RUNNING, STOPPED, TERMINATED, Instance
from celaje.cloud.state.volumes import VolumeAttachment

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")


@ACTIONS.action
def attach_volume(call: Call, request: ec2.AttachVolumeRequestTypeDef) -> Answer:
    """To a running or stopped instance of the same zone."""
    device = checked_device(request["Device"])
    volume = volumes.found(call, request["VolumeId"])
    instance = find_instance(call, request["InstanceId"])
    if instance.state == TERMINATED:
        raise AwsError("IncorrectState", f"Instance '{instance.id}' is not 'running'.")
    held = call.session.get(VolumeAttachment, volume.id)
    if held is not None:
        raise AwsError("VolumeInUse", f"{volume.id} is already attached to an instance")
    if volume.state != "available":
        raise AwsError("IncorrectState", f"{volume.id} is not 'available'.")
    if instance.state not in (RUNNING, STOPPED):
        raise AwsError("IncorrectState", f"Instance '{instance.id}' is not 'running'.")
    if instance.zone != volume.zone:
        raise AwsError(
            "InvalidVolume.ZoneMismatch",
            f"The volume '{volume.id}' is not in the same availability zone as instance '{instance.id}'",
        )
    others = call.session.scalars(select(VolumeAttachment).where(VolumeAttachment.instance == instance.id)).all()
    if any(other.device == device for other in others):
        raise AwsError(
            "InvalidParameterValue",
            f"Invalid value '{device}' for unixDevice. Attachment point {device} is already in use",
        )
    if len(others) >= MOST:
        raise AwsError("AttachmentLimitExceeded", f"The instance {instance.id} has {MOST} volumes, which is the most")
    attachment = VolumeAttachment(
        volume=volume.id,
        instance=instance.id,
        account=call.account,
        region=call.region,
        device=device,
        is_root=device == instance.root_device,
        state="attaching",
        since=call.now,
    )
    call.session.add(attachment)
    volume.state = "in-use"
    call.wake(volumes.CONTROLLER)
    return volumes.described_attachment(attachment)


@ACTIONS.action
def detach_volume(call: Call, request: ec2.DetachVolumeRequestTypeDef) -> Answer:
    """From an instance; the root only of a stopped one."""
    volume = volumes.found(call, request["VolumeId"])
    attachment = call.session.get(VolumeAttachment, volume.id)
    if attachment is None:
        raise AwsError("IncorrectState", f"Volume '{volume.id}' is in the 'available' state.")
    named = request.get("InstanceId")
    if named is not None:
        find_instance(call, named)
    if (named or attachment.instance, request.get("Device") or attachment.device) != (
        attachment.instance,
        attachment.device,
    ):
        raise AwsError(
            "InvalidAttachment.NotFound",
            f"The volume '{volume.id}' is not attached to instance '{named or attachment.instance}' as device "
            f"'{request.get('Device') or attachment.device}'.",
        )
    instance = call.session.get_one(Instance, attachment.instance)
    if attachment.is_root and instance.state != STOPPED:
        raise AwsError(
            "OperationNotPermitted",
            f"Unable to detach root volume '{attachment.device}' from instance '{attachment.instance}'",
        )
    if attachment.state == "attaching" and not request.get("Force"):
        raise AwsError("IncorrectState", f"The volume '{volume.id}' is 'attaching'; wait until it is 'attached'.")
    attachment.state = "detaching"
    attachment.forced = attachment.forced or bool(request.get("Force"))
    call.wake(volumes.CONTROLLER)
    return volumes.described_attachment(attachment)
