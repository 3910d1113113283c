"""Images (AMIs): made of instances, described, deregistered."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, or_, select

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.filters import Filters
from celaje.cloud.aws.pagination import page
from celaje.cloud.aws.tag_specifications import tags_by_type
from celaje.cloud.ec2 import quotas, sharing, snapshots, volume_kinds
from celaje.cloud.ec2.block_devices import Disk, disks_of
from celaje.cloud.ec2.identifiers import checked_id
from celaje.cloud.ssm.public_parameters import ROOT, image_parameters
from celaje.cloud.state.identifiers import new_id
from celaje.cloud.state.images import BlockDevice, Image
from celaje.cloud.state.instances import RUNNING, STOPPED, Instance
from celaje.cloud.state.permissions import Permission, is_granted, revoke_all
from celaje.cloud.state.prepared import IDENTIFIERS, matching, rows_of
from celaje.cloud.state.snapshots import Snapshot
from celaje.cloud.state.tags import answered_tags, remove_tags, set_tags, tags_of
from celaje.cloud.state.volumes import Volume, attached_to

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")
CONTROLLER = "images"
INSTANCES = "instances"
RESOLVED = "resolve:ssm:"
_NAME = re.compile(r"[A-Za-z0-9()\[\] ./\-'@_]{3,128}")


def readable(call: Call, identifier: str, region: str | None = None) -> Image:
    """An image, of the request's region unless one is said, that the caller may use: an own one, a public one, or one
    that is shared with the caller's account. AwsError InvalidAMIID.Malformed, .NotFound; .Unavailable of one that was
    deregistered not long ago."""
    image = call.session.get(Image, checked_id(identifier, "ami", "InvalidAMIID"))
    if image is None or image.region != (region or call.region) or not _may_use(call, image):
        raise AwsError("InvalidAMIID.NotFound", f"The image id '[{identifier}]' does not exist")
    _refuse_deregistered(image)
    return image


def _refuse_deregistered(image: Image) -> None:
    if image.state != "deregistered":
        return
    if image.deregistered is None:
        raise AwsError("InvalidAMIID.NotFound", f"The image id '[{image.id}]' does not exist")
    raise AwsError("InvalidAMIID.Unavailable", f"The image ID '{image.id}' is no longer available")


def _may_use(call: Call, image: Image) -> bool:
    return image.account == call.account or image.public or is_granted(call.session, image.id, call.account)


def found(call: Call, identifier: str) -> Image:
    """The caller's own image. AwsError as `readable`; a public one of another's is not the caller's to change, and
    celaje's own are nobody's."""
    image = readable(call, identifier)
    if image.account != call.account or image.revision:
        raise AwsError("AuthFailure", f"Not authorized for image:{identifier}", 403)
    return image


def launchable(call: Call, identifier: str, region: str | None = None) -> Image:
    """An image that instances can be started of now, by its id or as `resolve:ssm:` and a public parameter's name.
    AwsError as `readable`, or InvalidAMIID.Unavailable with why."""
    if identifier.startswith(RESOLVED):
        identifier = _resolved(call, identifier.removeprefix(RESOLVED))
    image = readable(call, identifier, region)
    if image.state != "available":
        why = f": {image.problem}" if image.problem else ""
        raise AwsError(
            "InvalidAMIID.Unavailable", f"The image ID '{identifier}' is not available; it is {image.state}{why}"
        )
    return image


def _resolved(call: Call, name: str) -> str:
    parameter = image_parameters(call.session, call.region).get(name)
    if parameter is None:
        raise AwsError(
            "InvalidParameterValue",
            f"There is no parameter {name[:200]} of an image's id; GetParametersByPath of {ROOT} lists "
            "those that there are",
        )
    return parameter.value


def checked_name(call: Call, name: str) -> str:
    """A new image's name. AwsError InvalidAMIName.Malformed, .Duplicate, ResourceLimitExceeded."""
    if not _NAME.fullmatch(name):
        raise AwsError(
            "InvalidAMIName.Malformed",
            "AMI names must be between 3 and 128 characters long, and may contain letters, numbers, "
            "'(', ')', '.', '-', '/' and '_'",
        )
    taken = call.session.scalars(
        select(Image).where(
            Image.account == call.account,
            Image.region == call.region,
            Image.name == name,
            Image.state != "deregistered",
        )
    ).first()
    if taken is not None:
        raise AwsError("InvalidAMIName.Duplicate", f"AMI name {name} is already in use by AMI {taken.id}")
    quotas.refuse_beyond(call.session, call, Image, quotas.IMAGES, "images")
    return name


