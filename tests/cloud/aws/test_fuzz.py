"""Malformed requests by the thousand: always an error of AWS's, never a 500, never a traceback.

Requests begin as botocore would send them and are then spoiled: parameters renamed, repeated, cut, nested, filled with
nonsense; bodies cut and flipped; headers and queries made up. They go through the gateway as they would from a socket,
with keys that are not checked, so that everything behind the signature is reached.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import msgspec
import pytest

from celaje.cloud.aws import model
from celaje.cloud.aws.action import Actions, Answer, Call, Registry
from celaje.cloud.aws.dispatch import Dispatcher
from celaje.cloud.aws.gateway import Gateway
from celaje.cloud.aws.message import HttpAnswer, HttpRequest
from celaje.cloud.aws.model import Reference, Service
from celaje.cloud.aws.parse_query import wire_name
from celaje.cloud.aws.streams import RequestBody
from celaje.cloud.settings import Settings
from celaje.cloud.state.database import Database
from tests.cloud.aws.conftest import Keys

DATE = ("x-amz-date", "20260131T120000Z")
REQUESTS = 1500  # of each service
NONSENSE = [
    "", "0", "-1", "1", "true", "TRUE", "null", "99999999999999999999", "1e309", "NaN", "a" * 3000, "é\u2028", "%00",
    "%ff%fe", "../..", "<a>&amp;", "{}", "[]", "2026-13-45T99:99:99Z", "2026-01-31T12:00:00Z", "====", "\u0000", "*",
    "i-0123456789abcdef0",
]  # fmt: skip


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway in which every action of every service is there, and answers with nothing."""
    database = Database(tmp_path_factory.mktemp("fuzz") / "state.sqlite3")
    database.prepare()
    services = []
    for name in model.MODELS:
        known = model.service(name)
        actions = Actions(name)
        for operation in known.operations.values():
            if name == "s3":

                def read_all(call: Call, request: dict[str, Any]) -> Answer:
                    for value in request.values():
                        if isinstance(value, RequestBody):
                            value.all(1 << 20)
                    return {}

                read_all.__name__ = operation.action
                actions.add(read_all, reads=True, transacted=False)
            else:

                def nothing(call: Call, request: dict[str, Any]) -> Answer:
                    return {}

                nothing.__name__ = operation.action
                actions.add(nothing, reads=True)
        services.append(actions)
    yield Gateway(Registry(services), Dispatcher(database, lambda name: None), Keys(), Settings(), any_key=True)
    database.close()


def authorization(service: str) -> tuple[str, str]:
    scope = f"Credential=test/20260131/us-east-1/{service}/aws4_request"
    return "authorization", f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature={'0' * 64}"


def checked(gateway: Gateway, service: str, request: HttpRequest, source: Any = None) -> HttpAnswer:
    """The gateway's answer, if it is one of AWS's."""
    protocol = model.service(service).protocol
    answer = gateway.answer(request, source)
    shown = f"{request.method} {request.path}?{request.query} {request.headers} {request.body[:2000]!r}"
    assert answer.status < 500 or answer.status == 501, shown
    headers = {name.lower(): value for name, value in answer.headers}
    assert headers.get("x-amzn-requestid") or headers.get("x-amz-request-id"), shown
    if answer.status >= 400:
        assert isinstance(answer.body, bytes)
        if protocol in ("json", "rest-json"):
            assert msgspec.json.decode(answer.body), shown
            assert headers["x-amzn-errortype"], shown
        else:
            code = ElementTree.fromstring(answer.body).find(".//{*}Code")
            assert code is not None, shown
            assert code.text, shown
    return answer


