"""UDP and ICMP echo through NAT, and DNS questions on their way to the host's resolvers."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from pathlib import Path

import dns.flags
import dns.message
import dns.rrset
import pytest

from celaje.network import icmp, messages, nat
from celaje.network.datagram_flow import UNANSWERED_SECONDS
from celaje.network.messages import Forward, HostPort
from celaje.network.resolver import HostResolvers, Resolver
from tests.network.attached_guest import AttachedGuest, attach_request
from tests.network.guest import ROUTER
from tests.network.local_network import LocalNetwork, local_network

OPENED = 5353
FORWARDS = (Forward("udp", "127.0.0.1", 0, 53),)

pytestmark = pytest.mark.usefixtures("runtime")


def udp_socket(address: str = "127.0.0.1", port: int = 0) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((address, port))
    made.setblocking(False)
    return made


def pair(address: str) -> tuple[socket.socket, socket.socket]:
    """A TCP listener and a UDP socket at one port of that address."""
    while True:
        # TCP's ports are the scarce ones: thousands are still in use by connections that other tests have ended.
        tcp = socket.create_server((address, 0))
        try:
            return tcp, udp_socket(address, tcp.getsockname()[1])
        except OSError as error:
            tcp.close()
            if error.errno != errno.EADDRINUSE:
                raise


def heard(network: LocalNetwork, listener: socket.socket) -> tuple[bytes, tuple[str, int]]:
    """The next datagram."""
    held: list[tuple[bytes, tuple[str, int]]] = []

    def came() -> bool:
        with contextlib.suppress(BlockingIOError):
            held.append(listener.recvfrom(70_000))
        return bool(held)

    network.until(came)
    return held[0]


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with udp_socket() as made:
        yield made


@pytest.fixture
def opened(server: socket.socket, runtime: object) -> Iterator[tuple[LocalNetwork, AttachedGuest]]:
    with local_network() as network:
        yield (
            network,
            network.attach(
                attach_request(
                    host_ports=(HostPort("udp", server.getsockname()[1], OPENED),),
                    forwards=FORWARDS,
                    groups=messages.default_groups("web", FORWARDS),
                )
            ),
        )


def test_a_datagram_and_its_answer(opened: tuple[LocalNetwork, AttachedGuest], server: socket.socket) -> None:
    network, machine = opened
    machine.guest.datagram(ROUTER, OPENED, b"question", 4000)
    data, client = heard(network, server)
    assert data == b"question"
    server.sendto(b"answer", client)
    network.until(lambda: machine.guest.datagrams)
    answer = machine.guest.datagrams[0]
    assert (answer.source, answer.source_port, answer.port, answer.data) == (ROUTER, OPENED, 4000, b"answer")
    assert network.tables()["UDP flows"] == 1


def test_each_flow_has_a_socket_of_its_own(opened: tuple[LocalNetwork, AttachedGuest], server: socket.socket) -> None:
    network, machine = opened
    clients = set()
    for port in (4000, 4001, 4000):
        machine.guest.datagram(ROUTER, OPENED, b"x", port)
        clients.add(heard(network, server)[1])
    assert len(clients) == 2


def test_an_empty_datagram_is_one_too(opened: tuple[LocalNetwork, AttachedGuest], server: socket.socket) -> None:
    network, machine = opened
    machine.guest.datagram(ROUTER, OPENED, b"")
    assert heard(network, server)[0] == b""


def test_a_port_where_nobody_listens_is_told_to_the_guest(
    opened: tuple[LocalNetwork, AttachedGuest], server: socket.socket
) -> None:
    network, machine = opened
    server.close()
    machine.guest.datagram(ROUTER, OPENED, b"anybody?")
    network.until(lambda: machine.guest.icmp)
    told = machine.guest.icmp[0]
    assert (told.source, told.kind, told.code) == (ROUTER, icmp.UNREACHABLE, icmp.PORT_UNREACHABLE)


def test_a_flow_that_is_idle_goes_with_its_socket(
    opened: tuple[LocalNetwork, AttachedGuest], server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, machine = opened
    before = len(network.process.loop)
    machine.guest.datagram(ROUTER, OPENED, b"x")
    heard(network, server)
    assert len(network.process.loop) == before + 1
    network.process.loop.now += UNANSWERED_SECONDS + 1
    network.nat._sweep_datagrams()
    assert len(network.process.loop) == before
    assert "UDP flows" not in network.tables()


def test_the_table_is_bounded_and_the_oldest_give_way(
    opened: tuple[LocalNetwork, AttachedGuest], server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, machine = opened
    monkeypatch.setattr(nat, "MOST_DATAGRAM_FLOWS", 16)
    for port in range(100):
        machine.guest.datagram(ROUTER, OPENED, b"x", 4000 + port)
        heard(network, server)
    assert network.tables()["UDP flows"] <= 16
    assert network.counters()["datagram flows that gave way to others"] >= 84


def test_a_client_reaches_the_guest_and_is_answered(opened: tuple[LocalNetwork, AttachedGuest]) -> None:
    network, machine = opened
    port = machine.attached.ports[0].host_port
    with udp_socket() as first, udp_socket() as second:
        for number, client in enumerate((first, second)):
            client.sendto(b"hello", ("127.0.0.1", port))
            network.until(lambda number=number: len(machine.guest.datagrams) > number)
        for got in machine.guest.datagrams:
            assert (got.source, got.port, got.data) == (ROUTER, 53, b"hello")
            machine.guest.datagram(got.source, got.source_port, b"for %d" % got.source_port, 53)
        answers = {heard(network, client)[0] for client in (first, second)}
        assert len(answers) == 2
        first.sendto(b"again", ("127.0.0.1", port))
        network.until(lambda: len(machine.guest.datagrams) == 3)
        assert machine.guest.datagrams[2].source_port == machine.guest.datagrams[0].source_port
        assert network.tables()["UDP flows"] == 2


def test_a_client_that_the_rules_do_not_admit_is_not_heard(runtime: object) -> None:
    groups = (messages.SecurityGroup("g", (messages.Rule("in", "udp", "10.0.0.0/8", 53, 53),)),)
    with local_network() as network, udp_socket() as client:
        machine = network.attach(attach_request(groups=groups, forwards=(Forward("udp", "127.0.0.1", 0, 53),)))
        client.sendto(b"hello", ("127.0.0.1", machine.attached.ports[0].host_port))
        network.until(lambda: network.counters().get("clients refused"))
        assert not machine.guest.datagrams


# ICMP echo.


def test_echo_that_the_host_refuses_is_counted_said_once_and_told(
    opened: tuple[LocalNetwork, AttachedGuest], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    network, machine = opened

    def refused(address: str, public: str | None) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(network.nat.sockets, "connect_echo", refused)
    for sequence in range(3):
        machine.guest.ping(0x08080808, 77, sequence)
    network.until(lambda: len(machine.guest.icmp) == 3)
    assert {(one.kind, one.code) for one in machine.guest.icmp} == {
        (icmp.UNREACHABLE, icmp.ADMINISTRATIVELY_PROHIBITED)
    }
    assert network.counters()["echo requests that the host refuses"] == 3
    assert caplog.text.count("ping_group_range") == 1


def test_echo_keeps_the_guests_identifier_and_sequence(
    opened: tuple[LocalNetwork, AttachedGuest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a socket pair for the kernel's ping socket, which has an identifier of its own."""
    network, machine = opened
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    theirs.setblocking(False)
    monkeypatch.setattr(network.nat.sockets, "connect_echo", lambda address, public: ours)
    machine.guest.ping(0x08080808, 77, 5, b"payload")
    request = heard(network, theirs)[0]
    assert request[0] == icmp.ECHO_REQUEST
    theirs.send(icmp.echo(icmp.ECHO_REPLY, 4711, int.from_bytes(request[6:8], "big"), request[8:]))
    network.until(lambda: machine.guest.icmp)
    reply = machine.guest.icmp[0]
    assert (reply.source, reply.kind, reply.rest) == (0x08080808, icmp.ECHO_REPLY, b"\0\x4d\0\x05payload")
    theirs.close()


