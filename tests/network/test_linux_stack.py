"""The network between real network stacks: Linux's own, each in a namespace with a TAP device for its link.

A TAP device speaks the link's format (virtio_net_hdr and frame), so that offloads are those that a Linux guest uses.
Needs the right to make network namespaces and TAP devices, and `ip`.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from celaje.network import icmp, ipv4, ipv6, udp
from celaje.network.interface import InterfaceConfig
from celaje.network.network import Network, NetworkConfig
from celaje.network.security_group import Rule, SecurityGroup
from tests.network.conversation import FAR, METADATA, ROUTER, ROUTER_MAC, Outside

_NEW_NETWORK_NAMESPACE = 0x40000000
_TUNSETIFF, _TUNSETOFFLOAD, _TUNSETVNETHDRSZ = 0x400454CA, 0x400454D0, 0x400454D8
_TAP, _NO_INFORMATION, _LINK_HEADER = 0x0002, 0x1000, 0x4000
_CHECKSUM_AND_SEGMENTS = 0x01 | 0x02 | 0x04
MAC = bytes.fromhex("525400000a00")

T = TypeVar("T")


def _make_namespace() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_NETWORK_NAMESPACE) != 0:
        raise OSError(ctypes.get_errno(), "unshare")


class LinuxGuest:
    """A namespace of its own, as long as its one thread and what that opened live."""

    def __init__(self, number: int, offloads: bool) -> None:
        self.mac = MAC[:5] + bytes((number,))
        self._thread = ThreadPoolExecutor(1, initializer=_make_namespace)
        self.tap = self.does(lambda: self._open_tap(offloads))

    def _open_tap(self, offloads: bool) -> int:
        tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", b"eth0", _TAP | _NO_INFORMATION | _LINK_HEADER))
        fcntl.ioctl(tap, _TUNSETVNETHDRSZ, struct.pack("i", 12))
        fcntl.ioctl(tap, _TUNSETOFFLOAD, _CHECKSUM_AND_SEGMENTS if offloads else 0)
        return tap

    def does(self, what: Callable[[], T]) -> T:
        """Runs something in the namespace."""
        return self._thread.submit(what).result()

    def begins(self, what: Callable[[], object]) -> None:
        """Runs something in the namespace, beside the test."""
        self._thread.submit(what)

    def configure(self, address: int) -> None:
        for words in (
            f"link set eth0 address {self.mac.hex(':')}",
            "link set eth0 up",
            f"address add {ipv4.text(address)}/16 dev eth0",
            f"route add default via {ipv4.text(ROUTER)}",
        ):
            self.does(lambda words=words: subprocess.run(["ip", *words.split()], check=True))

    def transmit(self, parts: list[bytes | bytearray | memoryview]) -> bool:
        try:
            os.writev(self.tap, parts)
        except BlockingIOError:
            return False
        return True

    def socket(self, kind: int, protocol: int = 0, family: int = socket.AF_INET) -> socket.socket:
        made = self.does(lambda: socket.socket(family, kind, protocol))
        made.settimeout(60)
        return made

    def close(self) -> None:
        self._thread.shutdown()
        os.close(self.tap)


class Link:
    """A network between such guests, moved by a thread."""

    def __init__(self, offloads: bool = True) -> None:
        self.outside = Outside()
        self.network = Network(NetworkConfig(), self.outside, time.monotonic)
        self.network.set_security_groups([SecurityGroup("all", (Rule(None),)), SecurityGroup("none")])
        self.guests = [LinuxGuest(number, offloads) for number in (1, 2)]
        self.interfaces = [
            self.network.attach(InterfaceConfig(f"m{number}", guest.mac, groups=("all",)), guest.transmit)
            for number, guest in enumerate(self.guests)
        ]
        for guest, interface in zip(self.guests, self.interfaces, strict=True):
            guest.configure(interface.address)
        self.addresses = [ipv4.text(interface.address) for interface in self.interfaces]
        self.lock = threading.Lock()
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=self._move, args=(index,)) for index in (0, 1)]
        for thread in self._threads:
            thread.start()

    def _move(self, index: int) -> None:
        tap = self.guests[index].tap
        while not self._ends.is_set():
            try:
                message = memoryview(os.read(tap, 70000))
            except BlockingIOError:
                self._ends.wait(0.0005)
                continue
            with self.lock:
                self.network.receive(self.interfaces[index], message)

    def close(self) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()
        for guest in self.guests:
            guest.close()


def _open(offloads: bool) -> Link:
    if shutil.which("ip") is None:
        pytest.skip("needs `ip` (package iproute2)")
    if not Path("/dev/net/tun").exists():
        pytest.skip("needs /dev/net/tun")
    try:
        return Link(offloads)
    except (OSError, RuntimeError) as error:
        pytest.skip(f"needs the right to make network namespaces and TAP devices: {error}")


@pytest.fixture(params=[True, False], ids=["offloads", "no offloads"])
def link(request: pytest.FixtureRequest) -> Iterator[Link]:
    made = _open(request.param)
    yield made
    made.close()


def test_a_transfer_over_tcp_arrives_whole(link: Link) -> None:
    data = os.urandom(1 << 20) * 24
    heard = hashlib.blake2b()
    with link.guests[1].socket(socket.SOCK_STREAM) as listener, link.guests[0].socket(socket.SOCK_STREAM) as client:
        listener.bind((link.addresses[1], 5000))
        listener.listen()
        client.connect((link.addresses[1], 5000))
        server, peer = listener.accept()
        with server:
            server.settimeout(60)
            assert peer[0] == link.addresses[0]
            sender = threading.Thread(target=client.sendall, args=(data,))
            sender.start()
            left = len(data)
            while left:
                piece = server.recv(1 << 20)
                assert piece
                heard.update(piece)
                left -= len(piece)
            sender.join()
    assert heard.digest() == hashlib.blake2b(data).digest()
    dropped = {cause for one in link.interfaces for cause in one.statistics.dropped}
    assert dropped <= {"unsupported protocol", "IP options", "multicast", "queue full"}


def test_datagrams_of_all_sizes_go_there_and_back(link: Link) -> None:
    with link.guests[1].socket(socket.SOCK_DGRAM) as one, link.guests[0].socket(socket.SOCK_DGRAM) as other:
        one.bind((link.addresses[1], 5000))
        for size in (0, 1, 17, 18, 19, 1471, 1472):
            other.sendto(bytes(size), (link.addresses[1], 5000))
            data, sender = one.recvfrom(2000)
            one.sendto(data, sender)
            assert len(other.recv(2000)) == size


def test_a_datagram_from_outside_that_is_longer_than_the_mtu_is_put_together_again(link: Link) -> None:
    data = os.urandom(20000)
    with link.guests[0].socket(socket.SOCK_DGRAM) as one:
        one.bind((link.addresses[0], 5000))
        one.sendto(b"?", (ipv4.text(FAR), 53))
        came = False
        while not came:
            time.sleep(0.01)
            with link.lock:  # or what comes while the list is emptied is lost
                came = any(packet.protocol == ipv4.UDP for packet in link.outside.hears())
        guest = link.interfaces[0]
        with link.lock:
            header = udp.header(FAR, 53, guest.address, 5000, len(data))
            assert link.network.deliver(guest, FAR, guest.address, ipv4.UDP, [header, data])
        assert one.recv(30000) == data


@pytest.mark.parametrize("target", ["neighbour", "router", "metadata"])
def test_pings_are_answered(link: Link, target: str) -> None:
    address = {"neighbour": link.addresses[1], "router": ipv4.text(ROUTER), "metadata": ipv4.text(METADATA)}[target]
    with link.guests[0].socket(socket.SOCK_RAW, socket.IPPROTO_ICMP) as one:
        one.sendto(icmp.echo(icmp.ECHO_REQUEST, 77, 5, b"ping"), (address, 0))
        while True:
            packet, (source, _) = one.recvfrom(2000)
            if packet[20] == icmp.ECHO_REPLY:
                break
    assert source == address
    assert packet[20:] == icmp.echo(icmp.ECHO_REPLY, 77, 5, b"ping")


def test_the_routers_link_local_address_answers(link: Link) -> None:
    scope = link.guests[0].does(lambda: socket.if_nametoindex("eth0"))
    router = socket.inet_ntop(socket.AF_INET6, ipv6.link_local(ROUTER_MAC))
    request = bytes((ipv6.ECHO_REQUEST, 0, 0, 0)) + b"\0\x07\0\x01ping"
    with link.guests[0].socket(socket.SOCK_RAW, socket.IPPROTO_ICMPV6, socket.AF_INET6) as one:
        packet = b"\0"
        for _ in range(50):  # until the guest's own address is there (duplicate address detection)
            try:
                one.sendto(request, (router, 0, 0, scope))
            except OSError:
                time.sleep(0.2)
                continue
            while packet[0] != ipv6.ECHO_REPLY:
                packet = one.recv(2000)
            break
        assert packet[0] == ipv6.ECHO_REPLY
        assert packet[4:] == request[4:]


def test_rules_that_change_cut_a_connection_and_let_it_go_on(link: Link) -> None:
    with link.guests[1].socket(socket.SOCK_STREAM) as listener, link.guests[0].socket(socket.SOCK_STREAM) as client:
        listener.bind((link.addresses[1], 5000))
        listener.listen()
        client.connect((link.addresses[1], 5000))
        server, _ = listener.accept()
        with server:
            client.sendall(b"one")
            assert server.recv(10) == b"one"
            with link.lock:
                assert link.network.set_groups(link.interfaces[1], ("none",)) == 1
            client.sendall(b"two")
            server.settimeout(0.3)
            with pytest.raises(TimeoutError):
                server.recv(10)
            with link.lock:
                assert link.network.set_groups(link.interfaces[1], ("all",)) == 0
            server.settimeout(60)
            assert server.recv(10) == b"two"  # retransmitted
