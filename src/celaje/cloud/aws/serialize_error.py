"""Errors in each protocol's form, with the headers that SDKs look at."""

from __future__ import annotations

import re

import msgspec

from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.serialize_xml import PROLOGUE, escaped

Headers = list[tuple[str, str]]
_ILLEGIBLE = re.compile("[\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff]")

XML_TYPE = "text/xml;charset=UTF-8"
S3_XML_TYPE = "application/xml"
JSON_TYPE = "application/x-amz-json-1.1"
REST_JSON_TYPE = "application/json"


def serialize_error(protocol: str, error: AwsError, request_id: str, host_id: str, namespace: str) -> tuple[str, bytes]:
    """The content type and the body."""
    code, message = escaped(error.code), escaped(_legible(error.message))
    if protocol == "ec2":
        # Exactly these two children: libcloud takes them apart by position.
        return XML_TYPE, (
            f"{PROLOGUE}<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>"
            f"<RequestID>{request_id}</RequestID></Response>"
        ).encode()
    if protocol == "query":
        kind = "Sender" if error.status < 500 else "Receiver"
        return XML_TYPE, (
            f'{PROLOGUE}<ErrorResponse xmlns="{namespace}"><Error><Type>{kind}</Type><Code>{code}</Code>'
            f"<Message>{message}</Message></Error><RequestId>{request_id}</RequestId></ErrorResponse>"
        ).encode()
    if protocol == "rest-xml":
        fields = "".join(f"<{name}>{escaped(_legible(value))}</{name}>" for name, value in error.fields.items())
        return S3_XML_TYPE, (
            f"{PROLOGUE}<Error><Code>{code}</Code><Message>{message}</Message>{fields}"
            f"<RequestId>{request_id}</RequestId><HostId>{host_id}</HostId></Error>"
        ).encode()
    if protocol == "json":
        told = {"__type": error.code, "message": _legible(error.message), **error.fields}
        return JSON_TYPE, msgspec.json.encode(told)
    return REST_JSON_TYPE, msgspec.json.encode({"Message": _legible(error.message), **error.fields})


def identifying_headers(protocol: str, request_id: str, host_id: str) -> Headers:
    """The request's id, where each protocol has it."""
    if protocol == "rest-xml":
        return [("x-amz-request-id", request_id), ("x-amz-id-2", host_id)]
    return [("x-amzn-requestid", request_id)]


def _legible(text: str) -> str:
    """What a client sent and gets told again, without the characters that XML, or UTF-8, cannot carry."""
    if text.isprintable():
        return text
    return "".join("\ufffd" if _ILLEGIBLE.match(each) else each for each in text)