# DNS, forwarded.


class HostResolver:
    """A resolver of the host's, UDP and TCP at one port of 127.0.0.1."""

    def __init__(self) -> None:
        self.tcp, self.udp = pair("127.0.0.1")
        self.port: int = self.tcp.getsockname()[1]
        self.tcp.setblocking(False)
        self.truncates = False
        self.rcode = 0
        self.asked: list[str] = []
        self.streams: list[socket.socket] = []

    def answer(self, query: bytes) -> bytes:
        question = dns.message.from_wire(query)
        answer = dns.message.make_response(question)
        answer.set_rcode(self.rcode)
        if not self.rcode:
            answer.answer.append(dns.rrset.from_text(question.question[0].name, 60, "IN", "A", "192.0.2.55"))
        return answer.to_wire()

    def turn(self) -> None:
        with contextlib.suppress(BlockingIOError):
            query, client = self.udp.recvfrom(4096)
            self.asked.append("udp")
            answer = self.answer(query)
            if self.truncates:
                answer = answer[:2] + bytes((answer[2] | 2,)) + answer[3:]
            self.udp.sendto(answer, client)
        with contextlib.suppress(BlockingIOError):
            stream, _ = self.tcp.accept()
            stream.setblocking(False)
            self.streams.append(stream)
        for stream in self.streams:
            with contextlib.suppress(BlockingIOError):
                query = stream.recv(4096)
                self.asked.append("tcp")
                answer = self.answer(query[2:])
                stream.send(len(answer).to_bytes(2, "big") + answer)
                stream.close()
                self.streams.remove(stream)

    def close(self) -> None:
        self.udp.close()
        self.tcp.close()
        for stream in self.streams:
            stream.close()


