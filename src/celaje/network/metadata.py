"""What a machine is told about itself at 169.254.169.254: EC2's instance metadata, versions 1 and 2.

    /latest/api/token                              PUT: a token for version 2
    /latest/meta-data/…                            one fact a leaf; a directory lists its entries, directories with a /
    /latest/user-data                              bytes, as given
    /latest/dynamic/instance-identity/document     JSON

The same under every dated version of EC2's. Tokens are signed and not kept, so a guest that asks for
a million of them costs nothing but the answers. Versions 1 and 2 differ in the token only.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
import secrets
import time
from collections.abc import Callable
from hashlib import blake2b
from http import HTTPStatus

import msgspec

from celaje.errors import InputError
from celaje.network import ipv4
from celaje.network.http_server import Handler, HttpRequest, HttpResponse, HttpServer, failure
from celaje.network.messages import MetadataFacts
from celaje.network.stream_service import Close, LimitHops, Receive, Write

# EC2's, the oldest first; clients ask for the one that they know, and all have the same tree here.
VERSIONS = (
    "1.0", "2007-01-19", "2007-03-01", "2007-08-29", "2007-10-10", "2007-12-15", "2008-02-01", "2008-09-01",
    "2009-04-04", "2011-01-01", "2011-05-01", "2012-01-12", "2014-02-25", "2014-11-05", "2015-10-20", "2016-04-19",
    "2016-06-30", "2016-09-02", "2018-03-28", "2018-08-17", "2018-09-24", "2019-10-01", "2020-10-27", "2021-01-03",
    "2021-03-23", "2021-07-15", "2022-09-24", "2024-04-11", "latest",
)  # fmt: skip
LONGEST_TOKEN_LIFE = 21_600  # seconds

_TOKEN = "x-aws-ec2-metadata-token"
_LIFE = "x-aws-ec2-metadata-token-ttl-seconds"
_OPEN = {"Allow": "GET, HEAD"}
_TAGS = ("tags", "instance")
_TAG_KEY = re.compile(r"(?!\.{1,2}\Z|_index\Z)[A-Za-z0-9+\-=.,_:@]+")


class InstanceFacts(msgspec.Struct, frozen=True):
    """What the network knows of an interface, and what its attacher has told about the machine."""

    told: MetadataFacts
    mac: str
    local_address: str
    subnet: str  # 10.77.0.0/16
    public_address: str | None = None
    security_groups: tuple[str, ...] = ()


# Answers the requests of one machine; a cloud may have its own, around `instance_metadata` or instead of it.
MetadataHandler = Callable[[InstanceFacts], Handler]


class MetadataService:
    """The service for a machine, in the form in which a network serves TCP (`serve`). Facts may change: connections
    that stand are told the new ones too, and tokens stay good. InputError if facts contradict each other."""

    def __init__(self, facts: InstanceFacts, handler: MetadataHandler) -> None:
        self._make = handler
        self._answer = handler(facts)

    def changed(self, facts: InstanceFacts) -> Callable[[], None]:
        """What makes it answer with these; InputError, now, if they contradict each other."""
        answer = self._make(facts)

        def change() -> None:
            self._answer = answer

        return change

    def serve(self, write: Write, close: Close, limit_hops: LimitHops) -> Receive:
        """As a ServiceMaker does."""
        server = HttpServer(lambda request: self._answer(request))

        def receive(data: bytes) -> None:
            answers = server.receive(data)
            if server.hops is not None:
                limit_hops(server.hops)
            if answers:
                write(answers)
            if server.finished:
                close()

        return receive


def instance_metadata(facts: InstanceFacts) -> Handler:
    """EC2's tree of `facts`. InputError if a path is both a leaf and a directory."""
    tree = _Tree(facts)
    tokens = Tokens(facts.told.instance_id)
    told = facts.told
    if not 1 <= told.hop_limit <= ipv4.TTL:
        raise InputError(f"a token's answer may take 1 to {ipv4.TTL} hops, not {told.hop_limit}")

    def answer(request: HttpRequest) -> HttpResponse:
        if not told.enabled:
            return failure(HTTPStatus.FORBIDDEN)
        segments = tuple(segment for segment in request.path.split("/") if segment)
        if segments == ("latest", "api", "token"):
            return _token(request, tokens, told.hop_limit)
        if request.method not in ("GET", "HEAD"):
            return failure(HTTPStatus.METHOD_NOT_ALLOWED, _OPEN)
        token = request.headers.get(_TOKEN)
        left = None if token is None else tokens.left(token)
        if left is None and (told.tokens_required or token is not None):
            return failure(HTTPStatus.UNAUTHORIZED)
        headers = {} if left is None else {_LIFE: str(left)}
        if segments and segments[0] not in VERSIONS:
            return failure(HTTPStatus.NOT_FOUND, headers)
        found = tree.find(segments, directory=request.path.endswith("/"))
        if found is None:
            return failure(HTTPStatus.NOT_FOUND, headers)
        kind, body = found
        return HttpResponse(HTTPStatus.OK, body, kind, headers)

    return answer