@ACTIONS.action
def create_image(call: Call, request: ec2.CreateImageRequestTypeDef) -> Answer:
    """Of an instance's volumes. Without NoReboot a running instance is shut down first, and started again when its
    snapshots are whole; with it each volume is snapshotted at an instant of its own, as after a loss of power."""
    name = checked_name(call, request["Name"])
    instance = call.session.get(Instance, checked_id(request["InstanceId"], "i", "InvalidInstanceID"))
    if instance is None or (instance.account, instance.region) != (call.account, call.region):
        raise AwsError("InvalidInstanceID.NotFound", f"The instance ID '{request['InstanceId']}' does not exist")
    if instance.state not in (RUNNING, STOPPED):
        raise AwsError("IncorrectState", f"Instance '{instance.id}' is not 'running' or 'stopped'.")
    tags = tags_by_type(request.get("TagSpecifications"), "image", "snapshot")
    source = call.session.get(Image, instance.image)
    image = Image(
        id=new_id("ami"),
        account=call.account,
        region=call.region,
        created=call.now,
        name=name,
        description=request.get("Description", ""),
        architecture=instance.architecture,
        state="pending",
        public=False,
        root_device=instance.root_device,
        devices=[],
        host_image="",
        source_instance=instance.id,
        source_image=instance.image,
        source_region=call.region,
        instance_metadata_v2_only=source is not None and source.instance_metadata_v2_only,
    )
    image.host_image = image.id
    image.devices = _devices(call, instance, image, request.get("BlockDeviceMappings"), tags["snapshot"])
    call.session.add(image)
    set_tags(call.session, image.id, "image", call.account, call.region, tags["image"])
    if instance.state == RUNNING and not request.get("NoReboot"):
        image.reboot_pending = True
        instance.reboot_asked = call.now
        call.wake(INSTANCES)
    call.wake(CONTROLLER)
    return {"ImageId": image.id}


def _devices(
    call: Call,
    instance: Instance,
    image: Image,
    mappings: Sequence[ec2.BlockDeviceMappingTypeDef] | None,
    tags: dict[str, str],
) -> list[BlockDevice]:
    """The image's block devices, with snapshots that begin now of the instance's volumes."""
    held = {one.device: one for one in attached_to(call.session, [instance.id])[instance.id]}
    own = [
        BlockDevice(
            device=device,
            size=(volume := call.session.get_one(Volume, attachment.volume)).size,
            kind=volume.kind,
            iops=volume.iops if volume_kinds.KINDS[volume.kind].iops else None,
            throughput=volume.throughput,
            delete_on_termination=attachment.delete_on_termination,
        )
        for device, attachment in held.items()
    ]
    found = []
    for disk in disks_of(own, mappings):
        snapshot = disk.snapshot
        if disk.device in held:
            volume = call.session.get_one(Volume, held[disk.device].volume)
            text = f"Created by CreateImage({instance.id}) for {image.id}"
            snapshot = snapshots.add(call, volume, text, tags).id
        elif snapshot:
            snapshots.found(call, snapshot)
        size = sized(disk, call.session.get_one(Snapshot, snapshot) if snapshot else None)
        volume_kinds.checked(disk.kind or volume_kinds.DEFAULT, size, disk.iops, disk.throughput)
        found.append(
            BlockDevice(
                device=disk.device,
                snapshot=snapshot,
                size=size,
                kind=disk.kind or volume_kinds.DEFAULT,
                iops=disk.iops,
                throughput=disk.throughput,
                delete_on_termination=disk.delete_on_termination,
            )
        )
    if not any(one.device == instance.root_device for one in found):
        raise AwsError("InvalidBlockDeviceMapping", f"The root device {instance.root_device} cannot be left out")
    return found


def sized(disk: Disk, snapshot: Snapshot | None) -> int:
    """How many GiB a volume of an image's block device has. AwsError InvalidBlockDeviceMapping for one that is smaller
    than its snapshot, of which nothing could be launched."""
    size = disk.size or (snapshot.size if snapshot else 0)
    if snapshot is not None and size < snapshot.size:
        raise AwsError(
            "InvalidBlockDeviceMapping",
            f"Volume of size {size}GB is smaller than snapshot '{snapshot.id}', expect size >= {snapshot.size}GB",
        )
    return size


