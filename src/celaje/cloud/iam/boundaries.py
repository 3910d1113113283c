"""Permissions boundaries: the policy that bounds what a user or role can have, whatever it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.iam.entities import ROLES, USERS
from celaje.cloud.iam.policies import check_attachable
from celaje.cloud.state.roles import Boundary

if TYPE_CHECKING:
    from mypy_boto3_iam import type_defs as iam

ACTIONS = Actions("iam")


def bound(call: Call, holder: str, arn: str | None) -> None:
    """Bound a user or role by a policy, by none where that is None. AwsError NoSuchEntity."""
    call.session.execute(delete(Boundary).where(Boundary.holder == holder))
    if arn is None:
        return
    check_attachable(call, arn)
    call.session.add(Boundary(holder=holder, arn=arn))


def boundary_of(call: Call, holder: str) -> dict[str, str] | None:
    """The boundary of a user or role as IAM answers it, None where it has none."""
    found = call.session.get(Boundary, holder)
    return None if found is None else {"PermissionsBoundaryType": "Policy", "PermissionsBoundaryArn": found.arn}


@ACTIONS.action
def put_user_permissions_boundary(call: Call, request: iam.PutUserPermissionsBoundaryRequestTypeDef) -> Answer:
    """Bound a user."""
    bound(call, USERS.find(call, request["UserName"]).id, request["PermissionsBoundary"])
    return {}


@ACTIONS.action
def delete_user_permissions_boundary(call: Call, request: iam.DeleteUserPermissionsBoundaryRequestTypeDef) -> Answer:
    """Let a user have all that it is given."""
    bound(call, USERS.find(call, request["UserName"]).id, None)
    return {}


@ACTIONS.action
def put_role_permissions_boundary(call: Call, request: iam.PutRolePermissionsBoundaryRequestTypeDef) -> Answer:
    """Bound a role."""
    bound(call, ROLES.find(call, request["RoleName"]).id, request["PermissionsBoundary"])
    return {}


@ACTIONS.action
def delete_role_permissions_boundary(call: Call, request: iam.DeleteRolePermissionsBoundaryRequestTypeDef) -> Answer:
    """Let a role have all that it is given."""
    bound(call, ROLES.find(call, request["RoleName"]).id, None)
    return {}
