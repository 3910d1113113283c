"""The REST bindings of S3 and EBS: which members stand in the path, the query, headers, or are the body."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.message import HttpRequest
from celaje.cloud.aws.model import Operation, Reference, Service
from celaje.cloud.aws.parse_json import JsonReaders, read_json
from celaje.cloud.aws.parse_xml import XmlReaders, read_xml
from celaje.cloud.aws.refusals import DIALECTS, Dialect
from celaje.cloud.aws.scalars import READERS, write_boolean, write_http_date
from celaje.cloud.aws.serialize_json import JsonWriters
from celaje.cloud.aws.serialize_xml import PROLOGUE, S3_NAMESPACE, S3_ROOTS, XmlWriters
from celaje.cloud.aws.streams import FileRange, Pieces, RequestBody, ResponseBody

# The path's labels, the query's pairs, and the body: a stream where the operation has one.
RestParser = Callable[[HttpRequest, Mapping[str, str], list[tuple[str, str]], RequestBody | None], dict[str, object]]
# Status, headers and body.
RestSerializer = Callable[[Mapping[str, object]], tuple[int, list[tuple[str, str]], ResponseBody]]


_STATUS = {"PutBucketPolicy": 204, "PutBucketTagging": 204}  # where S3 answers otherwise than its model says
# A header that no model has and S3 refuses: how an object is encrypted is said of it, not asked.
_REFUSED = dict.fromkeys(("GetObject", "HeadObject"), "x-amz-server-side-encryption")


def compile_rest_parser(service: Service, operation: Operation) -> RestParser:
    """The function that reads the operation's members out of a request."""
    if operation.input is None:
        return lambda request, labels, pairs, stream: {}
    dialect = DIALECTS[service.name]
    shape = service.shape(operation.input)
    labels_of: list[tuple[str, str, Callable[[str, str], object]]] = []
    query: dict[str, tuple[str, Callable[[str, str], object], bool]] = {}
    headers: dict[str, tuple[str, Callable[[str, str], object], bool]] = {}
    prefixes: list[tuple[str, str]] = []
    for name, member in shape.members.items():
        wire = member.location_name or name
        target = service.shape(member)
        is_list = target.type == "list"
        scalar = _scalar(service, target.member if is_list and target.member else member, dialect)
        if member.location == "uri":
            labels_of.append((name, wire, scalar))
        elif member.location == "querystring":
            query[wire] = (name, scalar, is_list)
        elif member.location == "header":
            headers[wire.lower()] = (name, scalar, is_list)
        elif member.location == "headers":
            prefixes.append((name, wire.lower()))
    body = _body_reader(service, operation, dialect)
    refused = _REFUSED.get(operation.name)

    def parse(
        request: HttpRequest,
        labels: Mapping[str, str],
        pairs: list[tuple[str, str]],
        stream: RequestBody | None,
    ) -> dict[str, object]:
        members: dict[str, object] = {}
        for name, wire, scalar in labels_of:
            if wire in labels:
                members[name] = scalar(labels[wire], wire)
        for wire, text in pairs:
            field = query.get(wire)
            if field is None:
                continue
            name, scalar, is_list = field
            if is_list:
                listed = members.setdefault(name, [])
                assert isinstance(listed, list)
                listed.append(scalar(text, wire))
            elif name not in members:
                members[name] = scalar(text, wire)
        for wire, text in request.headers:
            field = headers.get(wire)
            if field is not None:
                if not text and wire.startswith("x-amz-"):
                    continue  # clients that leave a setting open send its header empty, and S3 does not look at it
                name, scalar, is_list = field
                if is_list:
                    listed = members.setdefault(name, [])
                    assert isinstance(listed, list)
                    listed.extend(scalar(each.strip(), wire) for each in text.split(",") if each.strip())
                elif name not in members:
                    try:
                        members[name] = scalar(text, wire)
                    except _NoMoment:
                        continue  # RFC 9110 section 13.1.3: a condition whose date is none is ignored
                continue
            if wire == refused:
                raise AwsError("InvalidArgument", f"{wire} header is not supported for this operation.")
            for name, prefix in prefixes:
                if wire.startswith(prefix) and len(wire) > len(prefix):
                    mapped = members.setdefault(name, {})
                    assert isinstance(mapped, dict)
                    key = wire[len(prefix) :]
                    mapped[key] = f"{mapped[key]},{text}" if key in mapped else text
        body(request.body, stream, members)
        return members

    return parse


