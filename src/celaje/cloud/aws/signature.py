"""AWS's Signature Version 4, verified in every form that SDKs send it.

    in the header      Authorization: AWS4-HMAC-SHA256 Credential=KEY/20260131/us-east-1/ec2/aws4_request,
                       SignedHeaders=host;x-amz-date, Signature=…
    presigned          ?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=…&X-Amz-Date=…&X-Amz-Expires=900&…
                       (links to objects may be signed with version 2: presigned_v2.py)
    streaming          x-amz-content-sha256: STREAMING-…; each chunk continues the request's signature (aws_chunked.py)

A canonical form of the request is built from exactly the headers that the client says it signed, and compared in
constant time. A signature is good for five minutes around its own time (S3: fifteen), a presigned one for as long as
it says, at most a week. What it is over and why it failed is told in the words and codes of each protocol
(denials.py).
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import hmac
import re
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import quote, unquote_to_bytes

from celaje.cloud.aws.action import Caller
from celaje.cloud.aws.denials import Denial, Reason
from celaje.cloud.aws.identity import ANONYMOUS, Credential, Identities
from celaje.cloud.aws.message import HttpRequest
from celaje.cloud.aws.presigned_v2 import ClaimedLink, claimed_link, verify_link
from celaje.cloud.aws.routing import bucket_of_host

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
SKEW = datetime.timedelta(minutes=5)
S3_SKEW = datetime.timedelta(minutes=15)
PRESIGNED_SECONDS = 604_800

_DATE = re.compile(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z\Z", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_SIGNATURE = re.compile(r"[0-9a-f]{64}\Z")
_FIELD = re.compile(r"\s*(Credential|SignedHeaders|Signature)=([^,\s]+)\s*\Z")
_SPACES = re.compile(r" {2,}")


@dataclass(frozen=True, slots=True)
class Scope:
    """What a key was narrowed to: `20260131/us-east-1/ec2/aws4_request`."""

    date: str
    region: str
    service: str

    def __str__(self) -> str:
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


@dataclass(frozen=True, slots=True)
class Claimed:
    """A signature as the request has it, before anything is verified."""

    access_key: str
    scope: Scope
    signed_headers: tuple[str, ...]
    signature: str
    date: str  # 20260131T120000Z
    presigned: bool
    expires: int  # seconds; of a presigned one
    token: str | None


@dataclass(frozen=True, slots=True)
class Verified:
    """Who signed, and what continues the signature over a body in chunks. `payload` is what was signed of the body:
    its SHA-256 in hexadecimal, UNSIGNED-PAYLOAD, or STREAMING-…; `key` is None where nothing can be verified."""

    caller: Caller
    payload: str
    key: bytes | None = None
    signature: str = ""
    date: str = ""
    scope: str = ""


def claimed(request: HttpRequest) -> Claimed | ClaimedLink | None:
    """The request's signature, None for an anonymous request. Denial if it is incomplete, or of another kind; links to
    objects may be signed with version 2."""
    authorization = request.header("authorization")
    if authorization is not None:
        return _from_header(request, authorization)
    if "X-Amz-Algorithm=" in request.query or "X-Amz-Signature=" in request.query:
        try:
            return _from_query(request)
        except Denial as denial:
            denial.in_query = True
            raise
    link = claimed_link(request)
    if link is not None:
        return link
    # Version 2: in the query or the form, where EC2's clients have it.
    for text in (request.query, "" if len(request.body) > 1 << 20 else request.body.decode("latin-1")):
        if "AWSAccessKeyId=" in text and "Signature=" in text:
            raise Denial(Reason.VERSION_2)
    return None


def _from_header(request: HttpRequest, authorization: str) -> Claimed:
    kind, _, rest = authorization.partition(" ")
    if kind == "AWS" or kind.startswith("AWS3"):
        raise Denial(Reason.VERSION_2)
    if kind != ALGORITHM:
        raise Denial(Reason.INCOMPLETE, f"the algorithm must be {ALGORITHM}, not '{kind[:40]}'")
    fields: dict[str, str] = {}
    for piece in rest.split(","):
        match = _FIELD.match(piece)
        if match is None or match[1] in fields:
            raise Denial(
                Reason.INCOMPLETE, "Authorization must have Credential, SignedHeaders and Signature, each once"
            )
        fields[match[1]] = match[2]
    for name in ("Credential", "SignedHeaders", "Signature"):
        if name not in fields:
            raise Denial(Reason.INCOMPLETE, f"Authorization header requires '{name}' parameter")
    access_key, scope = credential_scope(fields["Credential"])
    date = request.header("x-amz-date")
    if date is None:
        written = request.header("date")
        if written is None:
            raise Denial(
                Reason.INCOMPLETE, "Authorization header requires existence of an 'X-Amz-Date' or 'Date' header"
            )
        date = _compact(written)
    return Claimed(
        access_key=access_key,
        scope=scope,
        signed_headers=_signed_headers(fields["SignedHeaders"]),
        signature=_signature(fields["Signature"]),
        date=date,
        presigned=False,
        expires=0,
        token=request.header("x-amz-security-token"),
    )


def _compact(written: str) -> str:
    """The Date header, which may be in HTTP's form, as it stands in what was signed."""
    if "," not in written:
        return written
    try:
        return f"{parsedate_to_datetime(written).astimezone(datetime.UTC):%Y%m%dT%H%M%SZ}"
    except (ValueError, TypeError, IndexError, OverflowError):
        raise Denial(Reason.INCOMPLETE, "the Date header is no date") from None


