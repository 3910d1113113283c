"""Which operation a request is for.

EC2 and the query protocol name it in `Action`, JSON 1.1 in X-Amz-Target. In REST it follows from the method, the
path, and those query parameters and headers that an operation cannot do without: `PUT /bucket/key` is PutObject, with
`x-amz-copy-source` CopyObject, with `partNumber` and `uploadId` UploadPart, with both UploadPartCopy.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from celaje.cloud.aws import model
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.message import HttpRequest
from celaje.cloud.aws.model import Operation, Service
from celaje.cloud.aws.parse_query import read_form
from celaje.cloud.aws.refusals import DIALECTS

_LABEL = re.compile(r"\{(\w+)(\+?)\}")
_LONGEST_HOST = 253  # RFC 1035, 2.3.4
# What follows `.s3` can be read in one way only: hosts come from anybody, before any signature is looked at.
_BUCKET_HOST = re.compile(r"(?P<bucket>[^/]+?)\.s3(?:[.-][a-z0-9.-]*)?\.(?:localhost|amazonaws\.com|celaje)\b.*\Z")


@dataclass(slots=True)
class Routed:
    """An operation and the parts of the request that were taken apart to find it."""

    operation: Operation
    pairs: list[tuple[str, str]]
    labels: Mapping[str, str] = field(default_factory=dict)


def route(service: Service, request: HttpRequest) -> Routed:
    """AwsError if the request names no operation of the service."""
    if service.protocol in ("ec2", "query"):
        return _by_action(service, request)
    if service.protocol == "json":
        return _by_target(service, request)
    return _rest_router(service.name).route(request)


def _by_action(service: Service, request: HttpRequest) -> Routed:
    dialect = DIALECTS[service.name]
    pairs = read_form(request.query, dialect)
    if request.body:
        try:
            pairs += read_form(request.body.decode("utf-8"), dialect)
        except UnicodeDecodeError:
            raise dialect.syntax("The body is not UTF-8") from None
    action = version = None
    for name, value in pairs:
        if name == "Action":
            if action is not None:
                raise dialect.syntax("The parameter Action is given more than once")
            action = value
        elif name == "Version":
            version = value
    if not action:
        code = "MissingParameter" if service.protocol == "ec2" else "MissingAction"
        raise AwsError(code, "The request must contain the parameter Action")
    if version is not None and version != service.metadata.api_version:
        raise AwsError(
            "NoSuchVersion" if service.protocol == "ec2" else "InvalidAction",
            f"The requested version ({version[:40]}) of service {service.metadata.service_id} does not exist; "
            f"there is {service.metadata.api_version}",
        )
    operation = service.operations.get(action)
    if operation is None:
        if service.protocol == "ec2":
            raise AwsError("InvalidAction", f"The action {action[:100]} is not valid for this web service.")
        raise AwsError(
            "InvalidAction",
            f"Could not find operation {action[:100]} for version {version or service.metadata.api_version}",
        )
    return Routed(operation, pairs)


def _by_target(service: Service, request: HttpRequest) -> Routed:
    target = request.header("x-amz-target") or ""
    prefix, _, name = target.partition(".")
    operation = service.operations.get(name)
    if operation is None or prefix != service.metadata.target_prefix:
        raise AwsError(
            "UnknownOperationException",
            f"X-Amz-Target must name an operation, as in {service.metadata.target_prefix}.OPERATION, "
            f"not '{target[:100]}'",
        )
    return Routed(operation, [])


class _Candidate:
    """One operation of a REST service, and what a request must have to be for it."""

    def __init__(self, service: Service, operation: Operation) -> None:
        self.operation = operation
        path, _, query = operation.http.request_uri.partition("?")
        self.literals = [tuple(piece.partition("=")[::2]) for piece in query.split("&") if piece]
        self.literals = [literal for literal in self.literals if literal[0] != "x-id"]
        self.needed_query: set[str] = set()
        self.needed_headers: set[str] = set()
        shape = service.input_shape(operation)
        for name in shape.required if shape is not None else ():
            assert shape is not None
            member = shape.members[name]
            if member.location == "querystring":
                self.needed_query.add(member.location_name or name)
            elif member.location == "header":
                self.needed_headers.add((member.location_name or name).lower())
        pattern, at = "", 0
        for label in _LABEL.finditer(path):
            pattern += re.escape(path[at : label.start()])
            pattern += f"(?P<{label[1]}>.+)" if label[2] else f"(?P<{label[1]}>[^/]+)"
            at = label.end()
        pattern += re.escape(path[at:])
        trailing = "/?" if path == "/{Bucket}" else ""
        self.path = re.compile(pattern + trailing + r"\Z", re.DOTALL)

    @property
    def rank(self) -> tuple[int, int, bool, str]:
        """What asks for more comes first; of two that are alike, the one that replaced the other."""
        needed = len(self.needed_query) + len(self.needed_headers)
        return -len(self.literals), -needed, not self.operation.name.endswith("Configuration"), self.operation.name


class _RestRouter:
    def __init__(self, service: Service) -> None:
        self.service = service
        self._by_method: dict[str, list[_Candidate]] = {}
        for operation in service.operations.values():
            self._by_method.setdefault(operation.http.method, []).append(_Candidate(service, operation))
        for candidates in self._by_method.values():
            candidates.sort(key=lambda candidate: candidate.rank)

    def selecting(self) -> frozenset[str]:
        candidates = (each for those in self._by_method.values() for each in those)
        return frozenset(name for each in candidates for name, _ in each.literals)

    def route(self, request: HttpRequest) -> Routed:
        dialect = DIALECTS[self.service.name]
        path = request.path
        if self.service.name == "s3":
            bucket = bucket_of_host(request.header("host") or "")
            if bucket is not None:
                path = f"/{bucket}{path}"
        try:
            pairs = request.parameters()
        except UnicodeDecodeError:
            raise dialect.syntax("The query string contains bytes that are not UTF-8") from None
        query = dict(pairs)
        chosen: _Candidate | None = None
        for candidate in self._by_method.get(request.method, ()):
            if chosen is not None and len(candidate.literals) < len(chosen.literals):
                break
            if not candidate.path.match(path):
                continue
            if not all(name in query and (not value or query[name] == value) for name, value in candidate.literals):
                continue
            chosen = candidate
            if candidate.operation.name == query.get("x-id"):
                break
            if candidate.needed_query <= query.keys() and all(
                request.header(name) is not None for name in candidate.needed_headers
            ):
                break
        if chosen is None:
            raise self._nothing(request)
        match = chosen.path.match(path)
        assert match is not None
        try:
            labels = {name: unquote_to_bytes(value).decode("utf-8") for name, value in match.groupdict().items()}
        except UnicodeDecodeError:
            if self.service.name == "s3":
                raise AwsError("InvalidURI", "Couldn't parse the specified URI.") from None
            raise dialect.syntax("The path contains bytes that are not UTF-8") from None
        return Routed(chosen.operation, pairs, labels)

    def _nothing(self, request: HttpRequest) -> AwsError:
        if self.service.name != "s3":
            return AwsError("UnknownOperationException", f"There is no {request.method[:20]} {request.path[:200]}", 404)
        if request.method == "OPTIONS":
            return AwsError("AccessForbidden", "CORSResponse: CORS is not enabled for this bucket.", 403)
        return AwsError(
            "MethodNotAllowed",
            "The specified method is not allowed against this resource.",
            405,
            {"ResourceType": "SERVICE" if request.path == "/" else "OBJECT"},
        )


@functools.cache
def _rest_router(name: str) -> _RestRouter:
    return _RestRouter(model.service(name))


@functools.cache
def selecting_parameters(service: str) -> frozenset[str]:
    """The parameters of a query by which operations of a REST service are told apart."""
    return _rest_router(service).selecting()


def bucket_of_host(host: str) -> str | None:
    """The bucket of a virtual-host style request (`BUCKET.s3.localhost`, `BUCKET.s3.REGION.localhost`,
    `BUCKET.localhost`), None for path style."""
    name = host_name(host)
    if len(name) > _LONGEST_HOST:
        return None
    match = _BUCKET_HOST.match(name)
    if match is not None:
        return match["bucket"]
    if name.endswith(".localhost"):
        prefix = name.removesuffix(".localhost")
        if prefix == "s3" or re.fullmatch(r"s3[.-][a-z0-9-]+|ec2(\..*)?|sts(\..*)?|iam|ssm(\..*)?|ebs(\..*)?", prefix):
            return None
        return prefix
    return None


def host_name(host: str) -> str:
    """A Host header without its port, in lower case."""
    host = host.strip().lower().rstrip(".")
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.rpartition(":")[0] if ":" in host else host
