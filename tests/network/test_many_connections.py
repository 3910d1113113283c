"""Ten thousand connections at once through a network's process, each of which says something, and nothing of them
afterwards."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import socket
from collections.abc import Iterator

import pytest

from celaje.network import client
from celaje.network.messages import HostPort
from tests.network.attached_guest import AttachedGuest, attach_request, until
from tests.network.guest import ROUTER

COUNT = 10_000
A_BATCH = 250

pytestmark = pytest.mark.usefixtures("runtime")


class EchoServer:
    """Answers everything with itself, from within the test's own rounds."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.listener.setblocking(False)
        self.epoll = select.epoll()
        self.epoll.register(self.listener.fileno(), select.EPOLLIN)
        self.streams: dict[int, socket.socket] = {}

    def turn(self) -> None:
        for descriptor, _ in self.epoll.poll(0, 1024):
            if descriptor == self.listener.fileno():
                with contextlib.suppress(BlockingIOError):
                    while True:
                        stream, _ = self.listener.accept()
                        stream.setblocking(False)
                        self.streams[stream.fileno()] = stream
                        self.epoll.register(stream.fileno(), select.EPOLLIN)
                continue
            data = self.streams[descriptor].recv(4096)
            if data:
                self.streams[descriptor].send(data)
            else:
                self.epoll.unregister(descriptor)
                self.streams.pop(descriptor).close()

    def close(self) -> None:
        for stream in self.streams.values():
            stream.close()
        self.epoll.close()
        self.listener.close()


@pytest.fixture
def descriptors() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] != resource.RLIM_INFINITY and before[1] < COUNT + 500:
        pytest.skip(f"a process may open {before[1]:,} files here and needs {COUNT + 500:,} (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_ten_thousand_connections_at_once(descriptors: None) -> None:
    server = EchoServer()
    machine = AttachedGuest(attach_request(host_ports=(HostPort("tcp", server.listener.getsockname()[1], 7),)))
    guest = machine.guest
    process = client.statistics("test").process
    before = len(os.listdir(f"/proc/{process}/fd"))
    streams = []
    for first in range(0, COUNT, A_BATCH):
        batch = [guest.connect(ROUTER, 7, 10_000 + number) for number in range(first, first + A_BATCH)]
        until(lambda batch=batch: server.turn() or all(one.established for one in batch), machine)
        streams += batch
    assert client.statistics("test").tables["TCP connections"] == COUNT
    assert len(os.listdir(f"/proc/{process}/fd")) >= COUNT
    for first in range(0, COUNT, A_BATCH):
        batch = streams[first : first + A_BATCH]
        for number, stream in enumerate(batch):
            stream.write(b"%d" % (first + number))
        until(lambda batch=batch: server.turn() or all(one.received for one in batch), machine)
    assert [int(one.received) for one in streams] == list(range(COUNT))
    for first in range(0, COUNT, A_BATCH):
        batch = streams[first : first + A_BATCH]
        for stream in batch:
            stream.close()
        until(lambda batch=batch: server.turn() or all(one.eof for one in batch), machine)
    assert not server.streams

    def nothing_is_left() -> bool:
        measured = client.statistics("test")
        return measured.tables["TCP connections"] == 0 and measured.interfaces["web"]["tracked flows"] == 0

    until(nothing_is_left, machine)
    assert len(os.listdir(f"/proc/{process}/fd")) <= before + 1  # the connection that asked
    measured = client.statistics("test")
    assert measured.counters["callbacks that failed"] == 0
    machine.close()
    server.close()
