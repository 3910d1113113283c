"""Requests that nobody is believed to have made: why, and how each protocol says so."""

from __future__ import annotations

import datetime
import enum

from celaje.cloud.aws.errors import AwsError


class Reason(enum.Enum):
    MISSING = enum.auto()
    VERSION_2 = enum.auto()
    INCOMPLETE = enum.auto()
    UNKNOWN_KEY = enum.auto()
    MISMATCH = enum.auto()
    TOO_EARLY = enum.auto()
    TOO_LATE = enum.auto()
    EXPIRED_LINK = enum.auto()
    NOT_SIGNED = enum.auto()
    WRONG_TOKEN = enum.auto()
    EXPIRED_TOKEN = enum.auto()
    NO_PAYLOAD_HASH = enum.auto()
    BAD_PAYLOAD_HASH = enum.auto()


class Denial(Exception):
    """`detail` completes the reason; the rest is what S3 tells the client about the signature that it computed."""

    def __init__(
        self,
        reason: Reason,
        detail: str = "",
        *,
        access_key: str = "",
        string_to_sign: str = "",
        canonical_request: str = "",
        signature: str = "",
        moment: datetime.datetime | None = None,
        now: datetime.datetime | None = None,
    ) -> None:
        super().__init__(reason.name, detail)
        self.reason = reason
        self.detail = detail
        self.access_key = access_key
        self.string_to_sign = string_to_sign
        self.canonical_request = canonical_request
        self.signature = signature
        self.moment = moment
        self.now = now
        self.in_query = False  # the signature stands in the query


_CREDENTIALS = "AWS was not able to validate the provided access credentials"
_TOKEN = "The security token included in the request is invalid."
_MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key "
    "and signing method. Consult the service documentation for details."
)
_VERSION_2 = (
    "Signature version 2 is not supported: sign with AWS4-HMAC-SHA256 (version 4; libcloud: signature_version='4')"
)
_UNSIGNED_HEADER = "There were headers present in the request which were not signed"

# Reason → code, for EC2, the query protocol and the JSON protocols. Status and message follow.
_EC2 = {
    Reason.MISSING: "AuthFailure",
    Reason.VERSION_2: "AuthFailure",
    Reason.INCOMPLETE: "IncompleteSignature",
    Reason.UNKNOWN_KEY: "AuthFailure",
    Reason.MISMATCH: "AuthFailure",
    Reason.TOO_EARLY: "RequestExpired",
    Reason.TOO_LATE: "RequestExpired",
    Reason.EXPIRED_LINK: "RequestExpired",
    Reason.NOT_SIGNED: "AuthFailure",
    Reason.WRONG_TOKEN: "AuthFailure",
    Reason.EXPIRED_TOKEN: "RequestExpired",
}
_QUERY = {
    Reason.MISSING: "MissingAuthenticationToken",
    Reason.VERSION_2: "IncompleteSignature",
    Reason.INCOMPLETE: "IncompleteSignature",
    Reason.UNKNOWN_KEY: "InvalidClientTokenId",
    Reason.MISMATCH: "SignatureDoesNotMatch",
    Reason.TOO_EARLY: "SignatureDoesNotMatch",
    Reason.TOO_LATE: "SignatureDoesNotMatch",
    Reason.EXPIRED_LINK: "SignatureDoesNotMatch",
    Reason.NOT_SIGNED: "SignatureDoesNotMatch",
    Reason.WRONG_TOKEN: "InvalidClientTokenId",
    Reason.EXPIRED_TOKEN: "ExpiredToken",
}
_JSON = {
    Reason.MISSING: "MissingAuthenticationTokenException",
    Reason.VERSION_2: "IncompleteSignatureException",
    Reason.INCOMPLETE: "IncompleteSignatureException",
    Reason.UNKNOWN_KEY: "UnrecognizedClientException",
    Reason.MISMATCH: "InvalidSignatureException",
    Reason.TOO_EARLY: "InvalidSignatureException",
    Reason.TOO_LATE: "InvalidSignatureException",
    Reason.EXPIRED_LINK: "InvalidSignatureException",
    Reason.NOT_SIGNED: "InvalidSignatureException",
    Reason.WRONG_TOKEN: "UnrecognizedClientException",
    Reason.EXPIRED_TOKEN: "ExpiredTokenException",
}


def as_error(denial: Denial, protocol: str) -> AwsError:
    """What the client is told."""
    if protocol == "rest-xml":
        return _s3(denial)
    reason = denial.reason
    message = _message(denial, protocol)
    if protocol == "ec2":
        code = _EC2[reason]
        return AwsError(code, message, 401 if code == "AuthFailure" else 400)
    if protocol == "query":
        code = _QUERY[reason]
        return AwsError(code, message, 400 if code == "IncompleteSignature" else 403)
    return AwsError(_JSON[reason], message, 400 if protocol == "json" else 403)


