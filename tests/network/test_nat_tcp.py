"""TCP through NAT, both ways, over real loopback sockets, with a guest in user space."""

from __future__ import annotations

import contextlib
import hashlib
import random
import socket
import struct
from collections.abc import Iterator

import pytest

from celaje.network import messages
from celaje.network.messages import Forward, HostPort
from tests.network.attached_guest import AttachedGuest, attach_request
from tests.network.guest import ROUTER, Stream
from tests.network.local_network import LocalNetwork, local_network
from tests.network.test_public_ports import ADDRESS, free_port

pytestmark = pytest.mark.usefixtures("runtime")

OPENED = 8080


class HostServer:
    """A listening socket of the host's; connections are non-blocking."""

    def __init__(self, receive_buffer: int = 0) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen(128)
        self.socket.setblocking(False)
        self.port: int = self.socket.getsockname()[1]
        self.accepted: list[socket.socket] = []

    def take(self) -> bool:
        """Whether somebody has connected."""
        with contextlib.suppress(BlockingIOError):
            connection, _ = self.socket.accept()
            connection.setblocking(False)
            self.accepted.append(connection)
        return bool(self.accepted)

    def close(self) -> None:
        for connection in self.accepted:
            connection.close()
        self.socket.close()


class Conversation:
    """A guest whose router's port OPENED is a server of the host's."""

    def __init__(self, network: LocalNetwork, server: HostServer, guest: AttachedGuest) -> None:
        self.network = network
        self.server = server
        self.machine = guest
        self.guest = guest.guest

    def connected(self) -> tuple[Stream, socket.socket]:
        """Both ends of a new connection."""
        stream = self.guest.connect(ROUTER, OPENED)
        before = len(self.server.accepted)
        self.network.until(lambda: self.server.take() and len(self.server.accepted) > before and stream.established)
        return stream, self.server.accepted[-1]

    def received(self, connection: socket.socket, count: int) -> bytes:
        """`count` bytes that the host's side reads, or what comes before their end."""
        data = bytearray()
        ended: list[bool] = []

        def enough() -> bool:
            with contextlib.suppress(BlockingIOError):
                while len(data) < count:
                    piece = connection.recv(min(1 << 16, count - len(data)))
                    if not piece:
                        ended.append(True)
                        break
                    data.extend(piece)
            return len(data) >= count or bool(ended)

        self.network.until(enough)
        return bytes(data)

    def sends(self, connection: socket.socket, data: bytes) -> None:
        """The host's side sends all of it."""
        view = memoryview(data)
        sent = [0]

        def done() -> bool:
            with contextlib.suppress(BlockingIOError):
                while sent[0] < len(view):
                    sent[0] += connection.send(view[sent[0] :])
            return sent[0] == len(view)

        self.network.until(done)


@pytest.fixture
def conversation() -> Iterator[Conversation]:
    server = HostServer()
    with local_network() as network:
        guest = network.attach(attach_request(host_ports=(HostPort("tcp", server.port, OPENED),)))
        yield Conversation(network, server, guest)
    server.close()


def noise(count: int) -> bytes:
    return random.Random(count).randbytes(count)


def test_bytes_go_both_ways(conversation: Conversation) -> None:
    stream, host = conversation.connected()
    stream.write(b"hello")
    assert conversation.received(host, 5) == b"hello"
    host.send(b"world")
    conversation.network.until(lambda: stream.received == b"world")


@pytest.mark.parametrize("count", [1, 1459, 1461, 65_495, 65_536, 3_000_000])
def test_what_the_guest_sends_arrives_whole(conversation: Conversation, count: int) -> None:
    stream, host = conversation.connected()
    data = noise(count)
    stream.write(data)
    got = conversation.received(host, count)
    assert hashlib.sha256(got).digest() == hashlib.sha256(data).digest()


