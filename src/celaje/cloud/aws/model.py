"""Services, operations and shapes, read from the models that botocore ships.

Only what the wire needs is kept (the documentation in the models is skipped while decoding), so the largest, EC2's
830 operations, is read in a fraction of botocore's own time. Nothing outside this module knows where the models come
from.

A *shape* is a type (structure, list, map, string, …) with its constraints; a *reference* is one use of a shape, which
says where in a request or an answer the value stands and what it is called there. What a reference says wins over
what its shape says.
"""

import functools
import gzip
from importlib import resources

import msgspec
from botocore import xform_name

from celaje.typed_data import from_json

# Name (as in credential scopes) → directory and version of the model.
MODELS = {
    "ec2": "2016-11-15",
    "sts": "2011-06-15",
    "iam": "2010-05-08",
    "s3": "2006-03-01",
    "ssm": "2014-11-06",
    "organizations": "2016-11-28",
    "ebs": "2019-11-02",
    "servicequotas": "2019-06-24",
}
# Where botocore's directory has another name than credential scopes.
_DIRECTORIES = {"servicequotas": "service-quotas"}
Protocol = str  # "ec2", "query", "rest-xml", "json", "rest-json"


class XmlNamespace(msgspec.Struct, frozen=True):
    uri: str
    prefix: str = ""


class Reference(msgspec.Struct, frozen=True, rename="camel"):
    """One use of a shape: in a member of a structure, an item of a list, a key or value of a map, an input or an
    output.
    """

    shape: str
    location: str | None = None  # "uri", "querystring", "header", "headers", "statusCode"; None is the body
    location_name: str | None = None
    query_name: str | None = None
    result_wrapper: str | None = None
    timestamp_format: str | None = None
    flattened: bool = False
    streaming: bool = False
    xml_attribute: bool = False
    xml_namespace: XmlNamespace | str | None = None
    idempotency_token: bool = False
    event_payload: bool = msgspec.field(default=False, name="eventpayload")


class Shape(msgspec.Struct, frozen=True, rename="camel"):
    type: str
    members: dict[str, Reference] = {}
    required: list[str] = []
    member: Reference | None = None
    key: Reference | None = None
    value: Reference | None = None
    enum: list[str] = []
    min: float | None = None
    max: float | None = None
    pattern: str | None = None
    payload: str | None = None
    flattened: bool = False
    streaming: bool = False
    location_name: str | None = None
    timestamp_format: str | None = None
    xml_namespace: XmlNamespace | str | None = None
    union: bool = False
    event_stream: bool = msgspec.field(default=False, name="eventstream")


class Http(msgspec.Struct, frozen=True, rename="camel"):
    method: str = "POST"
    request_uri: str = "/"
    response_code: int = 200


class HttpChecksum(msgspec.Struct, frozen=True, rename="camel"):
    request_algorithm_member: str | None = None
    request_checksum_required: bool = False


class Operation(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    http: Http = Http()
    input: Reference | None = None
    output: Reference | None = None
    http_checksum: HttpChecksum = HttpChecksum()

    @property
    def action(self) -> str:
        """The name in snake case, as handlers and boto3's methods are called."""
        return snake_case(self.name)


class Metadata(msgspec.Struct, frozen=True, rename="camel"):
    api_version: str
    protocol: Protocol
    service_id: str
    xml_namespace: str = ""
    target_prefix: str = ""
    json_version: str = "1.0"


class Service(msgspec.Struct, frozen=True):
    metadata: Metadata
    operations: dict[str, Operation]
    shapes: dict[str, Shape]
    name: str = ""  # as in credential scopes

    @property
    def protocol(self) -> Protocol:
        return self.metadata.protocol

    def shape(self, reference: Reference) -> Shape:
        return self.shapes[reference.shape]

    def input_shape(self, operation: Operation) -> Shape | None:
        return None if operation.input is None else self.shapes[operation.input.shape]

    def output_shape(self, operation: Operation) -> Shape | None:
        return None if operation.output is None else self.shapes[operation.output.shape]

    def streaming_member(self, reference: Reference | None) -> str | None:
        """The member whose bytes are not held in memory (an object's body, a block), where there is one."""
        if reference is None:
            return None
        shape = self.shapes[reference.shape]
        if shape.payload is None:
            return None
        member = shape.members[shape.payload]
        return shape.payload if member.streaming or self.shapes[member.shape].streaming else None

    def idempotency_member(self, operation: Operation) -> str | None:
        """The member that carries the client's idempotency token (`ClientToken`), where the operation has one."""
        shape = self.input_shape(operation)
        if shape is None:
            return None
        return next((name for name, member in shape.members.items() if member.idempotency_token), None)

def namespace_of(value: XmlNamespace | str | None) -> XmlNamespace | None:
    """Models write a namespace as a mapping or, at two places, as the bare URI."""
    return XmlNamespace(value) if isinstance(value, str) else value


@functools.cache
def snake_case(name: str) -> str:
    """`DescribeDBInstances` → `describe_db_instances`, by the rules of boto3's method names."""
    return str(xform_name(name))


@functools.cache
def service(name: str) -> Service:
    """The model of one of MODELS; read once a process."""
    version = MODELS[name]
    file = resources.files("botocore") / "data" / _DIRECTORIES.get(name, name) / version / "service-2.json.gz"
    raw = from_json(gzip.decompress(file.read_bytes()), Service)
    return msgspec.structs.replace(raw, name=name)
