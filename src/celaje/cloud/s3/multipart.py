"""Multipart uploads: begun, given parts, completed or aborted, listed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from celaje.cloud.aws.action import Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.s3 import conditions
from celaje.cloud.s3.access import bucket_of, moment, owner_of
from celaje.cloud.s3.attributes import (
    answered_checksum,
    attributes_of,
    declared_algorithm,
    declared_checksum,
    default_algorithm,
    given_checksums,
    kind_of,
    refuse_other_features,
)
from celaje.cloud.s3.bodies import LARGEST_PUT, claimed_algorithm, receive, request_body
from celaje.cloud.s3.conditions import plain_etag, quoted
from celaje.cloud.s3.encryption import answered_encryption, client_key_of, encrypted_so, of_part, wanted_encryption
from celaje.cloud.s3.expiry import abortion_told, calendar_of, expiration_told
from celaje.cloud.s3.grants import initiator_of
from celaje.cloud.s3.names import key_of
from celaje.cloud.s3.objects import opened_source, owned
from celaje.cloud.s3.ranges import copied_span
from celaje.cloud.s3.store.checksums import ALGORITHMS, Algorithm
from celaje.cloud.s3.store.object_store import ObjectStore
from celaje.cloud.s3.store.records import Bucket, StoredObject, Upload, UploadPlan
from celaje.cloud.s3.store.refusals import bad_digest, invalid_argument, invalid_request, too_large
from celaje.cloud.s3.store.uploads import MOST_PARTS, WantedPart

if TYPE_CHECKING:
    from mypy_boto3_s3 import type_defs as s3

MOST_UPLOADS = 10_000
"""That an account may have which are neither completed nor aborted. S3 has no such limit; here their parts take a disk
that is shared, and nobody sees them who does not look."""

_MOST_TOLD = 1000


class MultipartActions:
    """What is asked of uploads and their parts."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def create_multipart_upload(self, call: Call, request: s3.CreateMultipartUploadRequestTypeDef) -> Answer:
        bucket = bucket_of(self._store, call, request)
        key = key_of(request["Key"])
        attributes = owned(call, bucket, attributes_of(request), request)
        attributes = encrypted_so(attributes, wanted_encryption(bucket, request))
        declared = declared_algorithm(request)
        kind = request.get("ChecksumType")
        if kind is not None and declared is None:
            raise invalid_request(
                "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header."
            )
        algorithm = declared or default_algorithm()
        composite = _is_composite(algorithm, kind)
        plan = UploadPlan(attributes, algorithm.name, composite, declared is not None, call.caller.arn)
        upload = self._store.uploads.begin(bucket, key, plan, MOST_UPLOADS).result()
        return {
            "Bucket": bucket.name,
            "Key": request["Key"],
            "UploadId": upload.identifier,
            **abortion_told(bucket, upload, calendar_of(call)),
            **answered_encryption(attributes, request),
            **declared_checksum(plan),
        }

    def upload_part(self, call: Call, request: s3.UploadPartRequestTypeDef) -> Answer:
        bucket = bucket_of(self._store, call, request)
        refuse_other_features(request)
        number = _checked_number(request["PartNumber"])
        upload = self._upload(bucket, request)
        body = request_body(request.get("Body", b""))
        _check_algorithm(upload, declared_algorithm(request) or claimed_algorithm(body))
        encryption = of_part(upload, request)
        algorithm = ALGORITHMS[upload.plan.algorithm]
        received = receive(self._store, body, algorithm, part=True, encryption=encryption)
        self._store.uploads.put_part(upload, number, received).result()
        sent = {ALGORITHMS[name].member: value for name, value in body.claimed.items() if name in ALGORITHMS}
        encrypted = answered_encryption(upload.plan.attributes, request)
        own = answered_checksum(received.checksum, kind=False) if upload.plan.declared else {}
        return {"ETag": quoted(received.md5.hex()), **encrypted, **sent, **own}

    def upload_part_copy(self, call: Call, request: s3.UploadPartCopyRequestTypeDef) -> Answer:
        bucket = bucket_of(self._store, call, request)
        refuse_other_features(request)
        number = _checked_number(request["PartNumber"])
        upload = self._upload(bucket, request)
        algorithm = ALGORITHMS[upload.plan.algorithm]
        encryption = of_part(upload, request)
        with opened_source(self._store, call, request) as (_, opened):
            conditions.check_source(request, opened.object)
            source = opened.object.version
            span = copied_span(opened.object, request.get("CopySourceRange"))
            if span.length > LARGEST_PUT:
                raise too_large()
            if span.length == opened.object.size:
                received = self._store.again(opened, algorithm, part=True, encryption=encryption)
            else:
                received = self._store.range_again(
                    opened, span.start, span.length, algorithm, part=True, encryption=encryption
                )
        part = self._store.uploads.put_part(upload, number, received).result()
        checksum = answered_checksum(part.checksum, kind=False) if upload.plan.declared else {}
        return {
            "CopyPartResult": {"ETag": quoted(part.etag), "LastModified": moment(part.modified), **checksum},
            "CopySourceVersionId": source or None,
            **answered_encryption(upload.plan.attributes, request),
        }

    def complete_multipart_upload(self, call: Call, request: s3.CompleteMultipartUploadRequestTypeDef) -> Answer:
        bucket = bucket_of(self._store, call, request)
        refuse_other_features(request)
        key = key_of(request["Key"])
        wanted = [
            WantedPart(part["PartNumber"], plain_etag(part.get("ETag", "")), given_checksums(part))
            for part in request.get("MultipartUpload", {}).get("Parts", ())
            if "PartNumber" in part
        ]
        if not 0 < len(wanted) <= MOST_PARTS:
            raise AwsError(
                "MalformedXML",
                "The XML you provided was not well-formed or did not validate against our published schema: a list of"
                f" 1 to {MOST_PARTS} parts with their numbers was expected",
            )
        identifier = request["UploadId"]
        try:
            upload = self._store.uploads.get(bucket, key, identifier)
            if client_key_of(request) is not None:
                of_part(upload, request)  # it is not needed, but if it is given it is the right one
            found = self._store.uploads.complete(
                bucket,
                upload,
                wanted,
                conditions.of_completing(request, upload),
                lambda new: _verify(upload, wanted, request, new),
            ).result()
        except AwsError as refused:
            # Whoever did not hear the answer asks again, and is told the same.
            there = self._store.objects.find(bucket, key) if refused.code == "NoSuchUpload" else None
            if there is None or there.attributes.upload != identifier:
                raise
            found = there
        return {
            "Location": f"/{bucket.name}/{request['Key']}",
            "Bucket": bucket.name,
            "Key": request["Key"],
            "ETag": quoted(found.etag),
            "VersionId": found.version or None,
            "Expiration": expiration_told(bucket, found, calendar_of(call)),
            **answered_encryption(found.attributes, {}),  # it tells nothing of a client's key
            **answered_checksum(found.attributes.checksum),
        }

    def abort_multipart_upload(self, call: Call, request: s3.AbortMultipartUploadRequestTypeDef) -> Answer:
        bucket = bucket_of(self._store, call, request)
        self._store.uploads.abort(bucket, self._upload(bucket, request)).result()
        return {}

    def list_parts(self, call: Call, request: s3.ListPartsRequestTypeDef) -> Answer:
        bucket = bucket_of(self._store, call, request)
        upload = self._upload(bucket, request)
        limit = min(request.get("MaxParts", _MOST_TOLD), _MOST_TOLD)
        after = int(request.get("PartNumberMarker") or 0)
        if limit < 0 or after < 0:
            raise invalid_argument(
                "max-parts", str(limit), "Argument max-parts must be an integer between 0 and 2147483647"
            )
        parts = self._store.uploads.parts(upload, after, limit + 1)
        told = parts[:limit]
        return {
            "Bucket": bucket.name,
            "Key": request["Key"],
            "UploadId": upload.identifier,
            "PartNumberMarker": after,
            "NextPartNumberMarker": told[-1].number if told else 0,
            "MaxParts": limit,
            "IsTruncated": len(parts) > limit and limit > 0,
            "Parts": [
                {
                    "PartNumber": part.number,
                    "LastModified": moment(part.modified),
                    "ETag": quoted(part.etag),
                    "Size": part.size,
                    **(answered_checksum(part.checksum, kind=False) if upload.plan.declared else {}),
                }
                for part in told
            ],
            "Initiator": initiator_of(bucket, upload),
            "Owner": owner_of(upload.plan.attributes.owner or bucket.account),
            "StorageClass": upload.plan.attributes.storage_class,
            **abortion_told(bucket, upload, calendar_of(call)),
            **declared_checksum(upload.plan),
        }

    def _upload(self, bucket: Bucket, request: Mapping[str, object]) -> Upload:
        return self._store.uploads.get(bucket, key_of(str(request["Key"])), str(request["UploadId"]))


