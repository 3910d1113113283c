"""Who signs a request, and credentials of sessions: of roles, and of whoever asks."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from celaje.cloud.authority.facts import requested_tags
from celaje.cloud.authority.identities import identity_tags
from celaje.cloud.authority.refusals import sentence
from celaje.cloud.aws.action import Actions, Answer, Call, Narrowing, Request
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.question import Fact, Question
from celaje.cloud.iam.credentials import RoleCredentials, own_credentials, role_caller, role_credentials
from celaje.cloud.iam.entities import ROLES, checked_identity_policy
from celaje.cloud.policy.decision import Decision, Side, Source
from celaje.cloud.policy.documents import document
from celaje.cloud.policy.grammar import PolicyError
from celaje.cloud.policy.managed import PREFIX, document_of
from celaje.cloud.state.roles import Role
from celaje.cloud.sts.trust import ASSUME_ROLE

if TYPE_CHECKING:
    from mypy_boto3_sts import type_defs as sts

ACTIONS = Actions("sts")
TAG_SESSION = "sts:TagSession"
LONGEST_POLICY = 2048  # characters of a session's document
MOST_POLICIES = 10
MOST_TAGS = 50
_ROLE_ARN = re.compile(r"arn:aws:iam::(?P<account>[0-9]{12}):role/(?:.+/)?(?P<name>[^/]+)")
_SHORTEST = 900
_DEFAULT = 3600
_OWN_LONGEST, _OWN_DEFAULT = 129_600, 43_200
_NOT_HERE = ("SerialNumber", "TokenCode", "SourceIdentity", "ProvidedContexts", "TransitiveTagKeys")


@ACTIONS.action
def get_caller_identity(call: Call, request: Request) -> Answer:
    """Whose key signed this request."""
    return {"Account": call.caller.account, "Arn": call.caller.arn, "UserId": call.caller.user_id}


@ACTIONS.action
def assume_role(call: Call, request: sts.AssumeRoleRequestTypeDef) -> Answer:
    """Credentials of a role, for whoever its trust policy and the caller's own policies let have it. A role that does
    not exist, of whichever account, and one that does not trust the caller are answered alike."""
    arn = request["RoleArn"]
    for member in _NOT_HERE:
        if request.get(member):  # to leave out what a session is to be held to would give more than was asked for
            raise AwsError("ValidationError", f"{member} is not evaluated by this cloud; leave it out")
    match = _ROLE_ARN.fullmatch(arn)
    if match is None:
        raise AwsError("ValidationError", f"{arn[:200]} is invalid")
    tags = _tags(request)
    found = ROLES.look(call.session, match["account"], match["name"])
    role = found if found is not None and ROLES.arn(found) == arn else None
    facts: dict[str, Fact] = {"sts:rolesessionname": (request["RoleSessionName"],), **requested_tags(tags)}
    if (external := request.get("ExternalId")) is not None:
        facts["sts:externalid"] = (external,)
    of_role = partial(identity_tags, call.session, role.id if role is not None else "")
    for action in (ASSUME_ROLE, TAG_SESSION) if tags else (ASSUME_ROLE,):
        _require(call, Question(action, arn, facts, of_role), role)
    assert role is not None
    narrowing, packed = _narrowing(request, role.account)
    seconds = _duration(call, role, request.get("DurationSeconds"))
    name = request["RoleSessionName"]
    life = datetime.timedelta(seconds=seconds)
    made = role_credentials(call.session, role, call.now, life, name, narrowing, tags)
    caller = role_caller(role, name)
    return {
        "AssumedRoleUser": {"Arn": caller.arn, "AssumedRoleId": caller.user_id},
        "Credentials": _answered(made),
        "PackedPolicySize": packed,
    }


def _require(call: Call, question: Question, role: Role | None) -> None:
    """AccessDenied unless the role's trust policy, and whoever calls where that leaves it to him, allow it."""
    foreign = f":{call.account}:" not in question.resource
    decision = Decision(False)
    if role is not None and call.authority is not None:
        try:
            trust = document(role.trust, role.trusted or ())
        except PolicyError:
            trust = None
        decision = call.authority.decide(call, question, Side(role.account, trust, trusts=True))
    if not decision.allowed:
        untrusted = decision.source is Source.RESOURCE and not decision.denied
        if foreign or call.caller.is_root or untrusted:
            decision = Decision(False)
        raise AwsError("AccessDenied", sentence(call.caller, question, decision), 403)


