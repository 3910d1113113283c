"""Encryption at rest as S3 has it: asked for with an object, or given to all new objects of a bucket.

Here it is SSE-S3 (`AES256`, keys that the store manages, `store/encryption.py`). Keys of KMS and of customers are
refused by name. S3 encrypts whatever it is given since January 2023; here an object is encrypted if its client asks for
it or its bucket has a configuration, and only of such an object an answer says so. GetBucketEncryption of a bucket that
was never given one is answered as S3 answered it until then. With `encrypt_new_buckets` in the cloud's settings each
new bucket has one, as at S3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from celaje.cloud.aws.action import Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.s3.access import bucket_of
from celaje.cloud.s3.store.encryption import AES_256
from celaje.cloud.s3.store.object_store import ObjectStore
from celaje.cloud.s3.store.records import Attributes, Bucket, BucketEncryption
from celaje.cloud.s3.store.refusals import invalid_argument

if TYPE_CHECKING:
    from mypy_boto3_s3 import type_defs as s3

HEADER = "x-amz-server-side-encryption"
_OF_KMS = ("aws:kms", "aws:kms:dsse")


def wanted_encryption(bucket: Bucket, request: Mapping[str, object]) -> str:
    """How an object is to be kept that a request puts into a bucket: AES256, or "" for as it is. InvalidArgument;
    NotImplemented for keys of KMS."""
    asked = request.get("ServerSideEncryption")
    if request.get("SSEKMSKeyId") is not None and asked not in _OF_KMS:
        raise invalid_argument(
            HEADER,
            str(asked or ""),
            "Server Side Encryption with AWS KMS managed key requires HTTP header x-amz-server-side-encryption :"
            " aws:kms",
        )
    if asked is None:
        return "" if bucket.settings.encryption is None else bucket.settings.encryption.algorithm
    if asked in _OF_KMS:
        raise _no_kms()
    if asked != AES_256:
        raise invalid_argument(HEADER, str(asked)[:100], "The encryption method specified is not supported")
    return AES_256


def first_encryption(call: Call) -> BucketEncryption | None:
    """What a bucket has whose owner has said nothing."""
    return BucketEncryption(unasked=True) if call.settings.encrypt_new_buckets else None


def answered_encryption(attributes: Attributes) -> dict[str, str]:
    """What an answer says of an object's encryption; nothing where it has none."""
    return {"ServerSideEncryption": attributes.encryption} if attributes.encryption else {}


def _no_kms() -> AwsError:
    return AwsError(
        "NotImplemented",
        "A header you provided implies functionality that is not implemented: keys of KMS; ask for AES256, whose keys"
        " S3 manages",
        501,
        {"Header": HEADER},
    )


def _malformed(what: str) -> AwsError:
    return AwsError(
        "MalformedXML",
        f"The XML you provided was not well-formed or did not validate against our published schema: {what}",
    )


class EncryptionActions:
    """What new objects of a bucket are encrypted with."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def get_bucket_encryption(self, call: Call, request: s3.GetBucketEncryptionRequestTypeDef) -> Answer:
        bucket = bucket_of(self._store, call, request)
        kept = bucket.settings.encryption
        if kept is None:
            raise AwsError(
                "ServerSideEncryptionConfigurationNotFoundError",
                "The server side encryption configuration was not found",
                404,
                {"BucketName": bucket.name},
            )
        rule: dict[str, object] = {
            "ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": kept.algorithm},
            "BucketKeyEnabled": bool(kept.bucket_key),
        }
        if kept.blocked:
            rule["BlockedEncryptionTypes"] = {"EncryptionType": list(kept.blocked)}
        return {"ServerSideEncryptionConfiguration": {"Rules": [rule]}}

    def put_bucket_encryption(self, call: Call, request: s3.PutBucketEncryptionRequestTypeDef) -> Answer:
        bucket = bucket_of(self._store, call, request)
        rules = request["ServerSideEncryptionConfiguration"].get("Rules", ())
        if len(rules) != 1:
            raise _malformed("one rule was expected")
        (rule,) = rules
        default = rule.get("ApplyServerSideEncryptionByDefault", {"SSEAlgorithm": AES_256})
        algorithm = default.get("SSEAlgorithm")
        if algorithm in _OF_KMS:
            raise _no_kms()
        if algorithm != AES_256:
            raise _malformed(f"an SSEAlgorithm {AES_256} was expected")
        if default.get("KMSMasterKeyID"):
            raise invalid_argument(
                "KMSMasterKeyID",
                str(default["KMSMasterKeyID"])[:200],
                "a KMSMasterKeyID is not applicable if the default sse algorithm is not aws:kms or aws:kms:dsse",
            )
        blocked = tuple(str(each) for each in rule.get("BlockedEncryptionTypes", {}).get("EncryptionType", ()))
        if not set(blocked) <= {"NONE", "SSE-C"} or len(blocked) > 1:
            raise _malformed("BlockedEncryptionTypes are NONE or SSE-C")
        encryption = BucketEncryption(algorithm, rule.get("BucketKeyEnabled"), blocked)
        self._store.buckets.set(bucket, encryption=encryption).result()
        return {}

    def delete_bucket_encryption(self, call: Call, request: s3.DeleteBucketEncryptionRequestTypeDef) -> Answer:
        bucket = bucket_of(self._store, call, request)
        self._store.buckets.set(bucket, encryption=first_encryption(call)).result()
        return {}
