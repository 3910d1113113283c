"""Attributes of images, and who may launch them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.ec2 import sharing
from celaje.cloud.ec2.images import described_device, found
from celaje.cloud.ec2.snapshots import checked_description
from celaje.cloud.state.permissions import revoke_all

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")
_PERMISSION = "launchPermission"


@ACTIONS.action
def describe_image_attribute(call: Call, request: ec2.DescribeImageAttributeRequestTypeDef) -> Answer:
    """One thing of an own image."""
    image = found(call, request["ImageId"])
    match request["Attribute"]:
        case "description":
            return {"ImageId": image.id, "Description": {"Value": image.description}}
        case "launchPermission":
            return {"ImageId": image.id, "LaunchPermissions": sharing.described(call, image.id, image.public)}
        case "blockDeviceMapping":
            return {"ImageId": image.id, "BlockDeviceMappings": [described_device(one) for one in image.devices]}
        case "imdsSupport":
            value = {"Value": "v2.0"} if image.instance_metadata_v2_only else {}
            return {"ImageId": image.id, "ImdsSupport": value}
        case "sriovNetSupport":
            return {"ImageId": image.id, "SriovNetSupport": {"Value": "simple"}}
        case "productCodes":
            return {"ImageId": image.id, "ProductCodes": []}
        case _:
            return {"ImageId": image.id}  # kernel, ramdisk, boot mode and the like: it has none that it was made with


@ACTIONS.action
def modify_image_attribute(call: Call, request: ec2.ModifyImageAttributeRequestTypeDef) -> Answer:
    """Its description, that it wants version 2 of the metadata service, or who may launch it."""
    image = found(call, request["ImageId"])
    attribute, value = request.get("Attribute"), request.get("Value")
    description, support = request.get("Description"), request.get("ImdsSupport")
    text = description.get("Value") if description else value if attribute == "description" else None
    imds = support.get("Value") if support else value if attribute == "imdsSupport" else None
    change = None
    if attribute in (None, _PERMISSION):
        change = sharing.asked(request, "LaunchPermission", "InvalidAMIAttributeItemValue", "UserIds", "UserGroups")
    asked = [
        name for name, one in (("Description", text), ("ImdsSupport", imds), (_PERMISSION, change)) if one is not None
    ]
    if len(asked) > 1:
        raise AwsError(
            "InvalidParameterCombination", "Fields for multiple attribute types specified; modify one a time"
        )
    if not asked:
        raise AwsError(
            "InvalidParameterCombination",
            f"No attribute of an image that can be modified is specified: Description, ImdsSupport or {_PERMISSION}",
        )
    if text is not None:
        image.description = checked_description(text)
    if imds is not None:
        if imds != "v2.0":
            raise AwsError("InvalidParameterValue", f"Value ({imds[:64]}) for ImdsSupport is invalid. It must be v2.0.")
        image.instance_metadata_v2_only = True
    if change is not None:
        if image.state == "disabled":
            raise AwsError("IncorrectState", f"The image {image.id} is disabled; enable it before it is shared")
        sharing.apply(call, image.id, change)
        if change.public is not None:
            image.public = change.public
    return {}


@ACTIONS.action
def reset_image_attribute(call: Call, request: ec2.ResetImageAttributeRequestTypeDef) -> Answer:
    """It is its owner's alone again; instances that others run of it go on."""
    image = found(call, request["ImageId"])
    if request["Attribute"] != _PERMISSION:
        raise AwsError("InvalidParameterValue", f"Of an image only {_PERMISSION} can be reset")
    revoke_all(call.session, image.id)
    image.public = False
    return {}