def _tags(request: sts.AssumeRoleRequestTypeDef) -> tuple[tuple[str, str], ...]:
    tags = tuple((tag["Key"], tag["Value"]) for tag in request.get("Tags", ()))
    if len(tags) > MOST_TAGS or len({key.lower() for key, _ in tags}) < len(tags):
        raise AwsError("ValidationError", f"Tags are at most {MOST_TAGS}, each key once whatever its case")
    if any(key.lower().startswith("aws:") for key, _ in tags):
        raise AwsError("ValidationError", "Tag keys that begin with aws: are reserved")
    return tags


def _narrowing(request: sts.AssumeRoleRequestTypeDef, account: str) -> tuple[Narrowing | None, int]:
    """What a session is narrowed to, and how much of what it may take that is, in percent."""
    policy = request.get("Policy")
    managed = tuple(each.get("arn", "") for each in request.get("PolicyArns", ()))
    if policy is None and not managed:
        return None, 0
    if len(managed) > MOST_POLICIES:
        raise AwsError("ValidationError", f"PolicyArns are at most {MOST_POLICIES}")
    for arn in managed:
        if not arn.startswith((PREFIX, f"arn:aws:iam::{account}:policy/")):
            # What it says would show in what the session may do.
            raise AwsError("ValidationError", f"{arn[:200]} is neither a policy of AWS's nor of the role's account")
        if arn.startswith(PREFIX) and document_of(arn) is None:
            raise AwsError("MalformedPolicyDocument", f"Policy {arn[:200]} does not exist or is not attachable.")
    if policy is not None:
        if len(policy) > LONGEST_POLICY:
            raise AwsError("ValidationError", f"Policy has at most {LONGEST_POLICY} characters; given: {len(policy)}")
        checked_identity_policy(policy)
    size = len(policy or "") + sum(map(len, managed))
    percent = -(-100 * size // (LONGEST_POLICY + MOST_POLICIES * 128))
    return Narrowing(() if policy is None else (policy,), managed), percent


def _duration(call: Call, role: Role, given: int | None) -> int:
    longest = role.longest_session
    if call.caller.temporary and not call.caller.is_root and ":assumed-role/" in call.caller.arn:
        longest = min(longest, _DEFAULT)
        if given is not None and given > longest:
            raise AwsError(
                "ValidationError",
                "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining.",
            )
    seconds = given if given is not None else min(_DEFAULT, longest)
    if not _SHORTEST <= seconds <= longest:
        raise AwsError(
            "ValidationError",
            "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
            if seconds > longest
            else f"DurationSeconds must be at least {_SHORTEST}; given: {seconds}",
        )
    return seconds


@ACTIONS.action
def get_session_token(call: Call, request: sts.GetSessionTokenRequestTypeDef) -> Answer:
    """Credentials of whoever calls, for a while: all that he may, but nothing of IAM and little of STS."""
    for member in ("SerialNumber", "TokenCode"):
        if request.get(member):
            raise AwsError("AccessDenied", "MultiFactorAuthentication failed: there are no devices in this cloud", 403)
    if call.caller.temporary:
        raise AwsError("AccessDenied", "Cannot call GetSessionToken with session credentials", 403)
    longest = 3600 if call.caller.is_root else _OWN_LONGEST
    seconds = request.get("DurationSeconds", min(longest, _OWN_DEFAULT))
    if not _SHORTEST <= seconds <= longest:
        raise AwsError("ValidationError", f"DurationSeconds is {_SHORTEST} to {longest}; given: {seconds}")
    made = own_credentials(call.session, call.caller, call.now, datetime.timedelta(seconds=seconds))
    return {"Credentials": _answered(made)}


def _answered(made: RoleCredentials) -> Mapping[str, object]:
    return {
        "AccessKeyId": made.access_key,
        "Expiration": made.expiration,
        "SecretAccessKey": made.secret,
        "SessionToken": made.token,
    }
