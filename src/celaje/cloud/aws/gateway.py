"""From a request to its answer: which service, who asks, what for, and the action that answers.

Everything here runs on a thread of its own request and knows nothing of sockets; application.py is between it and
them. What goes wrong becomes an error in the protocol of the service, with a request id; only a mistake of celaje's
is a 500.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import logging
import re
import secrets
from collections.abc import Callable
from typing import Protocol

from sqlalchemy.orm import Session

from celaje.cloud.aws import model
from celaje.cloud.aws.action import Action, Answer, Call, Registry
from celaje.cloud.aws.codec import Codec, codec
from celaje.cloud.aws.denials import Denial, Reason, as_error
from celaje.cloud.aws.dispatch import Dispatcher
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.identity import Identities
from celaje.cloud.aws.message import HttpAnswer, HttpRequest, is_loopback
from celaje.cloud.aws.post_form import PostForm, is_post_form
from celaje.cloud.aws.post_policy import Allowed, allowed, claimed_by_form, verify_form
from celaje.cloud.aws.presigned_v2 import ClaimedLink
from celaje.cloud.aws.received_body import posted_body, received_body
from celaje.cloud.aws.routing import Routed, host_name, route
from celaje.cloud.aws.serialize_error import identifying_headers, serialize_error
from celaje.cloud.aws.signature import Claimed, Verified, claimed, verify
from celaje.cloud.aws.streams import FileRange, Into, RequestBody
from celaje.cloud.settings import Settings

log = logging.getLogger(__name__)

BODY = 4 << 20  # bytes of a body that is held in memory
_AT_ONCE = 256 << 10  # bytes of a file that are read here instead of being streamed
_UNBOUND = Session()  # until the dispatcher has opened a transaction; to query it is an error
_SERVERS = {"s3": "AmazonS3", "ec2": "AmazonEC2"}
# Services that are one for all regions: clients sign for whichever they were set to.
_GLOBAL = ("iam", "sts", "organizations")

_KEYS = 4096  # whose accounts are remembered
_KEY = re.compile(r"(?:Credential=|AWSAccessKeyId=)([^/&,%\s]{1,128})")

_TOO_LARGE = AwsError("RequestEntityTooLarge", f"The body must not be larger than {BODY} bytes", 413)


class CrossOrigin(Protocol):
    """What tells browsers which pages may ask S3 for what."""

    def preflight(self, request: HttpRequest) -> list[tuple[str, str]]:
        """The headers of the answer to an OPTIONS, which nobody signs. AwsError if the page may not."""
        ...

    def headers(self, request: HttpRequest) -> list[tuple[str, str]]:
        """The headers that an answer has besides, where the page may."""
        ...


class Gateway:
    """Answers requests with the actions of `registry`.

    `any_key`: made-up keys are taken as well (`celaje up --auth open`), but only from this very host: from a loopback
    address, with a loopback name in Host, and from no page in a browser; and never from a guest, whom networks bring to
    an address of the API's own (message.py).
    """

    def __init__(
        self,
        registry: Registry,
        dispatcher: Dispatcher,
        identities: Identities,
        settings: Settings,
        *,
        any_key: bool = False,
        token_key: bytes | None = None,
        cross_origin: CrossOrigin | None = None,
        clock: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        self._registry = registry
        self._dispatcher = dispatcher
        self._identities = identities
        self._settings = settings
        self._any_key = any_key
        self._token_key = token_key if token_key is not None else secrets.token_bytes(32)
        self._cross_origin = cross_origin
        self._clock = clock
        self._accounts: dict[str, str] = {}  # of keys that have signed

    def service_of(self, request: HttpRequest) -> str:
        """The service that a request is for, as far as its headers and its query tell: what it is signed for, else by
        the marks of a protocol, else S3. With the body not yet read, a form is nobody's and so EC2's.
        """
        authorization = request.header("authorization") or ""
        scope = ""
        if "Credential=" in authorization:
            scope = authorization.partition("Credential=")[2].partition(",")[0]
        elif "X-Amz-Credential=" in request.query:
            for name, value in _pairs(request):
                if name == "X-Amz-Credential":
                    scope = value
        parts = scope.strip().split("/")
        if len(parts) >= 5:
            return parts[-2]
        target = request.header("x-amz-target")
        if target is not None:
            return "ssm"
        # A client that puts an object may call it a form without being asked to: curl and urllib do.
        asking = request.method in ("GET", "POST")
        form = (request.header("content-type") or "").startswith("application/x-www-form-urlencoded")
        if asking and (form or "Action=" in request.query):
            versions = {model.MODELS[name]: name for name in ("ec2", "sts", "iam")}
            text = request.query + "&" + request.body[:BODY].decode("latin-1")
            for version, name in versions.items():
                if f"Version={version}" in text:
                    return name
            return "ec2"
        return "s3"

    def account_of(self, request: HttpRequest) -> str:
        """Whose the request is, if the key that it names has signed before: nobody has verified that it signs this one.
        Otherwise "", as for requests that nobody signs."""
        named = _KEY.search(request.header("authorization") or request.query)
        return self._accounts.get(named[1], "") if named else ""

    def _remember(self, access_key: str, account: str) -> None:
        if self._accounts.get(access_key) != account:
            while len(self._accounts) >= _KEYS:
                with contextlib.suppress(KeyError, StopIteration, RuntimeError):  # another thread was quicker
                    del self._accounts[next(iter(self._accounts))]
            self._accounts[access_key] = account

    def streams(self, request: HttpRequest) -> bool:
        """Whether the request's body is read by the action: to be asked before reading it."""
        return self.service_of(request) == "s3"

    def answer(
        self, request: HttpRequest, source: Callable[[], bytes] | None = None, into: Into | None = None
    ) -> HttpAnswer:
        """The answer to a request. `source` gives the bytes of a body that streams, b"" at its end; `into` puts them
        into a buffer where it can (streams.RequestBody). Never raises."""
        service = self.service_of(request)
        known = service in model.MODELS
        protocol = model.service(service).protocol if known else _likely_protocol(request)
        request_id, host_id = _new_ids(protocol)
        try:
            answer = self._answer(request, service, source, into, request_id)
        except Denial as denial:
            answer = self._error(as_error(denial, protocol), protocol, service, request_id, host_id)
        except AwsError as error:
            if error.code == "MethodNotAllowed":
                error.fields = {"Method": request.method[:20], **error.fields}
            answer = self._error(error, protocol, service, request_id, host_id)
        except Exception:
            log.exception("request %s (%s %s, %s) failed", request_id, request.method, request.path, service)
            internal = AwsError(
                "InternalError" if protocol != "json" else "InternalServerError",
                f"celaje has made a mistake; its log has more under the request id {request_id}",
                500,
            )
            answer = self._error(internal, protocol, service, request_id, host_id)
        answer.headers += identifying_headers(protocol, request_id, host_id)
        if service == "s3" and self._cross_origin is not None and request.method != "OPTIONS":
            answer.headers += self._cross_origin.headers(request)
        answer.headers.append(("Server", _SERVERS.get(service, "celaje")))
        return answer

    def _error(self, error: AwsError, protocol: str, service: str, request_id: str, host_id: str) -> HttpAnswer:
        namespace = model.service(service).metadata.xml_namespace if service in model.MODELS else ""
        content_type, body = serialize_error(protocol, error, request_id, host_id, namespace)
        headers = [("Content-Type", content_type), *error.headers.items()]
        if protocol in ("json", "rest-json"):
            headers.append(("x-amzn-errortype", error.code))
        if error.status == 304:
            return HttpAnswer(304, list(error.fields.items()))  # it has no body, so what is told are headers
        return HttpAnswer(error.status, headers, body)

    def _answer(
        self,
        request: HttpRequest,
        service: str,
        source: Callable[[], bytes] | None,
        into: Into | None,
        request_id: str,
    ) -> HttpAnswer:
        if len(request.body) > BODY:
            raise _TOO_LARGE
        if service == "s3" and request.method == "OPTIONS" and self._cross_origin is not None:
            return HttpAnswer(200, self._cross_origin.preflight(request))
        if service == "s3" and is_post_form(request):
            return self._answer_form(request, PostForm(request, source or (lambda: b"")), request_id)
        signed = claimed(request)
        if service not in model.MODELS:
            raise AwsError(
                "UnsupportedOperation",
                f"celaje has no service '{service[:40]}'; it has {', '.join(model.MODELS)}",
            )
        if isinstance(signed, ClaimedLink) and service != "s3":
            # Made for one object, it says nothing of a body: a form must not act in its maker's name.
            raise Denial(Reason.VERSION_2)
        now = self._clock()
        verified = verify(request, signed, self._identities, now, any_key=self._any_key)
        region = self._admit(request, signed, verified, service, now)
        routed = route(model.service(service), request)
        body = self._body(request, routed, service, verified, source, into)
        action = self._registry.get(service, routed.operation.name)
        if action is None:
            raise _unsupported(service, routed.operation.name)
        wire = codec(service, routed.operation.name)
        if body is not None and not wire.streams_in:
            request.body = body.all(BODY)
        members = wire.read(request, routed, body)
        call = self._call(request, service, routed, region, verified, request_id, now)
        return self._run(action, call, members, wire, request_id)

    def _answer_form(self, request: HttpRequest, form: PostForm, request_id: str) -> HttpAnswer:
        """The answer to a page's form that puts an object: what PutObject does, by whom the form's policy says."""
        signed = claimed_by_form(form.fields)
        now = self._clock()
        verified = verify_form(form.fields, signed, self._identities, now, any_key=self._any_key)
        region = self._admit(request, signed, verified, "s3", now)
        put = form.as_put()
        fields = {**form.fields, "key": form.key(), "bucket": form.bucket}
        size = Allowed() if signed is None else allowed(fields, now)
        routed = route(model.service("s3"), put)
        if routed.operation.name != "PutObject":  # a field that makes something else of it
            raise AwsError("InvalidArgument", "A form puts the file that it has, and nothing else.")
        action = self._registry.get("s3", routed.operation.name)
        if action is None:
            raise _unsupported("s3", routed.operation.name)
        wire = codec("s3", routed.operation.name)
        members = wire.read(put, routed, posted_body(put, routed.operation, form.content, size))
        call = self._call(request, "s3", routed, region, verified, request_id, now)
        return form.answered(self._run(action, call, members, wire, request_id))

    def _admit(
        self,
        request: HttpRequest,
        signed: Claimed | ClaimedLink | None,
        verified: Verified,
        service: str,
        now: datetime.datetime,
    ) -> str:
        """Take note of whose a request is, and refuse it where it may not be answered at all. The region that it is
        for."""
        self._check_unproven(request, verified)
        account = verified.caller.account
        if not account and service != "s3":
            raise Denial(Reason.MISSING)
        if signed is not None:
            self._remember(signed.access_key, account)
        if not request.belongs_to(account):
            raise AwsError("SlowDown", "Please reduce your request rate.", 503)
        region = self._region(signed, service)
        if verified.key is not None and not verified.caller.temporary:
            self._identities.used(verified.caller.access_key, service, region, now)
        return region

    def _call(
        self,
        request: HttpRequest,
        service: str,
        routed: Routed,
        region: str,
        verified: Verified,
        request_id: str,
        now: datetime.datetime,
    ) -> Call:
        return Call(
            service=service,
            operation=routed.operation.name,
            region=region,
            caller=verified.caller,
            request_id=request_id,
            now=now,
            session=_UNBOUND,
            source=request.source,
            settings=self._settings,
            token_key=self._token_key,
            secure=request.secure,
            user_agent=request.header("user-agent") or "",
            referer=request.header("referer") or "",
        )

    def _run(self, action: Action, call: Call, members: dict[str, object], wire: Codec, request_id: str) -> HttpAnswer:
        written: list[HttpAnswer] = []

        def write(answer: Answer) -> None:
            written.append(wire.write(answer, request_id))

        self._dispatcher.run(action, call, members, wire.token_member, write)
        answer = written[0]
        if isinstance(answer.body, FileRange) and answer.body.length <= _AT_ONCE:
            whole = answer.body
            try:
                answer.body = whole.read(0, whole.length)
            finally:
                whole.close()
            if len(answer.body) < whole.length:
                raise OSError(f"{call.operation} read {len(answer.body)} of {whole.length} bytes")
        return answer

    def _check_unproven(self, request: HttpRequest, verified: Verified) -> None:
        """With made-up keys, only programs of this very host may ask. AccessDenied."""
        if self._any_key and verified.key is None:
            # Nothing was proven, so only who is on this host may ask.
            host = host_name(request.header("host") or "")
            if request.inside:
                raise AwsError("AccessDenied", "Instances need keys of an account or a role, with --auth open too", 403)
            if not (is_loopback(request.source) and is_loopback(host)):
                raise AwsError(
                    "AccessDenied",
                    "With --auth open, requests must come from this host and name it: connect to 127.0.0.1 or "
                    f"localhost, not '{host[:100]}'",
                    403,
                )
            # Browsers send no Origin with images, links and forms of GET, but say of those where they come from.
            if request.header("origin") is not None or request.header("sec-fetch-site") not in (None, "none"):
                raise AwsError("AccessDenied", "With --auth open, requests of web pages (Origin) are refused", 403)

    def _region(self, signed: Claimed | ClaimedLink | None, service: str) -> str:
        regions = self._settings.regions
        if signed is None or isinstance(signed, ClaimedLink):
            return next(iter(regions))
        region = signed.scope.region
        if region in regions:
            return region
        first = next(iter(regions))
        if service in _GLOBAL:
            return first
        there = ", ".join(regions)
        if service == "s3":
            raise AwsError(
                "AuthorizationHeaderMalformed",
                f"The authorization header is malformed; the region '{region[:40]}' is wrong; expecting '{first}'",
                fields={"Region": first},
            )
        raise AwsError(
            "AuthFailure" if service == "ec2" else "UnrecognizedClientException",
            f"Credential should be scoped to a valid region: this cloud has {there}, not '{region[:40]}'",
            401 if service == "ec2" else 403,
        )

    def _body(
        self,
        request: HttpRequest,
        routed: Routed,
        service: str,
        verified: Verified,
        source: Callable[[], bytes] | None,
        into: Into | None,
    ) -> RequestBody | None:
        if service == "s3":
            return received_body(request, routed.operation, verified, source or (lambda: b""), into)
        if model.service(service).streaming_member(routed.operation.input) is not None:
            pieces = iter([request.body])
            return RequestBody(lambda: next(pieces, b""), len(request.body))
        return None


def _pairs(request: HttpRequest) -> list[tuple[str, str]]:
    try:
        return request.parameters()
    except UnicodeDecodeError:
        return []


def _unsupported(service: str, operation: str) -> AwsError:
    """What exists at AWS and not here: final, so that no client tries again."""
    message = f"{operation} exists at AWS and is not implemented by celaje yet; `celaje api coverage` lists what is"
    if service == "s3":
        return AwsError("NotImplemented", message, 501)
    return AwsError("UnsupportedOperation", message)


def _likely_protocol(request: HttpRequest) -> str:
    """In what an answer about an unknown service should be written: by what the request looks like."""
    content_type = request.header("content-type") or ""
    if "json" in content_type:
        return "json"
    return "query" if "form-urlencoded" in content_type or "Action=" in request.query else "rest-xml"


def _new_ids(protocol: str) -> tuple[str, str]:
    random = secrets.token_bytes(16)
    if protocol == "rest-xml":
        return random[:8].hex().upper(), base64.b64encode(random + secrets.token_bytes(41)).decode("ascii")
    text = random.hex()
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}", ""