@pytest.mark.parametrize("count", [1, 1459, 1461, 65_495, 65_536, 3_000_000])
def test_what_the_host_sends_arrives_whole(conversation: Conversation, count: int) -> None:
    stream, host = conversation.connected()
    data = noise(count)
    conversation.sends(host, data)
    conversation.network.until(lambda: len(stream.received) == count)
    assert hashlib.sha256(stream.received).digest() == hashlib.sha256(data).digest()


def test_a_slow_host_stops_the_guest(conversation: Conversation) -> None:
    stream, host = conversation.connected()
    size = 40_000_000
    stream.write(noise(size))
    unsent = [0, 0]

    def stands() -> bool:
        """Nothing has left the guest for a hundred rounds."""
        left = sum(len(piece) for piece in stream.unsent)
        unsent[1] = unsent[1] + 1 if left == unsent[0] else 0
        unsent[0] = left
        return unsent[1] > 100

    conversation.network.until(stands)
    assert 0 < unsent[0] < size
    held = next(iter(conversation.network.nat._flows.values())).streams
    assert all(sum(map(len, one.connection.peek())) <= 2 << 20 for one in held.values())
    assert conversation.received(host, size) == noise(size)


def test_a_slow_guest_stops_the_host(conversation: Conversation) -> None:
    stream, host = conversation.connected()
    stream.reads = False
    data = memoryview(noise(60_000_000))
    sent = [0, 0]

    def stands() -> bool:
        before = sent[0]
        with contextlib.suppress(BlockingIOError):
            sent[0] += host.send(data[sent[0] : sent[0] + (1 << 16)])
        sent[1] = sent[1] + 1 if sent[0] == before else 0
        return sent[1] > 100

    conversation.network.until(stands)
    assert sent[0] < len(data)
    stream.reads = True
    conversation.network.until(lambda: stream.turn() or len(stream.received) == sent[0])
    assert stream.received == data[: sent[0]]


def test_the_guest_half_closes_and_hears_the_answer(conversation: Conversation) -> None:
    stream, host = conversation.connected()
    stream.write(b"question")
    stream.close()
    assert conversation.received(host, 100) == b"question"
    host.send(b"answer")
    host.close()
    conversation.network.until(lambda: stream.eof)
    assert stream.received == b"answer"


def test_the_host_half_closes_and_hears_the_answer(conversation: Conversation) -> None:
    stream, host = conversation.connected()
    host.send(b"question")
    host.shutdown(socket.SHUT_WR)
    conversation.network.until(lambda: stream.eof)
    stream.write(b"answer")
    stream.close()
    assert conversation.received(host, 100) == b"answer"


def test_the_guests_reset_reaches_the_host(conversation: Conversation) -> None:
    stream, host = conversation.connected()
    stream.abort()

    def reset() -> bool:
        try:
            host.recv(1)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True
        raise AssertionError("an orderly end")

    conversation.network.until(reset)


def test_the_hosts_reset_reaches_the_guest(conversation: Conversation) -> None:
    stream, host = conversation.connected()
    host.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    host.close()
    conversation.network.until(lambda: stream.reset)


def test_the_last_bytes_of_a_guest_that_has_gone_reach_a_slow_reader(conversation: Conversation) -> None:
    stream, host = conversation.connected()
    host.shutdown(socket.SHUT_WR)
    conversation.network.until(lambda: stream.eof)
    data = noise(20_000_000)
    held = next(iter(conversation.network.nat._flows.values())).streams
    count = rounds = 0

    def arrived() -> bool:
        """Whether the network has all that the guest has written."""
        waiting = stream.connection._sender.buffer
        return not (stream.unsent or waiting.unsent or waiting.flights)

    while rounds < 100:  # in which the host's sockets took nothing; when they are probed they may take a little more
        if sum(len(piece) for one in held.values() for piece in one.connection.peek()) < 300_000:
            stream.write(data[count : count + 50_000])
            count += 50_000
            rounds = 0
        rounds += 1
        conversation.network.turn()
        conversation.network.until(arrived)
    assert count < len(data)
    stream.close()
    conversation.network.until(lambda: stream.closed and not held)
    assert conversation.network.tables()["TCP remainders"] == 1
    assert conversation.received(host, len(data)) == data[:count]
    assert "TCP remainders" not in conversation.network.tables()


