"""Requests that botocore writes are read as what they were; answers that are written here are read by botocore."""

from __future__ import annotations

import datetime
from typing import Any
from urllib.parse import quote

import botocore.parsers
import botocore.serialize
import pytest
from botocore.awsrequest import HeadersDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celaje.cloud.aws import model
from celaje.cloud.aws.codec import Codec, codec
from celaje.cloud.aws.message import HttpRequest
from celaje.cloud.aws.routing import route
from celaje.cloud.aws.streams import RequestBody
from tests.cloud.aws.shapes import botocore_model, structures

SERVICES = ("ec2", "sts", "iam", "ssm", "ebs", "s3")
MANY = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def operations(service: str) -> list[str]:
    """All operations whose bodies are no event streams."""
    known = model.service(service)
    return [
        name
        for name, operation in known.operations.items()
        if name not in ("SelectObjectContent", "WriteGetObjectResponse") and operation.input is not None
    ]


def sent(service: str, operation: str, members: dict[str, Any]) -> HttpRequest:
    """The request that botocore makes of `members`."""
    described = botocore_model(service)
    serializer = botocore.serialize.create_serializer(described.metadata["protocol"], include_validation=False)
    made = serializer.serialize_to_request(members, described.operation_model(operation))
    body = made["body"]
    query = made["query_string"]
    if isinstance(body, dict):
        body = "&".join(f"{quote(name, safe='')}={quote(str(value), safe='')}" for name, value in body.items()).encode()
    if isinstance(query, dict):
        pairs = [
            (name, each) for name, value in query.items() for each in (value if isinstance(value, list) else [value])
        ]
        query = "&".join(f"{quote(name, safe='')}={quote(str(value), safe='')}" for name, value in pairs)
    path, _, more = made["url_path"].partition("?")
    headers = [(name.lower(), str(value)) for name, value in made["headers"].items()] + [("host", "localhost")]
    joined = "&".join(piece for piece in (more, query) if piece)
    return HttpRequest(made["method"], path, joined, headers, body.encode() if isinstance(body, str) else body or b"")


def received(service: str, request: HttpRequest) -> tuple[str, dict[str, Any]]:
    known = model.service(service)
    routed = route(known, request)
    found = codec(service, routed.operation.name)
    stream = None
    if known.streaming_member(routed.operation.input) is not None:
        pieces = iter([request.body])
        stream = RequestBody(lambda: next(pieces, b""), len(request.body))
    members = found._parse(request, routed, stream)
    if stream is not None:
        name = known.streaming_member(routed.operation.input)
        assert name is not None
        data = stream.all(1 << 20)
        members[name] = data
        if not data:
            del members[name]
    return routed.operation.name, members


# S3 keeps whatever a client says here, so it is text to this server; only botocore makes a moment of it.
NO_MOMENT = frozenset(["Expires"])
# Two names that mean one request: the older is answered as the newer.
REPLACED = {
    "GetBucketLifecycle": "GetBucketLifecycleConfiguration",
    "PutBucketLifecycle": "PutBucketLifecycleConfiguration",
    "GetBucketNotification": "GetBucketNotificationConfiguration",
    "PutBucketNotification": "PutBucketNotificationConfiguration",
    "ListDirectoryBuckets": "ListBuckets",
}


@pytest.mark.parametrize("service", SERVICES)
@MANY
@given(data=st.data())
def test_requests_that_botocore_writes_are_read(service: str, data: st.DataObject) -> None:
    operation = data.draw(st.sampled_from([name for name in operations(service) if name not in REPLACED]))
    known = model.service(service)
    shape = known.input_shape(known.operations[operation])
    assert shape is not None
    members = data.draw(structures(known, shape, skip=NO_MOMENT))
    name, read = received(service, sent(service, operation, members))
    assert name == operation
    assert pruned(read) == pruned(members)


def pruned(value: Any) -> Any:
    """Without empty lists and structures, in lists too: what flattened lists have no form for."""
    if isinstance(value, dict):
        smaller = {name: pruned(item) for name, item in value.items()}
        return {name: item for name, item in smaller.items() if item not in ([], {})}
    if isinstance(value, list):
        return [item for item in map(pruned, value) if item not in ([], {})]
    return value


def parsed(service: str, operation: str, status: int, headers: dict[str, str], body: bytes) -> dict[str, Any]:
    described = botocore_model(service)
    parser = botocore.parsers.create_parser(described.metadata["protocol"])
    shape = described.operation_model(operation).output_shape
    answer = parser.parse(
        {"status_code": status, "headers": HeadersDict(headers), "body": body},
        shape,
    )
    metadata = answer.pop("ResponseMetadata")
    assert metadata.get("RequestId") == ("request-1" if service in ("ec2", "sts", "iam") else None)
    return answer


def answering(service: str) -> list[str]:
    known = model.service(service)
    return [
        name
        for name, operation in known.operations.items()
        if operation.output is not None
        and known.streaming_member(operation.output) is None
        # The last of these, which another has replaced, has two members that are one element.
        and name not in ("SelectObjectContent", "GetBucketLocation", "GetBucketNotification")
    ]


@pytest.mark.parametrize("service", SERVICES)
@MANY
@given(data=st.data())
def test_answers_are_read_by_botocore(service: str, data: st.DataObject) -> None:
    operation = data.draw(st.sampled_from(answering(service)))
    known = model.service(service)
    shape = known.output_shape(known.operations[operation])
    assert shape is not None
    codes = frozenset(name for name, member in shape.members.items() if member.location == "statusCode")
    answer = data.draw(structures(known, shape, skip=codes | NO_MOMENT))
    written = Codec(known, known.operations[operation]).write(answer, "request-1")
    assert isinstance(written.body, bytes)
    again = parsed(service, operation, 200, dict(written.headers), written.body)
    assert pruned(again) == pruned(answer)


def test_the_codec_of_every_operation_can_be_made() -> None:
    for service in SERVICES:
        known = model.service(service)
        for operation in known.operations.values():
            assert Codec(known, operation).operation is operation


def test_moments_keep_their_milliseconds_in_ec2() -> None:
    moment = datetime.datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=datetime.UTC)
    written = codec("ec2", "CreateVolume").write({"CreateTime": moment}, "request-1")
    assert isinstance(written.body, bytes)
    assert b"<createTime>2026-01-31T12:00:00.123Z</createTime>" in written.body


def test_a_member_that_the_model_does_not_have_is_the_actions_mistake() -> None:
    for service, operation in [
        ("ec2", "CreateVolume"),
        ("iam", "GetRole"),
        ("ssm", "GetParameter"),
        ("s3", "PutObject"),
    ]:
        with pytest.raises(KeyError, match="Colour"):
            codec(service, operation).write({"Colour": "blue"}, "request-1")
