"""Who may do what with a bucket and what is in it: policies of both sides, and access control lists if they count."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from celaje.cloud.authority.identities import canonical_user
from celaje.cloud.authority.refusals import reason
from celaje.cloud.aws.action import Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.question import Question
from celaje.cloud.policy.decision import Decision, Side
from celaje.cloud.policy.documents import Document, Grade, document
from celaje.cloud.s3 import grants
from celaje.cloud.s3.names import is_bucket_name
from celaje.cloud.s3.permissions import actions_of, facts_of
from celaje.cloud.s3.public_policies import is_public
from celaje.cloud.s3.store.object_store import ObjectStore
from celaje.cloud.s3.store.objects import Opened
from celaje.cloud.s3.store.records import Attributes, Bucket, StoredObject
from celaje.cloud.s3.store.refusals import access_denied, no_such_bucket
from celaje.cloud.s3.store.versions import NULL

# What an account's own root may whatever the policy says: otherwise nobody could mend it.
_MENDING = ("GetBucketPolicy", "PutBucketPolicy", "DeleteBucketPolicy")
_TRIES = 16  # of a change to an object that is replaced again and again
Found = TypeVar("Found", StoredObject, Opened)
Find = Callable[[ObjectStore, Bucket, Mapping[str, object]], Found]
# Operations on objects that are the bucket's owner's to do, whoever put the object.
_OF_BUCKET_OWNER = ("s3:PutObject", "s3:DeleteObject", "s3:DeleteObjectVersion", "s3:AbortMultipartUpload")

_OF_NEW_OBJECTS = ("s3:PutObjectAcl", "s3:PutObjectTagging")

# What whoever began an upload may do with it, unless it is denied ("Multipart upload API and permissions").
_OF_INITIATOR = ("s3:AbortMultipartUpload", "s3:ListMultipartUploadParts")


def found_bucket(store: ObjectStore, name: str, expected_owner: str | None = None) -> Bucket:
    """The bucket of that name. InvalidBucketName, NoSuchBucket; AccessDenied where its owner is another than that."""
    bucket = store.buckets.get(name)
    if bucket is None:
        if not is_bucket_name(name):
            raise AwsError("InvalidBucketName", "The specified bucket is not valid.", 400, {"BucketName": name})
        raise no_such_bucket(name)
    if expected_owner is not None and expected_owner != bucket.account:
        raise access_denied()
    return bucket


def bucket_of(store: ObjectStore, call: Call, request: Mapping[str, object]) -> Bucket:
    """The bucket of a request's Bucket and ExpectedBucketOwner, of which whoever calls may do what the request asks.
    InvalidBucketName, NoSuchBucket, AccessDenied."""
    owner = request.get("ExpectedBucketOwner")
    bucket = found_bucket(store, str(request["Bucket"]), None if owner is None else str(owner))
    if _is_owners(call, bucket) and (not bucket.settings.policy or call.operation in _MENDING):
        return bucket
    key = None if request.get("Key") is None else str(request["Key"])
    for action in actions_of(call.operation, request):
        require(store, call, bucket, action, key, request)
    return bucket


def object_of(
    store: ObjectStore, call: Call, request: Mapping[str, object], find: Find[Found]
) -> tuple[Bucket, Found]:
    """The bucket of a request, and the object in it that the request is about, with which whoever calls may do what
    the request asks. It is that very object that is asked for: what its key has a moment later may be somebody else's.
    As `bucket_of`, and what `find` raises."""
    bucket = bucket_to_look_in(store, call, request)
    actions = tuple(actions_of(call.operation, request))
    return bucket, may_have(store, call, bucket, actions, request, lambda: find(store, bucket, request))


def may_have(
    store: ObjectStore,
    call: Call,
    bucket: Bucket,
    actions: Sequence[str],
    request: Mapping[str, object],
    find: Callable[[], Found],
) -> Found:
    """What `find` finds in the bucket, if whoever calls may do all `actions` with it. AccessDenied, and what `find`
    raises: of an object that is not there, to whoever may know."""
    key = str(request["Key"])
    if _is_owners(call, bucket) and not bucket.settings.policy:
        return find()
    try:
        found = find()
    except AwsError:
        _require_of_missing(store, call, bucket, actions, key, request)
        raise
    try:
        there = found if isinstance(found, StoredObject) else found.object
        for action in actions:
            decision, question = _decided(store, call, bucket, action, key, request, None, lambda: there)
            if not decision.allowed:
                raise _refusal(call, bucket, question, decision)
    except BaseException:
        if isinstance(found, Opened):
            found.close()
        raise
    return found


def change_object(
    store: ObjectStore,
    call: Call,
    request: Mapping[str, object],
    find: Find[StoredObject],
    changed: Callable[[Bucket, StoredObject], Callable[[Attributes], Attributes]],
) -> tuple[Bucket, StoredObject]:
    """As `object_of`, and give that very object other attributes: what `changed` says becomes of those that it has.
    Where another has taken its place meanwhile, that one is asked for."""
    for _ in range(_TRIES):
        bucket, found = object_of(store, call, request, find)
        if store.objects.change(bucket, found, changed(bucket, found)).result():
            return bucket, found
    raise AwsError(
        "OperationAborted",
        "A conflicting conditional operation is currently in progress against this resource. Please try again.",
        409,
    )


def bucket_to_look_in(store: ObjectStore, call: Call, request: Mapping[str, object]) -> Bucket:
    """The same for a request that names objects of its own, each of which is to be asked for (`require`)."""
    owner = request.get("ExpectedBucketOwner")
    return found_bucket(store, str(request["Bucket"]), None if owner is None else str(owner))


def _is_owners(call: Call, bucket: Bucket) -> bool:
    """Whether the bucket and all in it are the caller's own, whom no policy of an identity holds."""
    return call.caller.is_root and bucket.account == call.account and not grants.counts(bucket.settings)


