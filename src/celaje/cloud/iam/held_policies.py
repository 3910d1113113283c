"""The policies of users, groups and roles: those that are a part of one, and managed ones that one has attached."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import delete, select

from celaje.cloud.aws.action import Actions, Answer, Call, Request
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.iam.entities import GROUPS, ROLES, USERS, answered_document, checked_identity_policy, no_such
from celaje.cloud.iam.listing import listed
from celaje.cloud.iam.policies import check_attachable
from celaje.cloud.state.roles import AttachedPolicy, InlinePolicy

ACTIONS = Actions("iam")
ATTACHED_PER_ENTITY = 10
# Characters of all documents that are a part of one, without white space, as at AWS.
_INLINE = {"UserName": ("user", 2048), "GroupName": ("group", 5120), "RoleName": ("role", 10_240)}

_Holder = Callable[[Call, Request], tuple[str, dict[str, object]]]


def _user(call: Call, request: Request) -> tuple[str, dict[str, object]]:
    user = USERS.find(call, request["UserName"])
    return user.id, {"UserName": user.name}


def _role(call: Call, request: Request) -> tuple[str, dict[str, object]]:
    role = ROLES.find(call, request["RoleName"])
    return role.id, {"RoleName": role.name}


def _group(call: Call, request: Request) -> tuple[str, dict[str, object]]:
    group = GROUPS.find(call, request["GroupName"])
    return group.id, {"GroupName": group.name}


def _put(call: Call, request: Request, holder: _Holder) -> Answer:
    held_by, names = holder(call, request)
    document = checked_identity_policy(request["PolicyDocument"])
    [(member, name)] = names.items()
    noun, most = _INLINE[member]
    others = select(InlinePolicy.document).where(
        InlinePolicy.holder == held_by, InlinePolicy.name != request["PolicyName"]
    )
    size = sum(len("".join(text.split())) for text in [document, *call.session.scalars(others)])
    if size > most:
        raise AwsError("LimitExceeded", f"Maximum policy size of {most} bytes exceeded for {noun} {name}", 409)
    call.session.merge(InlinePolicy(holder=held_by, name=request["PolicyName"], document=document))
    return {}


def _inline(call: Call, holder: str, name: str) -> InlinePolicy:
    policy = call.session.get(InlinePolicy, (holder, name))
    if policy is None:
        raise no_such(f"The policy with name {name} cannot be found.")
    return policy


def _get(call: Call, request: Request, holder: _Holder) -> Answer:
    held_by, names = holder(call, request)
    policy = _inline(call, held_by, request["PolicyName"])
    return {**names, "PolicyName": policy.name, "PolicyDocument": answered_document(policy.document)}


def _delete(call: Call, request: Request, holder: _Holder) -> Answer:
    held_by, _ = holder(call, request)
    call.session.delete(_inline(call, held_by, request["PolicyName"]))
    return {}


def _names(call: Call, request: Request, holder: _Holder) -> Answer:
    held_by, _ = holder(call, request)
    names = call.session.scalars(select(InlinePolicy.name).where(InlinePolicy.holder == held_by)).all()
    return listed(call, request, "PolicyNames", names, lambda name: name, lambda name: name)


def _attach(call: Call, request: Request, holder: _Holder) -> Answer:
    held_by, _ = holder(call, request)
    arn = request["PolicyArn"]
    check_attachable(call, arn)
    present = call.session.scalars(select(AttachedPolicy.arn).where(AttachedPolicy.holder == held_by)).all()
    if arn not in present and len(present) >= ATTACHED_PER_ENTITY:
        raise AwsError("LimitExceeded", f"Cannot exceed quota for PoliciesPerEntity: {ATTACHED_PER_ENTITY}", 409)
    call.session.merge(AttachedPolicy(holder=held_by, arn=arn))
    return {}


def _detach(call: Call, request: Request, holder: _Holder) -> Answer:
    held_by, _ = holder(call, request)
    arn = request["PolicyArn"]
    if call.session.get(AttachedPolicy, (held_by, arn)) is None:
        raise no_such(f"Policy {arn} was not found.")
    call.session.execute(
        delete(AttachedPolicy).where(AttachedPolicy.holder == held_by, AttachedPolicy.arn == arn)
    )
    return {}


def _attached(call: Call, request: Request, holder: _Holder) -> Answer:
    held_by, _ = holder(call, request)
    arns = call.session.scalars(select(AttachedPolicy.arn).where(AttachedPolicy.holder == held_by)).all()
    return listed(
        call,
        request,
        "AttachedPolicies",
        arns,
        lambda arn: arn,
        lambda arn: {"PolicyArn": arn, "PolicyName": arn.rpartition("/")[2]},
    )


@ACTIONS.action
def put_user_policy(call: Call, request: Request) -> Answer:
    """A policy of the user's own, or another document for it."""
    return _put(call, request, _user)


