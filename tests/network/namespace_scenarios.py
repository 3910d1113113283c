"""What test_public_pool.py and others do in a network namespace of their own."""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import random
import select
import socket
from collections.abc import Callable
from pathlib import Path

from celaje.network import icmp, messages
from celaje.network.messages import NetworkSettings, Rule, SecurityGroup
from celaje.network.routing_table import RouteType, RoutingTable
from tests.network.attached_guest import AttachedGuest, attach_request
from tests.network.guest import Stream
from tests.network.local_network import LocalNetwork, local_network
from tests.network.namespace import FAR, NEAR, far_host, ip

POOL = "198.51.100.0/24"
HOST_SIDE = "198.51.100.1"
PUBLIC = "198.51.100.10"
OTHER_PUBLIC = "198.51.100.11"
SETTINGS = NetworkSettings(name="test", pool=POOL)
EVERYBODY = (SecurityGroup("g", (Rule("in", "any"), Rule("out", "any"))),)

ECHO_SERVER = """
import socket
server = socket.create_server(("0.0.0.0", 7000))
print("ready", flush=True)
while True:
    stream, peer = server.accept()
    stream.sendall((peer[0] + "\\n").encode())
    while data := stream.recv(65536):
        stream.sendall(data)
    stream.close()
"""
CLIENT = """
import socket, sys
stream = socket.create_connection((sys.stdin.readline().strip(), int(sys.stdin.readline())), 60)
print(stream.recv(100).decode(), flush=True)
"""
UDP_ECHO = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("0.0.0.0", 7000))
print("ready", flush=True)
while True:
    data, peer = server.recvfrom(65536)
    server.sendto(peer[0].encode() + b" " + data, peer)
"""


def number(text: str) -> int:
    return int(ipaddress.IPv4Address(text))


def public_guest(network: LocalNetwork, **more: object) -> AttachedGuest:
    settings: dict[str, object] = {"network": SETTINGS, "groups": EVERYBODY, "public_address": PUBLIC}
    return network.attach(attach_request(**{**settings, **more}))


def connected(network: LocalNetwork, address: str, port: int) -> socket.socket:
    made = socket.socket()
    made.setblocking(False)
    made.connect_ex((address, port))

    def decided() -> bool:
        with contextlib.suppress(OSError):
            made.getpeername()
            return True
        error = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, "not connected")
        return False

    network.until(decided)
    return made


def read(network: LocalNetwork, connection: socket.socket, count: int) -> bytes:
    data = bytearray()

    def came() -> bool:
        with contextlib.suppress(BlockingIOError):
            while len(data) < count:
                piece = connection.recv(1 << 16)
                if not piece:
                    return True
                data.extend(piece)
        return len(data) >= count

    network.until(came)
    return bytes(data)


def every_port_is_real() -> None:
    """Any port of the public address is the guest's, and nothing listens on the host for it."""
    with local_network(SETTINGS) as network:
        machine = public_guest(network)
        for port in (1, 22, 8080, 65_535):
            accepted: list[Stream] = []
            machine.guest.listen(port, accepted.append)
            with connected(network, PUBLIC, port):
                network.until(lambda accepted=accepted: accepted and accepted[0].established)
                assert accepted[0].remote[0] == number(HOST_SIDE)  # the client itself, the host
        assert "TCP connections" not in network.tables()  # nothing was terminated
        try:
            connected(network, PUBLIC, 23)
        except ConnectionRefusedError:
            pass
        else:
            raise AssertionError("nobody listens there")