def require(
    store: ObjectStore,
    call: Call,
    bucket: Bucket,
    action: str,
    key: str | None,
    request: Mapping[str, object],
    version: str | None = None,
) -> None:
    """AccessDenied where whoever calls may not do that to the bucket, or to the object `key` in it."""
    if _is_owners(call, bucket) and not bucket.settings.policy:
        return
    decision, question = _decided(store, call, bucket, action, key, request, version)
    if not decision.allowed:
        raise _refusal(call, bucket, question, decision)


def permits(store: ObjectStore, call: Call, bucket: Bucket, action: str, prefix: str | None = None) -> bool:
    """Whether whoever calls may do that to the bucket; `prefix`: to what begins with it."""
    return _decided(store, call, bucket, action, None, {"Prefix": prefix}, None)[0].allowed


def readable(store: ObjectStore, call: Call, name: str, key: str) -> tuple[str, str]:
    """Version and ETag of an object of the caller's account that another service is to read, "" for both where there is
    none. AccessDenied where the caller may not read it. What another account's bucket has is not looked at, as if there
    were none."""
    bucket = store.buckets.get(name)
    if bucket is None or bucket.account != call.account:
        require_of_account(call, "s3:GetObject", f"arn:aws:s3:::{name}/{key}", {})
        return "", ""
    require(store, call, bucket, "s3:GetObject", key, {})
    found = store.objects.find(bucket, key.encode())
    return ("", "") if found is None else (found.version, found.etag)


def require_of_account(call: Call, action: str, resource: str, request: Mapping[str, object]) -> None:
    """AccessDenied where whoever calls may not do what no bucket has a say in: make one, or list the account's."""
    if not call.account:
        raise access_denied()
    if call.caller.is_root:
        return
    question = Question(action, resource, facts_of(request))
    decision = Decision(False) if call.authority is None else call.authority.decide(call, question, Side(call.account))
    if not decision.allowed:
        raise _refusal(call, None, question, decision)


def _decided(
    store: ObjectStore,
    call: Call,
    bucket: Bucket,
    action: str,
    key: str | None,
    request: Mapping[str, object],
    version: str | None,
    there: Callable[[], StoredObject | None] | None = None,
) -> tuple[Decision, Question]:
    """`there`: the object in question; None: what is looked up when something asks for it."""
    settings = bucket.settings
    arn = f"arn:aws:s3:::{bucket.name}"
    wanted = request.get("VersionId") if version is None else version
    lookup = there or partial(_object, store, bucket, key, wanted)
    facts = facts_of(request) | {"s3:resourceaccount": (bucket.account,)}
    if version is not None:
        facts["s3:versionid"] = (version,)
    question = Question(
        action, arn if key is None else f"{arn}/{key}", facts, None if key is None else partial(_tags, lookup)
    )
    if call.authority is None:
        return Decision(call.caller.is_root and call.account == bucket.account), question
    side = Side(bucket.account, _policy(call, bucket))
    if action in _OF_INITIATOR and _began(store, call, bucket, key, request):
        side = replace(side, listed=Grade.ACCOUNT)
    if grants.counts(settings):
        side = _with_list(call, bucket, action, lookup() if key is not None else None, side)
    return call.authority.decide(call, question, side), question


