"""What a machine asks at 169.254.169.254, and what it is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from celaje.errors import InputError
from celaje.network.buffers import Buffer
from celaje.network.destinations import METADATA
from celaje.network.http_server import Handler, HttpRequest, HttpResponse
from celaje.network.messages import MetadataFacts, Refused, Update
from celaje.network.metadata import VERSIONS, InstanceFacts, MetadataService, Tokens, instance_metadata
from celaje.network.stream_service import A_TURN
from tests.network.attached_guest import attach_request
from tests.network.local_network import local_network

TOKEN = "x-aws-ec2-metadata-token"
LIFE = "x-aws-ec2-metadata-token-ttl-seconds"
KEYS = {"ana": "ssh-ed25519 AAAA ana@home", "work": "ssh-ed25519 BBBB\n"}
EXTRA = {
    "ami-id": "ami-0123456789abcdef0",
    "instance-type": "t3.micro",
    "placement/availability-zone": "local-1a",
    "placement/region": "local-1",
    "iam/security-credentials/role": '{"AccessKeyId": "x"}',
}


def facts(**told: object) -> InstanceFacts:
    given: dict[str, object] = {"public_keys": KEYS, "user_data": b"#!/bin/sh\n\x00\xff", "extra": EXTRA, **told}
    return InstanceFacts(
        MetadataFacts("i-0a", "web", **given),  # type: ignore[arg-type]
        "52:54:00:00:00:01",
        "10.77.0.10",
        "10.77.0.0/16",
        "127.1.2.3",
        ("web", "ssh"),
    )


class Client:
    def __init__(self, handler: Handler) -> None:
        self.handler = handler

    def ask(self, method: str, path: str, **headers: str) -> HttpResponse:
        return self.handler(HttpRequest(method, path, "", {name.replace("_", "-"): headers[name] for name in headers}))

    def get(self, path: str, **headers: str) -> str:
        response = self.ask("GET", path, **headers)
        assert response.status == 200, path
        return response.body.decode()

    def status(self, method: str, path: str, **headers: str) -> int:
        return self.ask(method, path, **headers).status

    def token(self, life: str = "60") -> str:
        return self.ask("PUT", "/latest/api/token", **{LIFE: life}).body.decode()


@pytest.fixture
def client() -> Client:
    return Client(instance_metadata(facts()))


@pytest.fixture
def strict() -> Client:
    return Client(instance_metadata(facts(tokens_required=True)))


def test_without_a_token_facts_are_told_where_none_is_required(client: Client) -> None:
    assert client.get("/latest/meta-data/instance-id") == "i-0a"
    assert client.get("/latest/meta-data/local-ipv4") == "10.77.0.10"
    assert client.get("/latest/meta-data/public-ipv4") == "127.1.2.3"
    assert client.get("/latest/meta-data/local-hostname") == client.get("/latest/meta-data/hostname") == "web"
    assert client.get("/latest/meta-data/placement/region") == "local-1"
    assert client.get("/latest/meta-data/security-groups") == "web\nssh"


def test_where_a_token_is_required_nothing_is_told_without_one(strict: Client) -> None:
    assert strict.status("GET", "/latest/meta-data/instance-id") == 401
    assert strict.status("GET", "/") == 401
    assert strict.status("GET", "/latest/user-data", **{TOKEN: "made up"}) == 401
    response = strict.ask("GET", "/latest/meta-data/instance-id", **{TOKEN: strict.token()})
    assert (response.status, response.body) == (200, b"i-0a")
    assert 0 < int(response.headers[LIFE]) <= 60


def test_a_bad_token_is_refused_even_where_none_is_required(client: Client) -> None:
    for token in ("", "x", "é", "AAAA", client.token()[:-4] + "AAA=", Tokens("i-0b").issue(60)):
        assert client.status("GET", "/latest/meta-data/", **{TOKEN: token}) == 401, token


def test_a_token_is_good_until_its_time_is_over() -> None:
    now = [1000.0]
    tokens = Tokens("i-0a", lambda: now[0])
    token = tokens.issue(10)
    assert len(token) == 56
    now[0] = 1009.0
    assert tokens.left(token) == 1
    now[0] = 1010.0
    assert tokens.left(token) is None


def test_a_token_is_given_to_a_put_that_says_for_how_long(client: Client) -> None:
    assert client.ask("PUT", "/latest/api/token", **{LIFE: "21600"}).headers == {LIFE: "21600"}
    for life in ("", "0", "21601", "-1", "1.5", "x", "٣", "9" * 100):
        assert client.status("PUT", "/latest/api/token", **{LIFE: life}) == 400, life
    assert client.status("PUT", "/latest/api/token") == 400


def test_a_token_is_given_to_nobody_behind_a_proxy(client: Client) -> None:
    assert client.status("PUT", "/latest/api/token", **{LIFE: "60", "x_forwarded_for": "10.0.0.1"}) == 403


def test_a_token_is_not_to_be_got(client: Client) -> None:
    assert client.status("GET", "/latest/api/token") == 405
    assert client.status("POST", "/latest/meta-data/") == 405
    assert client.status("PUT", "/latest/meta-data/") == 405


def test_every_version_has_the_same_tree(client: Client) -> None:
    assert client.get("/").split("\n") == list(VERSIONS)
    for version in VERSIONS:
        assert client.get(f"/{version}/meta-data/instance-id") == "i-0a"
        assert client.get(f"/{version}").split("\n") == ["dynamic", "meta-data", "user-data"]
    assert client.status("GET", "/2000-01-01/meta-data/instance-id") == 404
    assert client.status("GET", "/1.1") == 404


def test_keys_are_listed_by_number_and_name(client: Client) -> None:
    assert client.get("/latest/meta-data/public-keys/") == "0=ana\n1=work"
    assert client.get("/latest/meta-data/public-keys/0/") == "openssh-key"
    assert client.get("/latest/meta-data/public-keys/0/openssh-key") == "ssh-ed25519 AAAA ana@home\n"
    assert client.get("/latest/meta-data/public-keys/1/openssh-key") == "ssh-ed25519 BBBB\n"


def test_ten_keys_are_listed_in_order() -> None:
    client = Client(instance_metadata(facts(public_keys={f"k{n}": "ssh-ed25519 A" for n in range(12)})))
    assert client.get("/latest/meta-data/public-keys/").split("\n") == [f"{n}=k{n}" for n in range(12)]


def test_user_data_is_told_byte_for_byte_or_is_not_there(client: Client) -> None:
    assert client.ask("GET", "/latest/user-data").body == b"#!/bin/sh\n\x00\xff"
    without = Client(instance_metadata(facts(user_data=None)))
    assert without.status("GET", "/latest/user-data") == 404
    assert "user-data" not in without.get("/latest/")
    assert Client(instance_metadata(facts(user_data=b""))).ask("GET", "/latest/user-data").status == 200


def test_the_identity_document_says_what_is_known(client: Client) -> None:
    document = json.loads(client.get("/latest/dynamic/instance-identity/document"))
    assert document["instanceId"] == "i-0a"
    assert document["privateIp"] == "10.77.0.10"
    assert document["imageId"] == "ami-0123456789abcdef0"
    assert document["region"] == "local-1"
    assert document["accountId"] is None


def test_an_attacher_may_bring_its_own_identity_document_and_a_signature() -> None:
    extra = {"dynamic/instance-identity/document": "{}", "dynamic/instance-identity/signature": "abc"}
    client = Client(instance_metadata(facts(extra=extra)))
    assert client.get("/latest/dynamic/instance-identity/document") == "{}"
    assert client.get("/latest/dynamic/instance-identity/").split("\n") == ["document", "signature"]
    assert "dynamic/" not in client.get("/latest/meta-data/")


def crawl(client: Client, path: str) -> dict[str, str]:
    """As cloud-init does it: every line of a directory is asked for."""
    found: dict[str, str] = {}
    for line in client.get(path).split("\n"):
        name, equals, _ = line.partition("=")
        if line.endswith("/"):
            found |= crawl(client, path + line)
        elif equals:
            found |= crawl(client, f"{path}{name}/")
        else:
            found[path + line] = client.get(path + line)
    return found


@pytest.mark.parametrize("told", [{}, {"public_keys": {}, "extra": {}}])
def test_every_leaf_that_is_listed_answers(told: dict[str, object]) -> None:
    client = Client(instance_metadata(facts(**told)))
    found = crawl(client, "/2021-03-23/meta-data/")
    assert found["/2021-03-23/meta-data/network/interfaces/macs/52:54:00:00:00:01/local-ipv4s"] == "10.77.0.10"
    assert ("/2021-03-23/meta-data/public-keys/0/openssh-key" in found) == (not told)
    assert crawl(client, "/2021-03-23/dynamic/")


def test_what_is_no_path_of_the_tree_is_not_there(client: Client) -> None:
    for path in (
        "/latest/meta-data/x",
        "/latest/meta-data/instance-id/",
        "/latest/meta-data/instance-id/x",
        "/x/../..",
    ):
        assert client.status("GET", path) == 404, path
    assert client.get("/latest//meta-data///instance-id") == "i-0a"
    assert client.get("/latest/meta-data/placement") == client.get("/latest/meta-data/placement/")


def test_facts_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(InputError, match="'meta-data/instance-id/x' is below the leaf 'meta-data/instance-id'"):
        instance_metadata(facts(extra={"instance-id/x": ""}))
    with pytest.raises(InputError, match="'meta-data/network' is that of a directory"):
        instance_metadata(facts(extra={"network": ""}))


def test_the_service_speaks_http_and_closes_where_the_client_does() -> None:
    said: list[bytes] = []
    closed: list[bool] = []
    service = MetadataService(facts(), instance_metadata)
    receive = service.serve(said.append, lambda: closed.append(True), lambda hops: None)
    receive(b"GET /latest/meta-data/instance-id HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n")
    assert said.pop().endswith(b"\r\n\r\ni-0a")
    assert not closed
    receive(b"PUT /latest/api/token HTTP/1.0\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\nContent-Length: 0\r\n\r\n")
    assert said.pop().startswith(b"HTTP/1.1 200 OK")
    assert closed


def test_a_connection_that_stands_hears_of_changes_and_its_token_stays_good() -> None:
    said: list[bytes] = []
    service = MetadataService(facts(tokens_required=True), instance_metadata)
    receive = service.serve(said.append, lambda: None, lambda hops: None)
    receive(b"PUT /latest/api/token HTTP/1.1\r\nHost: a\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\n")
    token = said.pop().partition(b"\r\n\r\n")[2]
    field = b"X-aws-ec2-metadata-token: " + token
    ask = b"GET /latest/meta-data/placement/region HTTP/1.1\r\nHost: a\r\n" + field + b"\r\n\r\n"
    receive(ask)
    assert said.pop().endswith(b"\r\n\r\nlocal-1")
    change = service.changed(facts(tokens_required=True, extra={"placement/region": "local-2"}))
    receive(ask)
    assert said.pop().endswith(b"local-1")
    change()
    receive(ask)
    assert said.pop().endswith(b"local-2")


def test_an_endpoint_that_is_switched_off_refuses_everything() -> None:
    client = Client(instance_metadata(facts(enabled=False)))
    assert client.status("GET", "/latest/meta-data/instance-id") == 403
    assert client.status("PUT", "/latest/api/token", **{LIFE: "60"}) == 403


def test_the_answer_with_a_token_has_the_hops_that_were_said_and_others_any(client: Client) -> None:
    limited = Client(instance_metadata(facts(hop_limit=2)))
    assert limited.ask("PUT", "/latest/api/token", **{LIFE: "60"}).hops == 2
    assert limited.ask("GET", "/latest/meta-data/").hops is None
    assert limited.ask("PUT", "/latest/api/token").hops is None
    for hops in (0, 65):
        with pytest.raises(InputError, match=f"may take 1 to 64 hops, not {hops}"):
            instance_metadata(facts(hop_limit=hops))


def test_packets_with_a_token_live_as_long_as_was_said(runtime: Path) -> None:
    with local_network(metadata=instance_metadata) as network:
        guest = network.attach(attach_request(metadata=MetadataFacts("i-0a", "web", hop_limit=1)))
        heard: list[int] = []
        receive = guest.guest.receive

        def listening(message: Buffer) -> None:
            heard.append(message[34])
            receive(message)

        guest.guest.receive = listening  # type: ignore[method-assign]
        put = b"PUT /latest/api/token HTTP/1.0\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\n"
        for request, last in ((b"GET /latest/ HTTP/1.0\r\n\r\n", 64), (put, 1)):
            heard.clear()
            stream = guest.guest.connect(METADATA, 80)
            stream.write(request)
            network.until(lambda stream=stream: stream.closed or stream.eof)  # type: ignore[misc]
            assert (heard[0], heard[-1]) == (64, last), "who may not have the token is connected and never answered"


@pytest.mark.parametrize("key", ["a b", "a/b", "", ".", "..", "_index", "é"])
def test_a_tag_whose_key_no_path_can_have_is_refused_by_name(key: str) -> None:
    with pytest.raises(InputError, match="cannot be in the metadata: its key may have letters"):
        instance_metadata(facts(extra={f"tags/instance/{key}": "x"}))


def test_tags_are_leaves_by_their_keys() -> None:
    client = Client(instance_metadata(facts(extra={"tags/instance/Name": "web", "tags/instance/a:b=c@d": "é"})))
    assert client.get("/latest/meta-data/tags/instance/").split("\n") == ["Name", "a:b=c@d"]
    assert client.get("/latest/meta-data/tags/instance/a:b=c@d") == "é"


def test_a_guest_asks_over_its_network_and_hears_of_changes(runtime: Path) -> None:
    with local_network(metadata=instance_metadata) as network:
        told = MetadataFacts("i-0a", "web")
        guest = network.attach(attach_request(metadata=told))

        def ask(path: str) -> bytes:
            stream = guest.guest.connect(METADATA, 80)
            stream.write(f"GET /latest/{path} HTTP/1.0\r\n\r\n".encode())
            network.until(lambda: stream.closed or stream.eof)
            return bytes(stream.received).partition(b"\r\n\r\n")[2]

        assert ask("meta-data/local-ipv4") == guest.attached.address.encode()
        assert ask("meta-data/mac") == b"52:54:00:00:00:01"
        assert ask("meta-data/security-groups")
        assert ask("user-data").startswith(b"404")
        update = Update(interface="web", metadata=MetadataFacts("i-0a", "web", user_data=b"#!"))
        network.request(update)
        assert ask("user-data") == b"#!"
        refused = network.request(Update(interface="web", metadata=MetadataFacts("i", "w", extra={"mac/x": ""})))
        assert isinstance(refused, Refused)
        assert "'meta-data/mac/x' is below the leaf 'meta-data/mac'" in refused.reason
        assert ask("user-data") == b"#!"


def test_a_guest_that_asks_hundreds_of_things_at_once_is_answered_in_turns(runtime: Path) -> None:
    asked: list[str] = []

    def counted(facts: InstanceFacts) -> Handler:
        handler = instance_metadata(facts)

        def handle(request: HttpRequest) -> HttpResponse:
            asked.append(request.path)
            return handler(request)

        return handle

    request = b"GET /latest/user-data HTTP/1.1\r\nHost: a\r\n\r\n"
    with local_network(metadata=counted) as network:
        guest = network.attach(attach_request(metadata=MetadataFacts("i-0a", "web", user_data=bytes(16_000))))
        streams = [guest.guest.connect(METADATA, 80) for _ in range(2)]
        for stream in streams:
            stream.write(request * 300)
        while len(asked) < 600:
            before = len(asked)
            network.until(lambda before=before: len(asked) > before)  # type: ignore[misc]
            assert len(asked) - before <= A_TURN // len(request) + 1
        network.until(lambda: min(len(stream.received) for stream in streams) > 16_000 * 300)
