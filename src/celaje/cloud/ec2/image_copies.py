"""Images that are made of others, or of snapshots: CopyImage and RegisterImage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.tag_specifications import tags_by_type
from celaje.cloud.ec2 import images, snapshots, volume_kinds, volumes
from celaje.cloud.ec2.block_devices import Disk, checked_device, disks_of
from celaje.cloud.ec2.snapshot_copies import checked_source_region, copy_of
from celaje.cloud.state.hosts import LOCAL, Host
from celaje.cloud.state.identifiers import new_id
from celaje.cloud.state.images import BlockDevice, Image
from celaje.cloud.state.snapshots import Snapshot
from celaje.cloud.state.tags import set_tags, tags_of

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")
ARCHITECTURES = ("riscv64", "arm64", "x86_64", "i386")
_DEFAULT_ROOT = "/dev/sda1"
_NOT_HERE = {
    "ImageLocation": "images are made of snapshots; give BlockDeviceMappings",
    "KernelId": "an image brings its kernel",
    "RamdiskId": "an image brings its initial RAM disk",
    "BillingProducts": "there are none here",
    "TpmSupport": "machines have no TPM",
    "UefiData": "machines have no UEFI variables",
}


@ACTIONS.action
def copy_image(call: Call, request: ec2.CopyImageRequestTypeDef) -> Answer:
    """Of an own, a public or a shared one, into the request's region, with snapshots of its own."""
    volumes.refuse_encryption(request.get("Encrypted") or bool(request.get("KmsKeyId")))
    if request.get("DestinationOutpostArn") or request.get("DestinationAvailabilityZone"):
        raise AwsError("UnsupportedOperation", "This cloud has no Outposts and no local zones; copy into a region.")
    name = images.checked_name(call, request["Name"])
    region = checked_source_region(call, request["SourceRegion"])
    source = images.launchable(call, request["SourceImageId"], region)
    behind = {one.snapshot: call.session.get_one(Snapshot, one.snapshot) for one in source.devices if one.snapshot}
    if not all(volumes.may_read(call, snapshot) for snapshot in behind.values()):
        raise AwsError("InvalidRequest", "You do not have permission to access the storage of this ami")
    tags = tags_by_type(request.get("TagSpecifications"), "image", "snapshot")
    own_tags = tags["image"]
    if request.get("CopyImageTags") and source.account == call.account:
        kept = tags_of(call.session, [source.id])[source.id].items()
        own_tags = {key: value for key, value in kept if not key.startswith("aws:")} | own_tags
    image = _row(call, name, request.get("Description"), source.architecture, source.root_device)
    image.source_image, image.source_region = source.id, region
    image.instance_metadata_v2_only = source.instance_metadata_v2_only
    copies = {
        identifier: copy_of(
            call,
            snapshot,
            f"Copied for DestinationAmi {image.id} from SourceAmi {source.id} for SourceSnapshot {identifier}.",
            tags["snapshot"],
        ).id
        for identifier, snapshot in behind.items()
    }
    image.devices = [
        msgspec.structs.replace(one, snapshot=copies.get(one.snapshot, one.snapshot)) for one in source.devices
    ]
    set_tags(call.session, image.id, "image", call.account, call.region, own_tags)
    call.wake(images.CONTROLLER)
    return {"ImageId": image.id}


@ACTIONS.action
def register_image(call: Call, request: ec2.RegisterImageRequestTypeDef) -> Answer:
    """Of snapshots of the caller's. It is available once its kernel has been read from the root snapshot, and failed
    if that has none to boot."""
    for member, why in _NOT_HERE.items():
        if request.get(member):
            raise AwsError("Unsupported", f"The parameter {member} is not supported: {why}. Leave it out.")
    if request.get("VirtualizationType", "hvm") != "hvm":
        raise AwsError("Unsupported", "The virtualization type is hvm; paravirtual machines are not supported.")
    if request.get("BootMode") == "legacy-bios":
        raise AwsError("Unsupported", "There is no legacy BIOS; leave BootMode out.")
    name = images.checked_name(call, request["Name"])
    root = checked_device(request.get("RootDeviceName") or _DEFAULT_ROOT)
    devices = [_device(call, disk) for disk in disks_of([], request.get("BlockDeviceMappings"))]
    if not any(one.device == root and one.snapshot for one in devices):
        raise AwsError(
            "InvalidBlockDeviceMapping",
            f"The block device mappings must have a snapshot for the root device {root}",
        )
    tags = tags_by_type(request.get("TagSpecifications"), "image")["image"]
    architecture = checked_architecture(call, request.get("Architecture"))
    image = _row(call, name, request.get("Description"), architecture, root)
    image.devices = devices
    image.instance_metadata_v2_only = request.get("ImdsSupport") == "v2.0"
    set_tags(call.session, image.id, "image", call.account, call.region, tags)
    call.wake(images.CONTROLLER)
    return {"ImageId": image.id}


def checked_architecture(call: Call, given: str | None) -> str:
    """An architecture of AWS's or this cloud's; without one what the host's first engine runs, since an image of
    anything else could not be launched here. AwsError."""
    if given is not None:
        if given not in ARCHITECTURES:
            raise AwsError(
                "InvalidParameterValue",
                f"Invalid value '{given[:64]}' for Architecture. It must be {' or '.join(ARCHITECTURES)}.",
            )
        return given
    host = call.session.get(Host, LOCAL)
    runs = host.architectures.split() if host else []
    if not runs:
        raise AwsError("MissingParameter", "The request must contain the parameter Architecture")
    return runs[0]


def _device(call: Call, disk: Disk) -> BlockDevice:
    snapshot = snapshots.found(call, disk.snapshot) if disk.snapshot else None
    if snapshot is not None and snapshot.state != "completed":
        raise AwsError("IncorrectState", f"Snapshot '{snapshot.id}' is not 'completed'.")
    size = images.sized(disk, snapshot)
    kind = disk.kind or volume_kinds.DEFAULT
    volume_kinds.checked(kind, size, disk.iops, disk.throughput)
    return BlockDevice(
        device=disk.device,
        snapshot=disk.snapshot,
        size=size,
        kind=kind,
        iops=disk.iops,
        throughput=disk.throughput,
        delete_on_termination=disk.delete_on_termination,
    )


def _row(call: Call, name: str, description: str | None, architecture: str, root_device: str) -> Image:
    """A new image's row, pending, without devices."""
    identifier = new_id("ami")
    image = Image(
        id=identifier,
        account=call.account,
        region=call.region,
        created=call.now,
        name=name,
        description=description or "",
        architecture=architecture,
        state="pending",
        public=False,
        root_device=root_device,
        devices=[],
        host_image=identifier,
    )
    call.session.add(image)
    return image