class _NoMoment(Exception):
    pass


def _scalar(service: Service, member: Reference, dialect: Dialect) -> Callable[[str, str], object]:
    kind = service.shape(member).type
    if kind in ("structure", "list", "map"):
        return lambda text, path: text  # nothing scalar: read elsewhere
    reader = READERS[kind]
    lenient = kind == "timestamp" and member.location == "header" and service.name == "s3"

    def read(text: str, path: str) -> object:
        try:
            return reader(text)
        except ValueError as error:
            if lenient:
                raise _NoMoment from None
            if service.name == "s3" and kind in ("integer", "long"):
                raise AwsError(
                    "InvalidArgument",
                    f"Provided {path} not an integer or within integer range",
                    fields={"ArgumentName": path, "ArgumentValue": text[:200]},
                ) from None
            raise dialect.malformed(path, text, str(error)) from None

    return read


def _body_reader(
    service: Service, operation: Operation, dialect: Dialect
) -> Callable[[bytes, RequestBody | None, dict[str, object]], None]:
    assert operation.input is not None
    shape = service.shape(operation.input)
    payload = shape.payload
    if payload is not None:
        member = shape.members[payload]
        kind = service.shape(member).type
        streaming = service.streaming_member(operation.input) == payload

        def read_raw(body: bytes, stream: RequestBody | None, members: dict[str, object]) -> None:
            if streaming:
                assert stream is not None
                members[payload] = stream
            elif kind == "blob":
                members[payload] = body
            elif body:
                try:
                    members[payload] = body.decode("utf-8")
                except UnicodeDecodeError:
                    raise dialect.syntax("the body is not UTF-8") from None

        if kind != "structure":
            return read_raw
        root = member.location_name or member.shape
        if service.protocol == "rest-json":
            read_json_member = JsonReaders(service, dialect).structure(member)

            def read_json_payload(body: bytes, stream: RequestBody | None, members: dict[str, object]) -> None:
                if body:
                    members[payload] = read_json_member(read_json(body, dialect), payload)

            return read_json_payload
        read_member = XmlReaders(service, dialect).structure(member)

        def read_xml_payload(body: bytes, stream: RequestBody | None, members: dict[str, object]) -> None:
            if not body.strip():
                return
            element = read_xml(body, dialect)
            if element.name != root:
                raise dialect.syntax(f"the root element must be {root}, not {element.name[:100]}")
            members[payload] = read_member(element, root)

        return read_xml_payload
    if service.protocol == "rest-json":
        read_members = JsonReaders(service, dialect).structure(operation.input)

        def read_json_body(body: bytes, stream: RequestBody | None, members: dict[str, object]) -> None:
            members.update(read_members(read_json(body, dialect), ""))

        return read_json_body
    return lambda body, stream, members: None


def compile_rest_serializer(service: Service, operation: Operation) -> RestSerializer:
    """The function that writes an answer's status, headers and body."""
    status = operation.http.response_code
    if service.name == "s3":
        status = _STATUS.get(operation.name, status)
    if operation.output is None:
        return lambda answer: (status, [], b"")
    shape = service.shape(operation.output)
    headers: dict[str, tuple[str, Callable[[Any], str]]] = {}
    prefixes: dict[str, str] = {}
    located = {name for name, member in shape.members.items() if member.location is not None}
    status_member = None
    for name, member in shape.members.items():
        if member.location == "header":
            headers[name] = (member.location_name or name, _header_writer(service, member))
        elif member.location == "headers":
            prefixes[name] = member.location_name or ""
        elif member.location == "statusCode":
            status_member = name
    body_of = _body_writer(service, operation, frozenset(located))

    def serialize(answer: Mapping[str, object]) -> tuple[int, list[tuple[str, str]], ResponseBody]:
        written: list[tuple[str, str]] = []
        for name, value in answer.items():
            if value is None:
                continue
            header = headers.get(name)
            if header is not None:
                written.append((header[0], header[1](value)))
            elif name in prefixes:
                assert isinstance(value, Mapping)
                written.extend((prefixes[name] + key, str(text)) for key, text in value.items())
            elif name not in shape.members:
                raise KeyError(f"{operation.name} has no member {name}")
        code = status
        if status_member is not None and isinstance(answer.get(status_member), int):
            code = int(str(answer[status_member]))
        elif answer.get("ContentRange"):
            code = 206  # the model does not say so; RFC 9110 section 15.3.7
        content_type, body = body_of(answer)
        if content_type and not any(name.lower() == "content-type" for name, _ in written):
            written.append(("Content-Type", content_type))
        return code, written, body

    return serialize


