"""Managed policies: an account's own, and AWS's."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, select, union_all

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.iam.entities import (
    POLICIES,
    answered_document,
    checked_identity_policy,
    conflict,
    no_such,
    remove_tags,
    set_tags,
    tags_of,
)
from celaje.cloud.iam.listing import listed, page_of
from celaje.cloud.policy.managed import PREFIX, Published, published
from celaje.cloud.state.roles import (
    AttachedPolicy,
    Boundary,
    Group,
    Identity,
    InlinePolicy,
    ManagedPolicy,
    PolicyVersion,
    Role,
    User,
)

if TYPE_CHECKING:
    from mypy_boto3_iam import type_defs as iam

ACTIONS = Actions("iam")
_HOLDERS: dict[str, type[Identity]] = {"Group": Group, "Role": Role, "User": User}
VERSIONS_PER_POLICY = 5


def refuse_with_policies(call: Call, holder: str) -> None:
    """AwsError DeleteConflict where a user or role still has policies."""
    if call.session.scalars(select(AttachedPolicy.arn).where(AttachedPolicy.holder == holder)).first() is not None:
        raise conflict("Cannot delete entity, must detach all policies first.")
    if call.session.scalars(select(InlinePolicy.name).where(InlinePolicy.holder == holder)).first() is not None:
        raise conflict("Cannot delete entity, must delete policies first.")


def _found(call: Call, arn: str) -> ManagedPolicy | None:
    prefix, _, name = arn.rpartition("/")
    policy = POLICIES.look(call.session, call.account, name)
    return None if policy is None or POLICIES.arn(policy) != arn or not prefix else policy


def find_policy(call: Call, arn: str) -> ManagedPolicy:
    """The caller's policy of that ARN. AwsError NoSuchEntity."""
    policy = _found(call, arn)
    if policy is None:
        raise no_such(f"Policy {arn} was not found.")
    return policy


def check_attachable(call: Call, arn: str) -> None:
    """AwsError NoSuchEntity unless it is a policy of the caller's or of AWS's; PolicyNotAttachable where AWS gives it
    to nobody but roles of its services."""
    known = published().get(arn) if arn.startswith(PREFIX) else None
    if known is None and _found(call, arn) is None:
        raise no_such(f"Policy {arn} does not exist or is not attachable.")
    if known is not None and not known.attachable:
        raise AwsError("PolicyNotAttachable", "Cannot attach a Service Role Policy to a Customer Role.")


@ACTIONS.action
def create_policy(call: Call, request: iam.CreatePolicyRequestTypeDef) -> Answer:
    """A policy that users and roles can attach."""
    document = checked_identity_policy(request["PolicyDocument"])
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
    return {"Policy": _described(call, policy) | {"Tags": tags_of(call.session, policy.id) or None}}


@ACTIONS.action
def get_policy(call: Call, request: iam.GetPolicyRequestTypeDef) -> Answer:
    """A policy without its document."""
    if (known := published_as(request["PolicyArn"])) is not None:
        return {"Policy": _of_aws(known, _uses(call, AttachedPolicy), _uses(call, Boundary))}
    policy = find_policy(call, request["PolicyArn"])
    more = {"Description": policy.description or None, "Tags": tags_of(call.session, policy.id)}
    return {"Policy": _described(call, policy) | more}


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
    policy = find_policy(call, request["PolicyArn"])
    document = checked_identity_policy(request["PolicyDocument"])
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
    policy = find_policy(call, request["PolicyArn"])
    policy.version = _version_of(call, policy, request["VersionId"]).number
    return {}


@ACTIONS.action
def get_policy_version(call: Call, request: iam.GetPolicyVersionRequestTypeDef) -> Answer:
    """One of a policy's documents."""
    if (known := published_as(request["PolicyArn"])) is not None:
        if request["VersionId"] != known.version:
            raise no_such(
                f"Policy {known.arn} version {request['VersionId']} does not exist: of AWS's policies this cloud has "
                f"the default versions, of this one {known.version}."
            )
        return {"PolicyVersion": _version_of_aws(known) | {"Document": answered_document(known.document)}}
    policy = find_policy(call, request["PolicyArn"])
    version = _version_of(call, policy, request["VersionId"])
    return {"PolicyVersion": _version(policy, version) | {"Document": answered_document(version.document)}}


@ACTIONS.action
def list_policy_versions(call: Call, request: iam.ListPolicyVersionsRequestTypeDef) -> Answer:
    """A policy's documents, the newest last; of AWS's own the default one."""
    if (known := published_as(request["PolicyArn"])) is not None:
        return {"Versions": [_version_of_aws(known)], "IsTruncated": False}
    policy = find_policy(call, request["PolicyArn"])
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
    policy = find_policy(call, request["PolicyArn"])
    version = _version_of(call, policy, request["VersionId"])
    if version.number == policy.version:
        raise conflict("Cannot delete the default version of a policy.")
    call.session.delete(version)
    return {}


