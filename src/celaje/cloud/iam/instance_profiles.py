"""Instance profiles: how an instance is given a role."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.iam.entities import PROFILES, ROLES, conflict, no_such, remove_tags, set_tags, tags_of
from celaje.cloud.iam.listing import listed
from celaje.cloud.iam.roles import described as described_role
from celaje.cloud.state.roles import InstanceProfile, Role

if TYPE_CHECKING:
    from mypy_boto3_iam import type_defs as iam

ACTIONS = Actions("iam")


@ACTIONS.action
def create_instance_profile(call: Call, request: iam.CreateInstanceProfileRequestTypeDef) -> Answer:
    """A profile without a role."""
    profile = InstanceProfile(**PROFILES.fresh(call, request["InstanceProfileName"], request.get("Path")), role="")
    call.session.add(profile)
    set_tags(call, profile.id, request.get("Tags"))
    return {"InstanceProfile": _described(call, profile)}


@ACTIONS.action
def get_instance_profile(call: Call, request: iam.GetInstanceProfileRequestTypeDef) -> Answer:
    """One profile with its role."""
    return {"InstanceProfile": _described(call, PROFILES.find(call, request["InstanceProfileName"]))}


@ACTIONS.action
def list_instance_profiles(call: Call, request: iam.ListInstanceProfilesRequestTypeDef) -> Answer:
    """The account's profiles."""
    rows = PROFILES.all(call, request.get("PathPrefix"))
    return listed(
        call, request, "InstanceProfiles", rows, lambda row: row.folded, lambda row: _described(call, row)
    )


@ACTIONS.action
def list_instance_profiles_for_role(call: Call, request: iam.ListInstanceProfilesForRoleRequestTypeDef) -> Answer:
    """The profiles that have a role."""
    role = ROLES.find(call, request["RoleName"])
    rows = call.session.scalars(select(InstanceProfile).where(InstanceProfile.role == role.id)).all()
    return listed(
        call, request, "InstanceProfiles", rows, lambda row: row.folded, lambda row: _described(call, row)
    )


@ACTIONS.action
def add_role_to_instance_profile(call: Call, request: iam.AddRoleToInstanceProfileRequestTypeDef) -> Answer:
    """Give a profile its role; it has one at most."""
    profile = PROFILES.find(call, request["InstanceProfileName"])
    role = ROLES.find(call, request["RoleName"])
    if profile.role:
        raise AwsError("LimitExceeded", "Cannot exceed quota for InstanceSessionsPerInstanceProfile: 1", 409)
    profile.role = role.id
    call.wake("networks")
    return {}


@ACTIONS.action
def remove_role_from_instance_profile(
    call: Call, request: iam.RemoveRoleFromInstanceProfileRequestTypeDef
) -> Answer:
    """Take its role from a profile. Credentials that instances have already last until they expire."""
    profile = PROFILES.find(call, request["InstanceProfileName"])
    role = ROLES.find(call, request["RoleName"])
    if profile.role != role.id:
        raise no_such(f"The role with name {role.name} cannot be found.")
    profile.role = ""
    call.wake("networks")
    return {}


@ACTIONS.action
def delete_instance_profile(call: Call, request: iam.DeleteInstanceProfileRequestTypeDef) -> Answer:
    """A profile without a role."""
    profile = PROFILES.find(call, request["InstanceProfileName"])
    if profile.role:
        raise conflict("Cannot delete entity, must remove roles from instance profile first.")
    remove_tags(call, profile.id)
    call.session.delete(profile)
    return {}


@ACTIONS.action
def tag_instance_profile(call: Call, request: iam.TagInstanceProfileRequestTypeDef) -> Answer:
    """Add tags to a profile."""
    set_tags(call, PROFILES.find(call, request["InstanceProfileName"]).id, request["Tags"])
    return {}


@ACTIONS.action
def untag_instance_profile(call: Call, request: iam.UntagInstanceProfileRequestTypeDef) -> Answer:
    """Remove tags from a profile."""
    remove_tags(call, PROFILES.find(call, request["InstanceProfileName"]).id, request["TagKeys"])
    return {}


def _described(call: Call, profile: InstanceProfile) -> dict[str, object]:
    role = call.session.get(Role, profile.role) if profile.role else None
    return {
        "Arn": PROFILES.arn(profile),
        "CreateDate": profile.created,
        "InstanceProfileId": profile.id,
        "InstanceProfileName": profile.name,
        "Path": profile.path,
        "Roles": [described_role(call, role)] if role else [],
        "Tags": tags_of(call.session, profile.id),
    }