def _message(denial: Denial, protocol: str) -> str:
    reason = denial.reason
    if reason is Reason.MISSING:
        return _CREDENTIALS if protocol == "ec2" else "Request is missing Authentication Token"
    if reason is Reason.VERSION_2:
        return _VERSION_2
    if reason is Reason.INCOMPLETE:
        return f"The signature is incomplete: {denial.detail}"
    if reason in (Reason.UNKNOWN_KEY, Reason.WRONG_TOKEN):
        return _CREDENTIALS if protocol == "ec2" else _TOKEN
    if reason is Reason.NOT_SIGNED:
        return f"'{denial.detail}' must be a signed header of the AWS signature"
    if reason is Reason.EXPIRED_TOKEN:
        return "Request has expired." if protocol == "ec2" else "The security token included in the request is expired"
    if reason in (Reason.TOO_EARLY, Reason.TOO_LATE, Reason.EXPIRED_LINK) and denial.moment and denial.now:
        if protocol == "ec2":
            return f"Request has expired. It was signed for {denial.moment:%Y-%m-%dT%H:%M:%SZ}; {_clock(denial.now)}"
        if reason is Reason.TOO_EARLY:
            return f"Signature not yet current: {_compact(denial.moment)} is still later than {_compact(denial.now)}"
        return f"Signature expired: {_compact(denial.moment)} is now earlier than {_compact(denial.now)}"
    return _CREDENTIALS if protocol == "ec2" else _MISMATCH


def _s3(denial: Denial) -> AwsError:
    reason = denial.reason
    if reason is Reason.VERSION_2:
        return AwsError(
            "InvalidRequest",
            "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.",
        )
    if reason is Reason.INCOMPLETE:
        if denial.in_query:
            return AwsError("AuthorizationQueryParametersError", denial.detail)
        return AwsError("AuthorizationHeaderMalformed", f"The authorization header is malformed; {denial.detail}")
    if reason is Reason.UNKNOWN_KEY:
        return AwsError(
            "InvalidAccessKeyId",
            "The AWS Access Key Id you provided does not exist in our records.",
            403,
            {"AWSAccessKeyId": denial.access_key},
        )
    if reason is Reason.MISMATCH:
        return AwsError(
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided. Check your key and "
            "signing method.",
            403,
            {
                "AWSAccessKeyId": denial.access_key,
                "StringToSign": denial.string_to_sign,
                "SignatureProvided": denial.signature,
                "CanonicalRequest": denial.canonical_request,
            },
        )
    if reason in (Reason.TOO_EARLY, Reason.TOO_LATE) and denial.moment and denial.now:
        return AwsError(
            "RequestTimeTooSkewed",
            "The difference between the request time and the current time is too large.",
            403,
            {
                "RequestTime": _compact(denial.moment),
                "ServerTime": f"{denial.now:%Y-%m-%dT%H:%M:%SZ}",
                "MaxAllowedSkewMilliseconds": "900000",
            },
        )
    if reason is Reason.EXPIRED_LINK and denial.moment and denial.now:
        return AwsError(
            "AccessDenied",
            "Request has expired",
            403,
            {"Expires": f"{denial.moment:%Y-%m-%dT%H:%M:%SZ}", "ServerTime": f"{denial.now:%Y-%m-%dT%H:%M:%SZ}"},
        )
    if reason is Reason.NOT_SIGNED:
        return AwsError("AccessDenied", _UNSIGNED_HEADER, 403, {"HeadersNotSigned": denial.detail})
    if reason is Reason.WRONG_TOKEN:
        return AwsError("InvalidToken", "The provided token is malformed or otherwise invalid.")
    if reason is Reason.EXPIRED_TOKEN:
        return AwsError("ExpiredToken", "The provided token has expired.")
    if reason is Reason.NO_PAYLOAD_HASH:
        return AwsError("InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
    if reason is Reason.BAD_PAYLOAD_HASH:
        return AwsError(
            "InvalidArgument",
            "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, "
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER or a valid sha256 value.",
        )
    return AwsError("AccessDenied", "Access Denied", 403)


def _compact(moment: datetime.datetime) -> str:
    return f"{moment:%Y%m%dT%H%M%SZ}"


def _clock(now: datetime.datetime) -> str:
    return f"the time here is {now:%Y-%m-%dT%H:%M:%SZ}"
