"""The end of a control socket that answers, where the host is short of something."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from pathlib import Path

import pytest

from celaje.host import control_server, messages
from celaje.host.control_server import Connection, ControlServer
from celaje.host.messages import Answer, Request
from tests.machine_processes import wait_until


class Short(socket.socket):
    """A listening socket for which the host has no descriptor once."""

    refusals = 1

    def accept(self) -> tuple[socket.socket, object]:
        if self.refusals:
            self.refusals -= 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return super().accept()


def answered(request: Request, connection: Connection) -> Answer:
    return messages.Done()


def ask(path: Path) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.settimeout(60)
        client.connect(str(path))
        client.send(messages.encoded(messages.Pause()))
        return client.recv(1 << 16)


def test_a_host_that_is_short_of_descriptors_for_a_moment_ends_nothing(tmp_path: Path) -> None:
    listener = Short(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(tmp_path / "control"))
    listener.listen()
    server = ControlServer(listener, answered)
    server.start()
    assert messages.decoded_answer(ask(tmp_path / "control")) == messages.Done()
    assert not listener.refusals
    server.close()


def test_a_host_that_is_short_of_threads_refuses_one_connection_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(tmp_path / "control"))
    listener.listen()
    server = ControlServer(listener, answered)
    server.start()

    def none_left(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", none_left)
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            assert ask(tmp_path / "control") == b""
    assert messages.decoded_answer(ask(tmp_path / "control")) == messages.Done()
    server.close()


class Late(socket.socket):
    """A listening socket whose server comes to take anybody in when it is to end."""

    def __init__(self) -> None:
        super().__init__(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ends = threading.Event()

    def accept(self) -> tuple[socket.socket, object]:
        assert self.ends.wait(60)
        return super().accept()

    def shutdown(self, how: int) -> None:
        super().shutdown(how)
        self.ends.set()


@pytest.mark.parametrize("kind", [Late, socket.socket])
def test_who_has_connected_and_asked_before_the_end_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[socket.socket]
) -> None:
    monkeypatch.setattr(control_server, "LAST_WORDS_SECONDS", 60)
    listener = Late() if kind is Late else socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    asked, may_answer = threading.Event(), threading.Event()

    def late(request: Request, connection: Connection) -> Answer:
        asked.set()
        assert may_answer.wait(60)
        return messages.Done()

    listener.bind(str(tmp_path / "control"))
    listener.listen()
    server = ControlServer(listener, late)
    server.start()
    closes = threading.Thread(target=server.close)
    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(5):
            client = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            client.settimeout(60)
            client.connect(str(tmp_path / "control"))
            client.send(messages.encoded(messages.Pause()))
            client.send(messages.encoded(messages.Resume()))
            clients.append(client)
        assert kind is Late or asked.wait(60)
        closes.start()
        wait_until(lambda: listener.fileno() < 0)
        may_answer.set()
        said = [[client.recv(1 << 16) for _ in range(3)] for client in clients]
    closes.join()
    assert said == [[messages.encoded(messages.Done())] * 2 + [b""]] * 5