class Maker:
    """Parameters of an operation as a flat list, valid in their names and mostly not in their values."""

    def __init__(self, service: Service, chance: random.Random) -> None:
        self.service = service
        self.chance = chance

    def text(self, reference: Reference) -> str:
        shape = self.service.shape(reference)
        if self.chance.random() < 0.5:
            return self.chance.choice(NONSENSE)
        if shape.enum:
            return self.chance.choice(shape.enum)
        return {
            "boolean": "true",
            "integer": "7",
            "long": "7",
            "timestamp": "2026-01-31T12:00:00Z",
            "blob": "YQ==",
        }.get(shape.type, "text")

    def flat(self, reference: Reference, prefix: str, depth: int = 0) -> list[tuple[str, str]]:
        shape = self.service.shape(reference)
        chance = self.chance
        if depth > 6:
            return [(prefix, chance.choice(NONSENSE))]
        if shape.type == "structure":
            names = list(shape.members)
            chosen = set(chance.sample(names, min(len(names), chance.randint(0, 6)))) | set(shape.required)
            pairs = []
            for name in sorted(chosen):
                wire = wire_name(self.service, name, shape.members[name])
                pairs += self.flat(shape.members[name], f"{prefix}.{wire}" if prefix else wire, depth + 1)
            return pairs
        if shape.type == "list":
            assert shape.member is not None
            between = "" if self.service.protocol == "ec2" else ".member"
            start = chance.choice([0, 1, 1, 1, 5])
            count = chance.randint(0, 3)
            return [
                pair
                for index in range(start, start + count)
                for pair in self.flat(shape.member, f"{prefix}{between}.{index}", depth + 1)
            ]
        if shape.type == "map":
            return [(f"{prefix}.entry.1.key", "k"), (f"{prefix}.entry.1.value", "v")]
        return [(prefix, self.text(reference))]

    def nested(self, reference: Reference, depth: int = 0) -> Any:
        shape = self.service.shape(reference)
        chance = self.chance
        if depth > 6 or chance.random() < 0.15:
            return chance.choice([None, 1, -1.5, "x", True, [], {}, [None], {"a": {}}, 10**30, ""])
        if shape.type == "structure":
            names = list(shape.members)
            chosen = set(chance.sample(names, min(len(names), chance.randint(0, 5)))) | set(shape.required)
            return {
                shape.members[name].location_name or name: self.nested(shape.members[name], depth + 1)
                for name in sorted(chosen)
            }
        if shape.type == "list":
            assert shape.member is not None
            return [self.nested(shape.member, depth + 1) for _ in range(chance.randint(0, 3))]
        if shape.type == "map":
            assert shape.value is not None
            return {"k": self.nested(shape.value, depth + 1)}
        return self.text(reference)

    def xml(self, reference: Reference, tag: str, depth: int = 0) -> str:
        shape = self.service.shape(reference)
        chance = self.chance
        if chance.random() < 0.05:
            tag = chance.choice(["Other", "Key", tag + "s", "é"])
        if depth > 6:
            return f"<{tag}/>"
        if shape.type == "structure":
            names = list(shape.members)
            chosen = set(chance.sample(names, min(len(names), chance.randint(0, 4)))) | set(shape.required)
            inner = "".join(
                self.xml(shape.members[name], shape.members[name].location_name or name, depth + 1)
                for name in sorted(chosen)
            )
            return f"<{tag}>{inner}</{tag}>"
        if shape.type == "list":
            assert shape.member is not None
            if shape.flattened:
                return "".join(self.xml(shape.member, tag, depth + 1) for _ in range(chance.randint(0, 3)))
            inner = self.xml(shape.member, shape.member.location_name or "member", depth + 1)
            return f"<{tag}>{inner * chance.randint(0, 2)}</{tag}>"
        text = self.text(reference).replace("&", "&amp;").replace("<", "&lt;").replace("\0", "")
        return f"<{tag}>{text}</{tag}>"

    def spoiled(self, data: bytes) -> bytes:
        """Sometimes cut, flipped, doubled."""
        chance = self.chance
        kind = chance.random()
        if not data or kind < 0.6:
            return data
        at = chance.randrange(len(data))
        if kind < 0.7:
            return data[:at]
        if kind < 0.85:
            return data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
        return data[:at] + data

    def form(self, pairs: list[tuple[str, str]]) -> bytes:
        chance = self.chance
        pairs = list(pairs)
        for _ in range(chance.randint(0, 2)):
            if not pairs:
                break
            at = chance.randrange(len(pairs))
            name, value = pairs[at]
            kind = chance.randint(0, 6)
            if kind == 0:
                pairs.append((name, value))
            elif kind == 1:
                pairs[at] = (name + ".1", value)
            elif kind == 2:
                pairs[at] = (name.rpartition(".")[0] or "." + name, value)
            elif kind == 3:
                pairs[at] = (name.lower(), value)
            elif kind == 4:
                pairs[at] = (name + ".1" * chance.choice([3, 40]), value)
            elif kind == 5:
                pairs.append((chance.choice(["Unknown", ".", "..", "", "Filter", "Filter.x.Name", "é"]), value))
            else:
                del pairs[at]
        return "&".join(f"{quote(name, safe='.%')}={quote(value, safe='%')}" for name, value in pairs).encode()