def test_a_port_where_nobody_listens_is_refused(conversation: Conversation) -> None:
    conversation.server.socket.close()
    stream = conversation.guest.connect(ROUTER, OPENED)
    conversation.network.until(lambda: stream.closed)
    assert stream.reset
    assert not stream.established


def test_a_port_of_the_router_that_is_not_opened_is_refused(conversation: Conversation) -> None:
    stream = conversation.guest.connect(ROUTER, 22)
    conversation.network.until(lambda: stream.closed)
    assert stream.reset


def test_a_client_sees_nothing_of_a_connection_that_nobody_made(conversation: Conversation) -> None:
    """A segment of no connection is answered with a reset."""
    from celaje.network.tcp_segment import ACK, header

    pseudo = (conversation.guest.address + 0x08080808 + 26) % 0xFFFF
    head = header(40_000, 80, 1, 1, ACK, 100, pseudo)
    conversation.guest.packet(0x08080808, 6, [head], struct.pack("<BBHHHHH", 1, 0, 0, 0, 34, 16, 1))
    conversation.network.turns()
    assert conversation.network.tables().get("TCP connections", 0) == 0


def test_nothing_is_left_behind_by_thousands_of_short_connections(conversation: Conversation) -> None:
    network = conversation.network
    before = network.tables()
    for _ in range(40):
        streams = [conversation.guest.connect(ROUTER, OPENED) for _ in range(50)]
        network.until(lambda: conversation.server.take() and len(conversation.server.accepted) >= 50)
        for number, host in enumerate(conversation.server.accepted):
            host.send(b"x" * (number * 100))
            host.close()
        conversation.server.accepted.clear()
        network.until(lambda streams=streams: all(one.eof for one in streams))
        for stream in streams:
            stream.abort() if stream.connection.local[1] % 3 == 0 else stream.close()
    network.until(lambda: network.tables() == before)

    def tracked() -> int:
        statistics = network.request(messages.Measure())
        assert isinstance(statistics, messages.Statistics)
        return statistics.interfaces["web"]["tracked flows"]

    network.until(lambda: tracked() == 0)
    assert len(network.process.loop._heap) < 5_000


# Inward.


@pytest.fixture
def forwarded() -> Iterator[Conversation]:
    server = HostServer()
    with local_network() as network:
        guest = network.attach(attach_request(forwards=(Forward("tcp", "127.0.0.1", 0, 22),), host_ports=()))
        yield Conversation(network, server, guest)
    server.close()


def client_of(conversation: Conversation) -> socket.socket:
    port = conversation.machine.attached.ports[0].host_port
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setblocking(False)
    return connection


def test_a_forward_leads_to_the_guest(forwarded: Conversation) -> None:
    accepted: list[Stream] = []
    forwarded.guest.listen(22, accepted.append)
    with client_of(forwarded) as client:
        client.send(b"SSH-2.0-client\r\n")
        forwarded.network.until(lambda: accepted and accepted[0].received == b"SSH-2.0-client\r\n")
        assert accepted[0].remote[0] == ROUTER  # 127.0.0.1 is no address that a guest could answer
        accepted[0].write(b"SSH-2.0-server\r\n")
        assert forwarded.received(client, 16) == b"SSH-2.0-server\r\n"
        accepted[0].close()
        assert forwarded.received(client, 1) == b""


def test_a_guest_that_refuses_resets_the_client(forwarded: Conversation) -> None:
    with client_of(forwarded) as client, pytest.raises(ConnectionResetError):
        forwarded.received(client, 1)


