"""What a client says to the HTTP server, and what it hears."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celaje.network.http_server import LONGEST_BODY, LONGEST_HEAD, HttpRequest, HttpResponse, HttpServer


def echo(request: HttpRequest) -> HttpResponse:
    text = f"{request.method} {request.path} {request.query} {request.body!r}"
    return HttpResponse(200, text.encode())


def server() -> HttpServer:
    return HttpServer(echo, lambda: 0.0)


def test_a_request_is_answered_with_its_length_and_the_connection_kept() -> None:
    one = server()
    assert one.receive(b"GET /a?b=c HTTP/1.1\r\nHost: x\r\n\r\n") == (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 14\r\n"
        b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\nServer: celaje\r\nConnection: keep-alive\r\n\r\nGET /a b=c b''"
    )
    assert not one.finished


def test_a_head_has_the_length_of_the_body_that_is_not_there() -> None:
    answer = server().receive(b"HEAD /abc HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"Content-Length: 14\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


def test_a_request_may_come_byte_by_byte() -> None:
    one = server()
    request = b"\r\nPUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
    answers = [one.receive(request[at : at + 1]) for at in range(len(request))]
    assert answers[:-1] == [b""] * (len(request) - 1)
    assert answers[-1].endswith(b"PUT /x  b'abc'")


def test_requests_that_come_together_are_answered_in_turn() -> None:
    one = server()
    answers = one.receive(b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\nHost: x\n\nGET /3 HTTP/1.1\r\nHo")
    assert answers.count(b"200 OK") == 2
    assert answers.index(b"GET /1") < answers.index(b"GET /2")
    assert one.receive(b"st: x\r\n\r\n").endswith(b"GET /3  b''")


def test_a_client_of_http_1_0_hears_the_end_of_the_answer_by_the_end_of_the_connection() -> None:
    one = server()
    assert b"Connection: close\r\n" in one.receive(b"GET / HTTP/1.0\r\n\r\n")
    assert one.finished


def test_a_client_of_http_1_0_may_ask_to_stay() -> None:
    one = server()
    one.receive(b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")
    assert not one.finished


def test_a_client_that_says_close_is_answered_once() -> None:
    one = server()
    answers = one.receive(b"GET /1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answers.count(b"200 OK") == 1
    assert one.finished
    assert one.receive(b"GET /3 HTTP/1.1\r\nHost: x\r\n\r\n") == b""


def test_a_client_that_waits_before_its_body_is_told_to_go_on() -> None:
    one = server()
    head = b"PUT / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    assert one.receive(head) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert one.receive(b"ok").endswith(b"PUT /  b'ok'")


def test_a_path_is_decoded_and_a_whole_address_is_a_path() -> None:
    assert server().receive(b"GET /a%20b HTTP/1.1\r\nHost: x\r\n\r\n").endswith(b"GET /a b  b''")
    assert server().receive(b"GET http://x/y?z HTTP/1.1\r\nHost: x\r\n\r\n").endswith(b"GET /y z b''")


def test_a_handler_that_fails_is_a_500_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    def fails(_request: HttpRequest) -> HttpResponse:
        raise RuntimeError("no")

    one = HttpServer(fails)
    assert one.receive(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 500 ")
    assert not one.finished
    assert "GET / failed" in caplog.text


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /\x01 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET x HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET http://[/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: \x00\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (LONGEST_BODY + 1), 413),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n", 413),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET /" + b"a" * 9000, 414),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 9000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 101 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * (LONGEST_HEAD // 6), 431),
    ],
)
def test_what_is_no_request_that_it_takes_is_answered_by_its_status_and_the_end(
    request_bytes: bytes, status: int
) -> None:
    one = server()
    answer = one.receive(request_bytes)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"Connection: close\r\n" in answer
    assert one.finished
    assert one.receive(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") == b""


@settings(deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=40), st.sampled_from([b"GET / HTTP/1.1\r\n", b"Host: x\r\n", b"\r\n"]))))
def test_nothing_that_a_client_sends_raises_or_is_kept_without_bound(pieces: list[bytes]) -> None:
    one = server()
    for piece in pieces:
        one.receive(piece)


def test_a_client_that_ends_is_let_go() -> None:
    one = server()
    assert one.receive(b"GET / HT") == b""
    assert one.receive(b"") == b""
    assert one.finished