def _from_query(request: HttpRequest) -> Claimed:
    try:
        pairs = request.parameters()
    except UnicodeDecodeError:
        raise Denial(Reason.INCOMPLETE, "the query string must be UTF-8") from None
    fields: dict[str, str] = {}
    for name, value in pairs:
        if name.startswith("X-Amz-"):
            if name in fields:
                raise Denial(Reason.INCOMPLETE, f"the query has {name[:60]} more than once")
            fields[name] = value
    if fields.get("X-Amz-Algorithm") != ALGORITHM:
        raise Denial(Reason.INCOMPLETE, f"X-Amz-Algorithm only supports {ALGORITHM}")
    for name in ("X-Amz-Credential", "X-Amz-Date", "X-Amz-SignedHeaders", "X-Amz-Signature"):
        if name not in fields:
            raise Denial(Reason.INCOMPLETE, f"the query requires {name}")
    expires = fields.get("X-Amz-Expires", "300")
    if not (expires.isascii() and expires.isdigit() and len(expires) < 12):
        raise Denial(Reason.INCOMPLETE, "X-Amz-Expires must be a non-negative number")
    if int(expires) > PRESIGNED_SECONDS:
        raise Denial(
            Reason.INCOMPLETE, f"X-Amz-Expires must be less than a week (in seconds): at most {PRESIGNED_SECONDS}"
        )
    access_key, scope = credential_scope(fields["X-Amz-Credential"])
    return Claimed(
        access_key=access_key,
        scope=scope,
        signed_headers=_signed_headers(fields["X-Amz-SignedHeaders"]),
        signature=_signature(fields["X-Amz-Signature"]),
        date=fields["X-Amz-Date"],
        presigned=True,
        expires=int(expires),
        token=fields.get("X-Amz-Security-Token"),
    )


def credential_scope(text: str) -> tuple[str, Scope]:
    """The key and what it was narrowed to, of a credential as requests have it. Denial."""
    parts = text.split("/")
    if len(parts) < 5 or parts[-1] != "aws4_request" or not all(parts) or not text.isascii():
        raise Denial(Reason.INCOMPLETE, "Credential must be KEY/yyyymmdd/REGION/SERVICE/aws4_request")
    return "/".join(parts[:-4]), Scope(parts[-4], parts[-3], parts[-2])


def _signed_headers(text: str) -> tuple[str, ...]:
    names = tuple(text.split(";"))
    if list(names) != sorted({name.lower() for name in names}):
        raise Denial(Reason.INCOMPLETE, "SignedHeaders must be lower case, sorted, and have each name once")
    return names