@pytest.fixture
def resolving(
    runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[LocalNetwork, AttachedGuest, HostResolver]]:
    monkeypatch.setattr("celaje.network.resolver.ROUND_SECONDS", 3600.0)  # nobody is asked twice for being slow
    resolver = HostResolver()
    configuration = tmp_path / "resolv.conf"
    configuration.write_text("# ours\nnameserver nonsense\nnameserver 127.0.0.1\noptions edns0\n")
    with local_network(resolvers=configuration) as network:
        network.process._resolver._port = resolver.port
        yield network, network.attach(attach_request()), resolver
    resolver.close()


def asked(network: LocalNetwork, machine: AttachedGuest, resolver: HostResolver, name: str) -> dns.message.Message:
    query = dns.message.make_query(name, "A")
    machine.guest.datagrams.clear()
    machine.guest.datagram(ROUTER + 1, 53, query.to_wire())
    network.until(lambda: resolver.turn() or machine.guest.datagrams)
    response = dns.message.from_wire(machine.guest.datagrams[0].data)
    assert query.is_response(response)
    return response


def test_a_name_of_the_world_is_asked_of_the_hosts_resolver(
    resolving: tuple[LocalNetwork, AttachedGuest, HostResolver],
) -> None:
    network, machine, resolver = resolving
    response = asked(network, machine, resolver, "example.org")
    assert "192.0.2.55" in str(response)
    assert resolver.asked == ["udp"]
    assert "DNS questions" not in network.tables()


def test_a_truncated_answer_is_asked_for_over_tcp(
    resolving: tuple[LocalNetwork, AttachedGuest, HostResolver],
) -> None:
    network, machine, resolver = resolving
    resolver.truncates = True
    response = asked(network, machine, resolver, "example.org")
    assert "192.0.2.55" in str(response)
    assert not response.flags & dns.flags.TC
    assert resolver.asked == ["udp", "tcp"]


def test_an_error_of_the_last_resolver_is_the_answer(
    resolving: tuple[LocalNetwork, AttachedGuest, HostResolver],
) -> None:
    network, machine, resolver = resolving
    resolver.rcode = 2
    assert asked(network, machine, resolver, "example.org").rcode() == 2
    assert len(resolver.asked) == 2