def an_address_of_the_pool_is_given_replaced_and_taken_away() -> None:
    """While the machine runs. Who has spoken to the former address may not be answered by whoever has it next."""
    second = str(ipaddress.IPv4Address(number(PUBLIC) + 1))
    with local_network(SETTINGS) as network:
        machine = public_guest(network, public_address=None)
        accepted: list[Stream] = []
        machine.guest.listen(22, accepted.append)
        for address in (PUBLIC, second):
            answer = network.request(messages.Update(interface="web", public_address=address))
            assert isinstance(answer, messages.Updated), answer
            accepted.clear()
            with connected(network, address, 22) as client:
                network.until(lambda: accepted and accepted[0].established)
                accepted[0].write(address.encode())
                assert read(network, client, len(address)) == address.encode()
        assert network.tables()["public addresses"] == 1
        network.request(messages.Update(interface="web", public_address=None))
        assert "public addresses" not in network.tables()
        other = public_guest(network, interface="other", host_name="other", mac="52:54:00:00:00:02")
        assert other.attached.public_address == PUBLIC
        refused = network.request(messages.Update(interface="web", public_address=PUBLIC))
        assert isinstance(refused, messages.Refused)
        assert "choose another" in refused.reason
        answer = network.request(messages.Update(interface="web", public_address=second))
        assert isinstance(answer, messages.Updated), answer


def bytes_go_both_ways_in_large_frames() -> None:
    with local_network(SETTINGS) as network:
        machine = public_guest(network)
        accepted: list[Stream] = []
        machine.guest.listen(80, accepted.append)
        data = random.Random(1).randbytes(3_000_000)
        with connected(network, PUBLIC, 80) as client:
            network.until(lambda: accepted and accepted[0].established)
            accepted[0].write(data)
            got = read(network, client, len(data))
            assert hashlib.sha256(got).digest() == hashlib.sha256(data).digest()
            sent = [0]

            def all_sent() -> bool:
                with contextlib.suppress(BlockingIOError):
                    sent[0] += client.send(data[sent[0] : sent[0] + 65_536])
                return sent[0] == len(data) and len(accepted[0].received) == len(data)

            network.until(all_sent)
            assert hashlib.sha256(accepted[0].received).digest() == hashlib.sha256(data).digest()


def rules_are_about_the_client() -> None:
    rules = (SecurityGroup("g", (Rule("in", "tcp", f"{FAR}/32", 80, 80), Rule("out", "any"))),)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    with local_network(SETTINGS) as network, far_host(POOL) as run:
        machine = public_guest(network, groups=rules)
        assert machine.attached.ports == (messages.PublicPort("tcp", 80, PUBLIC, 80),)
        accepted: list[Stream] = []

        def welcome(stream: Stream) -> None:
            accepted.append(stream)
            stream.write(b"welcome")

        machine.guest.listen(80, welcome)
        refused = socket.socket()
        refused.setblocking(False)
        refused.connect_ex((PUBLIC, 80))
        network.turns(50)
        assert not accepted
        refused.close()
        client = run(CLIENT)
        assert client.stdin is not None
        client.stdin.write(f"{PUBLIC}\n80\n")
        client.stdin.flush()
        network.until(lambda: accepted and accepted[0].established)
        assert accepted[0].remote[0] == number(FAR)
        assert client.stdout is not None
        said = client.stdout
        network.until(lambda: select.select([said], [], [], 0)[0])
        assert said.readline() == "welcome\n"


def the_guest_goes_out_by_its_public_address() -> None:
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    with local_network(SETTINGS) as network, far_host(POOL) as run:
        for program in (ECHO_SERVER, UDP_ECHO):
            server = run(program)
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
        machine = public_guest(network)
        stream = machine.guest.connect(number(FAR), 7000)
        network.until(lambda: b"\n" in stream.received)
        assert stream.received == f"{PUBLIC}\n".encode()
        data = random.Random(2).randbytes(2_000_000)
        stream.received.clear()
        stream.write(data)
        network.until(lambda: len(stream.received) == len(data))
        assert hashlib.sha256(stream.received).digest() == hashlib.sha256(data).digest()
        machine.guest.datagram(number(FAR), 7000, b"hello")
        network.until(lambda: machine.guest.datagrams)
        assert machine.guest.datagrams[0].data == f"{PUBLIC} hello".encode()
        machine.guest.ping(number(FAR), 5, 6)
        network.until(lambda: machine.guest.icmp)
        assert machine.guest.icmp[0].kind == icmp.ECHO_REPLY
        machine.guest.icmp.clear()
        machine.guest.datagram(number(FAR), 7001, b"nobody")
        network.until(lambda: machine.guest.icmp)
        told = machine.guest.icmp[0]
        assert (told.source, told.kind, told.code) == (number(FAR), icmp.UNREACHABLE, icmp.PORT_UNREACHABLE)
        inner = told.rest[4:]
        assert int.from_bytes(inner[12:16], "big") == machine.guest.address  # its own packet, as it knows it
        assert network.tables().get("TCP connections") is None


