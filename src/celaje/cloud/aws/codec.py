"""One operation, ready to be read and answered: its protocol's parser and serializer, made when it is first called."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from celaje.cloud.aws import model
from celaje.cloud.aws.constraints import compile_checker
from celaje.cloud.aws.message import HttpAnswer, HttpRequest
from celaje.cloud.aws.model import Operation, Service
from celaje.cloud.aws.parse_json import JsonReaders, read_json
from celaje.cloud.aws.parse_query import compile_query_parser, grow
from celaje.cloud.aws.refusals import DIALECTS
from celaje.cloud.aws.rest import compile_rest_parser, compile_rest_serializer
from celaje.cloud.aws.routing import Routed
from celaje.cloud.aws.serialize_error import JSON_TYPE, XML_TYPE
from celaje.cloud.aws.serialize_json import JsonWriters
from celaje.cloud.aws.serialize_xml import compile_ec2_serializer, compile_query_serializer
from celaje.cloud.aws.streams import RequestBody

_Parse = Callable[[HttpRequest, Routed, RequestBody | None], dict[str, object]]
_Serialize = Callable[[Mapping[str, object], str], HttpAnswer]


class Codec:
    """`token_member`: the operation's idempotency token. `streams_in`: its body is not held in memory."""

    def __init__(self, service: Service, operation: Operation) -> None:
        self.service = service
        self.operation = operation
        self.token_member = service.idempotency_member(operation)
        self.streams_in = service.streaming_member(operation.input) is not None
        self._parse = _parser(service, operation)
        self._check = compile_checker(service, operation)
        self._serialize = _serializer(service, operation)

    def read(self, request: HttpRequest, routed: Routed, body: RequestBody | None) -> dict[str, object]:
        """The operation's members, valid by the model. AwsError, as the service words it, if they are not."""
        members = self._parse(request, routed, body)
        if self._check is not None:
            violations = self._check(members)
            if violations:
                raise DIALECTS[self.service.name].violated(violations)
        return members

    def write(self, answer: Mapping[str, object], request_id: str) -> HttpAnswer:
        """The answer, without the headers that all answers have. KeyError, TypeError or AttributeError if it is not
        what the model says."""
        return self._serialize(answer, request_id)


def _parser(service: Service, operation: Operation) -> _Parse:
    dialect = DIALECTS[service.name]
    if service.protocol in ("ec2", "query"):
        from_tree = compile_query_parser(service, operation)
        return lambda request, routed, body: from_tree(grow(routed.pairs, dialect))
    if service.protocol == "json":
        if operation.input is None:
            return lambda request, routed, body: {}
        from_json = JsonReaders(service, dialect).structure(operation.input)
        return lambda request, routed, body: from_json(read_json(request.body, dialect), "")
    from_rest = compile_rest_parser(service, operation)
    return lambda request, routed, body: from_rest(request, routed.labels, routed.pairs, body)


def _serializer(service: Service, operation: Operation) -> _Serialize:
    if service.protocol in ("ec2", "query"):
        compile_xml = compile_ec2_serializer if service.protocol == "ec2" else compile_query_serializer
        to_xml = compile_xml(service, operation)
        return lambda answer, request_id: HttpAnswer(200, [("Content-Type", XML_TYPE)], to_xml(answer, request_id))
    if service.protocol == "json":
        to_json = JsonWriters(service).body(operation.output)
        return lambda answer, request_id: HttpAnswer(200, [("Content-Type", JSON_TYPE)], to_json(answer))
    to_rest = compile_rest_serializer(service, operation)
    return lambda answer, request_id: HttpAnswer(*to_rest(answer))


@functools.cache
def codec(service: str, operation: str) -> Codec:
    """The codec of an operation by AWS's name."""
    known = model.service(service)
    return Codec(known, known.operations[operation])
