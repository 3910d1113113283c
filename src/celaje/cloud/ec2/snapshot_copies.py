"""CopySnapshot: another snapshot of the same chunks, in this region or from another one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.tag_specifications import tags_for
from celaje.cloud.ec2 import snapshots, volumes
from celaje.cloud.state.snapshots import Snapshot
from celaje.cloud.state.tags import answered_tags

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")
ORIGIN = "copy"


def checked_source_region(call: Call, region: str) -> str:
    """A region of this cloud. AwsError."""
    if region not in call.settings.regions:
        raise AwsError(
            "InvalidParameterValue",
            f"Invalid value '{region[:40]}' for SourceRegion; there are {', '.join(call.settings.regions)}",
        )
    return region


def copy_of(call: Call, source: Snapshot, description: str, tags: dict[str, str]) -> Snapshot:
    """A new row, pending; the controller copies. AwsError for a source that is not whole."""
    if source.state != "completed":
        raise AwsError("IncorrectState", f"Snapshot '{source.id}' is not 'completed'.")
    return snapshots.add_row(call, source.size, description, tags, origin=ORIGIN, source=source.id)


@ACTIONS.action
def copy_snapshot(call: Call, request: ec2.CopySnapshotRequestTypeDef) -> Answer:
    """Of an own, a public or a shared one, into the request's region."""
    volumes.refuse_encryption(request.get("Encrypted") or bool(request.get("KmsKeyId")))
    if request.get("DestinationOutpostArn") or request.get("DestinationAvailabilityZone"):
        raise AwsError("UnsupportedOperation", "This cloud has no Outposts and no local zones; copy into a region.")
    source = volumes.readable_snapshot(
        call, request["SourceSnapshotId"], checked_source_region(call, request["SourceRegion"])
    )
    tags = tags_for(request.get("TagSpecifications"), "snapshot")
    description = snapshots.checked_description(request.get("Description"))
    copied = copy_of(call, source, description, tags)
    return {"SnapshotId": copied.id, "Tags": answered_tags(tags) or None}