def _signature(text: str) -> str:
    if not _SIGNATURE.match(text):
        raise Denial(Reason.INCOMPLETE, "Signature must be 64 hexadecimal digits")
    return text


def verify(
    request: HttpRequest,
    signed: Claimed | ClaimedLink | None,
    identities: Identities,
    now: datetime.datetime,
    *,
    any_key: bool = False,
) -> Verified:
    """Who made the request. Denial if that cannot be believed.

    The body of requests to other services than S3 must be whole in `request.body`: its hash is part of what was signed.
    `any_key`: keys that nobody knows are taken for those of `identities.stand_in`, and prove nothing.
    """
    if signed is None:
        return Verified(ANONYMOUS, request.header("x-amz-content-sha256") or UNSIGNED)
    s3 = isinstance(signed, ClaimedLink) or signed.scope.service == "s3"
    payload = _payload(request, signed, s3)
    credential = credential_of(signed, identities, any_key=any_key)
    if isinstance(credential, Caller):
        return Verified(credential, payload)
    if isinstance(signed, ClaimedLink):
        verify_link(request, bucket_of_host(request.header("host") or ""), signed, credential, now)
        not_expired(credential, signed.access_key, now)
        return Verified(credential.caller, payload)
    _in_time(signed, now, s3)
    _all_signed(request, signed, s3)
    key = signing_key(credential.secret, signed.scope)
    stated = ""
    for path, query in _spellings(request, signed, s3):
        canonical = _canonical(request, signed, path, query, payload)
        hashed = hashlib.sha256(canonical.encode("utf-8", "surrogateescape")).hexdigest()
        stated = f"{ALGORITHM}\n{signed.date}\n{signed.scope}\n{hashed}"
        if hmac.compare_digest(hmac.digest(key, stated.encode(), "sha256").hex(), signed.signature):
            break
    else:
        raise Denial(
            Reason.MISMATCH,
            access_key=signed.access_key,
            string_to_sign=stated,
            canonical_request=canonical,
            signature=signed.signature,
        )
    not_expired(credential, signed.access_key, now)
    return Verified(credential.caller, payload, key, signed.signature, signed.date, str(signed.scope))


def credential_of(signed: Claimed | ClaimedLink, identities: Identities, *, any_key: bool) -> Credential | Caller:
    """Of the key that a signature names; with `any_key`, whom a key that nobody knows stands for. Denial."""
    credential = identities.credential(signed.access_key, signed.token)
    if credential is not None:
        return credential
    caller = identities.stand_in(signed.access_key) if any_key else None
    if caller is not None:
        return caller
    raise Denial(Reason.WRONG_TOKEN if signed.token else Reason.UNKNOWN_KEY, access_key=signed.access_key)


def not_expired(credential: Credential, access_key: str, now: datetime.datetime) -> None:
    """Asked when the signature was right: only who has the secret is told."""
    if credential.expires is not None and credential.expires <= now:
        raise Denial(Reason.EXPIRED_TOKEN, access_key=access_key)


def _payload(request: HttpRequest, signed: Claimed | ClaimedLink, s3: bool) -> str:
    stated = request.header("x-amz-content-sha256")
    if not s3:
        if stated == UNSIGNED:
            return UNSIGNED
        return hashlib.sha256(request.body).hexdigest() if request.body else EMPTY_SHA256
    if isinstance(signed, ClaimedLink) or signed.presigned:
        if stated is None or stated == UNSIGNED:
            return UNSIGNED
    elif stated is None:
        raise Denial(Reason.NO_PAYLOAD_HASH)
    if stated in (UNSIGNED, "STREAMING-UNSIGNED-PAYLOAD-TRAILER") or _SHA256.match(stated):
        return stated
    if stated in ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"):
        return stated
    raise Denial(Reason.BAD_PAYLOAD_HASH)


