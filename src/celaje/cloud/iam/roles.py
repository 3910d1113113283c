"""Roles: what somebody becomes for a while, an instance or whoever its trust policy names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from celaje.cloud.authority.named_principals import principals_of, shown
from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.iam.accounts import CREDENTIALS
from celaje.cloud.iam.boundaries import bound, boundary_of
from celaje.cloud.iam.entities import (
    ROLES,
    answered_document,
    checked_trust,
    conflict,
    remove_tags,
    set_tags,
    tags_of,
)
from celaje.cloud.iam.listing import listed
from celaje.cloud.iam.policies import refuse_with_policies
from celaje.cloud.policy.grammar import PolicyError
from celaje.cloud.state.roles import InstanceProfile, Role

if TYPE_CHECKING:
    from mypy_boto3_iam import type_defs as iam

ACTIONS = Actions("iam")
_SESSIONS = range(3600, 43_201)


def _checked_session(seconds: int | None) -> int:
    if seconds is None:
        return _SESSIONS[0]
    if seconds not in _SESSIONS:
        raise AwsError(
            "ValidationError", f"MaxSessionDuration is {_SESSIONS[0]} to {_SESSIONS[-1]} seconds; given: {seconds}"
        )
    return seconds


def _trust(call: Call, text: str) -> dict[str, object]:
    """The columns of a trust policy. AwsError MalformedPolicyDocument."""
    checked_trust(text)
    try:
        return {"trust": text, "trusted": principals_of(call.session, text)}
    except PolicyError as error:
        raise AwsError("MalformedPolicyDocument", str(error)) from None


@ACTIONS.action
def create_role(call: Call, request: iam.CreateRoleRequestTypeDef) -> Answer:
    """A role with its trust policy."""
    role = Role(
        **ROLES.fresh(call, request["RoleName"], request.get("Path")),
        **_trust(call, request["AssumeRolePolicyDocument"]),
        description=request.get("Description", ""),
        longest_session=_checked_session(request.get("MaxSessionDuration")),
    )
    call.session.add(role)
    set_tags(call, role.id, request.get("Tags"))
    bound(call, role.id, request.get("PermissionsBoundary"))
    return {"Role": _described(call, role)}


@ACTIONS.action
def get_role(call: Call, request: iam.GetRoleRequestTypeDef) -> Answer:
    """One role."""
    return {"Role": _described(call, ROLES.find(call, request["RoleName"]))}


@ACTIONS.action
def list_roles(call: Call, request: iam.ListRolesRequestTypeDef) -> Answer:
    """The account's roles."""
    rows = ROLES.all(call, request.get("PathPrefix"))
    return listed(call, request, "Roles", rows, lambda role: role.folded, lambda role: described(call, role))


@ACTIONS.action
def update_role(call: Call, request: iam.UpdateRoleRequestTypeDef) -> Answer:
    """Another description, or other longest sessions."""
    role = ROLES.find(call, request["RoleName"])
    if "Description" in request:
        role.description = request["Description"]
    if "MaxSessionDuration" in request:
        role.longest_session = _checked_session(request["MaxSessionDuration"])
    return {}


@ACTIONS.action
def update_role_description(call: Call, request: iam.UpdateRoleDescriptionRequestTypeDef) -> Answer:
    """The older way to another description."""
    role = ROLES.find(call, request["RoleName"])
    role.description = request["Description"]
    return {"Role": described(call, role)}


@ACTIONS.action
def update_assume_role_policy(call: Call, request: iam.UpdateAssumeRolePolicyRequestTypeDef) -> Answer:
    """Another trust policy."""
    role = ROLES.find(call, request["RoleName"])
    for column, value in _trust(call, request["PolicyDocument"]).items():
        setattr(role, column, value)
    return {}


@ACTIONS.action
def delete_role(call: Call, request: iam.DeleteRoleRequestTypeDef) -> Answer:
    """A role without policies, in no instance profile. Its sessions end with it."""
    role = ROLES.find(call, request["RoleName"])
    if call.session.scalars(select(InstanceProfile.id).where(InstanceProfile.role == role.id)).first() is not None:
        raise conflict("Cannot delete entity, must remove roles from instance profile first.")
    refuse_with_policies(call, role.id)
    bound(call, role.id, None)
    remove_tags(call, role.id)
    call.session.delete(role)
    call.wake(CREDENTIALS)
    return {}


@ACTIONS.action
def tag_role(call: Call, request: iam.TagRoleRequestTypeDef) -> Answer:
    """Add tags to a role."""
    set_tags(call, ROLES.find(call, request["RoleName"]).id, request["Tags"])
    return {}


@ACTIONS.action
def untag_role(call: Call, request: iam.UntagRoleRequestTypeDef) -> Answer:
    """Remove tags from a role."""
    remove_tags(call, ROLES.find(call, request["RoleName"]).id, request["TagKeys"])
    return {}


@ACTIONS.action
def list_role_tags(call: Call, request: iam.ListRoleTagsRequestTypeDef) -> Answer:
    """The tags of a role."""
    tags = tags_of(call.session, ROLES.find(call, request["RoleName"]).id)
    return listed(call, request, "Tags", tags, lambda tag: tag["Key"], lambda tag: tag)


def described(call: Call, role: Role) -> dict[str, object]:
    """A role as lists have it."""
    return {
        "Arn": ROLES.arn(role),
        "AssumeRolePolicyDocument": answered_document(shown(call.session, role.trust, role.trusted or ())),
        "CreateDate": role.created,
        "Description": role.description or None,
        "MaxSessionDuration": role.longest_session,
        "Path": role.path,
        "RoleId": role.id,
        "RoleName": role.name,
    }


def _described(call: Call, role: Role) -> dict[str, object]:
    return described(call, role) | {
        "PermissionsBoundary": boundary_of(call, role.id),
        "RoleLastUsed": {},
        "Tags": tags_of(call.session, role.id) or None,
    }