@pytest.mark.parametrize("service", ["ec2", "sts", "iam"])
def test_forms(gateway: Gateway, service: str) -> None:
    known = model.service(service)
    chance = random.Random(service)
    maker = Maker(known, chance)
    refused = 0
    for _ in range(REQUESTS):
        operation = chance.choice(list(known.operations.values()))
        pairs = [("Action", operation.name), ("Version", known.metadata.api_version)]
        if operation.input is not None:
            pairs += maker.flat(operation.input, "")
        body = maker.spoiled(maker.form(pairs))
        headers = [("host", "localhost"), DATE, authorization(service)]
        if chance.random() < 0.2:
            request = HttpRequest("GET", "/", body.decode("latin-1"), headers)
        else:
            request = HttpRequest(
                "POST", "/", "", [*headers, ("content-type", "application/x-www-form-urlencoded")], body
            )
        refused += checked(gateway, service, request).status >= 400
    assert 0 < refused < REQUESTS


@pytest.mark.parametrize("service", ["ssm", "ebs"])
def test_json(gateway: Gateway, service: str) -> None:
    known = model.service(service)
    chance = random.Random(service)
    maker = Maker(known, chance)
    refused = 0
    for _ in range(REQUESTS):
        operation = chance.choice(list(known.operations.values()))
        assert operation.input is not None
        body = maker.spoiled(msgspec.json.encode(maker.nested(operation.input)))
        headers = [("host", "localhost"), DATE, authorization(service)]
        if service == "ssm":
            target = chance.choice([f"AmazonSSM.{operation.name}"] * 9 + ["AmazonSSM.Other", "x", ""])
            request = HttpRequest("POST", "/", "", [*headers, ("x-amz-target", target)], body)
        else:
            path = operation.http.request_uri
            for label in ("snapshotId", "blockIndex", "secondSnapshotId"):
                path = path.replace(f"{{{label}}}", quote(chance.choice([*NONSENSE, "snap-1", "3"]), safe="%"))
            query = "&".join(
                f"{name}={quote(chance.choice([*NONSENSE, '100']), safe='%')}"
                for name in ("maxResults", "pageToken", "blockToken")
                if chance.random() < 0.3
            )
            more = [
                (f"x-amz-{name}", chance.choice([*NONSENSE, "7"])) for name in ("data-length", "checksum", "progress")
            ]
            request = HttpRequest(operation.http.method, path, query, [*headers, *more], body)
        refused += checked(gateway, service, request).status >= 400
    assert 0 < refused < REQUESTS