@ACTIONS.action
def list_policies(call: Call, request: iam.ListPoliciesRequestTypeDef) -> Answer:
    """The account's policies, and AWS's."""
    scope, path = request.get("Scope", "All"), request.get("PathPrefix") or "/"
    own = [] if scope == "AWS" else POLICIES.all(call, path)
    found = [_described(call, row) for row in own]
    if scope != "Local":
        attached, bounding = _uses(call, AttachedPolicy), _uses(call, Boundary)
        of_aws = [each for each in published().values() if f"/{each.name}".startswith(path)]
        found += [_of_aws(each, attached, bounding) for each in of_aws]
    if request.get("OnlyAttached"):
        found = [each for each in found if each["AttachmentCount"]]
    return listed(call, request, "Policies", found, lambda each: str(each["Arn"]), lambda each: each)


@ACTIONS.action
def list_entities_for_policy(call: Call, request: iam.ListEntitiesForPolicyRequestTypeDef) -> Answer:
    """Who has attached a policy, groups before roles before users."""
    arn = request["PolicyArn"]
    if published_as(arn) is None:
        find_policy(call, arn)
    wanted, path = request.get("EntityFilter"), request.get("PathPrefix") or "/"
    bounds = request.get("PolicyUsageFilter") == "PermissionsBoundary"
    held = select(Boundary.holder).where(Boundary.arn == arn) if bounds else None
    if held is None:
        held = select(AttachedPolicy.holder).where(AttachedPolicy.arn == arn)
    holders = list(call.session.scalars(held))
    found: list[tuple[str, Identity]] = []
    for noun, table in _HOLDERS.items():
        if wanted in (None, noun):
            rows = call.session.scalars(select(table).where(table.account == call.account, table.id.in_(holders)))
            found += [(noun, row) for row in rows if row.path.startswith(path)]
    shown, marker = page_of(call, request, found, lambda one: f"{one[0]} {one[1].name}")
    answer: dict[str, object] = {"IsTruncated": marker is not None, "Marker": marker}
    for noun in _HOLDERS:
        answer[f"Policy{noun}s"] = [{f"{noun}Name": row.name, f"{noun}Id": row.id} for of, row in shown if of == noun]
    return answer


@ACTIONS.action
def delete_policy(call: Call, request: iam.DeletePolicyRequestTypeDef) -> Answer:
    """A policy that nobody has attached."""
    policy = find_policy(call, request["PolicyArn"])
    if _attachments(call, request["PolicyArn"]) or _bounded(call, request["PolicyArn"]):
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


def published_as(arn: str) -> Published | None:
    """AWS's own policy of that ARN; None if it is none of AWS's. AwsError NoSuchEntity where AWS has no such one."""
    if not arn.startswith(PREFIX):
        return None
    found = published().get(arn)
    if found is None:
        raise no_such(f"Policy {arn} was not found.")
    return found


def _of_aws(policy: Published, attached: Mapping[str, int], bounding: Mapping[str, int]) -> dict[str, object]:
    path, _, name = policy.name.rpartition("/")
    return {
        "Arn": policy.arn,
        "AttachmentCount": attached.get(policy.arn, 0),
        "CreateDate": datetime.datetime.fromisoformat(policy.created),
        "DefaultVersionId": policy.version,
        "IsAttachable": True,
        "Path": f"/{path}/" if path else "/",
        "PermissionsBoundaryUsageCount": bounding.get(policy.arn, 0),
        "PolicyId": "ANPA" + hashlib.sha256(policy.arn.encode()).hexdigest()[:17].upper(),
        "PolicyName": name,
        "UpdateDate": datetime.datetime.fromisoformat(policy.updated),
    }


def _version_of_aws(policy: Published) -> dict[str, object]:
    updated = datetime.datetime.fromisoformat(policy.updated)
    return {"CreateDate": updated, "IsDefaultVersion": True, "VersionId": policy.version}


def _uses(call: Call, use: type[AttachedPolicy] | type[Boundary]) -> Mapping[str, int]:
    """How many of the account's entities use each policy so, by its ARN."""
    holders = union_all(*(select(table.id).where(table.account == call.account) for table in _HOLDERS.values()))
    query = select(use.arn, func.count()).where(use.holder.in_(holders)).group_by(use.arn)
    return dict(call.session.execute(query).all())


def _bounded(call: Call, arn: str) -> int:
    return call.session.scalar(select(func.count()).select_from(Boundary).where(Boundary.arn == arn)) or 0


def _version(policy: ManagedPolicy, version: PolicyVersion) -> dict[str, object]:
    return {
        "CreateDate": version.created,
        "IsDefaultVersion": version.number == policy.version,
        "VersionId": f"v{version.number}",
    }


def _described(call: Call, policy: ManagedPolicy) -> dict[str, object]:
    """A policy as lists have it: the description is told by GetPolicy alone, as at AWS."""
    arn = POLICIES.arn(policy)
    return {
        "Arn": arn,
        "AttachmentCount": _attachments(call, arn),
        "CreateDate": policy.created,
        "DefaultVersionId": f"v{policy.version}",
        "IsAttachable": True,
        "Path": policy.path,
        "PermissionsBoundaryUsageCount": _bounded(call, arn),
        "PolicyId": policy.id,
        "PolicyName": policy.name,
        "UpdateDate": policy.updated,
    }