def test_a_client_that_the_rules_do_not_admit_is_closed_without_bytes() -> None:
    groups = (messages.SecurityGroup("g", (messages.Rule("in", "tcp", "10.0.0.0/8", 22, 22),)),)
    with local_network() as network:
        request = attach_request(forwards=(Forward("tcp", "127.0.0.1", 0, 22),), groups=groups)
        guest = network.attach(request)
        accepted: list[Stream] = []
        guest.guest.listen(22, accepted.append)
        conversation = Conversation(network, HostServer(), guest)
        with client_of(conversation) as client:
            assert conversation.received(client, 1) == b""
        assert not accepted
        assert network.counters()["clients refused"] == 1
        conversation.server.close()


def test_a_forward_whose_port_is_taken_is_refused_by_name() -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    with local_network() as network:
        answer = network.request(attach_request(forwards=(Forward("tcp", "127.0.0.1", port, 22),)))
        assert isinstance(answer, messages.Refused)
        assert answer.reason == (
            f"cannot forward tcp:127.0.0.1:{port} to port 22 of 'web': Address already in use; "
            "choose another port, or 0 for any that is free"
        )
        assert network.tables() == {"watched descriptors": 2}
    taken.close()


def test_a_forward_can_be_turned_to_another_port_of_the_guest() -> None:
    everything = (messages.SecurityGroup("g", (messages.Rule("in", "any"), messages.Rule("out", "any"))),)
    port = free_port()
    with local_network() as network:
        guest = network.attach(attach_request(groups=everything, forwards=(Forward("tcp", ADDRESS, port, 22),)))
        accepted: list[Stream] = []
        guest.guest.listen(80, accepted.append)
        for guest_port in (80, 81):
            update = messages.Update(interface="web", forwards=(Forward("tcp", ADDRESS, port, guest_port),))
            answer = network.request(update)
            assert isinstance(answer, messages.Updated)
            assert answer.ports == (messages.PublicPort("tcp", guest_port, ADDRESS, port, forward=True),)
            with socket.create_connection((ADDRESS, port)):
                network.until(lambda guest_port=guest_port: guest_port in guest.guest.probed)
        assert len(accepted) == 1
        network.request(messages.Update(interface="web", forwards=()))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((ADDRESS, port))


def test_a_rule_that_goes_cuts_the_connection_it_admitted(forwarded: Conversation) -> None:
    accepted: list[Stream] = []
    forwarded.guest.listen(22, accepted.append)
    with client_of(forwarded) as client:
        forwarded.network.until(lambda: accepted and accepted[0].established)
        groups = (messages.SecurityGroup("g", (messages.Rule("out", "any"),)),)
        answer = forwarded.network.request(messages.Update(interface="web", groups=groups))
        assert isinstance(answer, messages.Updated)
        assert answer.cut == 1
        with pytest.raises(ConnectionResetError):
            forwarded.received(client, 1)
    assert "TCP connections" not in forwarded.network.tables()


def test_an_update_of_which_a_part_cannot_be_changes_nothing(forwarded: Conversation) -> None:
    accepted: list[Stream] = []
    forwarded.guest.listen(22, accepted.append)
    half_right = messages.Update(interface="web", forwards=(), groups=(), bandwidth=messages.Bandwidth(to_guest=1))
    refused = forwarded.network.request(half_right)
    assert isinstance(refused, messages.Refused)
    assert "at least 1,000 bytes a second" in refused.reason
    with client_of(forwarded):
        forwarded.network.until(lambda: accepted and accepted[0].established)


