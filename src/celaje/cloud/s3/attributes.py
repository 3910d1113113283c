"""What a client says of an object beside its bytes, from requests and for answers: headers, metadata, checksums."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from email.utils import format_datetime

from celaje.cloud.aws.errors import AwsError
from celaje.cloud.s3 import tags
from celaje.cloud.s3.access import moment, refuse_unimplemented
from celaje.cloud.s3.conditions import quoted
from celaje.cloud.s3.encryption import answered_encryption
from celaje.cloud.s3.expiry import Calendar, expiration_told
from celaje.cloud.s3.metadata import answered_metadata, metadata_of
from celaje.cloud.s3.names import of_header
from celaje.cloud.s3.ranges import Span
from celaje.cloud.s3.store.checksums import ALGORITHMS, DEFAULT, Algorithm
from celaje.cloud.s3.store.records import Attributes, Bucket, Checksum, StoredObject, UploadPlan
from celaje.cloud.s3.store.refusals import invalid_argument, invalid_request
from celaje.cloud.s3.versions import answered_version

# Members that a request has, an object keeps and an answer repeats.
_KEPT = (
    "CacheControl",
    "ContentDisposition",
    "ContentEncoding",
    "ContentLanguage",
    "ContentType",
    "Expires",
    "WebsiteRedirectLocation",
)
_STORAGE_CLASSES = ("STANDARD", "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR")

_UNIMPLEMENTED = (
    "SSEKMSEncryptionContext",
    "ObjectLockMode",
    "ObjectLockRetainUntilDate",
    "ObjectLockLegalHoldStatus",
    "ObjectLockEventHold",
    "ObjectLockEventHoldDurationDays",
    "ObjectLockEventHoldDurationYears",
    "WriteOffsetBytes",
)


def refuse_other_features(request: Mapping[str, object]) -> None:
    """NotImplemented for encryption with keys of KMS, and for locks."""
    refuse_unimplemented(request, _UNIMPLEMENTED)
    if request.get("BucketKeyEnabled"):  # a key of KMS
        refuse_unimplemented(request, ("BucketKeyEnabled",))


def refuse_bypass(request: Mapping[str, object]) -> None:
    """InvalidArgument for a deletion past a lock: no bucket has any."""
    if request.get("BypassGovernanceRetention"):
        raise invalid_argument(
            "x-amz-bypass-governance-retention",
            "true",
            "x-amz-bypass-governance-retention is only applicable to Object Lock enabled buckets.",
        )


def attributes_of(request: Mapping[str, object]) -> Attributes:
    """What a request to put an object says of it. InvalidStorageClass, MetadataTooLarge, InvalidTag, NotImplemented."""
    refuse_other_features(request)
    storage_class = str(request.get("StorageClass") or "STANDARD")
    if storage_class not in _STORAGE_CLASSES:
        raise AwsError(
            "InvalidStorageClass",
            "The storage class you specified is not valid; here it is one of " + ", ".join(_STORAGE_CLASSES),
            400,
            {"StorageClassRequested": storage_class[:100]},
        )
    return Attributes(
        headers=_headers(request),
        metadata=metadata_of(request),
        tags=tags.of_header(_text(request, "Tagging")),
        storage_class=storage_class,
    )


def _text(request: Mapping[str, object], member: str) -> str | None:
    value = request.get(member)
    return None if value is None else str(value)


def _headers(request: Mapping[str, object]) -> dict[str, str]:
    kept = {member: text for member in _KEPT if (text := _text(request, member))}
    encoding = kept.pop("ContentEncoding", "")
    if "aws-chunked" in encoding:  # that was of the transfer, not of the content
        encoding = ", ".join(each.strip() for each in encoding.split(",") if each.strip() not in ("", "aws-chunked"))
    if encoding:
        kept["ContentEncoding"] = encoding
    return kept


# --- checksums ---


def declared_algorithm(request: Mapping[str, object]) -> Algorithm | None:
    """The algorithm that a request names (ChecksumAlgorithm), or whose value it has. InvalidRequest."""
    given = [algorithm for algorithm in ALGORITHMS.values() if request.get(algorithm.member) is not None]
    if len(given) > 1:
        raise invalid_request("Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.")
    named = request.get("ChecksumAlgorithm")
    if named is not None:
        algorithm = ALGORITHMS.get(str(named).upper())
        if algorithm is None:
            raise invalid_request(
                "Checksum algorithm provided is unsupported. Please try again with any of the valid types:"
                f" [{', '.join(ALGORITHMS)}]"
            )
        if given and given[0] is not algorithm:
            raise invalid_request("Value for x-amz-sdk-checksum-algorithm header is invalid.")
        return algorithm
    return given[0] if given else None


def given_checksums(members: Mapping[str, object]) -> tuple[Checksum, ...]:
    """The checksums that a structure of a request has, one of each algorithm at most."""
    return tuple(
        Checksum(algorithm.name, str(value), "-" in str(value))
        for algorithm in ALGORITHMS.values()
        if (value := members.get(algorithm.member)) is not None
    )


def answered_checksum(checksum: Checksum | None, *, kind: bool = True) -> dict[str, str]:
    """A checksum as answers have it, with its kind."""
    if checksum is None:
        return {}
    result = {ALGORITHMS[checksum.algorithm].member: checksum.value}
    if kind:
        result["ChecksumType"] = kind_of(checksum)
    return result


def declared_checksum(plan: UploadPlan) -> dict[str, str]:
    """What an answer says of the checksum that an upload was begun with; nothing where its client named none."""
    if not plan.declared:
        return {}
    return {"ChecksumAlgorithm": plan.algorithm, "ChecksumType": "COMPOSITE" if plan.composite else "FULL_OBJECT"}


def kind_of(checksum: Checksum) -> str:
    """S3's word for what the checksum is of."""
    return "COMPOSITE" if checksum.composite else "FULL_OBJECT"