def test_s3(gateway: Gateway) -> None:
    known = model.service("s3")
    chance = random.Random("s3")
    maker = Maker(known, chance)
    refused = 0
    for _ in range(REQUESTS):
        operation = chance.choice(list(known.operations.values()))
        shape = known.input_shape(operation)
        path, _, literal = operation.http.request_uri.partition("?")
        key = quote(chance.choice([*NONSENSE, "a/b", "k"]), safe="%/")
        path = path.replace("{Bucket}", chance.choice(["here", "here", "%ff", "A..b"])).replace("{Key+}", key)
        query = [literal] if literal else []
        headers = [("host", chance.choice(["localhost", "here.localhost"])), DATE, authorization("s3")]
        headers.append(
            (
                "x-amz-content-sha256",
                chance.choice(["UNSIGNED-PAYLOAD"] * 5 + ["0" * 64, "x", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"]),
            )
        )
        body = b""
        for name, member in shape.members.items() if shape is not None else ():
            wire = member.location_name or name
            if member.location == "querystring" and chance.random() < 0.5:
                query.append(f"{wire}={quote(maker.text(member), safe='%')}")
            elif member.location == "header" and chance.random() < 0.4:
                headers.append((wire.lower(), maker.text(member)))
            elif member.location == "headers" and chance.random() < 0.4:
                headers.append((wire.lower() + "key", chance.choice(NONSENSE)))
            elif shape is not None and shape.payload == name and known.shape(member).type == "structure":
                namespace = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
                body = maker.xml(member, member.location_name or name).replace(">", namespace + ">", 1).encode()
        body = maker.spoiled(body)
        headers.append(("content-length", str(len(body))))
        if chance.random() < 0.2:
            headers.append(
                (
                    chance.choice(["content-md5", "x-amz-trailer", "x-amz-decoded-content-length"]),
                    chance.choice(NONSENSE),
                )
            )
        request = HttpRequest(operation.http.method, path, "&".join(query), headers)
        pieces = iter([body])
        refused += checked(gateway, "s3", request, lambda pieces=pieces: next(pieces, b"")).status >= 400
    assert 0 < refused < REQUESTS


@pytest.mark.parametrize(
    "body",
    [
        b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><Tagging><TagSet>&b;</TagSet></Tagging>',
        b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><Tagging><TagSet/></Tagging>',
        b"<Tagging>" * 5000,
        b"<Tagging><TagSet>" + b"<Tag><Key>a</Key><Value>b</Value></Tag>" * 50_000 + b"</TagSet></Tagging>",
        b"\xff\xfe<Tagging/>",
        b'<?xml version="1.0" encoding="utf-7"?><Tagging/>',
        b"",
        b"<Other/>",
        b"not xml",
    ],
)
def test_hostile_xml_is_malformed(gateway: Gateway, body: bytes) -> None:
    headers = [("host", "localhost"), DATE, authorization("s3"), ("x-amz-content-sha256", "UNSIGNED-PAYLOAD")]
    headers += [("content-length", str(len(body))), ("x-amz-checksum-crc32", "AAAAAA==")]
    request = HttpRequest("PUT", "/here", "tagging", headers)
    pieces = iter([body])
    assert checked(gateway, "s3", request, lambda: next(pieces, b"")).status == 400


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"Name":' * 100_000, b'{"Name": "\\ud800"}', b"{}{}", b"\xff"])
def test_hostile_json_is_refused(gateway: Gateway, body: bytes) -> None:
    request = HttpRequest(
        "POST",
        "/",
        "",
        [("host", "localhost"), DATE, authorization("ssm"), ("x-amz-target", "AmazonSSM.GetParameter")],
        body,
    )
    assert checked(gateway, "ssm", request).status == 400


def test_requests_that_are_no_requests(gateway: Gateway, tmp_path: Path) -> None:
    chance = random.Random(0)
    for _ in range(REQUESTS):
        headers = [("host", chance.choice(["localhost", "", "[::1]:1", "é", "a.b.localhost:x", ":"]))]
        for name in ("authorization", "x-amz-date", "content-type", "x-amz-target", "x-amz-content-sha256", "origin"):
            if chance.random() < 0.4:
                headers.append((name, chance.choice([*NONSENSE, "AWS4-HMAC-SHA256 x", authorization("ec2")[1]])))
        query = chance.choice(
            [
                "",
                "Action=%ff",
                "X-Amz-Algorithm=AWS4-HMAC-SHA256",
                "a&b&=&&",
                "X-Amz-Signature=%ff&X-Amz-Credential=a/b/c/d/e",
            ]
        )
        body = chance.choice([b"", b"\xff" * 100, b"Action=RunInstances&Version=2016-11-15"])
        method = chance.choice(["GET", "POST", "PUT", "HEAD", "OPTIONS", "PATCH", "BREW"])
        path = chance.choice(["/", "//", "/%", "/%ff", "/a/b", "*", "http://x/", "/" + "a" * 5000])
        answer = gateway.answer(HttpRequest(method, path, query, headers, body))
        assert answer.status < 500 or answer.status == 501
