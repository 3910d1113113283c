"""What a bucket gives to others: its policy, whose objects are, and the block against giving too much.

New buckets are as at AWS since April 2023: all objects are the bucket's owner's, lists do not count, and nothing can be
made public before its owner takes the block away.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from celaje.cloud.authority.named_principals import principals_of, shown
from celaje.cloud.aws.action import Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.policy.grammar import Kind, PolicyError, check
from celaje.cloud.s3 import grants
from celaje.cloud.s3.access import bucket_of
from celaje.cloud.s3.public_policies import is_public
from celaje.cloud.s3.store.object_store import ObjectStore
from celaje.cloud.s3.store.records import PUBLIC_ACCESS, Bucket, BucketSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import type_defs as s3

LONGEST_POLICY = 20 << 10  # bytes
_NO_OWNERSHIP = "The bucket ownership controls were not found"
_NO_BLOCK = "The public access block configuration was not found"


class PublicAccessActions:
    """What is asked of policies, ownership and the block."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    # --- the policy ---

    def put_bucket_policy(self, call: Call, request: s3.PutBucketPolicyRequestTypeDef) -> Answer:
        bucket = bucket_of(self._store, call, request)
        policy = request["Policy"]
        if len(policy.encode(errors="replace")) > LONGEST_POLICY:
            raise AwsError("MalformedPolicy", "Policy exceeds the maximum allowed document size.")
        try:
            check(policy, Kind.BUCKET, bucket=bucket.name)
        except PolicyError as error:
            raise AwsError("MalformedPolicy", str(error)) from None
        try:
            with call.reading() as session:
                principals = principals_of(session, policy)
        except PolicyError:
            raise AwsError("MalformedPolicy", "Invalid principal in policy") from None
        if "BlockPublicPolicy" in (bucket.settings.blocked or ()) and is_public(policy):
            raise AwsError(
                "AccessDenied",
                f"User: {call.caller.arn} is not authorized to perform: s3:PutBucketPolicy on resource: "
                f'"arn:aws:s3:::{bucket.name}" because public policies are prevented by the BlockPublicPolicy setting '
                "in S3 Block Public Access.",
                403,
            )
        self._store.buckets.set(bucket, policy=policy, principals=principals).result()
        return {}

    def get_bucket_policy(self, call: Call, request: s3.GetBucketPolicyRequestTypeDef) -> Answer:
        bucket = bucket_of(self._store, call, request)
        policy = _policy_of(bucket)
        with call.reading() as session:
            return {"Policy": shown(session, policy, bucket.settings.principals)}

    def delete_bucket_policy(self, call: Call, request: s3.DeleteBucketPolicyRequestTypeDef) -> Answer:
        self._store.buckets.set(bucket_of(self._store, call, request), policy="", principals=()).result()
        return {}

    def get_bucket_policy_status(self, call: Call, request: s3.GetBucketPolicyStatusRequestTypeDef) -> Answer:
        policy = _policy_of(bucket_of(self._store, call, request))
        return {"PolicyStatus": {"IsPublic": is_public(policy)}}

    # --- whose objects are ---

    def get_bucket_ownership_controls(
        self, call: Call, request: s3.GetBucketOwnershipControlsRequestTypeDef
    ) -> Answer:
        bucket = bucket_of(self._store, call, request)
        ownership = bucket.settings.ownership
        if ownership is None:
            raise _absent(bucket, "OwnershipControlsNotFoundError", _NO_OWNERSHIP)
        return {"OwnershipControls": {"Rules": [{"ObjectOwnership": ownership}]}}

    def put_bucket_ownership_controls(
        self, call: Call, request: s3.PutBucketOwnershipControlsRequestTypeDef
    ) -> Answer:
        bucket = bucket_of(self._store, call, request)
        rules = request["OwnershipControls"].get("Rules", ())
        if len(rules) != 1:
            raise AwsError(
                "MalformedXML",
                "The XML you provided was not well-formed or did not validate against our published schema: one rule",
            )
        ownership = _ownership(rules[0]["ObjectOwnership"])
        if ownership == grants.ENFORCED and bucket.settings.grants is not None:
            raise _acl_and_ownership()
        self._store.buckets.set(bucket, ownership=ownership).result()
        return {}

    def delete_bucket_ownership_controls(
        self, call: Call, request: s3.DeleteBucketOwnershipControlsRequestTypeDef
    ) -> Answer:
        self._store.buckets.set(bucket_of(self._store, call, request), ownership=None).result()
        return {}

    # --- the block ---

    def get_public_access_block(self, call: Call, request: s3.GetPublicAccessBlockRequestTypeDef) -> Answer:
        bucket = bucket_of(self._store, call, request)
        blocked = bucket.settings.blocked
        if blocked is None:
            raise _absent(bucket, "NoSuchPublicAccessBlockConfiguration", _NO_BLOCK)
        return {"PublicAccessBlockConfiguration": {name: name in blocked for name in PUBLIC_ACCESS}}

    def put_public_access_block(self, call: Call, request: s3.PutPublicAccessBlockRequestTypeDef) -> Answer:
        bucket = bucket_of(self._store, call, request)
        given: Mapping[str, object] = request["PublicAccessBlockConfiguration"]
        blocked = tuple(name for name in PUBLIC_ACCESS if given.get(name))
        self._store.buckets.set(bucket, blocked=blocked).result()
        return {}

    def delete_public_access_block(self, call: Call, request: s3.DeletePublicAccessBlockRequestTypeDef) -> Answer:
        self._store.buckets.set(bucket_of(self._store, call, request), blocked=None).result()
        return {}


def first_settings(call: Call, request: Mapping[str, object]) -> BucketSettings:
    """What a bucket is made with. InvalidBucketAclWithObjectOwnership, InvalidBucketAclWithBlockPublicAccessError."""
    ownership = _ownership(str(request.get("ObjectOwnership") or grants.ENFORCED))
    given = grants.requested(call, request, call.account, call.account)
    kept = None if given is None or given == grants.owners(call.account) else given
    if kept is not None:
        if ownership == grants.ENFORCED:
            raise _acl_and_ownership()
        if grants.is_public(kept):
            raise AwsError(
                "InvalidBucketAclWithBlockPublicAccessError",
                "Bucket cannot have public ACLs set with BlockPublicAccess enabled",
            )
    return BucketSettings(grants=kept, ownership=ownership)


def _policy_of(bucket: Bucket) -> str:
    if not bucket.settings.policy:
        raise _absent(bucket, "NoSuchBucketPolicy", "The bucket policy does not exist")
    return bucket.settings.policy


def _ownership(word: str) -> str:
    if word not in (grants.ENFORCED, grants.PREFERRED, grants.WRITER):
        raise AwsError("InvalidArgument", f"ObjectOwnership is no '{word[:50]}'")
    return word


def _acl_and_ownership() -> AwsError:
    return AwsError(
        "InvalidBucketAclWithObjectOwnership",
        "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting",
    )


def _absent(bucket: Bucket, code: str, message: str) -> AwsError:
    return AwsError(code, message, 404, {"BucketName": bucket.name})
