"""Policies: managed ones, and those that are part of a user or role. Stored whole; what they allow is not evaluated."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, select

from celaje.cloud.aws.action import Actions, Answer, Call, Request
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.iam.entities import (
    POLICIES,
    ROLES,
    USERS,
    answered_document,
    checked_document,
    conflict,
    no_such,
    remove_tags,
    set_tags,
    tags_of,
)
from celaje.cloud.iam.listing import listed
from celaje.cloud.state.roles import AttachedPolicy, InlinePolicy, ManagedPolicy, PolicyVersion

if TYPE_CHECKING:
    from mypy_boto3_iam import type_defs as iam

ACTIONS = Actions("iam")
ATTACHED_PER_ENTITY = 10
VERSIONS_PER_POLICY = 5
_AWS_ARN = re.compile(r"arn:aws:iam::aws:policy/(?:[\w+=,.@-]+/)*[\w+=,.@-]+", re.ASCII)


def refuse_with_policies(call: Call, holder: str) -> None:
    """AwsError DeleteConflict where a user or role still has policies."""
    if call.session.scalars(select(AttachedPolicy.arn).where(AttachedPolicy.holder == holder)).first() is not None:
        raise conflict("Cannot delete entity, must detach all policies first.")
    if call.session.scalars(select(InlinePolicy.name).where(InlinePolicy.holder == holder)).first() is not None:
        raise conflict("Cannot delete entity, must delete policies first.")


def _find(call: Call, arn: str) -> ManagedPolicy:
    prefix, _, name = arn.rpartition("/")
    policy = POLICIES.look(call.session, call.account, name)
    if policy is None or POLICIES.arn(policy) != arn or not prefix:
        raise no_such(f"Policy {arn} was not found.")
    return policy


@ACTIONS.action
def create_policy(call: Call, request: iam.CreatePolicyRequestTypeDef) -> Answer:
    """A policy that users and roles can attach."""
    document = checked_document(request["PolicyDocument"])
    policy = ManagedPolicy(
        **POLICIES.fresh(call, request["PolicyName"], request.get("Path")),
        description=request.get("Description", ""),
        version=1,
        versions=1,
        updated=call.now,
    )
    call.session.add(policy)
    call.session.add(PolicyVersion(policy=policy.id, number=1, document=document, created=call.now))
    set_tags(call, policy.id, request.get("Tags"))
    call.session.flush()
    return {"Policy": _described(call, policy)}


@ACTIONS.action
def get_policy(call: Call, request: iam.GetPolicyRequestTypeDef) -> Answer:
    """A policy of the account's, without its document."""
    return {"Policy": _described(call, _find(call, request["PolicyArn"]))}


def _version_of(call: Call, policy: ManagedPolicy, name: str) -> PolicyVersion:
    number = name.removeprefix("v")
    found = None
    if number.isascii() and number.isdigit() and len(number) < 10:
        found = call.session.get(PolicyVersion, (policy.id, int(number)))
    if found is None or name != f"v{found.number}":
        raise no_such(f"Policy {POLICIES.arn(policy)} version {name} does not exist or is not attachable.")
    return found


def _versions_of(call: Call, policy: ManagedPolicy) -> list[PolicyVersion]:
    return list(call.session.scalars(select(PolicyVersion).where(PolicyVersion.policy == policy.id)))


@ACTIONS.action
def create_policy_version(call: Call, request: iam.CreatePolicyVersionRequestTypeDef) -> Answer:
    """Another document for a policy, which counts from now on if SetAsDefault is given."""
    policy = _find(call, request["PolicyArn"])
    document = checked_document(request["PolicyDocument"])
    if len(_versions_of(call, policy)) >= VERSIONS_PER_POLICY:
        raise AwsError(
            "LimitExceeded",
            "A managed policy can have up to 5 versions. Before you create a new version, you must delete an existing "
            "version.",
            409,
        )
    policy.versions += 1
    policy.updated = call.now
    version = PolicyVersion(policy=policy.id, number=policy.versions, document=document, created=call.now)
    call.session.add(version)
    if request.get("SetAsDefault"):
        policy.version = version.number
    return {"PolicyVersion": _version(policy, version)}


