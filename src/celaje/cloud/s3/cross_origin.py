"""Cross-origin requests: which pages of the web may do what with a bucket (Put-, Get- and DeleteBucketCors), and what
browsers are told of it.

A browser asks first, unsigned (a preflight: OPTIONS), and holds what it is answered against what its page wants; it
also looks at the answer of the request itself. The first rule that the origin, the method and all headers match
decides. It only tells a browser what its page may do: who may is decided by signatures and policies as ever, and
requests that prove nothing (`celaje up --auth open`) are refused to every page, whatever rules say.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING
from urllib.parse import unquote

from celaje.cloud.aws.action import Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.message import HttpRequest
from celaje.cloud.aws.routing import bucket_of_host
from celaje.cloud.s3.access import bucket_of
from celaje.cloud.s3.names import of_header
from celaje.cloud.s3.store.object_store import ObjectStore
from celaje.cloud.s3.store.records import CorsRule
from celaje.cloud.s3.store.refusals import invalid_request

if TYPE_CHECKING:
    from mypy_boto3_s3 import type_defs as s3

METHODS = ("GET", "PUT", "HEAD", "POST", "DELETE")
_MOST_RULES = 100
_LONGEST_ID = 255
_LONGEST = 64 << 10  # characters of a configuration, which is kept in memory
_VARY = ("Vary", "Origin, Access-Control-Request-Headers, Access-Control-Request-Method")

Headers = list[tuple[str, str]]


class CorsActions:
    """What is asked of a bucket's rules."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def put_bucket_cors(self, call: Call, request: s3.PutBucketCorsRequestTypeDef) -> Answer:
        bucket = bucket_of(self._store, call, request)
        given = request["CORSConfiguration"]["CORSRules"]
        if not 0 < len(given) <= _MOST_RULES:
            raise AwsError(
                "MalformedXML",
                "The XML you provided was not well-formed or did not validate against our published schema: a CORS"
                f" configuration has 1 to {_MOST_RULES} rules",
            )
        rules = tuple(_rule(each) for each in given)
        if sum(map(len, itertools.chain.from_iterable(map(_texts, rules)))) > _LONGEST:
            raise invalid_request(f"A CORS configuration has at most {_LONGEST} characters")
        self._store.buckets.set(bucket, cors=rules).result()
        return {}

    def get_bucket_cors(self, call: Call, request: s3.GetBucketCorsRequestTypeDef) -> Answer:
        bucket = bucket_of(self._store, call, request)
        if not bucket.settings.cors:
            raise AwsError(
                "NoSuchCORSConfiguration",
                "The CORS configuration does not exist",
                404,
                {"BucketName": bucket.name},
            )
        return {
            "CORSRules": [
                {
                    "ID": rule.identifier,
                    "AllowedHeaders": list(rule.headers) or None,
                    "AllowedMethods": list(rule.methods),
                    "AllowedOrigins": list(rule.origins),
                    "ExposeHeaders": list(rule.exposed) or None,
                    "MaxAgeSeconds": rule.max_age,
                }
                for rule in bucket.settings.cors
            ]
        }

    def delete_bucket_cors(self, call: Call, request: s3.DeleteBucketCorsRequestTypeDef) -> Answer:
        self._store.buckets.set(bucket_of(self._store, call, request), cors=()).result()
        return {}


