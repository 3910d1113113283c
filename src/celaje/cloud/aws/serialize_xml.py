"""Answers as XML: of the EC2 protocol, the query protocol, and bodies of REST-XML.

One function a shape, made once: it writes a value's pieces of text into a list, and the pieces are joined at the end. A
member that is None or absent is left out; an empty string or list is an empty element, as at AWS. A member that the
model does not have is the action's mistake and raises KeyError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from celaje.cloud.aws.model import Operation, Reference, Service, Shape, namespace_of
from celaje.cloud.aws.scalars import write_blob, write_http_date, write_iso, write_iso_seconds

Out = Callable[[str], None]
_Write = Callable[[Any, Out], None]
XmlSerializer = Callable[[Mapping[str, object], str], bytes]  # an answer and the request's id

PROLOGUE = '<?xml version="1.0" encoding="UTF-8"?>\n'

# The root elements of S3's answers that have no payload member: the model, which botocore needs for reading only, has
# lost their names.
S3_ROOTS = {
    "CompleteMultipartUpload": "CompleteMultipartUploadResult",
    "CreateMultipartUpload": "InitiateMultipartUploadResult",
    "CreateSession": "CreateSessionResult",
    "DeleteObjects": "DeleteResult",
    "GetBucketAccelerateConfiguration": "AccelerateConfiguration",
    "GetBucketAcl": "AccessControlPolicy",
    "GetBucketCors": "CORSConfiguration",
    "GetBucketLifecycle": "LifecycleConfiguration",
    "GetBucketLifecycleConfiguration": "LifecycleConfiguration",
    "GetBucketLogging": "BucketLoggingStatus",
    "GetBucketNotification": "NotificationConfiguration",
    "GetBucketNotificationConfiguration": "NotificationConfiguration",
    "GetBucketRequestPayment": "RequestPaymentConfiguration",
    "GetBucketTagging": "Tagging",
    "GetBucketVersioning": "VersioningConfiguration",
    "GetBucketWebsite": "WebsiteConfiguration",
    "GetObjectAcl": "AccessControlPolicy",
    "GetObjectAttributes": "GetObjectAttributesResponse",
    "GetObjectTagging": "Tagging",
    "ListBucketAnalyticsConfigurations": "ListBucketAnalyticsConfigurationResult",
    "ListBucketIntelligentTieringConfigurations": "ListBucketIntelligentTieringConfigurationsOutput",
    "ListBucketInventoryConfigurations": "ListInventoryConfigurationsResult",
    "ListBucketMetricsConfigurations": "ListMetricsConfigurationsResult",
    "ListBuckets": "ListAllMyBucketsResult",
    "ListDirectoryBuckets": "ListAllMyDirectoryBucketsResult",
    "ListMultipartUploads": "ListMultipartUploadsResult",
    "ListObjectVersions": "ListVersionsResult",
    "ListObjects": "ListBucketResult",
    "ListObjectsV2": "ListBucketResult",
    "ListParts": "ListPartsResult",
}
S3_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


def escaped(text: str) -> str:
    """Text as it stands in an element or, double-quoted, in an attribute. Characters that XML cannot carry become
    numeric references, as in S3's lists of keys."""
    if text.isprintable() and "&" not in text and "<" not in text and ">" not in text and '"' not in text:
        return text
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    if text.isprintable():
        return text
    return "".join(
        f"&#x{ord(each):x};" if (each < " " and each not in "\t\n") or each in "\ufffe\uffff" else each for each in text
    )


def compile_ec2_serializer(service: Service, operation: Operation) -> XmlSerializer:
    """`<RunInstancesResponse xmlns="…/"><requestId>…</requestId>…`; where the model has no output, AWS says
    `<return>true</return>`."""
    name = f"{operation.name}Response"
    head = f'{PROLOGUE}<{name} xmlns="{service.metadata.xml_namespace}/">\n<requestId>'
    tail = f"</{name}>"
    if operation.output is None:
        nothing = f"</requestId>\n<return>true</return>\n{tail}"
        return lambda answer, request_id: f"{head}{request_id}{nothing}".encode()
    members = XmlWriters(service).members(service.shape(operation.output))

    def serialize(answer: Mapping[str, object], request_id: str) -> bytes:
        pieces = [head, request_id, "</requestId>\n"]
        members(answer, pieces.append)
        pieces.append(tail)
        return "".join(pieces).encode()

    return serialize


def compile_query_serializer(service: Service, operation: Operation) -> XmlSerializer:
    """`<CreateRoleResponse xmlns="…"><CreateRoleResult>…</CreateRoleResult><ResponseMetadata>…`."""
    name = f"{operation.name}Response"
    head = f'{PROLOGUE}<{name} xmlns="{service.metadata.xml_namespace}">\n'
    middle = "<ResponseMetadata><RequestId>"
    tail = f"</RequestId></ResponseMetadata>\n</{name}>"
    if operation.output is None:
        return lambda answer, request_id: f"{head}{middle}{request_id}{tail}".encode()
    wrapper = operation.output.result_wrapper or f"{operation.name}Result"
    members = XmlWriters(service).members(service.shape(operation.output))

    def serialize(answer: Mapping[str, object], request_id: str) -> bytes:
        pieces = [head, f"<{wrapper}>"]
        members(answer, pieces.append)
        pieces.append(f"</{wrapper}>\n{middle}{request_id}{tail}")
        return "".join(pieces).encode()

    return serialize


