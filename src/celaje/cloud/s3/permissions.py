"""What each operation asks of policies (Service Authorization Reference, Amazon S3), and what conditions may look at.

An operation on an object is asked for the object, any other for its bucket. The name of the action is the operation's
but for those below; versions have actions of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import unquote

from celaje.cloud.aws.question import Fact
from celaje.cloud.s3 import tags

_NAMES = {
    "CompleteMultipartUpload": "PutObject",
    "CopyObject": "PutObject",
    "CreateMultipartUpload": "PutObject",
    "DeleteBucketCors": "PutBucketCORS",
    "DeleteBucketEncryption": "PutEncryptionConfiguration",
    "DeleteBucketLifecycle": "PutLifecycleConfiguration",
    "DeleteBucketOwnershipControls": "PutBucketOwnershipControls",
    "DeleteBucketReplication": "PutReplicationConfiguration",
    "DeleteBucketTagging": "PutBucketTagging",
    "DeletePublicAccessBlock": "PutBucketPublicAccessBlock",
    "GetBucketAccelerateConfiguration": "GetAccelerateConfiguration",
    "GetBucketAnalyticsConfiguration": "GetAnalyticsConfiguration",
    "GetBucketCors": "GetBucketCORS",
    "GetBucketEncryption": "GetEncryptionConfiguration",
    "GetBucketIntelligentTieringConfiguration": "GetIntelligentTieringConfiguration",
    "GetBucketInventoryConfiguration": "GetInventoryConfiguration",
    "GetBucketLifecycleConfiguration": "GetLifecycleConfiguration",
    "GetBucketMetricsConfiguration": "GetMetricsConfiguration",
    "GetBucketNotificationConfiguration": "GetBucketNotification",
    "GetBucketReplication": "GetReplicationConfiguration",
    "GetObjectLockConfiguration": "GetBucketObjectLockConfiguration",
    "GetPublicAccessBlock": "GetBucketPublicAccessBlock",
    "HeadBucket": "ListBucket",
    "HeadObject": "GetObject",
    "ListBucketAnalyticsConfigurations": "GetAnalyticsConfiguration",
    "ListBucketIntelligentTieringConfigurations": "GetIntelligentTieringConfiguration",
    "ListBucketInventoryConfigurations": "GetInventoryConfiguration",
    "ListBucketMetricsConfigurations": "GetMetricsConfiguration",
    "ListBuckets": "ListAllMyBuckets",
    "ListMultipartUploads": "ListBucketMultipartUploads",
    "ListObjectVersions": "ListBucketVersions",
    "ListObjects": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "ListParts": "ListMultipartUploadParts",
    "PutBucketCors": "PutBucketCORS",
    "PutBucketEncryption": "PutEncryptionConfiguration",
    "PutBucketLifecycleConfiguration": "PutLifecycleConfiguration",
    "PutPublicAccessBlock": "PutBucketPublicAccessBlock",
    "UploadPart": "PutObject",
    "UploadPartCopy": "PutObject",
}
# Those that a version has its own of, by the operation.
_OF_VERSIONS = {
    "DeleteObject": "DeleteObjectVersion",
    "DeleteObjectTagging": "DeleteObjectVersionTagging",
    "GetObject": "GetObjectVersion",
    "GetObjectAcl": "GetObjectVersionAcl",
    "GetObjectTagging": "GetObjectVersionTagging",
    "HeadObject": "GetObjectVersion",
    "PutObjectAcl": "PutObjectVersionAcl",
    "PutObjectTagging": "PutObjectVersionTagging",
}
_PUTTING = ("PutObject", "CopyObject", "CreateMultipartUpload")
GRANTS = ("GrantFullControl", "GrantRead", "GrantReadACP", "GrantWrite", "GrantWriteACP")
_FACTS = {
    "ACL": "s3:x-amz-acl",
    "CopySource": "s3:x-amz-copy-source",
    "Delimiter": "s3:delimiter",
    "GrantFullControl": "s3:x-amz-grant-full-control",
    "GrantRead": "s3:x-amz-grant-read",
    "GrantReadACP": "s3:x-amz-grant-read-acp",
    "GrantWrite": "s3:x-amz-grant-write",
    "GrantWriteACP": "s3:x-amz-grant-write-acp",
    "MaxKeys": "s3:max-keys",
    "MetadataDirective": "s3:x-amz-metadata-directive",
    "ObjectOwnership": "s3:x-amz-object-ownership",
    "Prefix": "s3:prefix",
    "ServerSideEncryption": "s3:x-amz-server-side-encryption",
    "SSECustomerAlgorithm": "s3:x-amz-server-side-encryption-customer-algorithm",
    "StorageClass": "s3:x-amz-storage-class",
    "VersionId": "s3:versionid",
}


def actions_of(operation: str, request: Mapping[str, object]) -> Iterator[str]:
    """The actions that an operation needs, all of them."""
    if request.get("VersionId") is not None and operation in _OF_VERSIONS:
        yield f"s3:{_OF_VERSIONS[operation]}"
        return
    if operation == "GetObjectAttributes":
        version = "Version" if request.get("VersionId") is not None else ""
        yield f"s3:GetObject{version}"
        yield f"s3:GetObject{version}Attributes"
        return
    yield f"s3:{_NAMES.get(operation, operation)}"
    if operation in _PUTTING:
        if any(request.get(member) is not None for member in ("ACL", *GRANTS)):
            yield "s3:PutObjectAcl"
        if request.get("Tagging"):
            yield "s3:PutObjectTagging"


def _source(text: str) -> str:
    """The source of a copy as policies name it, however much of it a client has encoded."""
    path, mark, version = text.partition("?versionId=")
    return unquote(path).removeprefix("/") + mark + version


def facts_of(request: Mapping[str, object]) -> dict[str, Fact]:
    """What conditions may look at in a request."""
    facts: dict[str, Fact] = {}
    for member, key in _FACTS.items():
        value = request.get(member)
        if value is not None:
            facts[key] = (_source(str(value)) if member == "CopySource" else str(value),)
    given: Sequence[tuple[str, str]] = ()
    if isinstance(header := request.get("Tagging"), str):
        given = tags.of_header(header)
    elif isinstance(header, Mapping) and isinstance(members := header.get("TagSet"), list):
        given = [(str(each.get("Key")), str(each.get("Value") or "")) for each in members]
    if given:
        facts |= {f"s3:requestobjecttag/{key.lower()}": (value,) for key, value in given}
        facts["s3:requestobjecttagkeys"] = tuple(key for key, _ in given)
    configuration = request.get("CreateBucketConfiguration")
    if isinstance(configuration, Mapping) and configuration.get("LocationConstraint"):
        facts["s3:locationconstraint"] = (str(configuration["LocationConstraint"]),)
    return facts