class BucketCors:
    """What browsers are told: the gateway's CrossOrigin."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def preflight(self, request: HttpRequest) -> Headers:
        """The headers of the answer to a preflight. BadRequest; AccessForbidden."""
        origin, method = request.header("origin"), request.header("access-control-request-method")
        if not origin:
            raise AwsError("BadRequest", "Insufficient information. Origin request header needed.")
        if method not in METHODS:
            raise AwsError("BadRequest", f"Invalid Access-Control-Request-Method: {(method or 'null')[:20]}")
        rules = self._rules(request)
        if not rules:
            there = rules is not None
            raise _forbidden("CORS is not enabled for this bucket." if there else "Bucket not found", method, "BUCKET")
        told = _told(rules, origin, method, request.header("access-control-request-headers"))
        if told is None:
            raise _forbidden(
                "This CORS request is not allowed. This is usually because the evalution of Origin, request method /"
                " Access-Control-Request-Method or Access-Control-Request-Headers are not whitelisted by the"
                " resource's CORS spec.",
                method,
                "OBJECT",
            )
        return told

    def headers(self, request: HttpRequest) -> Headers:
        """What is added to the answer to a request, if it comes from a page that may."""
        origin = request.header("origin")
        rules = self._rules(request) if origin else None
        if not origin or not rules:
            return []
        method = request.header("access-control-request-method") or request.method
        return _told(rules, origin, method, request.header("access-control-request-headers")) or []

    def _rules(self, request: HttpRequest) -> tuple[CorsRule, ...] | None:
        """The rules of the bucket that a request is for; None if there is no such bucket."""
        name = bucket_of_host(request.header("host") or "") or unquote(request.path.lstrip("/").partition("/")[0])
        bucket = self._store.buckets.get(name)
        return None if bucket is None else bucket.settings.cors


def _told(rules: Iterable[CorsRule], origin: str, method: str, wanted: str | None) -> Headers | None:
    """What the first rule that matches lets a browser know; None if none does."""
    asked = [name.strip().lower() for name in (wanted or "").split(",") if name.strip()]
    for rule in rules:
        if method not in rule.methods or not _any_matches(rule.origins, origin):
            continue
        if not all(_any_matches([pattern.lower() for pattern in rule.headers], name) for name in asked):
            continue
        anybody = "*" in rule.origins
        told = [
            ("Access-Control-Allow-Origin", "*" if anybody else origin),
            ("Access-Control-Allow-Methods", ", ".join(rule.methods)),
        ]
        if asked:
            told.append(("Access-Control-Allow-Headers", ", ".join(asked)))
        if rule.exposed:
            told.append(("Access-Control-Expose-Headers", ", ".join(rule.exposed)))
        if rule.max_age is not None:
            told.append(("Access-Control-Max-Age", str(rule.max_age)))
        if not anybody:
            told.append(("Access-Control-Allow-Credentials", "true"))
        return [*told, _VARY]
    return None


def _any_matches(patterns: Sequence[str], text: str) -> bool:
    """Whether one of the patterns, with one `*` at most, is for the text."""
    for pattern in patterns:
        head, star, tail = pattern.partition("*")
        if pattern == text:
            return True
        if star and len(text) >= len(head) + len(tail) and text.startswith(head) and text.endswith(tail):
            return True
    return False


def _rule(given: s3.CORSRuleTypeDef | s3.CORSRuleOutputTypeDef) -> CorsRule:
    for method in given["AllowedMethods"]:
        if method not in METHODS:
            raise invalid_request(f"Found unsupported HTTP method in CORS config. Unsupported method is {method[:20]}")
    for member, patterns in (
        ("AllowedOrigin", given["AllowedOrigins"]),
        ("AllowedHeader", given.get("AllowedHeaders") or ()),
    ):
        for pattern in patterns:
            if pattern.count("*") > 1:
                raise invalid_request(f'{member} "{pattern[:200]}" can not have more than one wildcard.')
    for name in given.get("ExposeHeaders") or ():
        of_header("ExposeHeader", name)
        if "*" in name:
            raise invalid_request(
                f'ExposeHeader "{name[:200]}" contains wildcard. We currently do not support wildcard for ExposeHeader.'
            )
    if len(given.get("ID") or "") > _LONGEST_ID:
        raise invalid_request(f"ID length should not exceed allowed limit of {_LONGEST_ID}")
    return CorsRule(
        origins=tuple(given["AllowedOrigins"]),
        methods=tuple(given["AllowedMethods"]),
        headers=tuple(given.get("AllowedHeaders") or ()),
        exposed=tuple(given.get("ExposeHeaders") or ()),
        max_age=given.get("MaxAgeSeconds"),
        identifier=given.get("ID"),
    )


def _texts(rule: CorsRule) -> Iterator[str]:
    return itertools.chain(rule.origins, rule.methods, rule.headers, rule.exposed, (rule.identifier or "",))


def _forbidden(reason: str, method: str, kind: str) -> AwsError:
    return AwsError("AccessForbidden", f"CORSResponse: {reason}", 403, {"Method": method, "ResourceType": kind})