class XmlWriters:
    """The writers of one service's shapes."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._bodies: dict[str, _Write] = {}

    def members(self, shape: Shape, skip: frozenset[str] = frozenset()) -> _Write:
        """A structure's members, without an element around them; those of `skip` stand elsewhere (in headers)."""
        writers: dict[str, _Write] = {}
        for name, member in shape.members.items():
            if name not in skip and not member.xml_attribute:
                writers[name] = self.element(self._name(name, member), member)
            elif member.xml_attribute:
                writers[name] = _nothing

        def write(value: Mapping[str, Any], out: Out) -> None:
            for name, item in value.items():
                if item is not None:
                    writers[name](item, out)

        def write_some(value: Mapping[str, Any], out: Out) -> None:
            for name, item in value.items():
                if item is not None and name not in skip:
                    writers[name](item, out)

        return write_some if skip else write

    def element(self, tag: str, reference: Reference, namespace: str = "") -> _Write:
        """A value in its element, or a flattened list as its elements."""
        shape = self.service.shape(reference)
        named = namespace_of(reference.xml_namespace) or namespace_of(shape.xml_namespace)
        attribute = f' xmlns="{namespace}"' if namespace else ""
        if named is not None and not namespace:
            attribute = f' xmlns{":" + named.prefix if named.prefix else ""}="{named.uri}"'
        opening, closing = f"<{tag}{attribute}>", f"</{tag}>"
        if shape.type == "structure":
            return self._structure(f"<{tag}{attribute}", closing, reference)
        if shape.type == "list":
            return self._list(tag, opening, closing, reference)
        if shape.type == "map":
            return self._map(tag, opening, closing, reference)
        return self._scalar(opening, closing, reference, shape)

    def _name(self, name: str, member: Reference) -> str:
        shape = self.service.shape(member)
        if shape.type == "list" and (member.flattened or shape.flattened):
            assert shape.member is not None
            return shape.member.location_name or member.location_name or name
        return member.location_name or name

    def _structure(self, opening: str, closing: str, reference: Reference) -> _Write:
        name = reference.shape
        shape = self.service.shape(reference)
        attributes = [
            (each, member.location_name or each) for each, member in shape.members.items() if member.xml_attribute
        ]
        if name not in self._bodies:
            # A shape can contain itself: what is inside asks for the body when it is needed.
            self._bodies[name] = lambda value, out: self._bodies[name](value, out)
            self._bodies[name] = self.members(shape)
        bodies = self._bodies
        whole = opening + ">"

        def write(value: Mapping[str, Any], out: Out) -> None:
            out(whole)
            bodies[name](value, out)
            out(closing)

        def write_with_attributes(value: Mapping[str, Any], out: Out) -> None:
            out(opening)
            for each, attribute in attributes:
                if value.get(each) is not None:
                    out(f' {attribute}="{escaped(value[each])}"')
            out(">")
            bodies[name](value, out)
            out(closing)

        return write_with_attributes if attributes else write

    def _list(self, tag: str, opening: str, closing: str, reference: Reference) -> _Write:
        shape = self.service.shape(reference)
        assert shape.member is not None
        if shape.flattened or reference.flattened:
            each = self.element(tag, shape.member)

            def write_flat(value: list[Any], out: Out) -> None:
                for item in value:
                    each(item, out)

            return write_flat
        default = "item" if self.service.protocol == "ec2" else "member"
        inner = self.element(shape.member.location_name or default, shape.member)

        def write(value: list[Any], out: Out) -> None:
            out(opening)
            for item in value:
                inner(item, out)
            out(closing)

        return write

    def _map(self, tag: str, opening: str, closing: str, reference: Reference) -> _Write:
        shape = self.service.shape(reference)
        assert shape.key is not None
        assert shape.value is not None
        key = self.element(shape.key.location_name or "key", shape.key)
        value_writer = self.element(shape.value.location_name or "value", shape.value)
        flat = shape.flattened or reference.flattened
        entry = tag if flat else "entry"

        def write(value: Mapping[str, Any], out: Out) -> None:
            if not flat:
                out(opening)
            for name, item in value.items():
                out(f"<{entry}>")
                key(name, out)
                value_writer(item, out)
                out(f"</{entry}>")
            if not flat:
                out(closing)

        return write

    def _scalar(self, opening: str, closing: str, reference: Reference, shape: Shape) -> _Write:
        kind = shape.type
        if kind in ("string", "character"):

            def write_string(value: str, out: Out) -> None:
                if value.isprintable() and "&" not in value and "<" not in value and ">" not in value:
                    out(f"{opening}{value}{closing}")
                else:
                    out(f"{opening}{escaped(value)}{closing}")

            return write_string
        if kind == "boolean":
            true, false = f"{opening}true{closing}", f"{opening}false{closing}"
            return lambda value, out: out(true if value else false)
        if kind == "timestamp":
            stated = reference.timestamp_format or shape.timestamp_format
            moment = write_iso
            if stated == "rfc822":
                moment = write_http_date
            elif self.service.name in ("iam", "sts"):
                moment = write_iso_seconds
            return lambda value, out: out(f"{opening}{moment(value)}{closing}")
        if kind == "blob":
            return lambda value, out: out(f"{opening}{write_blob(value)}{closing}")
        return lambda value, out: out(f"{opening}{value}{closing}")


def _nothing(value: object, out: Out) -> None:
    """An attribute: written with its element's start."""