@ACTIONS.action
def get_user_policy(call: Call, request: Request) -> Answer:
    """A policy of the user's own."""
    return _get(call, request, _user)


@ACTIONS.action
def delete_user_policy(call: Call, request: Request) -> Answer:
    """Without a policy of its own."""
    return _delete(call, request, _user)


@ACTIONS.action
def list_user_policies(call: Call, request: Request) -> Answer:
    """The names of the user's own policies."""
    return _names(call, request, _user)


@ACTIONS.action
def attach_user_policy(call: Call, request: Request) -> Answer:
    """Give a user a managed policy."""
    return _attach(call, request, _user)


@ACTIONS.action
def detach_user_policy(call: Call, request: Request) -> Answer:
    """Take a managed policy from a user."""
    return _detach(call, request, _user)


@ACTIONS.action
def list_attached_user_policies(call: Call, request: Request) -> Answer:
    """The managed policies of a user."""
    return _attached(call, request, _user)


@ACTIONS.action
def put_role_policy(call: Call, request: Request) -> Answer:
    """A policy of the role's own, or another document for it."""
    return _put(call, request, _role)


@ACTIONS.action
def get_role_policy(call: Call, request: Request) -> Answer:
    """A policy of the role's own."""
    return _get(call, request, _role)


@ACTIONS.action
def delete_role_policy(call: Call, request: Request) -> Answer:
    """Without a policy of its own."""
    return _delete(call, request, _role)


@ACTIONS.action
def list_role_policies(call: Call, request: Request) -> Answer:
    """The names of the role's own policies."""
    return _names(call, request, _role)


@ACTIONS.action
def attach_role_policy(call: Call, request: Request) -> Answer:
    """Give a role a managed policy."""
    return _attach(call, request, _role)


@ACTIONS.action
def detach_role_policy(call: Call, request: Request) -> Answer:
    """Take a managed policy from a role."""
    return _detach(call, request, _role)


@ACTIONS.action
def list_attached_role_policies(call: Call, request: Request) -> Answer:
    """The managed policies of a role."""
    return _attached(call, request, _role)


@ACTIONS.action
def put_group_policy(call: Call, request: Request) -> Answer:
    """A policy of the group's own, or another document for it."""
    return _put(call, request, _group)


@ACTIONS.action
def get_group_policy(call: Call, request: Request) -> Answer:
    """A policy of the group's own."""
    return _get(call, request, _group)


@ACTIONS.action
def delete_group_policy(call: Call, request: Request) -> Answer:
    """Without a policy of its own."""
    return _delete(call, request, _group)


@ACTIONS.action
def list_group_policies(call: Call, request: Request) -> Answer:
    """The names of the group's own policies."""
    return _names(call, request, _group)


@ACTIONS.action
def attach_group_policy(call: Call, request: Request) -> Answer:
    """Give a group a managed policy."""
    return _attach(call, request, _group)


@ACTIONS.action
def detach_group_policy(call: Call, request: Request) -> Answer:
    """Take a managed policy from a group."""
    return _detach(call, request, _group)


@ACTIONS.action
def list_attached_group_policies(call: Call, request: Request) -> Answer:
    """The managed policies of a group."""
    return _attached(call, request, _group)
