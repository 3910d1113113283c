"""Links to objects of S3 that are signed with version 2: what boto3's generate_presigned_url makes unless it is told
otherwise (`signature_version="s3v4"`), and nothing else of version 2.

    ?AWSAccessKeyId=KEY&Expires=1795647231&Signature=BASE64[&x-amz-security-token=TOKEN]

Signed is, with HMAC-SHA1 under the secret itself: the method, Content-MD5 and Content-Type, the second since 1970 until
which the link is good, headers x-amz-… (a link has them as parameters), and the resource with those parameters that say
which part of it is meant (Amazon S3 Developer Guide, "Signing and authenticating REST requests").
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
from dataclasses import dataclass

from celaje.cloud.aws.denials import Denial, Reason
from celaje.cloud.aws.identity import Credential
from celaje.cloud.aws.message import HttpRequest
from celaje.cloud.aws.routing import selecting_parameters

_SUBRESOURCES = frozenset(
    "accelerate acl analytics cors delete inventory lifecycle location logging metrics notification object-lock "
    "partNumber policy replication requestPayment restore select select-type storageClass tagging torrent uploadId "
    "uploads versionId versioning versions website response-cache-control response-content-disposition "
    "response-content-encoding response-content-language response-content-type response-expires".split()
)
_OWN = ("AWSAccessKeyId", "Expires", "Signature")
_UNSIGNED = ("list-type",)  # tells ListObjectsV2 from ListObjects, which tell the same


@dataclass(frozen=True, slots=True)
class ClaimedLink:
    """A link's signature, before anything is verified. `expires` is in seconds since 1970."""

    access_key: str
    expires: int
    signature: str
    token: str | None


def claimed_link(request: HttpRequest) -> ClaimedLink | None:
    """The link's signature, None for a request that is no such link. Denial if it is incomplete."""
    if not ("AWSAccessKeyId=" in request.query and "Signature=" in request.query) or "Action=" in request.query:
        return None
    found: dict[str, str] = {}
    try:
        for name, value in request.parameters():
            if name in (*_OWN, "x-amz-security-token"):
                if name in found:
                    raise Denial(Reason.INCOMPLETE, f"the query has {name} more than once")
                found[name] = value
    except UnicodeDecodeError:
        raise Denial(Reason.INCOMPLETE, "the query string must be UTF-8") from None
    expires = found.get("Expires", "")
    if not all(name in found for name in _OWN) or not (expires.isascii() and expires.isdigit() and len(expires) < 12):
        raise Denial(
            Reason.INCOMPLETE,
            "Query-string authentication requires the Signature, Expires and AWSAccessKeyId parameters",
        )
    return ClaimedLink(found["AWSAccessKeyId"], int(expires), found["Signature"], found.get("x-amz-security-token"))


def verify_link(
    request: HttpRequest, bucket: str | None, link: ClaimedLink, credential: Credential, now: datetime.datetime
) -> None:
    """Denial if `credential` has not signed the link, or its time is over. `bucket` is the one that the request's host
    names, None where the path does."""
    until = datetime.datetime.fromtimestamp(link.expires, datetime.UTC)
    # Subresources younger than version 2 are not signed: whoever has a link must not turn it into another operation.
    younger = selecting_parameters("s3") - _SUBRESOURCES - set(_UNSIGNED)
    for name, _ in request.parameters():
        if name in younger:
            raise Denial(Reason.NOT_SIGNED, name)
    paths = [request.path]
    if bucket is None and request.path.count("/") == 1:
        paths.append(request.path + "/")  # how boto3 signs links to buckets
    for path in paths:
        stated = _string_to_sign(request, (f"/{bucket}" if bucket else "") + path, link)
        computed = base64.b64encode(hmac.digest(credential.secret.encode(), stated.encode(), hashlib.sha1))
        if hmac.compare_digest(computed, link.signature.encode()):
            break
    else:
        raise Denial(Reason.MISMATCH, access_key=link.access_key, string_to_sign=stated, signature=link.signature)
    if until < now:
        raise Denial(Reason.EXPIRED_LINK, moment=until, now=now)


def _string_to_sign(request: HttpRequest, resource: str, link: ClaimedLink) -> str:
    given = request.parameters()
    headers: dict[str, list[str]] = {}
    for name, value in request.headers:
        if name.startswith("x-amz-") or name in ("content-md5", "content-type"):
            headers.setdefault(name, []).append(value.strip())
    parameters: dict[str, list[str]] = {}
    for name, value in given:
        name = name.lower()
        if name not in headers and (name.startswith("x-amz-") or name in ("content-md5", "content-type")):
            parameters.setdefault(name, []).append(value.strip())
    headers |= parameters
    plain = [",".join(headers.pop(name, [])) for name in ("content-md5", "content-type")]
    amz = "".join(f"{name}:{','.join(values)}\n" for name, values in sorted(headers.items()))
    parts = sorted((name, value) for name, value in given if name in _SUBRESOURCES)
    named = {piece.partition("=")[0] for piece in request.query.split("&") if "=" in piece}
    shown = "&".join(f"{name}={value}" if name in named else name for name, value in parts)
    if shown:
        resource += f"?{shown}"
    return "\n".join((request.method, *plain, str(link.expires), amz + resource))
