"""What S3 refuses, in its own codes ("Error responses", Amazon S3 API Reference 2006-03-01)."""

from __future__ import annotations

from collections.abc import Mapping

from celaje.cloud.aws.errors import AwsError


def no_such_bucket(name: str) -> AwsError:
    """Nobody has a bucket of that name."""
    return AwsError("NoSuchBucket", "The specified bucket does not exist", 404, {"BucketName": name})


def no_such_key(key: bytes, headers: Mapping[str, str] | None = None) -> AwsError:
    """The bucket has no such object."""
    fields = {"Key": key.decode(errors="replace")}
    return AwsError("NoSuchKey", "The specified key does not exist.", 404, fields, headers)


def is_marker(headers: Mapping[str, str] | None = None) -> AwsError:
    """A delete marker has nothing that could be read or changed; it can be deleted."""
    return AwsError(
        "MethodNotAllowed",
        "The specified method is not allowed against this resource.",
        405,
        {"ResourceType": "DeleteMarker"},
        {"Allow": "DELETE", **(headers or {})},
    )


def no_such_upload(identifier: str) -> AwsError:
    """There is no such upload, or not any more."""
    return AwsError(
        "NoSuchUpload",
        "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or"
        " completed.",
        404,
        {"UploadId": identifier},
    )


def bucket_already_exists(name: str) -> AwsError:
    """Another account has a bucket of that name: names are shared by all accounts and regions."""
    return AwsError(
        "BucketAlreadyExists",
        "The requested bucket name is not available. The bucket namespace is shared by all users of the system. Please"
        " select a different name and try again.",
        409,
        {"BucketName": name},
    )


def bucket_already_owned(name: str) -> AwsError:
    """The caller's own."""
    return AwsError(
        "BucketAlreadyOwnedByYou",
        "Your previous request to create the named bucket succeeded and you already own it.",
        409,
        {"BucketName": name},
    )


def bucket_not_empty(name: str, *, versions: bool = False) -> AwsError:
    """It has objects, or other versions of objects."""
    message = "The bucket you tried to delete is not empty"
    if versions:
        message += ". You must delete all versions in the bucket."
    return AwsError("BucketNotEmpty", message, 409, {"BucketName": name})


def no_such_version(key: bytes, version: str) -> AwsError:
    """The key has no such version, or not any more."""
    return AwsError(
        "NoSuchVersion",
        "The specified version does not exist.",
        404,
        {"Key": key.decode(errors="replace"), "VersionId": version or "null"},
    )


def access_denied() -> AwsError:
    """It is another account's, or the request is nobody's."""
    return AwsError("AccessDenied", "Access Denied", 403)


def precondition_failed(condition: str) -> AwsError:
    """A condition of the request does not hold; `condition` is its header."""
    return AwsError(
        "PreconditionFailed",
        "At least one of the pre-conditions you specified did not hold",
        412,
        {"Condition": condition},
    )


def conflicting_condition(condition: str, key: bytes) -> AwsError:
    """What the key has was put while the upload was under way: its client knew of something else when it began."""
    return AwsError(
        "ConditionalRequestConflict",
        "The conditional request cannot succeed due to a conflicting operation against this resource.",
        409,
        {"Condition": condition, "Key": key.decode(errors="replace")},
    )


def too_many_uploads(most: int) -> AwsError:
    """An account has as many unfinished uploads as it may."""
    return AwsError(
        "TooManyMultipartUploads",
        f"This account has {most} multipart uploads that are neither completed nor aborted, and may have no more:"
        " complete or abort some (ListMultipartUploads tells them), or let a lifecycle rule abort what is left behind"
        " (AbortIncompleteMultipartUpload)",
        409,
    )


def invalid_part() -> AwsError:
    """A list of parts names one that was not uploaded, or with another ETag or checksum."""
    return AwsError(
        "InvalidPart",
        "One or more of the specified parts could not be found.  The part may not have been uploaded, or the specified"
        " entity tag may not match the part's entity tag.",
    )


def invalid_part_order() -> AwsError:
    """A list of parts is not in ascending order."""
    return AwsError(
        "InvalidPartOrder",
        "The list of parts was not in ascending order. The parts list must be specified in order by part number.",
    )


def part_too_small(number: int, size: int, etag: str) -> AwsError:
    """Only the last part may be smaller than 5 MiB."""
    return AwsError(
        "EntityTooSmall",
        "Your proposed upload is smaller than the minimum allowed size",
        400,
        {"ProposedSize": str(size), "MinSizeAllowed": str(5 << 20), "PartNumber": str(number), "ETag": etag},
    )


def too_large() -> AwsError:
    """More than S3 takes at once."""
    return AwsError("EntityTooLarge", "Your proposed upload exceeds the maximum allowed size")


def bad_digest(header: str) -> AwsError:
    """What arrived is not what the client computed a digest of."""
    return AwsError("BadDigest", f"The {header} you specified did not match the calculated checksum.")


def invalid_argument(name: str, value: str, message: str) -> AwsError:
    """An argument of the request that is not what it must be."""
    return AwsError("InvalidArgument", message, 400, {"ArgumentName": name, "ArgumentValue": value})


def invalid_request(message: str) -> AwsError:
    """What was asked for contradicts itself."""
    return AwsError("InvalidRequest", message)
