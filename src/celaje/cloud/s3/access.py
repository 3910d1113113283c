"""Who may do what: a bucket is its owner's account's alone, and its name is nobody else's to look into."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterable, Mapping

from celaje.cloud.aws.action import Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.s3.names import is_bucket_name
from celaje.cloud.s3.store.object_store import ObjectStore
from celaje.cloud.s3.store.records import Bucket
from celaje.cloud.s3.store.refusals import access_denied, no_such_bucket


def named_bucket(store: ObjectStore, call: Call, name: str, expected_owner: str | None = None) -> Bucket:
    """The bucket, which is the caller's. InvalidBucketName, NoSuchBucket, AccessDenied."""
    if not call.caller.access_key:
        raise access_denied()
    bucket = store.buckets.get(name)
    if bucket is None:
        if not is_bucket_name(name):
            raise AwsError("InvalidBucketName", "The specified bucket is not valid.", 400, {"BucketName": name})
        raise no_such_bucket(name)
    if bucket.account != call.account or (expected_owner is not None and expected_owner != bucket.account):
        raise access_denied()
    return bucket


def bucket_of(store: ObjectStore, call: Call, request: Mapping[str, object]) -> Bucket:
    """The same of a request's Bucket and ExpectedBucketOwner."""
    owner = request.get("ExpectedBucketOwner")
    return named_bucket(store, call, str(request["Bucket"]), None if owner is None else str(owner))


def canonical_user(account: str) -> str:
    """The 64 hexadecimal digits by which S3 names an account's owner."""
    return hashlib.sha256(f"canonical user of {account}".encode()).hexdigest()


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
