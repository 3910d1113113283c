"""Who may make volumes of a snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.ec2 import sharing, snapshots
from celaje.cloud.state.permissions import revoke_all

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")
_PERMISSION = "createVolumePermission"


@ACTIONS.action
def describe_snapshot_attribute(call: Call, request: ec2.DescribeSnapshotAttributeRequestTypeDef) -> Answer:
    """Who may make volumes of an own one."""
    snapshot = snapshots.found(call, request["SnapshotId"])
    if request["Attribute"] == _PERMISSION:
        shared = sharing.described(call, snapshot.id, snapshot.public)
        return {"SnapshotId": snapshot.id, "CreateVolumePermissions": shared}
    return {"SnapshotId": snapshot.id, "ProductCodes": []}


@ACTIONS.action
def modify_snapshot_attribute(call: Call, request: ec2.ModifySnapshotAttributeRequestTypeDef) -> Answer:
    """Share it with accounts or with everybody, or no more. Volumes that were made of it stay."""
    snapshot = snapshots.found(call, request["SnapshotId"])
    if request.get("Attribute", _PERMISSION) != _PERMISSION:
        raise AwsError("InvalidParameterValue", f"Of a snapshot only {_PERMISSION} can be modified")
    change = sharing.asked(
        request, "CreateVolumePermission", "InvalidSnapshotAttributeItemValue", "UserIds", "GroupNames"
    )
    if change is None:
        raise AwsError("MissingParameter", "The request must contain the parameter CreateVolumePermission")
    sharing.apply(call, snapshot.id, change)
    if change.public is not None:
        snapshot.public = change.public
    return {}


@ACTIONS.action
def reset_snapshot_attribute(call: Call, request: ec2.ResetSnapshotAttributeRequestTypeDef) -> Answer:
    """It is its owner's alone again."""
    snapshot = snapshots.found(call, request["SnapshotId"])
    if request["Attribute"] != _PERMISSION:
        raise AwsError("InvalidParameterValue", f"Of a snapshot only {_PERMISSION} can be reset")
    revoke_all(call.session, snapshot.id)
    snapshot.public = False
    return {}
