"""Encryption at rest as S3 has it: asked for with an object, or given to all new objects of a bucket.

Here it is SSE-S3 (`AES256`, keys that the store manages) and SSE-C (a key that the client sends with every request and
nobody keeps); see `store/encryption.py`. Keys of KMS are refused by name. S3 takes a client's key through TLS alone;
here the way is loopback, or what the cloud's owner has put before it.

S3 encrypts whatever it is given since January 2023; here an object is encrypted if its client asks for it or its bucket
has a configuration, and only of such an object an answer says so. GetBucketEncryption of a bucket that was never given
one is answered as S3 answered it until then. With `encrypt_new_buckets` in the cloud's settings each new bucket has
one, as at S3.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from celaje.cloud.aws.action import Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.s3.access import bucket_of
from celaje.cloud.s3.store.encryption import AES_256, CUSTOMER, NONE, Encryption, check_of, is_key
from celaje.cloud.s3.store.object_store import ObjectStore
from celaje.cloud.s3.store.records import Attributes, Bucket, BucketEncryption, Upload
from celaje.cloud.s3.store.refusals import access_denied, invalid_argument, invalid_request

if TYPE_CHECKING:
    from mypy_boto3_s3 import type_defs as s3

HEADER = "x-amz-server-side-encryption"
_OF_KMS = ("aws:kms", "aws:kms:dsse")


def wanted_encryption(bucket: Bucket, request: Mapping[str, object]) -> Encryption:
    """How an object is to be kept that a request puts into a bucket. InvalidArgument; NotImplemented for keys of KMS;
    AccessDenied for a client's key where the bucket takes none."""
    asked = request.get("ServerSideEncryption")
    by_default = bucket.settings.encryption
    key = client_key_of(request)
    if key is not None:
        if asked is not None:
            raise invalid_argument(
                HEADER,
                str(asked)[:100],
                "Server Side Encryption with Customer provided key is incompatible with the encryption method"
                " specified",
            )
        if by_default is not None and CUSTOMER in by_default.blocked:
            raise access_denied()
        return Encryption(CUSTOMER, key)
    if request.get("SSEKMSKeyId") is not None and asked not in _OF_KMS:
        raise invalid_argument(
            HEADER,
            str(asked or ""),
            "Server Side Encryption with AWS KMS managed key requires HTTP header x-amz-server-side-encryption :"
            " aws:kms",
        )
    if asked is None:
        return NONE if by_default is None else Encryption(by_default.algorithm)
    if asked in _OF_KMS:
        raise _no_kms()
    if asked != AES_256:
        raise invalid_argument(HEADER, str(asked)[:100], "The encryption method specified is not supported")
    return Encryption(AES_256)


def client_key_of(request: Mapping[str, object], before: str = "") -> bytes | None:
    """The key of SSE-C that a request has (with the member's name `before` CopySource: of its source), None if it has
    none. InvalidArgument; InvalidEncryptionAlgorithmError."""
    algorithm, text, digest = (request.get(f"{before}SSECustomer{each}") for each in ("Algorithm", "Key", "KeyMD5"))
    if algorithm is None and text is None and digest is None:
        return None
    for value, what in (
        (algorithm, "a valid encryption algorithm"),
        (text, "an appropriate secret key"),
        (digest, "the client calculated MD5 of the secret key"),
    ):
        if value is None:
            raise _bad_key(
                f"Requests specifying Server Side Encryption with Customer provided keys must provide {what}."
            )
    if algorithm != AES_256:
        raise AwsError(
            "InvalidEncryptionAlgorithmError",
            "The Encryption request you specified is not valid. Supported value: AES256.",
            400,
            {"ArgumentName": HEADER, "ArgumentValue": str(algorithm)[:100]},
        )
    try:
        key = base64.b64decode(str(text), validate=True)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise _bad_key("The secret key was invalid for the specified algorithm.")
    computed = base64.b64encode(hashlib.md5(key, usedforsecurity=False).digest()).decode()
    if not hmac.compare_digest(computed.encode(), str(digest).encode(errors="replace")):
        raise _bad_key("The calculated MD5 hash of the key did not match the hash that was provided.")
    return key


def _bad_key(why: str) -> AwsError:
    return AwsError("InvalidArgument", why, 400, {"ArgumentName": HEADER})  # no answer repeats a key


def key_for(attributes: Attributes, request: Mapping[str, object], before: str = "") -> bytes | None:
    """The client's key for an object with those attributes that a request reads, None where it needs none.
    InvalidRequest where one is missing or not called for; AccessDenied for another key."""
    key = client_key_of(request, before)
    if attributes.encryption != CUSTOMER:
        if key is not None:
            raise invalid_request("The encryption parameters are not applicable to this object.")
        return None
    if key is None:
        raise invalid_request(
            "The object was stored using a form of Server Side Encryption. The correct parameters must be provided to"
            " retrieve the object."
        )
    if not is_key(attributes.check, key):
        raise AwsError(
            "AccessDenied",
            "Requests specifying Server Side Encryption with Customer provided keys must provide the correct secret"
            " key.",
            403,
        )
    return key


def of_part(upload: Upload, request: Mapping[str, object]) -> Encryption:
    """How a part of an upload is to be kept: as its object. InvalidRequest for another key than it was begun with."""
    kept = upload.plan.attributes
    key = client_key_of(request)
    if kept.encryption != CUSTOMER and key is None:
        return Encryption(kept.encryption)
    if kept.encryption != CUSTOMER or key is None:
        raise invalid_request(
            "The multipart upload initiate requested encryption. Subsequent part requests must include the appropriate"
            " encryption parameters."
        )
    if not is_key(kept.check, key):
        raise invalid_request("The provided encryption parameters did not match the ones used originally.")
    return Encryption(CUSTOMER, key)


def encrypted_so(attributes: Attributes, encryption: Encryption) -> Attributes:
    """The attributes of an object that is to be kept so."""
    check = b"" if encryption.key is None else check_of(encryption.key)
    return msgspec.structs.replace(attributes, encryption=encryption.name, check=check)


def first_encryption(call: Call) -> BucketEncryption | None:
    """What a bucket has whose owner has said nothing."""
    return BucketEncryption(unasked=True) if call.settings.encrypt_new_buckets else None


def answered_encryption(attributes: Attributes, request: Mapping[str, object]) -> dict[str, object]:
    """What an answer says of an object's encryption; nothing where it has none."""
    if attributes.encryption == CUSTOMER:
        digest = request.get("SSECustomerKeyMD5")
        return {} if digest is None else {"SSECustomerAlgorithm": AES_256, "SSECustomerKeyMD5": digest}
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
                "ApplyServerSideEncryptionByDefault",
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
