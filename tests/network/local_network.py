"""A network's process inside the test's own: its loop goes round between what the guests and the host's side do.

with local_network(runtime) as network:
    web = network.attach(attach_request())
    stream = web.guest.connect(ROUTER, 8080)
    network.until(lambda: stream.established)
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from celaje.network import client, messages, spawn
from celaje.network.messages import Answer, Attach, Attached, NetworkSettings, Refused, Request
from celaje.network.metadata import MetadataHandler
from celaje.network.process import NetworkProcess
from celaje.network.resolver import HostResolvers
from tests.network.attached_guest import HANGS_SECONDS, AttachedGuest

SETTINGS = NetworkSettings(name="test")


class LocalNetwork:
    """`process` is the real one, on a real control socket."""

    def __init__(self, process: NetworkProcess) -> None:
        self.process = process
        self.guests: list[AttachedGuest] = []

    @property
    def nat(self):  # type: ignore[no-untyped-def]
        return self.process.nat

    def turn(self) -> None:
        """One round of everybody's."""
        self.process.loop.round(0.001)
        for guest in self.guests:
            if not guest.gone:
                guest.turn()

    def turns(self, count: int = 20) -> None:
        """Time for what should not happen to happen."""
        for _ in range(count):
            self.turn()

    def until(self, condition: Callable[[], object]) -> None:
        """Go on until it holds."""
        ends = time.monotonic() + HANGS_SECONDS
        while not condition():
            assert time.monotonic() < ends, "it never came true"
            self.turn()

    def call(self) -> socket.socket:
        """A connection to the control socket."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.connect(str(spawn.socket_path("test")))
        connection.setblocking(False)
        return connection

    def answer(self, connection: socket.socket) -> Answer:
        """The next answer on it."""
        held: list[bytes] = []

        def came() -> bool:
            with contextlib.suppress(BlockingIOError):
                held.append(connection.recv(messages.LONGEST_MESSAGE))
            return bool(held)

        self.until(came)
        return messages.decoded_answer(held[0])

    def request(self, request: Request) -> Answer:
        """What is answered."""
        with self.call() as connection:
            connection.send(messages.encoded(request))
            return self.answer(connection)

    def attach(self, request: Attach) -> AttachedGuest:
        """A guest, which takes its turns from now on."""
        connection = self.call()
        connection.send(messages.encoded(request))
        answer = self.answer(connection)
        if isinstance(answer, Refused):
            connection.close()
            raise AssertionError(answer.reason)
        assert isinstance(answer, Attached)
        guest = AttachedGuest(request, client.Attachment(connection, answer))
        self.guests.append(guest)
        return guest

    def tables(self) -> dict[str, int]:
        """Sizes of tables that are not empty."""
        answer = self.request(messages.Measure())
        assert isinstance(answer, messages.Statistics)
        return {name: size for name, size in answer.tables.items() if size}

    def counters(self) -> dict[str, int]:
        answer = self.request(messages.Measure())
        assert isinstance(answer, messages.Statistics)
        return answer.counters


@contextlib.contextmanager
def local_network(
    settings: NetworkSettings = SETTINGS,
    metadata: MetadataHandler | None = None,
    resolvers: Path | None = None,
) -> Iterator[LocalNetwork]:
    """A network, gone afterwards. No callback of its loop may have failed."""
    process = NetworkProcess(
        settings, spawn.socket_path("test"), metadata, None if resolvers is None else HostResolvers(resolvers)
    )
    network = LocalNetwork(process)
    try:
        yield network
        assert process.loop.failures == 0
    finally:
        for guest in network.guests:
            guest.close()
        process.close()