def _in_time(signed: Claimed, now: datetime.datetime, s3: bool) -> None:
    match = _DATE.match(signed.date)
    try:
        if match is None:
            raise ValueError(signed.date)
        year, month, day, hour, minute, second = (int(group) for group in match.groups())
        moment = datetime.datetime(year, month, day, hour, minute, second, tzinfo=datetime.UTC)
    except ValueError:
        raise Denial(Reason.INCOMPLETE, "the date must be in the form 20260131T120000Z") from None
    if signed.scope.date != signed.date[:8]:
        raise Denial(Reason.INCOMPLETE, f"Date in Credential scope does not match {signed.date}")
    skew = S3_SKEW if s3 else SKEW
    if moment > now + skew:
        raise Denial(Reason.TOO_EARLY, moment=moment, now=now)
    if signed.presigned:
        until = moment + datetime.timedelta(seconds=signed.expires)
        if until < now:
            raise Denial(Reason.EXPIRED_LINK, moment=until, now=now)
    elif moment < now - skew:
        raise Denial(Reason.TOO_LATE, moment=moment, now=now)


def _all_signed(request: HttpRequest, signed: Claimed, s3: bool) -> None:
    if "host" not in signed.signed_headers:
        raise Denial(Reason.NOT_SIGNED, "host")
    if s3:
        for name, _ in request.headers:
            if name.startswith("x-amz-") and name not in signed.signed_headers:
                raise Denial(Reason.NOT_SIGNED, name)
    elif request.header("x-amz-target") is not None and "x-amz-target" not in signed.signed_headers:
        raise Denial(Reason.NOT_SIGNED, "x-amz-target")  # it names the operation


def _spellings(request: HttpRequest, signed: Claimed, s3: bool) -> list[tuple[str, str]]:
    """Path and query as they may have been signed: encoded as the specification says, or as they were sent."""
    query = _canonical_query(request.query, signed.presigned)
    sent = "&".join(sorted(_pieces(request.query, signed.presigned)))
    if s3:
        paths = [quote(unquote_to_bytes(request.path), safe="/-_.~"), request.path]
    else:  # every other service has the path's encoding encoded once more
        paths = [quote(request.path, safe="/-_.~")]
    spellings: list[tuple[str, str]] = []
    for path in paths:
        for other in (query, sent):
            if (path, other) not in spellings:
                spellings.append((path, other))
    return spellings


def _pieces(query: str, presigned: bool) -> list[str]:
    pieces = [piece if "=" in piece else piece + "=" for piece in query.split("&") if piece]
    return [piece for piece in pieces if not (presigned and piece.startswith("X-Amz-Signature="))]


def _canonical_query(query: str, presigned: bool) -> str:
    if not query:
        return ""
    pairs = []
    for piece in _pieces(query, presigned):
        name, _, value = piece.partition("=")
        # A plus means a space to who reads it: taken for itself here, it could stand in for a %2B that was signed.
        plain = (unquote_to_bytes(text.replace("+", " ")) for text in (name, value))
        pairs.append(tuple(quote(text, safe="-_.~") for text in plain))
    pairs.sort()
    return "&".join(f"{name}={value}" for name, value in pairs)


def _canonical(request: HttpRequest, signed: Claimed, path: str, query: str, payload: str) -> str:
    values: dict[str, list[str]] = {name: [] for name in signed.signed_headers}
    for name, value in request.headers:
        if name in values:
            value = value.strip()
            values[name].append(_SPACES.sub(" ", value) if "  " in value else value)
    headers = "".join(f"{name}:{','.join(values[name])}\n" for name in signed.signed_headers)
    return "\n".join((request.method, path, query, headers, ";".join(signed.signed_headers), payload))


def signing_key(secret: str, scope: Scope) -> bytes:
    """The key that the secret yields for one day, region and service."""
    return _derived(secret, scope.date, scope.region, scope.service)


@functools.lru_cache(maxsize=256)
def _derived(secret: str, date: str, region: str, service: str) -> bytes:
    key = ("AWS4" + secret).encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