def _header_writer(service: Service, member: Reference) -> Callable[[Any], str]:
    shape = service.shape(member)
    if shape.type == "boolean":
        return write_boolean
    if shape.type == "timestamp":
        return write_http_date
    if shape.type == "list":
        return lambda value: ",".join(value)
    return str


def _body_writer(
    service: Service, operation: Operation, located: frozenset[str]
) -> Callable[[Mapping[str, object]], tuple[str, ResponseBody]]:
    assert operation.output is not None
    shape = service.shape(operation.output)
    if shape.payload is not None:
        payload = shape.payload
        member = shape.members[payload]
        if service.shape(member).type == "structure":
            assert service.protocol == "rest-xml", "no answer of EBS has a structure for its body"
            tag = member.location_name or payload
            write = XmlWriters(service).element(tag, member, S3_NAMESPACE)

            def write_structure(answer: Mapping[str, object]) -> tuple[str, ResponseBody]:
                value = answer.get(payload)
                if value is None:
                    return "", b""
                pieces = [PROLOGUE]
                write(value, pieces.append)
                return "application/xml", "".join(pieces).encode()

            return write_structure

        def write_raw(answer: Mapping[str, object]) -> tuple[str, ResponseBody]:
            value = answer.get(payload)
            if isinstance(value, str):
                return "application/json" if payload == "Policy" else "", value.encode()
            if value is not None and not isinstance(value, bytes | FileRange | Pieces):
                raise TypeError(f"{operation.name}'s {payload} is {type(value).__name__}")
            return "", value if value is not None else b""

        return write_raw
    if service.protocol == "rest-json":
        body = JsonWriters(service).body(operation.output)
        return lambda answer: ("application/json", body(answer))
    if len(located) == len(shape.members):
        # The answer to HEAD has the type of what is not sent with it: S3's own, where it is not about an object.
        kind = "application/xml" if operation.http.method == "HEAD" and "ContentType" not in shape.members else ""
        return lambda answer: (kind, b"")
    return _s3_body(service, operation, located)


def _s3_body(
    service: Service, operation: Operation, located: frozenset[str]
) -> Callable[[Mapping[str, object]], tuple[str, ResponseBody]]:
    assert operation.output is not None
    if operation.name == "GetBucketLocation":
        # The one answer whose only member is its root.
        write_root = XmlWriters(service).element(
            "LocationConstraint", service.shape(operation.output).members["LocationConstraint"], S3_NAMESPACE
        )

        def write_location(answer: Mapping[str, object]) -> tuple[str, ResponseBody]:
            pieces = [PROLOGUE]
            write_root(answer.get("LocationConstraint") or "", pieces.append)
            return "application/xml", "".join(pieces).encode()

        return write_location
    root = S3_ROOTS.get(operation.name, f"{operation.name}Result")
    members = XmlWriters(service).members(service.shape(operation.output), skip=located)

    def write_members(answer: Mapping[str, object]) -> tuple[str, ResponseBody]:
        pieces = [f'{PROLOGUE}<{root} xmlns="{S3_NAMESPACE}">']
        members(answer, pieces.append)
        pieces.append(f"</{root}>")
        return "application/xml", "".join(pieces).encode()

    return write_members
