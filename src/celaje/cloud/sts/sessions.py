"""Who signs a request, and credentials of roles."""

from __future__ import annotations

import datetime
import re
from typing import TYPE_CHECKING

from celaje.cloud.aws.action import Actions, Answer, Call, Caller, Request
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.iam.credentials import role_caller, role_credentials
from celaje.cloud.iam.entities import ROLES
from celaje.cloud.state.roles import Role
from celaje.cloud.sts.trust import ASSUME_ROLE, trusts

if TYPE_CHECKING:
    from mypy_boto3_sts import type_defs as sts

ACTIONS = Actions("sts")
_ROLE_ARN = re.compile(r"arn:aws:iam::(?P<account>[0-9]{12}):role/(?:.+/)?(?P<name>[^/]+)")
_SHORTEST = 900
_DEFAULT = 3600


@ACTIONS.action
def get_caller_identity(call: Call, request: Request) -> Answer:
    """Whose key signed this request."""
    return {"Account": call.caller.account, "Arn": call.caller.arn, "UserId": call.caller.user_id}


def _principals(call: Call) -> frozenset[str]:
    """The names that a trust policy may call the caller by."""
    caller: Caller = call.caller
    names = {caller.account, f"arn:aws:iam::{caller.account}:root", caller.arn}
    role = call.session.get(Role, caller.user_id.partition(":")[0])
    if role is not None:
        names.add(ROLES.arn(role))
    return frozenset(names)


@ACTIONS.action
def assume_role(call: Call, request: sts.AssumeRoleRequestTypeDef) -> Answer:
    """Credentials of a role, for whoever its trust policy names. A role that does not exist, of whichever account, and
    one that does not trust the caller are answered alike."""
    arn = request["RoleArn"]
    for member in ("Policy", "PolicyArns", "SerialNumber", "TokenCode", "SourceIdentity", "ProvidedContexts"):
        if request.get(member):  # to leave out what narrows a session would give more than was asked for
            raise AwsError("ValidationError", f"{member} is not evaluated by this cloud; leave it out")
    match = _ROLE_ARN.fullmatch(arn)
    if match is None:
        raise AwsError("ValidationError", f"{arn[:200]} is invalid")
    role = ROLES.look(call.session, match["account"], match["name"])
    known = role is not None and ROLES.arn(role) == arn
    if role is None or not known or not trusts(role.trust, _principals(call), external_id=request.get("ExternalId")):
        raise AwsError(
            "AccessDenied",
            f"User: {call.caller.arn} is not authorized to perform: {ASSUME_ROLE} on resource: {arn}",
            403,
        )
    seconds = request.get("DurationSeconds", min(_DEFAULT, role.longest_session))
    if not _SHORTEST <= seconds <= role.longest_session:
        raise AwsError(
            "ValidationError",
            "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
            if seconds > role.longest_session
            else f"DurationSeconds must be at least {_SHORTEST}; given: {seconds}",
        )
    name = request["RoleSessionName"]
    made = role_credentials(call.session, role, call.now, datetime.timedelta(seconds=seconds), name)
    caller = role_caller(role, name)
    return {
        "AssumedRoleUser": {"Arn": caller.arn, "AssumedRoleId": caller.user_id},
        "Credentials": {
            "AccessKeyId": made.access_key,
            "Expiration": made.expiration,
            "SecretAccessKey": made.secret,
            "SessionToken": made.token,
        },
        "PackedPolicySize": 0,
    }