@ACTIONS.action
def deregister_image(call: Call, request: ec2.DeregisterImageRequestTypeDef) -> Answer:
    """Its snapshots stay, unless they are to go with it; instances that run of it go on."""
    image = found(call, request["ImageId"])
    if image.state == "pending":
        raise AwsError("IncorrectState", f"The image {image.id} is pending; wait until it is available")
    image.state, image.deregistered = "deregistered", call.now
    remove_tags(call.session, image.id)
    revoke_all(call.session, image.id)
    call.session.flush()
    results = []
    if request.get("DeleteAssociatedSnapshots"):
        for device in image.devices:
            if not device.snapshot:
                continue
            used = snapshots.image_of(call, device.snapshot)
            if used is None:
                call.session.get_one(Snapshot, device.snapshot).state = "deleting"
                call.wake(snapshots.CONTROLLER)
            results.append({"SnapshotId": device.snapshot, "ReturnCode": "skipped" if used else "success"})
    call.wake(CONTROLLER)
    return {"Return": True, "DeleteSnapshotResults": results}


class _Found:
    """An image with its tags, for filters."""

    def __init__(self, image: Image, tags: dict[str, str]) -> None:
        self.image = image
        self.tags = tags


_FILTERS = Filters[_Found](
    {
        "image-id": lambda one: one.image.id,
        "name": lambda one: one.image.name,
        "description": lambda one: one.image.description,
        "state": lambda one: one.image.state,
        "architecture": lambda one: one.image.architecture,
        "is-public": lambda one: one.image.public,
        "owner-id": lambda one: one.image.account,
        "owner-alias": lambda one: alias(one.image),
        "root-device-name": lambda one: one.image.root_device,
        "root-device-type": lambda one: "ebs",
        "virtualization-type": lambda one: "hvm",
        "hypervisor": lambda one: "xen",
        "image-type": lambda one: "machine",
        "ena-support": lambda one: True,
        "creation-date": lambda one: one.image.created,
        "manifest-location": lambda one: _location(one.image),
        "platform-details": lambda one: "Linux/UNIX",
        "state-reason-code": lambda one: (_state_reason(one.image) or {}).get("Code"),
        "state-reason-message": lambda one: one.image.problem or None,
        "source-instance-id": lambda one: one.image.source_instance or None,
        "source-image-region": lambda one: one.image.source_region or None,
        "source-image-id": lambda one: one.image.source_image or None,
        "block-device-mapping.device-name": lambda one: [each.device for each in one.image.devices],
        "block-device-mapping.snapshot-id": lambda one: [each.snapshot for each in one.image.devices],
        "block-device-mapping.volume-size": lambda one: [each.size for each in one.image.devices],
        "block-device-mapping.volume-type": lambda one: [each.kind for each in one.image.devices],
        "block-device-mapping.delete-on-termination": lambda one: [
            each.delete_on_termination for each in one.image.devices
        ],
        "block-device-mapping.encrypted": lambda one: [False for each in one.image.devices],
    },
    tags=lambda one: one.tags,
    never=(
        "boot-mode",
        "kernel-id",
        "platform",
        "product-code",
        "product-code.type",
        "public-ssm-parameter-name",
        "ramdisk-id",
        "sriov-net-support",
    ),
)


@ACTIONS.action
def describe_images(call: Call, request: ec2.DescribeImagesRequestTypeDef) -> Answer:
    """The caller's images, and public ones."""
    wanted = request.get("ImageIds")
    matches = _FILTERS.matcher(request.get("Filters"))
    rows = _visible(call, wanted)
    if not wanted:
        rows = [row for row in rows if _listed(call, row, request)]
    owners, users = request.get("Owners"), request.get("ExecutableUsers")
    sharing.check_users(owners, *sharing.OWNERS)
    sharing.check_users(users, *sharing.USERS)
    rows = [row for row in rows if _owned(call, row, owners)]
    named = snapshots.shared_with(call, users)
    rows = [row for row in rows if _executable(call, row, users, named)]
    tags = tags_of(call.session, [row.id for row in rows if row.account == call.account])
    joined = [one for one in (_Found(row, tags.get(row.id, {})) for row in rows) if matches(one)]
    shown, token = page(call, request, joined, lambda one: one.image.id, least=1)
    return {"Images": [described(one.image, one.tags) for one in shown], "NextToken": token}


_NAMED = select(Image).where(Image.id.in_(IDENTIFIERS))
_VISIBLE = select(Image).where(
    Image.region == bindparam("region"),
    Image.state != "deregistered",
    or_(
        Image.account == bindparam("account"),
        Image.public,
        Image.id.in_(select(Permission.resource).where(Permission.grantee == bindparam("account"))),
    ),
)


