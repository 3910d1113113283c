"""Clients that hold a thread of S3, and the others who want one."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import logging
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config

from celaje.cloud.aws import application, threads
from celaje.cloud.aws.application import Application
from celaje.cloud.aws.direct_transfer import Connections
from tests.cloud.aws.conftest import KEY, Served, serving

PATIENCE = 0.5
LONG = 64 << 20
OTHER = "222222222222"  # where any key is taken, one of twelve digits is that account's; all others are one account's
_PATHS = Config(s3={"addressing_style": "path"}, signature_version="s3v4")


def path_of(served: Served, method: str, key: str, access_key: str = KEY) -> str:
    url = served.client("s3", access_key, config=_PATHS).generate_presigned_url(
        f"{method}_object", Params={"Bucket": "here", "Key": key}, ExpiresIn=600
    )
    return str(url.partition(str(served.port))[2])


@contextlib.contextmanager
def slow_upload(served: Served, length: int, access_key: str = KEY) -> Iterator[None]:
    """A client that has a thread, and whose long body comes byte after byte until it is let go or the block ends. The
    server has little patience with it."""
    done = threading.Event()
    with contextlib.ExitStack() as held:
        with served.patience(PATIENCE):
            raw = held.enter_context(upload(served, access_key, length))
            assert has_a_thread(raw)

        def trickle() -> None:
            with contextlib.suppress(OSError):
                while not done.wait(0.02):
                    raw.sendall(b"x")

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


@contextlib.contextmanager
def slow_download(served: Served) -> Iterator[None]:
    """A client that takes a long answer a few bytes at a time. The server has little patience with it."""
    done = threading.Event()
    path = path_of(served, "get", "long")
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect(("127.0.0.1", served.port))
        with served.patience(PATIENCE):
            raw.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n\r\n".encode())
            answer = b""
            while not answer.partition(b"\r\n\r\n")[2]:  # the file is being sent
                answer += (piece := raw.recv(256))
                assert piece

        def trickle() -> None:
            with contextlib.suppress(OSError):
                while not done.wait(0.02) and raw.recv(16):
                    pass

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def put(served: Served, key: str, body: bytes, access_key: str = KEY) -> int:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)) as connection:
        with contextlib.suppress(ConnectionError):  # who is refused may be told before all was sent
            connection.request("PUT", path_of(served, "put", key, access_key), body)
        answer = connection.getresponse()
        answer.read()
        return answer.status


@pytest.fixture
def narrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A server with two threads for S3."""
    monkeypatch.setattr(application, "STREAMING_THREADS", 2)
    with serving(tmp_path) as served:
        yield served


@pytest.mark.parametrize("length", [100_000, LONG])
def test_slow_uploads_on_every_thread_keep_nobody_out(narrow: Served, length: int) -> None:
    with contextlib.ExitStack() as held:
        for _ in range(2):
            held.enter_context(slow_upload(narrow, length))
        assert put(narrow, "quick", os.urandom(2_000_000)) == 200


def test_slow_downloads_on_every_thread_keep_nobody_out(narrow: Served) -> None:
    assert put(narrow, "long", bytes(LONG)) == 200
    with contextlib.ExitStack() as held:
        for _ in range(2):
            held.enter_context(slow_download(narrow))
        assert put(narrow, "quick", b"x" * 100_000) == 200


class _Hurrying:
    """A clock by which minutes have passed between any two pieces of a body."""

    def __init__(self) -> None:
        self._now = 0.0

    def monotonic(self) -> float:
        self._now += 100.0
        return self._now


def test_who_is_slow_is_not_let_go_while_nobody_waits(narrow: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "time", _Hurrying())
    with upload(narrow, length=100_000) as raw:
        assert has_a_thread(raw)
        pause = threading.Event()
        for _ in range(20):  # each is looked at by itself
            raw.sendall(b"x" * 5000)
            pause.wait(0.02)
        assert raw.recv(1 << 16).startswith(b"HTTP/1.1 200 ")