def _began(
    store: ObjectStore, call: Call, bucket: Bucket, key: str | None, request: Mapping[str, object]
) -> bool:
    """Whether a request is about an upload that whoever calls has begun."""
    if not call.account or key is None or request.get("UploadId") is None:
        return False
    try:
        upload = store.uploads.get(bucket, key.encode(), str(request["UploadId"]))
    except (AwsError, UnicodeEncodeError):
        return False
    return upload.plan.initiator == call.caller.arn


def _policy(call: Call, bucket: Bucket) -> Document | None:
    """The bucket's policy, as far as it counts for whoever calls: a public one may give to its own account alone. What
    it denies it denies to all."""
    settings = bucket.settings
    if not settings.policy:
        return None
    restricted = "RestrictPublicBuckets" in (settings.blocked or ())
    policy = document(settings.policy, settings.principals)
    return policy.denials() if restricted and call.account != bucket.account and is_public(settings.policy) else policy


def _with_list(call: Call, bucket: Bucket, action: str, found: StoredObject | None, side: Side) -> Side:
    settings = bucket.settings
    if action in _OF_NEW_OBJECTS and call.operation != action.removeprefix("s3:"):
        action = "s3:PutObject"  # whoever puts an object there owns it, and says what list and tags it has
    of_bucket = grants.owners(bucket.account) if settings.grants is None else settings.grants
    listed = max(side.listed, grants.grade_of(call, action, of_bucket, settings, of_object=False))
    if found is None:
        return Side(side.account, side.policy, listed)
    owner = grants.owner_of_object(bucket, found.attributes)
    of_object = grants.owners(owner) if found.attributes.grants is None else found.attributes.grants
    own = max(side.listed, grants.grade_of(call, action, of_object, settings, of_object=True))
    if owner == bucket.account or action in _OF_BUCKET_OWNER:
        return Side(side.account, side.policy, max(listed, own))
    # What another account owns, the bucket's policy cannot give away; it can refuse it.
    policy = side.policy
    return Side(owner, None if policy is None else policy.denials(), own)


def _object(store: ObjectStore, bucket: Bucket, key: str | None, version: object) -> StoredObject | None:
    if key is None:
        return None
    try:
        named = key.encode()
    except UnicodeEncodeError:
        return None
    wanted = None if version is None else "" if version == NULL else str(version)
    found = store.objects.find(bucket, named, wanted)
    return None if found is None or found.marker else found


def _tags(lookup: Callable[[], StoredObject | None]) -> Mapping[str, str]:
    found = lookup()
    return {} if found is None else dict(found.attributes.tags)


def _require_of_missing(
    store: ObjectStore, call: Call, bucket: Bucket, actions: Sequence[str], key: str, request: Mapping[str, object]
) -> None:
    """Of an object that is not there, who may list its name in the bucket is told so; everybody else is refused. What
    is asked for must be allowed as well, or might be by its list, if lists count."""
    for action in actions:
        decision, question = _decided(store, call, bucket, action, key, request, None, lambda: None)
        if decision.denied or not (decision.allowed or grants.counts(bucket.settings)):
            raise _refusal(call, bucket, question, decision)
    if not permits(store, call, bucket, "s3:ListBucket", key):
        raise access_denied()


def _refusal(call: Call, bucket: Bucket | None, question: Question, decision: Decision) -> AwsError:
    if decision.source is None or not call.account or (bucket is not None and bucket.account != call.account):
        return access_denied()
    return AwsError(
        "AccessDenied",
        f"User: {call.caller.arn} is not authorized to perform: {question.action} on resource: "
        f'"{question.resource}"{reason(decision, question.action)}',
        403,
    )


def owner_of(account: str) -> dict[str, str]:
    """An account as the owner of a bucket or object."""
    return {"ID": canonical_user(account)}


def moment(milliseconds: int) -> datetime.datetime:
    """When something was changed, in the whole seconds that S3 tells."""
    return datetime.datetime.fromtimestamp(milliseconds // 1000, datetime.UTC)


def refuse_unimplemented(request: Mapping[str, object], members: Iterable[str]) -> None:
    """NotImplemented if the request has one of `members`: to overlook it would promise what is not done."""
    for member in members:
        if request.get(member) is not None:
            raise AwsError(
                "NotImplemented",
                f"A header you provided implies functionality that is not implemented: {member}",
                501,
                {"Header": member},
            )