def _visible(call: Call, wanted: Sequence[str] | None) -> Sequence[Image]:
    if not wanted:
        return [row for (row,) in matching(call.session, _VISIBLE, account=call.account, region=call.region)]
    for identifier in wanted:
        checked_id(identifier, "ami", "InvalidAMIID")
    rows = [
        row
        for (row,) in rows_of(call.session, _NAMED, list(wanted))
        if row.region == call.region and _may_use(call, row)
    ]
    # One that was deregistered not long ago is neither shown nor missing: Ansible and Terraform wait for that.
    gone = {row.id for row in rows if row.state == "deregistered" and row.deregistered is not None}
    rows = [row for row in rows if row.state != "deregistered"]
    visible = gone | {row.id for row in rows}
    missing = [identifier for identifier in dict.fromkeys(wanted) if identifier not in visible]
    if missing:
        verb = "do not exist" if len(missing) > 1 else "does not exist"
        ids = "ids" if len(missing) > 1 else "id"
        raise AwsError("InvalidAMIID.NotFound", f"The image {ids} '[{', '.join(missing)}]' {verb}")
    return rows


def alias(image: Image) -> str | None:
    """Images that celaje itself provides are owned by "amazon": that is where clients look for a provider's images."""
    return "amazon" if image.revision else None


def _owned(call: Call, image: Image, owners: Sequence[str] | None) -> bool:
    if not owners:
        return True
    names = {image.account, alias(image)}
    if image.account == call.account and not image.revision:
        names.add("self")
    return not names.isdisjoint(owners)


def _executable(call: Call, image: Image, users: Sequence[str] | None, named: set[str]) -> bool:
    """As `snapshots._restorable` has it for snapshots."""
    if not users:
        return True
    if (image.public and "all" in users) or image.id in named:
        return True
    return image.account == call.account and not {"self", call.account}.isdisjoint(users)


def _listed(call: Call, image: Image, request: ec2.DescribeImagesRequestTypeDef) -> bool:
    """Whether a list that names no ids has it: a disabled one is asked for, and so is another's deprecated one."""
    if image.state == "disabled":
        return image.account == call.account and bool(request.get("IncludeDisabled"))
    is_past = image.deprecated is not None and image.deprecated <= call.now
    return not is_past or image.account == call.account or bool(request.get("IncludeDeprecated"))


def _location(image: Image) -> str:
    return f"{alias(image) or image.account}/{image.name}"


def described(image: Image, tags: dict[str, str]) -> dict[str, object]:
    """An image as EC2 describes it."""
    return {
        "ImageId": image.id,
        "ImageLocation": _location(image),
        "Name": image.name,
        "Description": image.description or None,
        "State": image.state,
        "StateReason": _state_reason(image),
        "OwnerId": image.account,
        "ImageOwnerAlias": alias(image),
        "CreationDate": f"{image.created:%Y-%m-%dT%H:%M:%S}.000Z",
        "Public": image.public,
        "Architecture": image.architecture,
        "ImageType": "machine",
        "PlatformDetails": "Linux/UNIX",
        "UsageOperation": "RunInstances",
        "EnaSupport": True,
        "Hypervisor": "xen",
        "VirtualizationType": "hvm",
        "RootDeviceName": image.root_device,
        "RootDeviceType": "ebs",
        "SriovNetSupport": "simple",
        "DeprecationTime": f"{image.deprecated:%Y-%m-%dT%H:%M:%S}.000Z" if image.deprecated else None,
        "BlockDeviceMappings": [described_device(one) for one in image.devices],
        "SourceInstanceId": image.source_instance or None,
        "SourceImageId": image.source_image or None,
        "SourceImageRegion": image.source_region or None,
        "ImdsSupport": "v2.0" if image.instance_metadata_v2_only else None,
        "Tags": answered_tags(tags) or None,
    }


def _state_reason(image: Image) -> dict[str, str] | None:
    if not image.problem:
        return None
    code = "Client.ImageCreationFailed" if image.state == "failed" else "Server.ImageInProgress"
    return {"Code": code, "Message": image.problem}


def described_device(one: BlockDevice) -> dict[str, object]:
    """An entry of an image's block device mapping as EC2 describes it."""
    if one.virtual:
        return {"DeviceName": one.device, "VirtualName": one.virtual}
    return {
        "DeviceName": one.device,
        "Ebs": {
            "SnapshotId": one.snapshot,
            "VolumeSize": one.size,
            "VolumeType": one.kind,
            "Iops": one.iops,
            "Throughput": one.throughput,
            "DeleteOnTermination": one.delete_on_termination,
            "Encrypted": False,
        },
    }