def _token(request: HttpRequest, tokens: Tokens, hops: int) -> HttpResponse:
    if request.method != "PUT":
        return failure(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "OPTIONS, PUT"})
    if "x-forwarded-for" in request.headers:
        return failure(HTTPStatus.FORBIDDEN)  # a proxy that hands on whatever it is asked is no way to a token
    life = request.headers.get(_LIFE, "")
    if not re.fullmatch("[0-9]{1,5}", life) or not 1 <= int(life) <= LONGEST_TOKEN_LIFE:
        return failure(HTTPStatus.BAD_REQUEST)
    # A guest that hands on packets (containers, a tunnel) gives a token to those within its hops only.
    return HttpResponse(HTTPStatus.OK, tokens.issue(int(life)).encode("ascii"), headers={_LIFE: life}, hops=hops)


class Tokens:
    """Tokens of one machine, good until they expire or the network's process ends: an expiry, and a signature of it."""

    _SECRET = secrets.token_bytes(32)

    def __init__(self, instance_id: str, clock: Callable[[], float] = time.time) -> None:
        self._instance_id = instance_id.encode()
        self._clock = clock

    def issue(self, life: int) -> str:
        """A token that is good for `life` seconds."""
        expiry = (int(self._clock()) + life).to_bytes(8, "big")
        return base64.urlsafe_b64encode(expiry + self._signature(expiry)).decode("ascii")

    def left(self, token: str) -> int | None:
        """For how many seconds `token` is good; None if it is not, or not one of this machine's."""
        try:
            data = base64.urlsafe_b64decode(token.encode("ascii"))
        except ValueError:
            return None
        expiry, signature = data[:8], data[8:]
        left = int.from_bytes(expiry, "big") - int(self._clock())
        return left if hmac.compare_digest(signature, self._signature(expiry)) and left > 0 else None

    def _signature(self, expiry: bytes) -> bytes:
        return blake2b(self._instance_id + expiry, key=self._SECRET, digest_size=32).digest()


