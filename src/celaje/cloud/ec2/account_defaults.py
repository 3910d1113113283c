"""What an account could set for all that it makes: here as every account has it, and not to be changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.ec2.instance_types import TYPES

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")


@ACTIONS.action
def get_ebs_encryption_by_default(call: Call, request: ec2.GetEbsEncryptionByDefaultRequestTypeDef) -> Answer:
    """Never: volumes are not encrypted by celaje."""
    return {"EbsEncryptionByDefault": False, "SseType": "none"}


@ACTIONS.action
def disable_ebs_encryption_by_default(call: Call, request: ec2.DisableEbsEncryptionByDefaultRequestTypeDef) -> Answer:
    """It is so."""
    return {"EbsEncryptionByDefault": False}


@ACTIONS.action
def get_instance_metadata_defaults(call: Call, request: ec2.GetInstanceMetadataDefaultsRequestTypeDef) -> Answer:
    """None: an image and a launch say it."""
    return {"AccountLevel": {}}


@ACTIONS.action
def get_serial_console_access_status(call: Call, request: ec2.GetSerialConsoleAccessStatusRequestTypeDef) -> Answer:
    """Nobody has it by SSH, as AWS offers it; GetConsoleOutput and `celaje` show consoles."""
    return {"SerialConsoleAccessEnabled": False, "ManagedBy": "account"}


@ACTIONS.action
def disable_serial_console_access(call: Call, request: ec2.DisableSerialConsoleAccessRequestTypeDef) -> Answer:
    """It is so."""
    return {"SerialConsoleAccessEnabled": False}


@ACTIONS.action
def get_snapshot_block_public_access_state(
    call: Call, request: ec2.GetSnapshotBlockPublicAccessStateRequestTypeDef
) -> Answer:
    """Snapshots may be shared with everybody of this cloud."""
    return {"State": "unblocked", "ManagedBy": "account"}


@ACTIONS.action
def disable_snapshot_block_public_access(
    call: Call, request: ec2.DisableSnapshotBlockPublicAccessRequestTypeDef
) -> Answer:
    """It is so."""
    return {"State": "unblocked"}


@ACTIONS.action
def get_image_block_public_access_state(
    call: Call, request: ec2.GetImageBlockPublicAccessStateRequestTypeDef
) -> Answer:
    """Images may be shared with everybody of this cloud."""
    return {"ImageBlockPublicAccessState": "unblocked", "ManagedBy": "account"}


@ACTIONS.action
def disable_image_block_public_access(call: Call, request: ec2.DisableImageBlockPublicAccessRequestTypeDef) -> Answer:
    """It is so."""
    return {"ImageBlockPublicAccessState": "unblocked"}


@ACTIONS.action
def get_allowed_images_settings(call: Call, request: ec2.GetAllowedImagesSettingsRequestTypeDef) -> Answer:
    """Whatever an account sees it may launch."""
    return {"State": "disabled", "ManagedBy": "account"}


@ACTIONS.action
def get_default_credit_specification(call: Call, request: ec2.GetDefaultCreditSpecificationRequestTypeDef) -> Answer:
    """What a burstable instance of the family has if its launch says nothing."""
    family = request["InstanceFamily"]
    if not any(kind.family == family and kind.burstable for kind in TYPES.values()):
        raise AwsError("InvalidParameterValue", f"The instance family '{family[:32]}' is not one of burstable types")
    return {
        "InstanceFamilyCreditSpecification": {
            "InstanceFamily": family,
            "CpuCredits": default_credits(family),
        }
    }


def default_credits(family: str) -> str:
    """standard or unlimited, as AWS has it for a family of burstable types."""
    return "standard" if family == "t2" else "unlimited"