def the_host_is_refused_by_this_way_too() -> None:
    """A server on every address of the host hears nothing of a guest with a public address, unless it spoke first."""
    with local_network(SETTINGS) as network, far_host(), socket.create_server(("0.0.0.0", 7000)) as trap:
        trap.setblocking(False)
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.bind(("0.0.0.0", 7000))
        datagrams.setblocking(False)
        machine = public_guest(network)
        for address in ("127.0.0.1", HOST_SIDE, NEAR, "169.254.1.1", "10.77.0.1"):
            stream = machine.guest.connect(number(address), 7000)
            machine.guest.datagram(number(address), 7000, b"hello")
            machine.guest.icmp.clear()
            machine.guest.ping(number(address), 1, 1)
            network.turns(10)
            assert not stream.established
            stream.abort()
            replies = [one for one in machine.guest.icmp if one.kind == icmp.ECHO_REPLY]
            assert bool(replies) == (address == "10.77.0.1")  # the router itself
        # After the host has connected to the guest, the guest may answer, and no more than that.
        machine.guest.listen(80)
        with connected(network, PUBLIC, 80):
            stream = machine.guest.connect(number(HOST_SIDE), 7000)
            network.turns(10)
            assert not stream.established
        for quiet in (trap.accept, lambda: datagrams.recv(1)):
            try:
                quiet()
            except BlockingIOError:
                continue
            raise AssertionError("a guest reached the host")
        datagrams.close()


def the_host_pings_a_guest() -> None:
    Path("/proc/sys/net/ipv4/ping_group_range").write_text("0 0")
    with local_network(SETTINGS) as network:
        machine = public_guest(network)
        ping = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
        ping.setblocking(False)
        ping.sendto(icmp.echo(icmp.ECHO_REQUEST, 0, 1, b"anybody?"), (PUBLIC, 0))
        network.until(lambda: machine.guest.icmp)
        asked = machine.guest.icmp[0]
        assert (asked.kind, asked.source) == (icmp.ECHO_REQUEST, number(HOST_SIDE))
        reply = icmp.echo(
            icmp.ECHO_REPLY, *(int.from_bytes(asked.rest[at : at + 2], "big") for at in (0, 2)), asked.rest[4:]
        )
        machine.guest.packet(asked.source, 1, [reply])
        assert read(network, ping, 1)[8:] == b"anybody?"
        ping.close()


def two_guests_reach_each_other_by_their_public_addresses() -> None:
    with local_network(SETTINGS) as network:
        first = public_guest(network)
        second = public_guest(network, name="db", number=2, public_address=OTHER_PUBLIC)
        accepted: list[Stream] = []
        second.guest.listen(5432, accepted.append)
        stream = first.guest.connect(number(OTHER_PUBLIC), 5432)
        network.until(lambda: stream.established and accepted)
        assert accepted[0].remote[0] == number(PUBLIC)
        data = random.Random(3).randbytes(500_000)
        stream.write(data)
        network.until(lambda: len(accepted[0].received) == len(data))
        assert accepted[0].received == data


def addresses_are_refused_by_name() -> None:
    with local_network(SETTINGS) as network:
        public_guest(network)
        cases: list[tuple[dict[str, object], str]] = [
            ({"public_address": PUBLIC}, "the public address 198.51.100.10 is 'web''s; choose another"),
            ({"public_address": HOST_SIDE}, "choose one from 198.51.100.2 to 198.51.100.254"),
            ({"public_address": "198.51.100.255"}, "choose one from 198.51.100.2 to 198.51.100.254"),
        ]
        for more, reason in cases:
            request = attach_request("db", 2, **{"network": SETTINGS, "groups": EVERYBODY, **more})
            answer = network.request(request)
            assert isinstance(answer, messages.Refused)
            assert reason in answer.reason, answer.reason
        assert network.tables()["interfaces"] == 1
        assert network.tables()["public addresses"] == 1