def _is_composite(algorithm: Algorithm, kind: str | None) -> bool:
    """What kind of checksum an upload's object is to have. InvalidRequest for one that the algorithm has not."""
    if kind is None:
        return algorithm.composes
    possible = (kind == "COMPOSITE" and algorithm.composes) or (kind == "FULL_OBJECT" and algorithm.combines)
    if not possible:
        raise invalid_request(
            f"The {kind} checksum type cannot be used with the {algorithm.name.lower()} checksum algorithm."
        )
    return kind == "COMPOSITE"


def _checked_number(number: int) -> int:
    if not 1 <= number <= MOST_PARTS:
        raise invalid_argument(
            "partNumber", str(number), f"Part number must be an integer between 1 and {MOST_PARTS}, inclusive"
        )
    return number


def _check_algorithm(upload: Upload, given: Algorithm | None) -> None:
    """A part of an upload with a declared checksum has that one."""
    if upload.plan.declared and (given is None or given.name != upload.plan.algorithm):
        raise invalid_request(
            f"Checksum Type mismatch occurred, expected checksum Type: {upload.plan.algorithm.lower()}, actual checksum"
            f" Type: {'null' if given is None else given.name.lower()}"
        )


def _check_parts(upload: Upload, wanted: Sequence[WantedPart]) -> None:
    """Whoever completes an upload with a declared checksum of its parts' checksums names those. InvalidRequest."""
    if not (upload.plan.declared and upload.plan.composite):
        return
    algorithm = upload.plan.algorithm
    for part in wanted:
        if all(given.algorithm != algorithm for given in part.checksums):
            raise invalid_request(
                f"The upload was created using a {algorithm.lower()} checksum. The complete request must include the"
                f" checksum for each part. It was missing for part {part.number} in the request."
            )


def _verify(
    upload: Upload, wanted: Sequence[WantedPart], request: s3.CompleteMultipartUploadRequestTypeDef, new: StoredObject
) -> None:
    """What a client says of the whole object, held against what it is to be. BadDigest, InvalidRequest."""
    size = request.get("MpuObjectSize")
    if size is not None and int(size) != new.size:
        raise invalid_request(
            f"The provided 'x-amz-mp-object-size' header value {size} does not match what was computed: {new.size}"
        )
    kept = new.attributes.checksum
    assert kept is not None
    kind = request.get("ChecksumType")
    if kind is not None and kind != kind_of(kept):
        raise invalid_request(
            f"The upload was created with the {kind_of(kept)} checksum type. The complete request must use the same."
        )
    for given in given_checksums(request):
        if given.algorithm == kept.algorithm and given.value.partition("-")[0] != kept.value.partition("-")[0]:
            raise bad_digest(ALGORITHMS[given.algorithm].name)
    _check_parts(upload, wanted)