def default_algorithm() -> Algorithm:
    """Of objects whose client names none."""
    return ALGORITHMS[DEFAULT]


# --- answers ---


def described(
    bucket: Bucket, found: StoredObject, span: Span, request: Mapping[str, object], calendar: Calendar
) -> dict[str, object]:
    """What GET and HEAD answer beside the body."""
    attributes = found.attributes
    answer: dict[str, object] = {
        "AcceptRanges": "bytes",
        "LastModified": moment(found.modified),
        "ContentLength": span.length,
        "ETag": quoted(found.etag),
        "ContentType": "binary/octet-stream",
        **attributes.headers,
        "Metadata": answered_metadata(attributes.metadata),
        "ContentRange": span.header,
        "VersionId": answered_version(bucket, found),
        "Expiration": expiration_told(bucket, found, calendar) if request.get("VersionId") is None else None,
        **answered_encryption(attributes, request),
    }
    if attributes.storage_class != "STANDARD":
        answer["StorageClass"] = attributes.storage_class
    if attributes.tags:
        answer["TagCount"] = len(attributes.tags)
    if span.part is not None and attributes.parts:
        answer["PartsCount"] = len(attributes.parts)
    if request.get("ChecksumMode") == "ENABLED":
        if span.part is not None and attributes.parts:
            answer |= answered_checksum(attributes.parts[span.part - 1].checksum, kind=False)
            if attributes.checksum is not None:
                answer["ChecksumType"] = kind_of(attributes.checksum)  # of the object, as S3 has it
        elif span.length == found.size:
            answer |= answered_checksum(attributes.checksum)
    for member in _KEPT:
        override = request.get(f"Response{member}")
        if isinstance(override, datetime.datetime):
            answer[member] = format_datetime(override.astimezone(datetime.UTC), usegmt=True)
        elif override is not None:
            answer[member] = of_header(f"Response{member}", str(override))
    return answer
