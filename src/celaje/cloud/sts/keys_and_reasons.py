"""Whose a key is, and why a call was refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celaje.cloud.authority.authority import reason_key
from celaje.cloud.authority.refusals import decode
from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.state.accounts import AccessKey

if TYPE_CHECKING:
    from mypy_boto3_sts import type_defs as sts

ACTIONS = Actions("sts")


@ACTIONS.action
def get_access_key_info(call: Call, request: sts.GetAccessKeyInfoRequestTypeDef) -> Answer:
    """The account of a key that lasts, whoever's it is."""
    key = call.session.get(AccessKey, request["AccessKeyId"])
    if key is None:
        raise AwsError("ValidationError", f"{request['AccessKeyId'][:128]} is no access key of this cloud that lasts")
    return {"Account": key.account}


def decode_authorization_message(call: Call, request: sts.DecodeAuthorizationMessageRequestTypeDef) -> Answer:
    """Why EC2 refused a call of the caller's account."""
    return {"DecodedMessage": decode(reason_key(call.session), call.account, request["EncodedMessage"])}


ACTIONS.add(decode_authorization_message, reads=True)