def test_without_any_resolver_the_answer_is_a_failure(
    resolving: tuple[LocalNetwork, AttachedGuest, HostResolver],
) -> None:
    network, machine, resolver = resolving
    resolver.close()
    query = dns.message.make_query("example.org", "A")
    machine.guest.datagram(ROUTER + 1, 53, query.to_wire())
    network.until(lambda: machine.guest.datagrams)
    assert dns.message.from_wire(machine.guest.datagrams[0].data).rcode() == 2


def test_dns_over_tcp_inside_the_network(resolving: tuple[LocalNetwork, AttachedGuest, HostResolver]) -> None:
    network, machine, resolver = resolving
    stream = machine.guest.connect(ROUTER + 1, 53)
    queries = [dns.message.make_query(name, "A") for name in ("web", "example.org")]
    for query in queries:
        wire = query.to_wire()
        stream.write(len(wire).to_bytes(2, "big") + wire)

    def answers() -> list[dns.message.Message]:
        found, data = [], bytes(stream.received)
        while len(data) >= 2 and len(data) >= 2 + int.from_bytes(data[:2], "big"):
            length = int.from_bytes(data[:2], "big")
            found.append(dns.message.from_wire(data[2 : 2 + length]))
            data = data[2 + length :]
        return found

    network.until(lambda: resolver.turn() or len(answers()) == 2)
    text = "\n".join(map(str, answers()))
    assert machine.attached.address in text
    assert "192.0.2.55" in text
    stream.close()
    network.until(lambda: stream.eof)


def test_answers_that_are_not_the_resolvers_are_not_believed(tmp_path: Path) -> None:
    from celaje.network.event_loop import EventLoop

    loop = EventLoop()
    with udp_socket() as real:
        configuration = tmp_path / "resolv.conf"
        configuration.write_text("nameserver 127.0.0.1\n")
        resolver = Resolver(loop, HostResolvers(configuration), real.getsockname()[1])
        answers: list[bytes | None] = []
        query = dns.message.make_query("example.org", "A").to_wire()
        resolver.resolve(query, answers.append)
        loop.round(0)
        real.settimeout(60)
        _, client = real.recvfrom(4096)
        with udp_socket() as other:
            other.sendto(query[:2] + b"\x80\0" + query[4:], client)  # another port: the kernel does not pass it on
        real.sendto(b"\xff\xff\x80\0" + query[4:], client)  # another identifier
        loop.round(0.01)
        assert not answers
        real.sendto(query[:2] + b"\x80\0" + query[4:], client)
        while not answers:
            loop.round(0.01)
        assert answers[0] is not None
        assert answers[0][:2] == query[:2]
    resolver.close()
    loop.close()


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("", ["127.0.0.1"]),
        ("nameserver 192.0.2.1\nnameserver 2001:db8::1\n", ["192.0.2.1", "2001:db8::1"]),
        ("nameserver fe80::1%eth0\n", ["fe80::1%eth0"]),
        ("".join(f"nameserver 192.0.2.{number}\n" for number in range(1, 6)), ["192.0.2.1", "192.0.2.2", "192.0.2.3"]),
    ],
)
def test_resolvers_are_read_as_the_c_library_reads_them(tmp_path: Path, text: str, addresses: list[str]) -> None:
    configuration = tmp_path / "resolv.conf"
    configuration.write_text(text)
    assert HostResolvers(configuration).addresses() == addresses


def test_a_changed_configuration_is_read_again(tmp_path: Path) -> None:
    configuration = tmp_path / "resolv.conf"
    resolvers = HostResolvers(configuration)
    assert resolvers.addresses() == ["127.0.0.1"]
    configuration.write_text("nameserver 192.0.2.1\n")
    assert resolvers.addresses() == ["192.0.2.1"]
    configuration.write_text("nameserver 192.0.2.22\n")
    assert resolvers.addresses() == ["192.0.2.22"]