def test_every_piece_of_a_short_body_has_the_servers_patience_for_itself(narrow: Served) -> None:
    assert narrow.gateway is not None
    application = Application(narrow.gateway, patience=10)
    pieces = [b"x"] * 20

    async def read(seconds: float) -> bytes:
        """Each comes so many seconds after the one before it, by the loop's clock."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        left = list(pieces)
        loop.time = lambda: now  # type: ignore[method-assign]

        async def receive() -> dict[str, Any]:
            nonlocal now
            now += seconds
            for _ in range(9):  # the loop looks at its clock
                await asyncio.sleep(0)
            return {"type": "http.request", "body": left.pop(), "more_body": bool(left)}

        return await application._read(receive)

    assert asyncio.run(read(9)) == b"".join(pieces)
    with pytest.raises(TimeoutError):
        asyncio.run(read(11))
    application.close()


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A server with six threads for S3, any key, and clients that may take their time."""
    monkeypatch.setattr(application, "STREAMING_THREADS", 6)
    with serving(tmp_path, lambda options: options.update(any_key=True)) as served:
        yield served


@contextlib.contextmanager
def upload(served: Served, access_key: str = KEY, length: int = 9) -> Iterator[socket.socket]:
    """A client that waits to be told to send its body, as it is when a thread begins to read it."""
    path = path_of(served, "put", "held", access_key)
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as raw:
        host = f"127.0.0.1:{served.port}"
        raw.sendall(
            f"PUT {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n".encode()
        )
        yield raw


def has_a_thread(raw: socket.socket) -> bool:
    return raw.recv(1 << 16).startswith(b"HTTP/1.1 100 ")


def test_an_account_that_wants_all_threads_leaves_some_to_another(shared: Served) -> None:
    assert put(shared, "known", b"") == 200  # whose the key is, is known from now on
    with contextlib.ExitStack() as held:
        having = [held.enter_context(upload(shared)) for _ in range(4)]
        assert all(has_a_thread(raw) for raw in having)
        waiting = [held.enter_context(upload(shared)) for _ in range(3)]
        for key in ("quick", "quicker"):
            assert put(shared, key, os.urandom(2_000_000), OTHER) == 200
        for raw in waiting:
            raw.setblocking(False)
            with pytest.raises(BlockingIOError):
                raw.recv(1)
            raw.settimeout(60)
        for raw in having[: len(waiting)]:
            raw.close()
        assert all(has_a_thread(raw) for raw in waiting)


def test_keys_that_nobody_knew_are_no_further_shares(shared: Served) -> None:
    with contextlib.ExitStack() as held:
        for number in range(4):
            assert has_a_thread(held.enter_context(upload(shared, f"new{number}")))
        assert put(shared, "another", os.urandom(200_000), "new4") == 503
        assert put(shared, "quick", os.urandom(2_000_000), OTHER) == 200


class _Another:
    """A connection of a server that is made differently."""

    cycle = object()

    def on_message_complete(self) -> None: ...


def test_a_server_that_is_made_differently_is_named_once_and_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    connections = Connections()
    with caplog.at_level(logging.WARNING):
        assert connections.of(_Another()) is None
        assert connections.of(_Another()) is None
    (record,) = caplog.records
    assert "cycle.more_body" in record.getMessage()
    assert "on_message_complete" not in record.getMessage()


def test_long_bodies_go_through_the_loop_where_the_server_is_made_differently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Connections, "of", lambda self, protocol: None)
    body = os.urandom(5_000_000)
    with serving(tmp_path) as served:
        assert put(served, "long", body) == 200
        assert served.client("s3", config=_PATHS).get_object(Bucket="here", Key="long")["Body"].read() == body


def test_the_installed_server_is_one_whose_long_bodies_are_taken_directly(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), serving(tmp_path) as served:
        assert put(served, "long", bytes(5_000_000)) == 200
    assert "event loop" not in caplog.text