def a_pool_is_gone_with_its_network() -> None:
    routes = RoutingTable()
    with local_network(SETTINGS):
        assert routes.type_of(number(PUBLIC)) is RouteType.UNICAST
    assert routes.type_of(number(PUBLIC)) is RouteType.UNREACHABLE
    routes.close()


# Ordinary NAT, where more than loopback is needed.


def a_device_that_is_taken_away_is_looked_at_no_more() -> None:
    with local_network(SETTINGS) as network:
        public_guest(network)
        pool = network.process._pool
        assert pool is not None
        watched = len(network.process.loop)
        ip("link", "delete", pool._device.name)
        network.until(lambda: len(network.process.loop) == watched - 1)


def ordinary_guest(network: LocalNetwork) -> AttachedGuest:
    return network.attach(attach_request())


def a_guest_goes_out_over_the_hosts_sockets() -> None:
    with local_network() as network, far_host() as run:
        server = run(ECHO_SERVER)
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        guest = ordinary_guest(network).guest
        stream = guest.connect(number(FAR), 7000)
        network.until(lambda: b"\n" in stream.received)
        assert stream.received == f"{NEAR}\n".encode()
        refused = guest.connect(number(FAR), 7001)
        network.until(lambda: refused.closed)
        assert refused.reset
        nowhere = guest.connect(number("192.0.2.1"), 80)
        network.until(lambda: guest.icmp)
        assert (guest.icmp[0].kind, guest.icmp[0].code) == (icmp.UNREACHABLE, icmp.NET_UNREACHABLE)
        assert not nowhere.established
        nowhere.abort()
        guest.icmp.clear()
        silent = guest.connect(number("10.99.0.77"), 80)  # nobody has the address
        network.until(lambda: guest.icmp)
        assert (guest.icmp[0].kind, guest.icmp[0].code) == (icmp.UNREACHABLE, icmp.HOST_UNREACHABLE)
        assert not silent.established


def a_guest_pings_where_the_host_allows_it() -> None:
    with local_network() as network, far_host():
        guest = ordinary_guest(network).guest
        Path("/proc/sys/net/ipv4/ping_group_range").write_text("1 0")
        guest.ping(number(FAR), 4, 1)
        network.until(lambda: guest.icmp)
        assert guest.icmp.pop().code == icmp.ADMINISTRATIVELY_PROHIBITED
        Path("/proc/sys/net/ipv4/ping_group_range").write_text("0 0")
        for sequence in (2, 3):
            guest.ping(number(FAR), 4, sequence, b"x" * 700)
            network.until(lambda: guest.icmp)
            reply = guest.icmp.pop()
            assert (reply.source, reply.kind) == (number(FAR), icmp.ECHO_REPLY)
            assert reply.rest == b"\0\x04\0" + bytes((sequence,)) + b"x" * 700
        assert network.tables()["echo flows"] == 1


def an_address_that_the_host_has_only_just_got_is_refused() -> None:
    with local_network() as network, far_host(), socket.create_server(("0.0.0.0", 7000)) as trap:
        trap.setblocking(False)
        guest = ordinary_guest(network).guest
        ip("address", "add", "203.0.113.7/24", "dev", "near")
        for address in ("203.0.113.7", "203.0.113.255", NEAR):
            stream = guest.connect(number(address), 7000)
            network.turns(10)
            assert not stream.established
        try:
            trap.accept()
        except BlockingIOError:
            pass
        else:
            raise AssertionError("a guest reached the host")
        counted: Callable[[str], int] = network.counters().__getitem__
        assert counted("packets refused: an address of the host's own") >= 2
