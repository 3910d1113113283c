"""Images on their way out: deprecated ones, which others no longer find, and disabled ones, which nobody launches."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.ec2.images import found
from celaje.cloud.state.permissions import revoke_all

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")
_LONGEST = datetime.timedelta(days=10 * 365 + 3)


@ACTIONS.action
def enable_image_deprecation(call: Call, request: ec2.EnableImageDeprecationRequestTypeDef) -> Answer:
    """From a moment on; to the minute, as at AWS. It can be launched all the same by who knows its id."""
    image = found(call, request["ImageId"])
    given = request["DeprecateAt"]
    moment = datetime.datetime.fromisoformat(given) if isinstance(given, str) else given
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    moment = moment.replace(second=0, microsecond=0) + datetime.timedelta(minutes=moment.second >= 30)
    if moment < call.now.replace(second=0, microsecond=0) or moment > call.now + _LONGEST:
        raise AwsError("InvalidParameterValue", "DeprecateAt must lie in the future, at most ten years from now")
    image.deprecated = moment
    return {"Return": True}


@ACTIONS.action
def disable_image_deprecation(call: Call, request: ec2.DisableImageDeprecationRequestTypeDef) -> Answer:
    """It is not deprecated, and will not be."""
    found(call, request["ImageId"]).deprecated = None
    return {"Return": True}


@ACTIONS.action
def disable_image(call: Call, request: ec2.DisableImageRequestTypeDef) -> Answer:
    """Nothing is launched of it until it is enabled; with whom it was shared is forgotten."""
    image = found(call, request["ImageId"])
    if image.state not in ("available", "disabled"):
        raise AwsError(
            "IncorrectState", f"The image {image.id} is {image.state}; only an available one can be disabled"
        )
    image.state, image.public = "disabled", False
    revoke_all(call.session, image.id)
    return {"Return": True}


@ACTIONS.action
def enable_image(call: Call, request: ec2.EnableImageRequestTypeDef) -> Answer:
    """It can be launched again, by its owner."""
    image = found(call, request["ImageId"])
    if image.state not in ("available", "disabled"):
        raise AwsError("IncorrectState", f"The image {image.id} is {image.state}; only a disabled one can be enabled")
    image.state = "available"
    return {"Return": True}