class _Tree:
    """Leaves and directories by their path without the version."""

    def __init__(self, facts: InstanceFacts) -> None:
        self._leaves: dict[tuple[str, ...], tuple[str, bytes]] = {}
        self._directories: dict[tuple[str, ...], set[str]] = {(): set()}
        self._listed_as: dict[tuple[str, ...], str] = {}
        for path, text in _meta_data(facts).items():
            self._add(f"meta-data/{path}", text.encode())
        for at, (name, key) in enumerate(facts.told.public_keys.items()):
            self._add(f"meta-data/public-keys/{at}/openssh-key", f"{key.rstrip()}\n".encode())
            self._listed_as["meta-data", "public-keys", str(at)] = f"{at}={name}"
        self._add("dynamic/instance-identity/document", _identity(facts).encode())
        for path, text in facts.told.extra.items():
            if path.startswith("dynamic/"):
                self._add(path, text.encode())
        if facts.told.user_data is not None:
            self._add("user-data", facts.told.user_data, "application/octet-stream")

    def _add(self, path: str, body: bytes, kind: str = "text/plain") -> None:
        segments = tuple(path.split("/"))
        if segments[1:3] == _TAGS and (len(segments) != 4 or not _TAG_KEY.fullmatch(segments[3])):
            key = path.partition("/instance/")[2]
            raise InputError(
                f"the tag {key!r} cannot be in the metadata: its key may have letters, digits and +-=.,_:@ and be none "
                "of ., .. and _index; give it another key, or leave tags out of the metadata"
            )
        for length in range(len(segments)):
            if segments[:length] in self._leaves:
                leaf = "/".join(segments[:length])
                raise InputError(f"the metadata path {path!r} is below the leaf {leaf!r}; leave one of them out")
            self._directories.setdefault(segments[:length], set()).add(segments[length])
        if segments in self._directories or not all(segments):
            raise InputError(f"the metadata path {path!r} is that of a directory and cannot have a text of its own")
        self._leaves[segments] = (kind, body)

    def find(self, segments: tuple[str, ...], directory: bool) -> tuple[str, bytes] | None:
        """The type and the body of what is at a path whose first segment is a version."""
        if not segments:
            return "text/plain", "\n".join(VERSIONS).encode()
        below = segments[1:]
        if below in self._leaves:
            return None if directory else self._leaves[below]
        if below not in self._directories:
            return None
        return "text/plain", "\n".join(self._listed((*below, name)) for name in self._sorted(below)).encode()

    def _sorted(self, path: tuple[str, ...]) -> list[str]:
        return sorted(
            self._directories[path], key=lambda name: (name.isdigit(), int(name) if name.isdigit() else 0, name)
        )

    def _listed(self, path: tuple[str, ...]) -> str:
        if path in self._listed_as:
            return self._listed_as[path]
        # At the top directories are listed as leaves are, as in EC2.
        return f"{path[-1]}/" if path in self._directories and len(path) > 1 else path[-1]


def _meta_data(facts: InstanceFacts) -> dict[str, str]:
    """The leaves below meta-data/, besides the keys. What the attacher tells goes before what is found here."""
    told = facts.told
    groups = "\n".join(facts.security_groups)
    interface = f"network/interfaces/macs/{facts.mac}"
    leaves = {
        "ami-launch-index": "0",
        "hostname": told.host_name,
        "instance-action": "none",
        "instance-id": told.instance_id,
        "instance-life-cycle": "on-demand",
        "local-hostname": told.host_name,
        "local-ipv4": facts.local_address,
        "mac": facts.mac,
        "security-groups": groups,
        f"{interface}/device-number": "0",
        f"{interface}/local-hostname": told.host_name,
        f"{interface}/local-ipv4s": facts.local_address,
        f"{interface}/mac": facts.mac,
        f"{interface}/security-groups": groups,
        f"{interface}/subnet-ipv4-cidr-block": facts.subnet,
    }
    if facts.public_address is not None:
        leaves["public-ipv4"] = facts.public_address
        leaves[f"{interface}/public-ipv4s"] = facts.public_address
        leaves[f"{interface}/ipv4-associations/{facts.public_address}"] = facts.local_address
    return leaves | {path: text for path, text in told.extra.items() if not path.startswith("dynamic/")}


def _identity(facts: InstanceFacts) -> str:
    """The instance identity document; what nobody has told is null."""
    told = facts.told.extra
    given = told.get("dynamic/instance-identity/document")
    if given is not None:
        return given
    return json.dumps(
        {
            "accountId": told.get(f"network/interfaces/macs/{facts.mac}/owner-id"),
            "architecture": None,
            "availabilityZone": told.get("placement/availability-zone"),
            "billingProducts": None,
            "devpayProductCodes": None,
            "imageId": told.get("ami-id"),
            "instanceId": facts.told.instance_id,
            "instanceType": told.get("instance-type"),
            "kernelId": None,
            "marketplaceProductCodes": None,
            "pendingTime": None,
            "privateIp": facts.local_address,
            "ramdiskId": None,
            "region": told.get("placement/region"),
            "version": "2017-09-30",
        },
        indent=2,
    )