@ACTIONS.action
def set_default_policy_version(call: Call, request: iam.SetDefaultPolicyVersionRequestTypeDef) -> Answer:
    """Let another of a policy's documents count."""
    policy = _find(call, request["PolicyArn"])
    policy.version = _version_of(call, policy, request["VersionId"]).number
    return {}


@ACTIONS.action
def get_policy_version(call: Call, request: iam.GetPolicyVersionRequestTypeDef) -> Answer:
    """One of a policy's documents."""
    policy = _find(call, request["PolicyArn"])
    version = _version_of(call, policy, request["VersionId"])
    return {"PolicyVersion": _version(policy, version) | {"Document": answered_document(version.document)}}


@ACTIONS.action
def list_policy_versions(call: Call, request: iam.ListPolicyVersionsRequestTypeDef) -> Answer:
    """A policy's documents, the newest last."""
    policy = _find(call, request["PolicyArn"])
    return listed(
        call,
        request,
        "Versions",
        _versions_of(call, policy),
        lambda version: f"{version.number:09}",
        lambda version: _version(policy, version),
    )


@ACTIONS.action
def delete_policy_version(call: Call, request: iam.DeletePolicyVersionRequestTypeDef) -> Answer:
    """One of a policy's documents that does not count."""
    policy = _find(call, request["PolicyArn"])
    version = _version_of(call, policy, request["VersionId"])
    if version.number == policy.version:
        raise conflict("Cannot delete the default version of a policy.")
    call.session.delete(version)
    return {}


@ACTIONS.action
def list_policies(call: Call, request: iam.ListPoliciesRequestTypeDef) -> Answer:
    """The account's policies."""
    rows = [] if request.get("Scope") == "AWS" else POLICIES.all(call, request.get("PathPrefix"))
    if request.get("OnlyAttached"):
        rows = [row for row in rows if _attachments(call, POLICIES.arn(row))]
    return listed(call, request, "Policies", rows, lambda row: row.folded, lambda row: _described(call, row))


@ACTIONS.action
def delete_policy(call: Call, request: iam.DeletePolicyRequestTypeDef) -> Answer:
    """A policy that nobody has attached."""
    policy = _find(call, request["PolicyArn"])
    if _attachments(call, request["PolicyArn"]):
        raise conflict("Cannot delete a policy attached to entities.")
    if len(_versions_of(call, policy)) > 1:
        raise conflict("This policy has more than one version. Before you delete a policy, you must delete the others.")
    call.session.execute(delete(PolicyVersion).where(PolicyVersion.policy == policy.id))
    remove_tags(call, policy.id)
    call.session.delete(policy)
    return {}


def _attachments(call: Call, arn: str) -> int:
    query = select(func.count()).select_from(AttachedPolicy).where(AttachedPolicy.arn == arn)
    return call.session.scalar(query) or 0


def _version(policy: ManagedPolicy, version: PolicyVersion) -> dict[str, object]:
    return {
        "CreateDate": version.created,
        "IsDefaultVersion": version.number == policy.version,
        "VersionId": f"v{version.number}",
    }


def _described(call: Call, policy: ManagedPolicy) -> dict[str, object]:
    arn = POLICIES.arn(policy)
    return {
        "Arn": arn,
        "AttachmentCount": _attachments(call, arn),
        "CreateDate": policy.created,
        "DefaultVersionId": f"v{policy.version}",
        "Description": policy.description or None,
        "IsAttachable": True,
        "Path": policy.path,
        "PermissionsBoundaryUsageCount": 0,
        "PolicyId": policy.id,
        "PolicyName": policy.name,
        "Tags": tags_of(call.session, policy.id),
        "UpdateDate": policy.updated,
    }


# What users and roles do in the same way; the actions below give each its names.

_Holder = Callable[[Call, Request], tuple[str, dict[str, object]]]


def _user(call: Call, request: Request) -> tuple[str, dict[str, object]]:
    user = USERS.find(call, request["UserName"])
    return user.id, {"UserName": user.name}


def _role(call: Call, request: Request) -> tuple[str, dict[str, object]]:
    role = ROLES.find(call, request["RoleName"])
    return role.id, {"RoleName": role.name}


def _put(call: Call, request: Request, holder: _Holder) -> Answer:
    held_by, _ = holder(call, request)
    document = checked_document(request["PolicyDocument"])
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
    if not _AWS_ARN.fullmatch(arn):
        _find(call, arn)
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
