"""Groups: users who have a group's policies beside their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.iam.entities import GROUPS, USERS, conflict
from celaje.cloud.iam.listing import listed
from celaje.cloud.iam.policies import refuse_with_policies
from celaje.cloud.iam.users import described as described_user
from celaje.cloud.state.roles import Group, GroupMember, User

if TYPE_CHECKING:
    from mypy_boto3_iam import type_defs as iam

ACTIONS = Actions("iam")
GROUPS_PER_USER = 10
GROUPS_PER_ACCOUNT = 300


@ACTIONS.action
def create_group(call: Call, request: iam.CreateGroupRequestTypeDef) -> Answer:
    """A group without members."""
    group = Group(**GROUPS.fresh(call, request["GroupName"], request.get("Path")))
    if len(GROUPS.all(call, None)) >= GROUPS_PER_ACCOUNT:
        raise AwsError("LimitExceeded", f"Cannot exceed quota for GroupsPerAccount: {GROUPS_PER_ACCOUNT}", 409)
    call.session.add(group)
    return {"Group": _described(group)}


@ACTIONS.action
def get_group(call: Call, request: iam.GetGroupRequestTypeDef) -> Answer:
    """A group and its members."""
    group = GROUPS.find(call, request["GroupName"])
    members = select(User).join(GroupMember, GroupMember.user == User.id).where(GroupMember.group == group.id)
    users = listed(
        call, request, "Users", call.session.scalars(members), lambda user: user.folded, described_user
    )
    return {"Group": _described(group), **users}


@ACTIONS.action
def list_groups(call: Call, request: iam.ListGroupsRequestTypeDef) -> Answer:
    """The account's groups."""
    rows = GROUPS.all(call, request.get("PathPrefix"))
    return listed(call, request, "Groups", rows, lambda group: group.folded, _described)


@ACTIONS.action
def delete_group(call: Call, request: iam.DeleteGroupRequestTypeDef) -> Answer:
    """A group without members and policies."""
    group = GROUPS.find(call, request["GroupName"])
    if call.session.scalars(select(GroupMember.user).where(GroupMember.group == group.id)).first() is not None:
        raise conflict("Cannot delete entity, must remove users from group first.")
    refuse_with_policies(call, group.id)
    call.session.delete(group)
    return {}


@ACTIONS.action
def add_user_to_group(call: Call, request: iam.AddUserToGroupRequestTypeDef) -> Answer:
    """A member, who may be one already."""
    group, user = GROUPS.find(call, request["GroupName"]), USERS.find(call, request["UserName"])
    present = set(call.session.scalars(select(GroupMember.group).where(GroupMember.user == user.id)))
    if len(present | {group.id}) > GROUPS_PER_USER:
        raise AwsError("LimitExceeded", f"Cannot exceed quota for GroupsPerUser: {GROUPS_PER_USER}", 409)
    call.session.merge(GroupMember(group=group.id, user=user.id))
    return {}


@ACTIONS.action
def remove_user_from_group(call: Call, request: iam.RemoveUserFromGroupRequestTypeDef) -> Answer:
    """A member no more; who was none is none."""
    group, user = GROUPS.find(call, request["GroupName"]), USERS.find(call, request["UserName"])
    call.session.execute(delete(GroupMember).where(GroupMember.group == group.id, GroupMember.user == user.id))
    return {}


@ACTIONS.action
def list_groups_for_user(call: Call, request: iam.ListGroupsForUserRequestTypeDef) -> Answer:
    """The groups that a user is in."""
    user = USERS.find(call, request["UserName"])
    rows = select(Group).join(GroupMember, GroupMember.group == Group.id).where(GroupMember.user == user.id)
    return listed(call, request, "Groups", call.session.scalars(rows), lambda group: group.folded, _described)


def groups_of(session: Session, user: str) -> list[str]:
    """The ids of the groups that a user is in."""
    return list(session.scalars(select(GroupMember.group).where(GroupMember.user == user)))


def _described(group: Group) -> dict[str, object]:
    return {
        "Arn": GROUPS.arn(group),
        "CreateDate": group.created,
        "GroupId": group.id,
        "GroupName": group.name,
        "Path": group.path,
    }
