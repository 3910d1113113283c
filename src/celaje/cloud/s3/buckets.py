"""Buckets: made, found, listed and deleted."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import msgspec

from celaje.cloud.aws.action import Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.s3 import tags
from celaje.cloud.s3.access import bucket_of, moment, owner_of, refuse_unimplemented, require_of_account
from celaje.cloud.s3.encryption import first_encryption
from celaje.cloud.s3.names import is_bucket_name
from celaje.cloud.s3.public_access import first_settings
from celaje.cloud.s3.store.object_store import ObjectStore
from celaje.cloud.s3.store.refusals import invalid_argument

if TYPE_CHECKING:
    from mypy_boto3_s3 import type_defs as s3

# The region whose endpoint makes buckets anywhere, and whose buckets have no location constraint.
CLASSIC_REGION = "us-east-1"
_OLD_NAMES = {"EU": "eu-west-1"}
MOST_BUCKETS = 10_000


class BucketActions:
    """What is asked of buckets themselves."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def create_bucket(self, call: Call, request: s3.CreateBucketRequestTypeDef) -> Answer:
        name = request["Bucket"]
        require_of_account(call, "s3:CreateBucket", f"arn:aws:s3:::{name}", request)
        if not is_bucket_name(name):
            raise AwsError("InvalidBucketName", "The specified bucket is not valid.", 400, {"BucketName": name})
        configuration = request.get("CreateBucketConfiguration", {})
        refuse_unimplemented(configuration, ("Location", "Bucket"))
        if request.get("ObjectLockEnabledForBucket"):
            refuse_unimplemented(request, ("ObjectLockEnabledForBucket",))
        region = _region(call, configuration.get("LocationConstraint"))
        given = tags.of_members(configuration.get("Tags", ()), tags.MOST_OF_BUCKET)
        if len(self._store.buckets.of(call.account)) >= MOST_BUCKETS:
            raise AwsError("TooManyBuckets", "You have attempted to create more buckets than allowed")
        try:
            settings = msgspec.structs.replace(first_settings(call, request), encryption=first_encryption(call))
            # Serially with whatever closes the account: it sees this bucket, or this sees that it is closed.
            with call.writing():
                self._store.buckets.create(name, call.account, region, given, settings).result()
        except AwsError as refused:
            there = self._store.buckets.get(name)
            # In its first region S3 answers the owner's second request as it did the first.
            again = refused.code == "BucketAlreadyOwnedByYou" and region == CLASSIC_REGION
            if not (again and there is not None and there.region == region):
                raise
        return {"Location": f"/{name}"}

    def delete_bucket(self, call: Call, request: s3.DeleteBucketRequestTypeDef) -> Answer:
        bucket = bucket_of(self._store, call, request)
        self._store.buckets.delete(bucket).result()
        return {}

    def head_bucket(self, call: Call, request: s3.HeadBucketRequestTypeDef) -> Answer:
        bucket = bucket_of(self._store, call, request)
        return {"BucketRegion": bucket.region, "AccessPointAlias": False}

    def get_bucket_location(self, call: Call, request: s3.GetBucketLocationRequestTypeDef) -> Answer:
        bucket = bucket_of(self._store, call, request)
        return {"LocationConstraint": None if bucket.region == CLASSIC_REGION else bucket.region}

    def list_buckets(self, call: Call, request: s3.ListBucketsRequestTypeDef) -> Answer:
        require_of_account(call, "s3:ListAllMyBuckets", "arn:aws:s3:::*", request)
        prefix, region = request.get("Prefix", ""), request.get("BucketRegion")
        after = _after(request.get("ContinuationToken"))
        found = [
            bucket
            for bucket in self._store.buckets.of(call.account)
            if bucket.name.startswith(prefix) and bucket.name > after and region in (None, bucket.region)
        ]
        limit = request.get("MaxBuckets") or MOST_BUCKETS
        token = None
        if len(found) > limit:
            found = found[:limit]
            token = base64.urlsafe_b64encode(found[-1].name.encode()).decode()
        return {
            "Owner": owner_of(call.account),
            "Buckets": [
                {"Name": bucket.name, "CreationDate": moment(bucket.created), "BucketRegion": bucket.region}
                for bucket in found
            ],
            "Prefix": prefix or None,
            "ContinuationToken": token,
        }


def _region(call: Call, constraint: str | None) -> str:
    """Where a bucket is to be. InvalidLocationConstraint; IllegalLocationConstraintException."""
    if constraint is None:
        if call.region != CLASSIC_REGION:
            raise AwsError(
                "IllegalLocationConstraintException",
                "The unspecified location constraint is incompatible for the region specific endpoint this request was"
                " sent to.",
            )
        return CLASSIC_REGION
    region = _OLD_NAMES.get(constraint, constraint)
    if call.region not in (CLASSIC_REGION, region):
        raise AwsError(
            "IllegalLocationConstraintException",
            f"The {constraint[:100]} location constraint is incompatible for the region specific endpoint this request"
            " was sent to.",
        )
    if region not in call.settings.regions or region == CLASSIC_REGION:
        raise AwsError(
            "InvalidLocationConstraint",
            "The specified location-constraint is not valid",
            400,
            {"LocationConstraint": constraint[:100]},
        )
    return region


def _after(token: str | None) -> str:
    try:
        return base64.urlsafe_b64decode(token).decode() if token else ""
    except ValueError:
        raise invalid_argument(
            "continuation-token", str(token)[:200], "The continuation token provided is incorrect"
        ) from None
