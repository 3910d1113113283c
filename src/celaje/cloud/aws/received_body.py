"""The body of a request to S3, from its headers: which framing to take off, and what to verify."""

from __future__ import annotations

import re
from collections.abc import Callable

from celaje.cloud.aws.aws_chunked import ChunkedBody
from celaje.cloud.aws.checksums import HEADERS, is_digest
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.message import HttpRequest
from celaje.cloud.aws.model import Operation
from celaje.cloud.aws.post_policy import Allowed
from celaje.cloud.aws.signature import Verified
from celaje.cloud.aws.streams import Claim, Into, RequestBody

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
OBJECT_BYTES = 50 << 40  # the largest object at AWS
LARGEST_POST = 5 << 30  # of a form


def received_body(
    request: HttpRequest,
    operation: Operation,
    verified: Verified,
    source: Callable[[], bytes],
    into: Into | None = None,
) -> RequestBody:
    """What an action reads. AwsError if the headers say something that cannot be. `aws-chunked` goes from the request's
    Content-Encoding: it was only for the way."""
    announced = _length(request, "content-length")
    coding = [each.strip() for each in (request.header("content-encoding") or "").split(",") if each.strip()]
    framed = verified.payload.startswith("STREAMING-") or (
        # Clients also say it of bodies that are not; what is framed says its length without the frames.
        "aws-chunked" in coding and request.header("x-amz-decoded-content-length") is not None
    )
    if "aws-chunked" in coding:
        rest = ",".join(each for each in coding if each != "aws-chunked")
        request.headers = [pair for pair in request.headers if pair[0] != "content-encoding"]
        if rest:
            request.headers.append(("content-encoding", rest))
    length = announced
    pieces = source
    trailers: dict[str, str] | None = None
    if framed:
        length = _length(request, "x-amz-decoded-content-length")
        if length is None:
            raise AwsError(
                "MissingContentLength", "You must provide the x-amz-decoded-content-length HTTP header.", 411
            )
        chunked = ChunkedBody(source, verified, length)
        pieces, trailers = chunked.next, chunked.trailers
    elif announced is None and request.header("transfer-encoding") is not None:
        raise AwsError(
            "MissingContentLength",
            "You must provide the Content-Length HTTP header: a body of unknown length must be aws-chunked.",
            411,
        )
    if length is None:
        if request.method == "PUT" and operation.name in ("PutObject", "UploadPart"):
            raise AwsError("MissingContentLength", "You must provide the Content-Length HTTP header.", 411)
        length = 0
    if length > OBJECT_BYTES:
        raise AwsError("EntityTooLarge", f"Your proposed upload exceeds the maximum allowed size of {OBJECT_BYTES}")
    return RequestBody(
        pieces,
        length,
        sha256=verified.payload if _SHA256.match(verified.payload) else None,
        claims=_claims(request, operation, framed),
        trailers=trailers,
        into=None if framed else into,
    )


def posted_body(request: HttpRequest, operation: Operation, pieces: Callable[[], bytes], size: Allowed) -> RequestBody:
    """The file of a form that stands for `request`, which may have so many bytes. While it is read: AwsError
    EntityTooSmall, EntityTooLarge."""
    most = LARGEST_POST if size.most is None else min(size.most, LARGEST_POST)
    received = 0

    def counted() -> bytes:
        nonlocal received
        piece = pieces()
        received += len(piece)
        told = {"ProposedSize": str(received)}
        if received > most:
            raise AwsError(
                "EntityTooLarge",
                "Your proposed upload exceeds the maximum allowed size",
                fields=told | {"MaxSizeAllowed": str(most)},
            )
        if not piece and received < size.least:
            raise AwsError(
                "EntityTooSmall",
                "Your proposed upload is smaller than the minimum allowed size",
                fields=told | {"MinSizeAllowed": str(size.least)},
            )
        return piece

    return RequestBody(counted, None, claims=_claims(request, operation, False), enclosed=True)


def _length(request: HttpRequest, name: str) -> int | None:
    text = request.header(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise AwsError("InvalidArgument", f"{name} must be a number of bytes, not '{text[:40]}'")
    return int(text)


def _claims(request: HttpRequest, operation: Operation, framed: bool) -> tuple[Claim, ...]:
    claims: list[Claim] = []
    md5 = request.header("content-md5")
    if md5 is not None:
        if not is_digest("MD5", md5):
            raise AwsError("InvalidDigest", "The Content-MD5 you specified was invalid.", fields={"Content-MD5": md5})
        claims.append(Claim("MD5", "content-md5", md5))
    if operation.http_checksum.request_algorithm_member is None:
        return tuple(claims)  # checksums in its headers are of something else than this body
    for header, algorithm in HEADERS.items():
        value = request.header(header)
        if value is None:
            continue
        if not is_digest(algorithm, value):
            raise AwsError("InvalidRequest", f"Value for {header} header is invalid.")
        claims.append(Claim(algorithm, header, value))
    for header in (request.header("x-amz-trailer") or "").lower().split(","):
        algorithm_of = HEADERS.get(header.strip())
        if algorithm_of is not None:
            if not framed:
                raise AwsError("InvalidRequest", f"The trailer {header.strip()} needs a body that is aws-chunked")
            claims.append(Claim(algorithm_of, header.strip(), ""))
    checksums = [claim for claim in claims if claim.header != "content-md5"]
    if len(checksums) > 1:
        raise AwsError(
            "InvalidRequest",
            "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
        )
    if request.header("x-amz-sdk-checksum-algorithm") is not None and not checksums and framed:
        raise AwsError(
            "InvalidRequest",
            "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers "
            "were found.",
        )
    if operation.http_checksum.request_checksum_required and not claims:
        raise AwsError("InvalidRequest", "Missing required header for this request: Content-MD5 OR x-amz-checksum-*")
    return tuple(claims)