def test_rules_that_come_with_another_machine_cut_what_they_do_not_admit() -> None:
    server = HostServer()

    def group(port: int) -> tuple[messages.SecurityGroup, ...]:
        return (messages.SecurityGroup("g", (messages.Rule("in", "tcp", first_port=port, last_port=port),)),)

    with local_network() as network:
        guest = network.attach(attach_request(groups=group(22), forwards=(Forward("tcp", "127.0.0.1", 0, 22),)))
        forwarded = Conversation(network, server, guest)
        accepted: list[Stream] = []
        guest.guest.listen(22, accepted.append)
        with client_of(forwarded) as client:
            network.until(lambda: accepted and accepted[0].established)
            refused = network.request(attach_request("other", groups=group(80)))  # its MAC address is the first one's
            assert isinstance(refused, messages.Refused)
            client.send(b"still")
            network.until(lambda: accepted[0].received == b"still")
            network.attach(attach_request("other", 2, groups=group(80)))
            with pytest.raises(ConnectionResetError):
                forwarded.received(client, 1)
        assert "TCP connections" not in network.tables()
    server.close()


def test_a_host_port_that_is_closed_again_cuts_its_connections(conversation: Conversation) -> None:
    stream, host = conversation.connected()
    answer = conversation.network.request(messages.Update(interface="web", host_ports=()))
    assert isinstance(answer, messages.Updated)
    assert answer.cut == 1
    with pytest.raises(ConnectionResetError):
        conversation.received(host, 1)
    again = conversation.guest.connect(ROUTER, OPENED)
    conversation.network.until(lambda: again.closed)
    assert stream.established
    assert not again.established


@pytest.mark.parametrize(
    "bandwidth", [messages.Bandwidth(to_guest=2_000_000), messages.Bandwidth(from_guest=2_000_000)]
)
def test_limited_bandwidth_loses_nothing(conversation: Conversation, bandwidth: messages.Bandwidth) -> None:
    conversation.network.request(messages.Update(interface="web", bandwidth=bandwidth))
    stream, host = conversation.connected()
    data = noise(1_000_000)
    stream.write(data)
    assert conversation.received(host, len(data)) == data
    conversation.sends(host, data)
    conversation.network.until(lambda: len(stream.received) == len(data))
    assert stream.received == data


# Proxy.


def test_a_proxied_connection_is_a_stream_of_bytes(forwarded: Conversation) -> None:
    accepted: list[Stream] = []
    forwarded.guest.listen(22, accepted.append)
    with forwarded.network.call() as caller:
        caller.send(messages.encoded(messages.Proxy(host="web", port=22)))
        held: list[tuple[bytes, list[int]]] = []

        def came() -> bool:
            with contextlib.suppress(BlockingIOError):
                data, descriptors, _, _ = socket.recv_fds(caller, 10_000, 1)
                held.append((data, list(descriptors)))
            return bool(held)

        forwarded.network.until(came)
        assert isinstance(messages.decoded_answer(held[0][0]), messages.Connected)
        with socket.socket(fileno=held[0][1][0]) as stream:
            stream.setblocking(False)
            stream.send(b"hello")
            forwarded.network.until(lambda: accepted[0].received == b"hello")
            accepted[0].write(b"there")
            assert forwarded.received(stream, 5) == b"there"
            stream.shutdown(socket.SHUT_WR)
            forwarded.network.until(lambda: accepted[0].eof)
            accepted[0].write(b"!")
            accepted[0].close()
            assert forwarded.received(stream, 10) == b"!"


@pytest.mark.parametrize(
    ("host", "port", "reason"),
    [
        ("db", 22, "no machine 'db' is attached to this network (attached: web)"),
        ("web", 80, "the rules of 'web' admit nobody from 127.0.0.1 to tcp port 80"),
        ("web", 22, "'web' does not answer on tcp port 22; is a server running there?"),
        ("10.77.0.10", 0, "a port is a number from 1 to 65535"),
    ],
)
def test_a_proxied_connection_that_cannot_be_says_why(
    forwarded: Conversation, host: str, port: int, reason: str
) -> None:
    answer = forwarded.network.request(messages.Proxy(host=host, port=port))
    assert isinstance(answer, messages.Refused)
    assert reason in answer.reason
